"""The stage `train` as a process: killed anywhere and started again, it writes what an uninterrupted run writes."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, WriteParams

from ddpm.config import parse
from ddpm.resizing import ResizeRecipe, resize
from ddpm.scenes import draw_scene
from ddpm.schedule import DiffusionConfig, NoiseSchedule
from ddpm.training import Recipe, TrainConfig, Trainer, TrainState
from ddpm.unet import UNet, UNetConfig
from stages._io import read_safetensors
from stages._params import read_params

OUTPUTS = ("ema.safetensors", "raw.safetensors", "train.json", "loss.csv")


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "stages.train", "train.npy", "train.csv", *(str(folder / name) for name in OUTPUTS)]


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "DVC_ROOT": str(root)}


@pytest.fixture
def data(tmp_path: Path, write_params: WriteParams) -> Path:
    write_params({"model": "smoke", "epochs": 24, "runtime.save_every_seconds": 0, "models.smoke.network.dropout": 0.1})
    recipe = ResizeRecipe(size=48, geometry="center_crop", filter="bilinear")
    images = [resize(np.asarray(draw_scene(0, "church", "train", index).image), recipe) for index in range(48)]
    np.save(tmp_path / "train.npy", np.stack(images))
    pd.DataFrame({"row": range(48), "recipe": recipe.name}).to_csv(tmp_path / "train.csv", index=False)
    return tmp_path


def saved_since(moment: float, root: Path) -> bool:
    return any(state.stat().st_mtime > moment for state in (root / ".cache" / "train").glob("*/state.pt"))


@pytest.mark.slow
def test_killed_and_started_again_is_uninterrupted(data: Path) -> None:
    subprocess.run(command(data / "whole"), env=environment(data / "a"), check=True, cwd=data)
    for wait in (0.02, 0.2, 0.13):
        started = time.time()
        process = subprocess.Popen(command(data / "killed"), env=environment(data / "b"), cwd=data)
        while not saved_since(started, data / "b") and process.poll() is None:
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it had ended before"
        assert not (data / "killed").exists()
    subprocess.run(command(data / "killed"), env=environment(data / "b"), check=True, cwd=data)
    for name in OUTPUTS:
        assert (data / "killed" / name).read_bytes() == (data / "whole" / name).read_bytes(), name


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_go_on(data: Path) -> None:
    process = subprocess.Popen(command(data), env=environment(data), cwd=data, stderr=subprocess.PIPE, text=True)
    while not list((data / ".cache" / "train").glob("*/state.pt")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert "interrupted; the same command" in stderr.splitlines()[-1]
    assert not (data / "ema.safetensors").exists()


@pytest.mark.slow
def test_a_second_trainer_of_the_same_run_stops(data: Path) -> None:
    first = subprocess.run(command(data / "one"), env=environment(data), cwd=data, check=True)
    assert first.returncode == 0
    [lock] = (data / ".cache" / "train").glob("*/lock")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = subprocess.run(command(data / "two"), env=environment(data), cwd=data, capture_output=True, text=True)
    assert second.returncode == 1
    assert "another process is training the same run" in second.stderr.splitlines()[-1]
    assert not (data / "two").exists()


@pytest.mark.slow
def test_weights_carry_all_that_describes_them(data: Path) -> None:
    subprocess.run(command(data), env=environment(data), cwd=data, check=True)
    tensors, settings = read_safetensors(data / "ema.safetensors")
    network = UNet(parse(UNetConfig, settings["network"], "network"), settings["size"])
    network.load_state_dict(tensors)
    assert settings["recipe"]["target"] == "v"
    assert settings["epochs"] == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nope"}, "params.yaml: models.nope: not there; models has "),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"models.smoke.network.multipliers": [1] * 6}, "images of 48 px can't be halved through 6 levels"),
        ({"models.smoke.network.attention": [16]}, "attention at 16 px, but the levels of a 48 px image are [24, 12]"),
        ({"models.smoke.recipe.lr": 0.1}, "params.yaml: models.smoke.recipe.lr: no such parameter"),
        ({"train.precision": "half"}, "params.yaml: train.precision = \"half\": input should be 'auto', 'float32'"),
        ({"runtime.threads": 0}, "params.yaml: runtime.threads = 0: input should be greater than 0"),
        ({"runtime.device": "cuda:7"}, "params.yaml: runtime.device = 'cuda:7'"),
        ({"epcohs": 3}, "params.yaml: epcohs: no such parameter"),
    ],
)
def test_a_wrong_parameter_is_one_line(data: Path, write_params: WriteParams, changes: dict, message: str) -> None:
    write_params({"model": "smoke", **changes})
    result = subprocess.run(command(data / "out"), env=environment(data), cwd=data, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (data / "out").exists()


@pytest.mark.slow
def test_the_papers_model_takes_a_step_on_this_machine(data: Path, write_params: WriteParams) -> None:
    """With 8 of the recipe's 80 images: the whole batch takes half a minute and 6.5 GB, in bfloat16."""
    write_params({"model": "paper"})
    params = read_params()
    recipe = replace(params.section(Recipe, "models", "paper", "recipe"), batch_images=8)
    network = UNet(params.section(UNetConfig, "models", "paper", "network"), 48)
    schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"))
    device = torch.device("cpu")
    trainer = Trainer(
        np.load(data / "train.npy"), schedule, recipe, params.section(TrainConfig, "train"),
        seed=0, total_steps=2, device=device,
    )  # fmt: skip
    state = TrainState(network, recipe, device)
    trainer.train_step(state)
    state.read_losses()
    assert state.losses[0] == pytest.approx(1, abs=0.02)  # an untrained network puts out zero, and eps has variance 1
