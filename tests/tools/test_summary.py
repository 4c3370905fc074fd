"""What `make repro` ends with."""

import json
import re
import subprocess
import sys

import pytest
from support import REPOSITORY

METRICS = {
    "kid": 0.03449, "kid_low": -0.00211, "kid_high": 0.05026, "precision": 0.734375, "recall": 0.859375,
    "lpips6": 0.05234, "copies": 3, "loss": 0.00823,
}  # fmt: skip


def summary(folder, *arguments):
    command = [sys.executable, "-m", "tools.summary", *arguments]
    environment = {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_summary_has_the_numbers_and_the_page_to_open(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    done = summary(tmp_path, "metrics.json", "reports/index.html")
    assert done.stdout.splitlines() == [
        "KID to held-out images, 95 % interval: 0.0345 (-0.0021 to 0.0503)",
        "precision 0.73, recall 0.86",
        "best samples: LPIPS 0.052 to their nearest training image; 3 flagged as copies",
        f"the page: {tmp_path}/reports/index.html",
    ]


def test_a_summary_without_copies_says_that_none_can_be_found(tmp_path):
    few = {key: value for key, value in METRICS.items() if key != "copies"}
    (tmp_path / "metrics.json").write_text(json.dumps(few))
    done = summary(tmp_path, "metrics.json", "reports/index.html")
    assert done.stdout.splitlines()[2].endswith("; none can be flagged as copies")


@pytest.mark.parametrize("name", ["missing.json", "other.json"])
def test_a_summary_of_nothing_is_one_line(tmp_path, name):
    (tmp_path / "other.json").write_text("{}")
    done = summary(tmp_path, name, "index.html")
    assert done.returncode == 1
    assert re.fullmatch(rf"summary: error: {name}: .*`dvc repro` writes it\n", done.stderr)
