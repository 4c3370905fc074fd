import shutil

import pytest
from support import REPOSITORY

from stages.shared import download


@pytest.fixture(autouse=True)
def published(tmp_path, monkeypatch):
    """The table of LSUN's zips, and no waiting."""
    shutil.copy(REPOSITORY / "stages" / "fetch" / "lsun.csv", tmp_path / "lsun.csv")
    monkeypatch.setattr(download, "SECOND", 0)
