"""The pipeline as its users run it: `dvc` in a clone of this repository, with the default profile on little data."""

import json
import re
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML
from support import REPOSITORY, little_options

from benchmarks._clone import Clone

METRICS = {"kid", "kid_low", "kid_high", "precision", "recall", "lpips6", "loss"}
"""Not `copies`: so few held-out images tell none."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, little: Clone) -> Clone:
    """A clone in which the default profile has run once on little data, for the tests of this module in their order."""
    return little.copy(tmp_path_factory.mktemp("pipeline") / "clone")


def test_the_committed_lock_and_reports_are_those_of_the_code(tmp_path: Path) -> None:
    """In a clone without data, DVC finds nothing to do: code, parameters, metrics and figures match `dvc.lock`."""
    found = Clone(tmp_path).dvc("repro", "--dry", "--allow-missing")
    assert "Running stage" not in found, f"run `make repro` and commit what it changes:\n{found}"


def test_an_override_changes_one_line_of_params_yaml(tmp_path: Path) -> None:
    """As `dvc exp run -S` writes it: comments and form of all other lines stay."""
    copy = shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    apply_overrides(copy, ["epochs=3"])
    before, after = ((folder / "params.yaml").read_text().splitlines() for folder in (REPOSITORY, tmp_path))
    changed = [line for line, old in zip(after, before, strict=True) if line != old]
    assert [line.partition("#")[0].strip() for line in changed] == ["epochs: 3"]


def test_the_readme_shows_the_graph(tmp_path: Path) -> None:
    assert Clone(tmp_path).dvc("dag", "--md").strip() in (REPOSITORY / "docs" / "architecture.md").read_text()


@pytest.mark.slow
def test_every_output_is_there_and_a_second_run_does_nothing(clone: Clone) -> None:
    stages = YAML(typ="safe").load(clone.folder / "dvc.yaml")["stages"].values()
    outputs = [out for stage in stages for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    paths = [next(iter(out)) if isinstance(out, dict) else out for out in outputs]
    assert all((clone.folder / path).stat().st_size for path in paths)
    assert clone.ran("repro") == []
    changed = {line[3:] for line in clone.git("status", "--porcelain").splitlines()}
    assert changed <= {"params.yaml", "dvc.lock"} | {path for path in changed if path.startswith("reports/")}


@pytest.mark.slow
def test_code_that_changes_no_output_runs_nothing(clone: Clone) -> None:
    """A message reworded in the plumbing; the same comment in a module that draws would run the stage."""
    stale = []
    for name in ("stages/kit/files.py", "ddpm/sampling/samplers.py"):
        file = clone.folder / name
        before = file.read_bytes()
        file.write_bytes(before.replace(b"no disk space in", b"no space on the disk of") + b"# A comment.\n")
        stale.append(clone.dvc("status"))
        file.write_bytes(before)
    assert "up to date" in stale[0]
    assert "sample:" in stale[1]
    assert "train:" not in stale[1]


@pytest.mark.slow
def test_a_parameter_runs_what_it_can_change(clone: Clone) -> None:
    clone.commit("run on little data")
    sampled = ["evaluate", "page", "rank", "sample"]
    sampler = ["-S", "sample.sampler=dpmpp_2m", "-S", "sample.steps=5"]
    assert sorted(clone.ran("exp", "run", *sampler)) == sampled
    assert clone.ran("exp", "run", "-S", "runtime.threads=2") == []
    assert clone.ran("exp", "run", "-S", "epochs=3", "train") == ["train"]
    stale = re.findall(r"^(\w+):$", clone.dvc("status"), re.MULTILINE)
    assert sorted(stale) == ["gan", "interpolate", "likelihood", "page", "sample", "tune"]
    assert clone.ran("exp", "run", "-S", "epochs=2") == []  # from the run cache
    assert_runs_can_be_compared_in_120_columns(clone)


def assert_runs_can_be_compared_in_120_columns(clone: Clone) -> None:
    """Of a clone whose last run differs from its commit in `sample.steps`."""
    shown = json.loads(clone.dvc("metrics", "show", "--json"))[""]["data"]
    assert shown["reports/metrics.json"]["data"].keys() == METRICS
    tables = [clone.dvc(*command) for command in (("metrics", "show"), ("metrics", "diff"), ("params", "diff"))]
    assert set(tables[1].split()) >= {"kid", "lpips6"}  # of the seven, those that differ
    assert "sample.steps" in tables[2]
    assert max(len(line) for table in tables for line in table.splitlines()) <= 120
    assert "samples.png" in clone.dvc("plots", "diff", "HEAD", "--json")
    clone.dvc("plots", "show")
    assert (clone.folder / "dvc_plots" / "index.html").exists()
    assert "sample.steps" in clone.dvc("exp", "show", "--md", "--only-changed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("extract.size=50", "images of 50 px can't be halved through 3 levels: use a multiple of 16"),
        ("sample.sampler=magic", "input should be 'ancestral', 'ddim', 'dpmpp_2m', "),
        ("sources.demo.kind=magic", "sources.demo.kind = 'magic': must be one of generate, path, lsun"),
    ],
)
def test_a_wrong_parameter_fails_in_one_line(clone: Clone, change: str, message: str) -> None:
    found = clone.dvc("exp", "run", "--temp", *little_options(change), fails=True)
    assert message in found
    assert "Traceback" not in found


@pytest.mark.slow
def test_an_unknown_source_or_parameter_is_named(clone: Clone) -> None:
    assert "sources.nope" in clone.dvc("exp", "run", "--temp", "-S", "data=nope", fails=True)
    assert "epcohs" in clone.dvc("exp", "run", "--temp", "-S", "epcohs=1", fails=True)
