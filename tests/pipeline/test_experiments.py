"""Experiments as the documentation compares them: a sweep from DVC's queue, its table and its plots."""

import json
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from support import REPOSITORY

from benchmarks._clone import Clone

pytestmark = pytest.mark.slow

DOCUMENTED = (REPOSITORY / "docs" / "dvc.md").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
PATIENCE = 600
"""Seconds for two experiments."""


def documented(command: str) -> list[str]:
    """The arguments of the first `dvc COMMAND ...` in docs/dvc.md."""
    return shlex.split(next(line for line in DOCUMENTED if line.startswith(f"dvc {command} ")), comments=True)[1:]


def workspace(clone: Clone) -> dict[str, bytes]:
    """The files that Git follows, read: `git diff` can miss one that DVC puts back in the same second and size."""
    return {name: (clone.folder / name).read_bytes() for name in clone.git("ls-files").splitlines()}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, little: Clone) -> Iterator[Clone]:
    """A clone in which a worker of DVC's queue has run the documented sweep: two seeds of sampling."""
    clone = little.copy(tmp_path_factory.mktemp("swept") / "clone")
    clone.commit("run on little data")
    before = workspace(clone)
    clone.dvc(*documented("exp run --queue"))
    clone.dvc("queue", "start")
    try:
        end = time.monotonic() + PATIENCE
        while (status := clone.dvc("queue", "status")).count("Success") < 2:
            assert "Failed" not in status, clone.dvc("queue", "logs", "seed-1")
            assert time.monotonic() < end, status
            time.sleep(5)
    finally:
        clone.dvc("queue", "stop", "--kill")
    assert workspace(clone) == before
    return clone


def test_the_table_has_the_best_first_and_what_was_changed(swept: Clone) -> None:
    command = [sys.executable, "-m", "tools.experiments"]
    done = subprocess.run(command, cwd=swept.folder, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    rows = {line.split()[0]: line for line in lines[1:]}
    assert [rows[f"seed-{seed}"].split()[-1] for seed in (1, 2)] == ["sample.seed=1", "sample.seed=2"]
    kid = [float(line.split()[1]) for line in lines[1:]]
    assert len(kid) == 4
    assert kid == sorted(kid)


def test_plots_lay_experiments_over_each_other(swept: Clone) -> None:
    plots = json.loads(swept.dvc("plots", "diff", "seed-1", "seed-2", "--json"))["data"]
    curves = {
        "reports/train/loss.csv": "loss",
        "reports/train/noise_loss.csv": "x0_error",
        "reports/rank/distances.csv": "distance",
        "quality against time": "kid",
    }
    drawn = {name for name, rows in plots.items() if rows}  # the loss of a stage with nothing to do has no rows
    assert {name for name in drawn if not name.endswith(".png")} == set(curves)
    for name, column in curves.items():
        (plot,) = plots[name]
        rows = plot["content"]["data"]["values"]
        counts = Counter(row["rev"] for row in rows if row[column])
        assert counts["seed-1"] == counts["seed-2"] > 1, name
        assert "<DVC_METRIC" not in json.dumps(plot["content"])
    rows = plots["reports/rank/distances.csv"][0]["content"]["data"]["values"]
    first, second = ([row["distance"] for row in rows if row["rev"] == seed] for seed in ("seed-1", "seed-2"))
    assert first != second
