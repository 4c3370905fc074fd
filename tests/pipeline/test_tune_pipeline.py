"""Tuning through the graph: nothing is trained; killed and continued, drawn from in two evaluations only."""

import json
import time

import psutil
import pytest
from support import little_options

from benchmarks._clone import Clone

pytestmark = pytest.mark.slow

TUNE = little_options(
    "tune.objective=matching", "tune.epochs=3", "tune.matching_epochs=2", "runtime.save_every_seconds=0"
)
UNTUNED = little_options("tune.objective=none", "tune.epochs=6", "sample.steps=null")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, little: Clone) -> Clone:
    """A clone in which the default profile has run once on little data, for the tests of this module in their order."""
    clone = little.copy(tmp_path_factory.mktemp("tune") / "clone")
    clone.commit("run on little data")
    return clone


def files(clone: Clone, folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((clone.folder / "data" / folder).glob("*.safetensors"))}


def test_code_of_tuning_runs_no_stage_of_a_model_that_is_not_tuned(clone: Clone) -> None:
    assert files(clone, "tuned") == {}
    for name in ("ddpm/tuning/tuner.py", "stages/tune/stage.py"):
        file = clone.folder / name
        file.write_bytes(file.read_bytes() + b"# A comment.\n")
    assert clone.ran("repro") == ["tune"]
    clone.git("checkout", "ddpm", "stages")


def kill_tuning(clone: Clone) -> None:
    """Start the experiment and kill its tuner when that has saved a state."""
    process = clone.start("exp", "run", *TUNE)
    end = time.monotonic() + 300
    while not list(clone.folder.glob(".cache/tune/*/state.pt")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    tuners = [each for each in psutil.Process(process.pid).children(recursive=True) if "stages.tune" in each.cmdline()]
    for each in tuners:
        each.kill()
    assert tuners
    assert process.wait() != 0


def test_tuning_is_killed_continued_and_told_on_the_page(clone: Clone) -> None:
    trained = files(clone, "model")
    kill_tuning(clone)
    said = clone.dvc("exp", "run", *TUNE)
    assert "tune: continues at step" in said
    assert not any(f"Running stage '{stage}'" in said for stage in ("train", "likelihood"))
    assert files(clone, "model") == trained
    assert set(files(clone, "tuned")) == {"raw.safetensors", "ema_0.95.safetensors", "ema_0.99.safetensors"}
    assert "then by distribution matching" in (clone.folder / "reports" / "index.html").read_text()
    assert json.loads((clone.folder / "reports" / "details" / "tune.json").read_text())["sampling"]["steps"] == 2
    assert clone.ran("repro") == []
    clone.dvc("plots", "show")


def test_matched_weights_are_drawn_from_in_no_other_number_of_evaluations(clone: Clone) -> None:
    tuned = files(clone, "tuned")
    said = clone.dvc("exp", "run", "sample", *TUNE, "-S", "sample.steps=1", fails=True)
    assert "know 2 times; take spacing logsnr_trailing and 2 steps" in said
    assert files(clone, "tuned") == tuned


def test_back_to_the_trained_weights_all_comes_from_the_cache(clone: Clone) -> None:
    assert set(clone.ran("exp", "run", *UNTUNED)) <= {"tune", "page"}  # with outputs that Git keeps
    assert files(clone, "tuned") == {}
