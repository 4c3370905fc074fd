"""What `make` installs and removes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support import REPOSITORY

KEPT = (".cache/download/lsun/a.zip", ".cache/train/a/state.pt", "data/model/raw.safetensors", "reports/metrics.json")


@pytest.mark.parametrize(("target", "left"), [("clean", KEPT), ("distclean", KEPT[2:])])
def test_clean_keeps_what_took_long(tmp_path: Path, target: str, left: tuple[str, ...]) -> None:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in (*KEPT, ".venv/installed", "docs/dvc_plots/index.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", target], cwd=tmp_path, check=True, capture_output=True)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"Makefile", *left}


def test_distclean_empties_a_cache_on_another_disk(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "scratch" / "train").mkdir(parents=True)
    (tmp_path / ".cache").symlink_to("scratch")
    subprocess.run(["make", "distclean"], cwd=tmp_path, check=True, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", "scratch"}
    assert not any((tmp_path / "scratch").iterdir())


def test_tests_in_a_copy_without_git_say_so_before_anything_is_installed(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(REPOSITORY / name, tmp_path)
    done = subprocess.run(["make", "test"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    first, *others = done.stderr.splitlines()
    assert first.startswith("make: the tests need a Git repository here (")
    assert "git init && git add . && git commit -m copy" in first
    assert all(re.match(r"make(\[\d+\])?: ", line) for line in others)
    assert not (tmp_path / ".venv").exists()


def test_every_package_is_held_to_a_digest_that_make_asks_for() -> None:
    """pip and setuptools included, which install and build the others."""
    entries = (REPOSITORY / "requirements.lock").read_text().replace("\\\n", "").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==\S+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+", entry) for entry in entries)
    assert {"pip", "setuptools", "torch"} < {entry.partition("==")[0] for entry in entries}
    commands = re.findall(r"pip install.*", (REPOSITORY / "Makefile").read_text())
    assert [command for command in commands if "--require-hashes" not in command] == ["pip install --quiet uv"]


def test_recipes_need_no_path() -> None:
    """make 3.81, which macOS has, doesn't look for commands in the PATH that a Makefile exports."""
    done = subprocess.run(["make", "-n", "repro", "test", "lint"], cwd=REPOSITORY, capture_output=True, text=True)
    words = [line.replace("OMP_NUM_THREADS=1 ", "").split()[0] for line in done.stdout.splitlines()]
    assert ".venv/bin/python" in words
    assert not {"dvc", "python", "ruff", "mypy", "pytest", "pip"} & set(words)


def test_help_lists_every_target() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert listed == ["help", "repro", "test", "lint", "lock", "clean", "distclean"]
    assert "help        list these targets\n" in done.stdout
