"""Clones of the repository in which `dvc` has run, made once for all workers."""

from pathlib import Path

import pytest
from support import REPOSITORY, STAGES, made_once, smoke_options

from benchmarks._clone import Clone

TRACE = "opened.tsv"
"""Of the smoke run: stage, `r` or `w`, and path of each file that it has opened in the clone."""


def run_smoke(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "pipeline" / "trace"))
        patch.setenv("DDPM_TRACE", str(folder / TRACE))
        assert sorted(Clone(folder / "clone").ran("exp", "run", *smoke_options())) == sorted(STAGES)


@pytest.fixture(scope="session")
def smoke_folder(tmp_path_factory: pytest.TempPathFactory, backbone: object) -> Path:
    return made_once(tmp_path_factory, "smoke", run_smoke)


@pytest.fixture(scope="session")
def smoke(smoke_folder: Path) -> Clone:
    """A clone in which the smoke profile has run once: to be copied, not changed."""
    return Clone.at(smoke_folder / "clone")


@pytest.fixture(scope="session")
def traced(smoke_folder: Path) -> str:
    """What the smoke run has opened, as tests/pipeline/trace writes it."""
    return (smoke_folder / TRACE).read_text(encoding="utf-8")
