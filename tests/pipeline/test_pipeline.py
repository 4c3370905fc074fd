"""The pipeline as its users run it: `dvc` in a clone of this repository, with the smoke profile."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY, SMOKE, STAGES
from dvc.utils.hydra import apply_overrides
from lsun_server import Server, lsun_zip
from ruamel.yaml import YAML

from benchmarks._clone import Clone
from stages.fetch.stage import GenerateConfig, generate

AFTER_TRAINING = ["train", "sample", "interpolate", "rank", "evaluate", "likelihood", "report"]

pytestmark = pytest.mark.xdist_group("pipeline")  # all of the clone in one process


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, smoke: Clone) -> Clone:
    """A clone in which the smoke profile has run once, for the tests of this module in their order."""
    return smoke.copy(tmp_path_factory.mktemp("pipeline") / "clone")


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
    assert Clone(tmp_path).dvc("dag", "--md").strip() in (REPOSITORY / "README.md").read_text()


@pytest.mark.slow
def test_every_output_is_there_and_a_second_run_does_nothing(clone: Clone) -> None:
    stages = YAML(typ="safe").load(clone.folder / "dvc.yaml")["stages"].values()
    outputs = [out for stage in stages for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    paths = [next(iter(out)) if isinstance(out, dict) else out for out in outputs]
    assert all((clone.folder / path).stat().st_size for path in paths)
    assert clone.ran("repro") == []
    assert {line[3:] for line in clone.git("status", "--porcelain").splitlines()} <= {
        "params.yaml", "dvc.lock", *(path for path in paths if path.startswith("reports/")),
    }  # fmt: skip


@pytest.mark.slow
def test_a_parameter_runs_what_it_can_change(clone: Clone) -> None:
    sampled = sorted(["sample", "rank", "evaluate", "report"])
    assert sorted(clone.ran("exp", "run", "-S", "sample.seed=1")) == sampled
    assert sorted(clone.ran("exp", "run", "-S", "epochs=3")) == sorted(AFTER_TRAINING)
    assert clone.ran("exp", "run", "-S", "runtime.threads=1") == []
    # All but the report, which has outputs that Git keeps, comes from the run cache.
    assert clone.ran("exp", "run", "-S", "epochs=2", "-S", "sample.seed=0") == ["report"]
    assert sorted(clone.ran("exp", "run", "-S", "sample.sampler=dpmpp_2m", "-S", "sample.steps=5")) == sampled


@pytest.mark.slow
def test_experiments_can_be_compared(clone: Clone) -> None:
    clone.dvc("exp", "run", "-S", "sample.seed=2")
    shown = json.loads(clone.dvc("metrics", "show", "--json"))[""]["data"]
    assert shown["reports/metrics/rank.json"]["data"]["samples"]["n"] == 64
    assert "kid_alexnet" in clone.dvc("metrics", "diff", "--md")
    assert "samples.png" in clone.dvc("plots", "diff", "HEAD", "--json")
    clone.dvc("plots", "show")
    assert (clone.folder / "dvc_plots" / "index.html").exists()
    assert "sample.seed" in clone.dvc("exp", "show", "--md", "--only-changed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("extract.size=50", "images of 50 px can't be halved through 2 levels: use a multiple of 4"),
        ("sample.eta=2.0", "params.yaml: sample"),
        ("sample.sampler=magic", "input should be 'ancestral', 'ddim', 'dpmpp_2m', "),
        ("sources.smoke.kind=magic", "sources.smoke.kind = 'magic': must be one of generate, path, lsun"),
    ],
)
def test_a_wrong_parameter_fails_in_one_line(clone: Clone, change: str, message: str) -> None:
    found = clone.dvc("exp", "run", "--temp", *SMOKE, "-S", change, fails=True)
    assert message in found
    assert "Traceback" not in found


@pytest.mark.slow
def test_an_unknown_source_or_parameter_is_named(clone: Clone) -> None:
    assert "sources.nope" in clone.dvc("exp", "run", "--temp", "-S", "data=nope", fails=True)
    assert "epcohs" in clone.dvc("exp", "run", "--temp", "-S", "epcohs=1", fails=True)


@pytest.mark.slow
def test_real_photographs_go_through_every_stage(clone: Clone, photos: Path) -> None:
    # As the README writes it: the braces need quotes of their own.
    sources = [f"sources.path.{split}='{photos}/{{category}}_{split}_lmdb'" for split in ("train", "val")]
    changes = [word for source in sources for word in ("-S", source)]
    ran = clone.ran("exp", "run", "--temp", *SMOKE, "-S", "data=path", *changes)
    assert sorted(ran) == sorted(set(STAGES) - {"weights"})


@pytest.mark.slow
def test_classes_from_lsuns_server_go_through_every_stage(clone: Clone, server: Server, tmp_path: Path) -> None:
    """Drawn images under names that no stage has seen."""
    for seed, category in enumerate(("castle", "chapel"), 1):
        drawn = GenerateConfig(kind="generate", categories=("church",), train_images=48, val_images=24, seed=seed)
        for split in ("train", "val"):
            name = f"{category}_{split}_lmdb"
            generate(drawn, "church", split, tmp_path / name / "data.mdb", None)
            data = (tmp_path / name / "data.mdb").read_bytes()
            server.files[f"/{name}.zip"] = lsun_zip(tmp_path / f"{name}.zip", [f"{name}/data.mdb"], data).read_bytes()
    changes = ["data=lsun", f"sources.lsun.urls=[{server.url}]", "sources.lsun.categories=[castle,chapel]"]
    ran = clone.ran("exp", "run", "--temp", *SMOKE, *(word for change in changes for word in ("-S", change)))
    assert sorted(ran) == sorted(set(STAGES) - {"weights"})
    assert sorted(path for path, _ in server.asked) == sorted(server.files)
