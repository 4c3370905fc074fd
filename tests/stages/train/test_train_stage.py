"""The stage `train` as a process: killed anywhere and started again, it writes what an uninterrupted run writes."""

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import write_images
from support import WriteParams
from trainers import SMALL, Trainers, allow_little_memory, outputs

from ddpm.config import parse
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.training.batches import Batches
from ddpm.training.initial import initial_network
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import Trainer, TrainState
from stages.kit.params import read_params
from stages.shared.files.formats import read_safetensors
from stages.shared.files.images import class_numbers


def test_killed_and_started_again_is_uninterrupted(trainers: Trainers, tmp_path: Path) -> None:
    trainers.run("whole", root="a")
    for wait in (0.02, 0.2, 0.13):
        started = time.time()
        process = trainers.start("killed", root="b")
        trainers.wait_for_state("b", started)
        time.sleep(wait)
        process.kill()
        process.join()
        assert process.exitcode == -9, "it had ended before"
        assert not (tmp_path / "killed").exists()
    code, stderr = trainers.run("killed", root="b")
    assert code == 0
    assert "train: continues at step" in stderr
    assert "of the run of 6 epochs" in stderr
    assert re.match(r"train: \d+ steps, weights in .*, loss of the last tenth \d", stderr.splitlines()[-1])
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")


def test_sigterm_saves_and_says_how_to_go_on(trainers: Trainers, tmp_path: Path) -> None:
    process = trainers.start()
    trainers.wait_for_state()
    process.terminate()
    process.join()
    assert process.exitcode == 1
    assert "interrupted; the same command" in (tmp_path / "out.err").read_text().splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_more_epochs_continue_where_the_rate_allows_it(
    schedule: str, trainers: Trainers, write_params: WriteParams, tmp_path: Path
) -> None:
    for epochs in (2, 3, 8, 5):
        changes = {"epochs": epochs, "models.smoke.recipe.rate_schedule": schedule, "runtime.save_every_seconds": 60}
        write_params({**SMALL, **changes})
        if epochs == 5:
            trainers.run("straight", root="a")
        code, stderr = trainers.run(root="b")
        assert code == 0
    assert ("continues at step 18, epoch 3 of the run of 3 epochs" in stderr) == (schedule == "constant")
    assert outputs(tmp_path / "out") == outputs(tmp_path / "straight")


def test_categories_of_digits_are_names(trainers: Trainers, write_params: WriteParams, tmp_path: Path) -> None:
    write_params({**SMALL, "epochs": 1, "models.smoke.network.conditional": True})
    write_images(tmp_path, ("01", "NA", "1"))
    assert trainers.run()[0] == 0
    assert read_safetensors(tmp_path / "out/model/raw.safetensors")[1]["classes"] == ["01", "NA", "1"]
    assert class_numbers(tmp_path / "train.csv", ["NA", "1", "01"]).tolist() == [2] * 16 + [0] * 16 + [1] * 16


def test_weights_carry_all_that_describes_them(trainers: Trainers, write_params: WriteParams, tmp_path: Path) -> None:
    write_params({**SMALL, "epochs": 1, "models.smoke.network.conditional": True})
    write_images(tmp_path, ("tower", "church", "bridge"))
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "model" / "ema_0.5.safetensors").touch()
    assert trainers.run()[0] == 0
    assert {path.name for path in (tmp_path / "out" / "model").iterdir()} == {
        "raw.safetensors",
        "ema_0.99.safetensors",
        "ema_0.9.safetensors",
    }
    for path in (tmp_path / "out" / "model").iterdir():
        tensors, settings = read_safetensors(path)
        assert settings["classes"] == ["tower", "church", "bridge"]
        assert settings["class_counts"] == [16, 16, 16]
        assert settings["model"] == "smoke"
        assert settings["ema_decay"] == float(path.stem.removeprefix("ema_").replace("raw", "0"))
        network = UNet(parse(UNetConfig, settings["network"], "network"), settings["size"], len(settings["classes"]))
        network.load_state_dict(tensors)
        assert settings["recipe"]["target"] == "v"
        assert settings["epochs"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nope"}, "params.yaml: models.nope: not there; models has "),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"models.smoke.network.multipliers": [1] * 6}, "images of 48 px can't be halved through 6 levels"),
        ({"models.smoke.network.attention": [16]}, "attention at 16 px, but the levels of a 48 px image are [12, 6]"),
        (
            {"models.smoke.network.conditional": True, "models.smoke.recipe.label_dropout": 0.0},
            "params.yaml: models.smoke.recipe.label_dropout = 0: must be above 0",
        ),
        ({"models.smoke.recipe.lr": 0.1}, "params.yaml: models.smoke.recipe.lr: no such parameter"),
        ({"models.smoke.recipe.batch_images": 49, "models.smoke.recipe.drop_last": True}, "leave nothing of 48 images"),
        ({"train.precision": "half"}, "params.yaml: train.precision = \"half\": input should be 'auto', 'float32'"),
        ({"runtime.threads": 0}, "params.yaml: runtime.threads = 0: input should be greater than 0"),
        ({"runtime.device": "cuda:7"}, "params.yaml: runtime.device = 'cuda:7'"),
        ({"epcohs": 3}, "params.yaml: epcohs: no such parameter"),
    ],
)
def test_a_wrong_parameter_is_one_line(
    trainers: Trainers, write_params: WriteParams, tmp_path: Path, changes: dict, message: str
) -> None:
    write_params({**SMALL, **changes})
    code, stderr = trainers.run()
    assert code == 1
    assert stderr.count("\n") == 1
    assert message in stderr
    assert not (tmp_path / "out").exists()


def test_a_diverging_run_names_step_state_and_rate(
    trainers: Trainers, write_params: WriteParams, tmp_path: Path
) -> None:
    write_params({**SMALL, "models.smoke.recipe.learning_rate": 1e10, "train.clip_norm": float("inf")})
    code, stderr = trainers.run()
    assert code == 1
    line = stderr.splitlines()[-1]
    assert "train: error: the loss of step " in line
    [file] = (tmp_path / ".cache" / "train").glob("*/state.pt")
    state = torch.load(file)
    assert f"step {state['step']} in {file}" in line
    assert "lower models.smoke.recipe.learning_rate, now 1e+10" in line
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert not (tmp_path / "out").exists()


def test_a_folder_that_takes_no_state_is_named(trainers: Trainers, tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train").touch()  # in the way even of root
    code, stderr = trainers.run()
    assert (code, stderr.count("\n")) == (1, 2)
    assert f"{tmp_path}/.cache/train: the state of the run can't be kept here" in stderr
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_named(trainers: Trainers, tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", tmp_path / ".cache"]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        code, stderr = trainers.run()
        [folder] = (tmp_path / ".cache" / "train").iterdir()
        assert {path.name for path in folder.iterdir()} == {"run.json"}
    finally:
        subprocess.run(["umount", tmp_path / ".cache"], check=True)
    assert code == 1
    assert stderr.splitlines()[-1] == f"train: error: no disk space in {folder}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("size", "present"), [(None, "empty (all images of a step that a process has)"), (600, "600")])
def test_too_little_memory_names_what_saves_it(
    trainers: Trainers, write_params: WriteParams, tmp_path: Path, size: int | None, present: str
) -> None:
    large = {"models.smoke.recipe.batch_images": 800, "models.smoke.network.patch": 1, "train.micro_batch_images": size}
    write_params({**SMALL, **large, "models.smoke.network.channels": 64})
    code, stderr = trainers.run(before=allow_little_memory)
    assert code == 1
    line = stderr.splitlines()[-1]
    assert line.startswith("train: error: out of memory, ")
    assert line.endswith(f" bytes more were wanted: lower train.micro_batch_images, now {present}")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_papers_model_takes_a_step_on_this_machine(tmp_path: Path, write_params: WriteParams) -> None:
    """With 8 of the recipe's 80 images: the whole batch takes half a minute and 6.5 GB, in bfloat16."""
    write_params({"model": "paper"})
    params, device = read_params(), torch.device("cpu")
    recipe = replace(params.section(Recipe, "models", "paper", "recipe"), batch_images=8)
    network = initial_network(UNet(params.section(UNetConfig, "models", "paper", "network"), 48))
    schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"))
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 48, 3), np.uint8)
    batches = Batches(images, None, 0, schedule, recipe, flip=True, seed=0, device=device)
    trainer = Trainer(batches, schedule, params.section(TrainConfig, "train"), seed=0, epochs=1)
    state = TrainState(network, recipe, device)
    [state] = trainer.fit(state)
    state.read_losses()
    assert state.losses[0] == pytest.approx(1, abs=0.02)  # an untrained network puts out zero, and eps has variance 1
