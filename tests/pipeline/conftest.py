"""Clones of the repository in which `dvc` has run, made once for all workers."""

from pathlib import Path

import pytest
from support import REPOSITORY, STAGES, little_options, made_once

from benchmarks._clone import Clone

TRACE = "opened.tsv"
"""Of the run: stage, `r` or `w`, and path of each file that it has opened in the clone."""


def run_little(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "pipeline" / "trace"))
        patch.setenv("DDPM_TRACE", str(folder / TRACE))
        assert sorted(Clone(folder / "clone").ran("exp", "run", *little_options())) == sorted(STAGES)


@pytest.fixture(scope="session")
def little_folder(tmp_path_factory: pytest.TempPathFactory, backbone: object) -> Path:
    return made_once(tmp_path_factory, "little", run_little)


@pytest.fixture(scope="session")
def little(little_folder: Path) -> Clone:
    """A clone in which the default profile has run once on little data: to be copied, not changed."""
    return Clone.at(little_folder / "clone")


@pytest.fixture(scope="session")
def traced(little_folder: Path) -> str:
    """What that run has opened, as tests/pipeline/trace writes it."""
    return (little_folder / TRACE).read_text(encoding="utf-8")
