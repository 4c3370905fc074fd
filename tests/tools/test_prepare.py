"""What `make` settles before DVC starts: a renamed folder, a copy without Git."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
from support import REPOSITORY

from benchmarks._clone import variables
from tools.prepare import HEADER, repair, tell_dvc


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with an environment in which pip has installed a script, and then a name of another kind."""
    made = tmp_path / "made here"
    venv.create(made / ".venv", symlinks=True, with_pip=True)
    renamed = tmp_path / "pro jekt é's"
    made.rename(renamed)
    return renamed


def said_by(checkout: Path, command: str) -> str:
    return subprocess.run(command, shell=True, cwd=checkout, capture_output=True, text=True, check=True).stdout


def test_a_renamed_environment_runs_its_scripts_again(checkout: Path) -> None:
    python, environment = checkout / ".venv" / "bin" / "python", {"PYTHONPATH": str(REPOSITORY)}
    with pytest.raises(subprocess.CalledProcessError):
        said_by(checkout, ".venv/bin/pip --version")
    (checkout / ".dvc").mkdir()
    (checkout / ".git").mkdir()
    done = subprocess.run(
        [python, "-m", "tools.prepare"], cwd=checkout, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stderr == "make: the folder was renamed; .venv is repaired\n"
    assert str(checkout) in said_by(checkout, ".venv/bin/pip --version")
    assert said_by(checkout, ". .venv/bin/activate; command -v pip").strip() == str(checkout / ".venv" / "bin" / "pip")
    assert not repair(checkout / ".venv")


def test_an_environment_behind_a_link_was_not_renamed(tmp_path: Path) -> None:
    venv.create(tmp_path / ".venv", symlinks=True)
    (tmp_path / "link").symlink_to(tmp_path / ".venv")
    assert not repair(tmp_path / "link")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (b"#!/a/bin/python3.12\nimport sys\n", True),
        (b"#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''\nimport sys\n", True),
        (b"#!/bin/sh\necho\n", False),
        (b"#!/usr/bin/perl\n", False),
        (b"\x7fELF\0", False),
    ],
)
def test_only_scripts_of_the_environment_are_changed(text: bytes, script: bool) -> None:
    assert bool(HEADER.match(text)) == script


def test_dvc_runs_without_git_and_with_it_once_it_is_there(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo 1 > out, outs: [out]}}\n")
    dvc = {"args": [sys.executable, "-m", "dvc", "repro"], "cwd": tmp_path, "env": variables(), "text": True}
    refused = subprocess.run(**dvc, capture_output=True)
    assert "is not a git repository" in refused.stderr
    assert "no Git repository: `dvc repro` works" in (tell_dvc(tmp_path) or "")
    assert tell_dvc(tmp_path) is None
    subprocess.run(**dvc, check=True)
    assert (tmp_path / "out").read_text() == "1\n"
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert "DVC uses Git again" in (tell_dvc(tmp_path) or "")
    assert "no_scm" not in (tmp_path / ".dvc" / "config.local").read_text()
    assert tell_dvc(tmp_path) is None
    (tmp_path / "scratch").mkdir()
    (tmp_path / "data").symlink_to("scratch")
    assert tell_dvc(tmp_path) is None  # DVC minds links out of the repository alone
    (tmp_path / "data").unlink()
    (tmp_path / "data").symlink_to(tmp_path.parent)
    assert "data is a link" in (tell_dvc(tmp_path) or "")
