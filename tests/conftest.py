"""Fixtures that more than one folder of tests uses, and the order in which tests run."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from drawn import write_images
from lsun_server import Server
from ruamel.yaml import YAML
from support import PHOTOS, REPOSITORY, WriteParams
from torch import Tensor
from trainers import SMALL, Trainers

from stages.weights.stage import obtain

LONGEST_FIRST = (
    "test_docs", "test_types", "test_gpu", "test_tune_pipeline", "test_sources", "test_pipeline", "test_gan_pipeline",
    "test_models", "test_training", "test_notebook", "test_shells", "test_experiments", "test_remote",
)  # fmt: skip
"""Files whose tests take a minute and more, so that no worker begins with one when the others are done.

The second and the third need no run of the default profile, which the first one waits for.
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: tests of the pipeline often wait, for a disk, a lock or another process."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist, where it is there, keep the order of the next function."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files `LONGEST_FIRST` first; a file's tests stay together and in their order."""

    def place(item: pytest.Item) -> int:
        return LONGEST_FIRST.index(item.path.stem) if item.path.stem in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Leave no variable to the next test: stages set those of their arithmetic, and workers run tests in any order."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


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
    context.set_forkserver_preload(["stages.extract.stage", "stages.fetch.stage", "stages.sample.stage", "pytest"])
    with contextlib.chdir(REPOSITORY):  # where it looks for modules
        forkserver.ensure_running()
    return context


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
