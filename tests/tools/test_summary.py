"""What `make repro` ends with."""

import json
import re
import subprocess
import sys

import pytest
from support import REPOSITORY


def summary(folder, *arguments):
    command = [sys.executable, "-m", "tools.summary", *arguments]
    environment = {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_summary_has_the_numbers_of_the_committed_run():
    done = summary(REPOSITORY, "reports/metrics.json", "reports/index.html")
    metrics = json.loads((REPOSITORY / "reports" / "metrics.json").read_text())
    digits = {"kid": 4, "kid_low": 4, "kid_high": 4, "precision": 2, "recall": 2, "lpips6": 3}
    wanted = [f"{metrics[name]:.{number}f}" for name, number in digits.items()]
    assert re.findall(r"-?\d\.\d{2,}", done.stdout) == wanted
    assert f"; {metrics['copies']} flagged as copies" in done.stdout
    assert done.stdout.splitlines()[-1] == f"the page: {REPOSITORY}/reports/index.html"


@pytest.mark.parametrize("name", ["missing.json", "other.json"])
def test_a_summary_of_nothing_is_one_line(tmp_path, name):
    (tmp_path / "other.json").write_text("{}")
    done = summary(tmp_path, name, "index.html")
    assert done.returncode == 1
    assert re.fullmatch(rf"summary: error: {name}: .*`dvc repro` writes it\n", done.stderr)
