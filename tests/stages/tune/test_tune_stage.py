"""The stage `tune`: killed and continued, shared by two processes, and what becomes of its weights."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support import WriteParams
from trainers import SMALL, Trainers, outputs

from ddpm.config import ConfigError
from stages.interpolate.stage import main as interpolate
from stages.kit.params import read_params
from stages.sample.stage import main as sample
from stages.shared.files.absent import NOTE, leave_absent
from stages.shared.files.formats import read_safetensors
from stages.shared.models.diffusion import load_model
from stages.tune.stage import main

TUNED = {**SMALL, "epochs": 1, "tune.objective": "distillation", "tune.epochs": 4, "tune.matching_epochs": 2,
         "tune.critic_weight": 0.1}  # fmt: skip
"""24 steps of tuning, and 12 of matching where it follows, each after two of the fake score and its critic."""


@pytest.fixture
def tuners(trainers: Trainers, write_params: WriteParams, tmp_path: Path) -> Trainers:
    """To tune a small network, which is trained."""
    write_params(TUNED)
    assert trainers.run("trained", root="trained_root")[0] == 0
    return Trainers(trainers.processes, tmp_path, "tune")


@pytest.mark.parametrize("objective", ["distillation", "matching", "tuning"])
def test_killed_and_started_again_is_uninterrupted(
    objective: str, tuners: Trainers, write_params: WriteParams, tmp_path: Path
) -> None:
    decay, epochs = {"distillation": (0.95, 4), "matching": (0.95, 6), "tuning": (0.0, 4)}[objective]
    parts = {"tune.epochs": 1, "tune.matching_epochs": 5} if objective == "matching" else {}
    write_params({**TUNED, **parts, "tune.objective": objective, "tune.target_decay": decay})
    assert tuners.run("whole", root="a")[0] == 0
    for wait in (0.02, 0.1):
        started = time.time()
        process = tuners.start("killed", root="b")
        tuners.wait_for_state("b", started)
        time.sleep(wait)
        process.kill()
        process.join()
        assert process.exitcode == -9, "it had ended before"
        assert not (tmp_path / "killed").exists()
    code, stderr = tuners.run("killed", root="b")
    assert code == 0
    assert "tune: continues at step" in stderr
    assert f"of the run of {epochs} epochs" in stderr
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
    averages = ["ema_0.95"] if decay else []
    assert {path.stem for path in (tmp_path / "whole" / "tuned").iterdir()} == {"raw", "ema_0.99", *averages}
    assert len(pd.read_csv(tmp_path / "whole" / "loss.csv")) == 6 * epochs
    told = json.loads((tmp_path / "whole" / "tune.json").read_text())
    assert told["tune"]["stops"] == ([999, 302] if objective == "matching" else [999, 722, 302, 30])
    assert told["sampling"]["steps"] == 2


@pytest.mark.parametrize("objective", ["distillation", "matching"])
def test_two_processes_are_a_run_by_one(
    objective: str, tuners: Trainers, write_params: WriteParams, tmp_path: Path
) -> None:
    """Of distillation also with dropout, which is drawn for each micro-batch."""
    write_params({**TUNED, "tune.objective": objective, "train.micro_batch_images": 2})
    assert tuners.run_two("two", root="a")[0] == [0, 0]
    assert tuners.run("one", root="b")[0] == 0
    two, one = (read_safetensors(tmp_path / out / "tuned" / "raw.safetensors")[0] for out in ("two", "one"))
    assert max((two[key] - one[key]).abs().max() for key in one) < 1e-4


def test_a_rate_that_diverges_is_named(tuners: Trainers, write_params: WriteParams) -> None:
    write_params({**TUNED, "tune.learning_rate": 1e10, "train.clip_norm": float("inf")})
    code, stderr = tuners.run()
    assert code == 1
    assert "lower tune.learning_rate, now 1e+10" in stderr.splitlines()[-1]


@pytest.mark.parametrize("rate", ["matching_learning_rate", "fake_score_learning_rate"])
def test_matching_that_diverges_names_the_rates(rate: str, tuners: Trainers, write_params: WriteParams) -> None:
    changes = {"tune.objective": "matching", f"tune.{rate}": 1e10, "train.clip_norm": float("inf")}
    write_params({**TUNED, **changes})
    code, stderr = tuners.run()
    assert code == 1
    assert "tune.critic_weight, tune.matching_learning_rate and tune.fake_score" in stderr.splitlines()[-1]
    assert "training images" not in stderr.splitlines()[-1]  # steps of matching see drawn ones


def test_without_an_objective_there_is_a_note_alone(write_params: WriteParams, tmp_path: Path) -> None:
    """Also where weights of an earlier run lie; nothing is read."""
    write_params({})
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / "raw.safetensors").touch()
    said = main(tmp_path, images=tmp_path, tuned=folder, details=tmp_path / "t.json", losses=tmp_path / "loss.csv")
    assert said == "nothing to do: tune.objective is none"
    assert [file.name for file in folder.iterdir()] == [NOTE]
    assert json.loads((tmp_path / "t.json").read_text()) == {"absent": "tune.objective is none"}
    assert (tmp_path / "loss.csv").read_text() == "epoch,step,loss,learning_rate\n"


def test_tuned_weights_are_drawn_from_as_they_say(tuners: Trainers, tmp_path: Path) -> None:
    """In two evaluations, in one, and in no number of them at times that they don't know."""
    assert tuners.run("out")[0] == 0
    trained, tuned = tmp_path / "trained" / "model", tmp_path / "out" / "tuned"
    model = load_model(tuned, read_params(), torch.device("cpu"), "float32")
    assert (model.own.sampler, model.own.steps, model.own.ema_decay) == ("consistency", 2, 0.99)
    assert model.stops == [999, 722, 302, 30]

    def drawn(tuned: Path | None, **changes: Any) -> np.ndarray:
        changes = {"count": 4, "precision": "float32", **changes}
        sample(trained, changes=changes, tuned=tuned, samples=tmp_path, figures=tmp_path)
        return np.load(tmp_path / "samples.npy")

    empty = tmp_path / "empty"
    leave_absent(empty)
    untuned, two, one = drawn(empty), drawn(tuned), drawn(tuned, steps=1)
    assert np.array_equal(untuned, drawn(None))
    assert not any(np.array_equal(a, b) for a, b in ((untuned, two), (two, one), (untuned, one)))
    with pytest.raises(ConfigError, match=r"steps = 5 .* take spacing logsnr_trailing and 1, 2, 4 steps"):
        drawn(tuned, steps=5)

    def between(tuned: Path | None) -> np.ndarray:
        changes = {"methods": ["slerp_ddim", "slerp_native"], "pairs": 2, "frames": 3, "steps": 2}
        interpolate(trained, changes=changes, tuned=tuned, samples=tmp_path, figures=tmp_path)
        return np.load(tmp_path / "interpolation.npy")

    (ddim, native), (ddim_tuned, native_tuned) = between(None), between(tuned)
    assert np.array_equal(ddim, ddim_tuned)
    assert not np.array_equal(native, native_tuned)
