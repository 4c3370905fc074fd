"""Who starts several processes for a stage, and which process prints and writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.kit.launch import GROUP, first_process, in_group, process_count

ROOT = Path(__file__).parents[3]
TWO = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher has set anything."""
    for name in (*GROUP, "DDPM_LAUNCH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("missing", [None, *GROUP])
def test_a_process_group_has_all_of_its_variables(monkeypatch, missing):
    """Schedulers set RANK or WORLD_SIZE for purposes of their own."""
    for name, value in TWO.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    assert in_group() == (missing is None)
    assert first_process() == (missing is not None)
    assert process_count() == (2 if missing is None else 1)


def test_a_group_of_one_is_none(monkeypatch):
    for name, value in {**TWO, "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert not in_group()
    assert first_process()


def started(arguments, monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "stages.rank", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_launcher_is_split_as_a_shell_would_and_gets_the_arguments_unchanged(monkeypatch):
    arguments = ["--samples", "a folder", "--figures", "$HOME"]
    done = started(arguments, monkeypatch, DDPM_LAUNCH="printf '<%s> '")
    assert done.returncode == 0
    assert done.stdout == "<-m> <stages.rank> <--samples> <a folder> <--figures> <$HOME> "


@pytest.mark.parametrize("launcher", ["no-such-launcher --nproc-per-node=2", "torchrun '--nproc"])
def test_a_launcher_that_is_none_is_named_in_one_line(monkeypatch, launcher):
    done = started([], monkeypatch, DDPM_LAUNCH=launcher)
    assert done.returncode == 1
    assert done.stderr.startswith(f"rank: error: DDPM_LAUNCH = {launcher!r}: ")
    assert done.stderr.count("\n") == 1


def test_what_a_launcher_has_started_launches_nothing(monkeypatch):
    done = started(["--nonsense"], monkeypatch, DDPM_LAUNCH="printf launched", **TWO)
    assert "launched" not in done.stdout
    assert done.returncode == 2
