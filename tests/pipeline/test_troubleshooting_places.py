"""The errors of DVC that docs/troubleshooting.md quotes for places: provoked in small projects, with what helps."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_troubleshooting import is_quoted

from benchmarks._clone import variables

IDENTITY = {f"GIT_{who}_{what}": "me@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class Project:
    """A project of one stage in `folder`, with a parameter and a committed state."""

    def __init__(self, folder: Path, home: Path):
        home.mkdir()
        self.folder, self.environment = folder, {**variables(), "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}
        (folder / "data").mkdir(parents=True)
        (folder / "dvc.yaml").write_text("stages: {one: {cmd: echo 1 > data/out, params: [a], outs: [data/out]}}\n")
        (folder / "params.yaml").write_text("a: x\n")

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        return done.stderr

    def dvc(self, *words: str) -> str:
        """Its error, in a line, or nothing."""
        errors = [line for line in self.run(sys.executable, "-m", "dvc", *words).splitlines() if "ERROR:" in line]
        return errors[0] if errors else ""

    def begin(self) -> "Project":
        self.run("git", "init", "--quiet")
        self.dvc("init", "--quiet")
        self.environment |= IDENTITY
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "begun")
        for name in IDENTITY:
            del self.environment[name]
        return self


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", tmp_path / "home")


def test_no_git(project: Project) -> None:
    (project.folder / ".dvc").mkdir()
    assert is_quoted(project.dvc("repro"))
    project.dvc("config", "--local", "core.no_scm", "true")
    assert project.dvc("repro") == ""
    assert is_quoted(project.dvc("exp", "run"))


def test_data_is_a_link(project: Project) -> None:
    project.begin()
    (project.folder / "data").rmdir()
    (project.folder.parent / "scratch").mkdir()
    (project.folder / "data").symlink_to(project.folder.parent / "scratch")
    said = project.dvc("repro").replace("'one'", "'fetch'").replace("data/out", "data/lmdb")
    assert is_quoted(said)
    project.dvc("config", "--local", "core.no_scm", "true")
    assert project.dvc("repro") == ""
    assert (project.folder.parent / "scratch" / "out").exists()


def test_no_git_identity(project: Project) -> None:
    project.begin()
    (project.folder / "params.yaml").write_text("a: changed\n")  # which DVC stashes
    assert is_quoted(project.dvc("exp", "run", "--temp", "-S", "a=y"))
    for name in ("user.name", "user.email"):
        project.run("git", "config", name, "me@example.org")
    assert project.dvc("exp", "run", "--temp", "-S", "a=y") == ""


def test_an_accent_in_the_path(tmp_path: Path) -> None:
    project = Project(tmp_path / "pro jekt é's", tmp_path / "home").begin()
    for name in ("user.name", "user.email"):
        project.run("git", "config", name, "me@example.org")
    assert is_quoted(project.dvc("exp", "run", "--temp", "-S", "a=y"))
    project.dvc("cache", "dir", "--local", str(tmp_path / "cache"))
    assert project.dvc("exp", "run", "--temp", "-S", "a=y") == ""


def test_an_override_that_dvc_can_not_read(project: Project) -> None:
    project.begin()
    assert is_quoted(project.dvc("exp", "run", "-S", "a=/home/zoë/cats"))
    for name in ("user.name", "user.email"):
        project.run("git", "config", name, "me@example.org")
    assert project.dvc("exp", "run", "-S", "a='/home/zoë/Photos (2023)'") == ""
    assert "zoë/Photos (2023)" in (project.folder / "params.yaml").read_text(encoding="utf-8")
