"""What is committed of the default run: numbers that fit into a terminal, files that are small enough for Git."""

import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML
from support import REPOSITORY

REPORTS = REPOSITORY / "reports"


def run(*command):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "120"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout


def test_metrics_are_eight_numbers_that_fit_into_a_terminal():
    metrics = json.loads((REPORTS / "metrics.json").read_text())
    names = ["kid", "kid_low", "kid_high", "precision", "recall", "lpips6", "copies", "loss"]
    assert list(metrics) == names
    heading, values = run("dvc", "metrics", "show").splitlines()
    assert sorted(heading.split()[1:]) == sorted(names)
    assert max(len(heading), len(values)) <= 120


def test_a_run_adds_little_to_git():
    """As Git stores it, compressed; of what a run writes under reports/, dvc.yaml leaves the rest to DVC's cache."""
    files = run("git", "ls-files", "reports").split()
    assert "reports/index.html" in files
    assert sum(len(zlib.compress((REPOSITORY / name).read_bytes())) for name in files) < 1.7e6
    assert (REPORTS / "index.html").stat().st_size < 300_000


def test_pictures_that_two_revisions_show_fit_side_by_side():
    plots = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["plots"]
    pictures = [name for name in plots if isinstance(name, str)]
    assert pictures
    for name in pictures:
        (published,) = (REPOSITORY / "reports/figures").glob(f"{Path(name).stem}.*")
        assert Image.open(published).width <= 680, name


def test_the_readme_s_numbers_are_those_of_the_run():
    found = json.loads((REPORTS / "metrics.json").read_text())
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    assert f"is {found['kid']:.3f} [{found['kid_low']:.3f}, {found['kid_high']:.3f}]" in text
    assert found["kid_low"] > 0, "the samples can be told from real ones"
    assert found["copies"] == 0, "none is flagged"


@pytest.mark.parametrize("name", ["reports/index.html", "reports/page.md", "dvc.lock", "reports/figures/best.webp"])
def test_what_a_run_writes_is_marked_as_generated(name):
    told = run("git", "check-attr", "linguist-generated", "diff", "--", name)
    assert re.findall(r": (\S+): (\S+)$", told, flags=re.MULTILINE) == [
        ("linguist-generated", "set"),
        ("diff", "unset"),
    ]
