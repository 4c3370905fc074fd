"""Fixtures that more than one test module uses."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lsun_server import Server
from ruamel.yaml import YAML
from torch import Tensor

from stages.weights import obtain

REPOSITORY = Path(__file__).resolve().parents[1]
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


@pytest.fixture
def photos() -> Path:
    """The folder of the LMDBs of real photographs, which not every machine has."""
    if not (PHOTOS / "photos_train_lmdb" / "data.mdb").exists():
        pytest.skip(f"no real photographs: {PHOTOS}/photos_train_lmdb is missing")
    return PHOTOS


@pytest.fixture(scope="session")
def trunk() -> dict[str, Tensor]:
    """AlexNet's convolutions, kept in the repository's download folder: in a fresh clone they are fetched once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(REPOSITORY))
        return obtain("alex")
