"""Fixtures that more than one test module uses."""

import contextlib
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import psutil
import pytest
from lsun_server import Server
from ruamel.yaml import YAML
from torch import Tensor
from trainers import SMALL, Trainers, write_images

from benchmarks._clone import Clone
from stages.weights.stage import obtain

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = list(YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"])
CHANGES = ("data=smoke", "model=smoke", "epochs=2", "interpolate.pairs=2", "interpolate.steps=5", "runtime.threads=1")
SMOKE = tuple(word for change in CHANGES for word in ("-S", change))
PHOTOS = REPOSITORY.parent / "shared" / "data"

WriteParams = Callable[[dict[str, Any]], None]


@pytest.fixture
def write_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteParams:
    """Work in `tmp_path`; the function writes the repository's params.yaml there with `{"a.b": value}` changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    def write(changes: dict[str, Any]) -> None:
        values = YAML(typ="safe").load(REPOSITORY / "params.yaml")
        for dotted, value in changes.items():
            *path, last = dotted.split(".")
            section = values
            for key in path:
                section = section[key]
            section[last] = value
        YAML(typ="safe").dump(values, tmp_path / "params.yaml")

    return write


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on the loopback interface that serves its `files`."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """To start processes to be killed: forked from one that has imported everything, which takes torch seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stages.extract", "stages.fetch", "pytest"])
    with contextlib.chdir(REPOSITORY):  # where it looks for modules
        forkserver.ensure_running()
    return context


def _run(start_method: str, main: Callable[..., None], *arguments: Any) -> None:
    """In a process of a fork server, which would start workers of its own kind."""
    multiprocessing.set_start_method(start_method, force=True)
    main(*arguments)


@pytest.fixture
def kill_and_repeat(processes: ForkServerContext) -> Callable[..., None]:
    """Run a stage's `main` whole, then kill it fifty times at random moments and run it again: the same outputs.

    A kill leaves no process behind, and no output that isn't whole.
    """

    def run(
        main: Callable[..., None],
        arguments: tuple[Any, ...],
        outputs: list[Path],
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        """`forget` removes what `main` keeps from run to run; it is called whenever a run got to its end."""

        def started() -> multiprocessing.process.BaseProcess:
            process = processes.Process(target=_run, args=(multiprocessing.get_start_method(), main, *arguments))
            process.start()
            return process

        for _ in range(2):  # the first starts the server
            forget()
            begun = time.monotonic()
            started().join()
            seconds = time.monotonic() - begun
        whole = [path.read_bytes() for path in outputs]
        killed, draw = 0, random.Random(0)
        while killed < 50:
            for path in outputs:
                path.unlink(missing_ok=True)
            process = started()
            time.sleep(draw.uniform(0, seconds))
            workers = []
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                workers = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.join()
            if process.exitcode == 0:
                forget()
            else:
                killed += 1
            assert psutil.wait_procs(workers, timeout=10)[1] == []
            assert all(
                path.read_bytes() == content for path, content in zip(outputs, whole, strict=True) if path.exists()
            )
        started().join()
        assert [path.read_bytes() for path in outputs] == whole

    return run


@pytest.fixture
def trainers(processes: ForkServerContext, tmp_path: Path, write_params: WriteParams) -> Trainers:
    """To train the network `SMALL` in `tmp_path`."""
    write_params(SMALL)
    write_images(tmp_path)
    return Trainers(processes, tmp_path)


@pytest.fixture
def photos() -> Path:
    """The folder of the LMDBs of real photographs, which not every machine has."""
    if not (PHOTOS / "photos_train_lmdb" / "data.mdb").exists():
        pytest.skip(f"no real photographs: {PHOTOS}/photos_train_lmdb is missing")
    return PHOTOS


@pytest.fixture(scope="session")
def backbone() -> dict[str, Tensor]:
    """AlexNet's convolutions, kept in the repository's download folder: in a fresh clone they are fetched once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(REPOSITORY))
        return obtain("alex")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, backbone: object) -> Clone:
    """A clone in which the smoke profile has run once: to be copied, not changed."""
    clone = Clone(tmp_path_factory.mktemp("smoke"))
    assert sorted(clone.ran("exp", "run", *SMOKE)) == sorted(STAGES)
    return clone
