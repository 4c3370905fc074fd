import pytest
from downloading import CONTENT, PATH

from stages.shared import download as _download
from stages.shared import http as _http


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(_download, "SECOND", 0)
    monkeypatch.setattr(_http, "TIMEOUT", (5, 0.2))


@pytest.fixture
def target(tmp_path, server):
    server.files[PATH] = CONTENT
    return tmp_path / "cache" / "file.zip"


@pytest.fixture
def part(target):
    target.parent.mkdir()
    return target.with_name("file.zip.part")
