"""The stage `sample`: the same images whatever the batch, the processes and the kills, and usable by hand."""

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import PREPROCESSING, write_images
from support import REPOSITORY, WriteParams
from trainers import outputs

from ddpm.config import ConfigError, parse
from ddpm.diffusion.unet import UNet, UNetConfig
from stages.kit.params import read_params
from stages.sample.draw import Drawing, prepare
from stages.sample.stage import first_images, watch
from stages.shared.files.formats import read_safetensors, write_safetensors

CLASSES = ["tower", "church", "bridge"]
SMALL = {
    "model": "smoke",
    "sample.sampler": "ancestral",
    "sample.steps": 5,
    "sample.count": 200,
    "sample.precision": "float32",
    "runtime.device": "cpu",
    "runtime.threads": 1,
}
NETWORK = {
    "channels": 8, "multipliers": [1, 2], "attention": [6], "blocks": 1, "dropout": 0.0, "patch": 4,
    "groups": 4, "conditional": True, "initial": "zero",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, write_params: WriteParams) -> Path:
    """With a model that knows three classes, in `model/`."""
    write_params(SMALL)
    write_model(tmp_path / "model", CLASSES)
    return tmp_path


def write_model(folder: Path, classes: list[str]) -> None:
    network = UNet(parse(UNetConfig, {**NETWORK, "conditional": bool(classes)}, "network"), 48, len(classes))
    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.randn(value.shape, generator=generator) * 0.2 for key, value in network.state_dict().items()}
    settings = {
        "network": {**NETWORK, "conditional": bool(classes)},
        "recipe": {"target": "v"},
        "diffusion": {"steps": 1000, "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        "size": 48,
        "image_recipe": PREPROCESSING.name,
        "classes": classes,
        "class_counts": [60, 30, 10][: len(classes)],
        "sampling": read_params().mapping("models", "smoke", "sampling"),
    }
    write_safetensors(folder / "ema_0.99.safetensors", tensors, settings)


def drawing(**changes: object) -> Drawing:
    return prepare(Path("model"), read_params({"sample": changes}))


def ignore(t: int, xt: torch.Tensor, x0: torch.Tensor) -> None:
    """Look at no step."""


@pytest.mark.parametrize("size", [16, 1])
def test_64_images_are_the_same_in_any_batches(folder: Path, size: int) -> None:
    """To one level of 255: a convolution may sum in another order for another batch size."""
    model = drawing()
    whole = model.images(range(64), ignore).astype(int)
    parts = [model.images(range(first, first + size), ignore) for first in range(0, 64, size)]
    assert np.abs(whole - np.concatenate(parts)).max() <= 1
    assert np.abs(whole[0] - whole[1]).mean() > 10


def test_classes_come_in_turn_or_one_alone(folder: Path) -> None:
    assert drawing().labels(range(5)) == [0, 1, 2, 0, 1]
    assert drawing(category="bridge").labels(range(3)) == [2, 2, 2]
    others = [drawing(category=name).images([1], ignore).astype(int) for name in CLASSES]
    assert np.array_equal(others[1], drawing().images([1], ignore))
    assert np.abs(others[0] - others[1]).max() > 1


def test_classes_come_as_often_as_in_training(folder: Path) -> None:
    """60, 30 and 10 % of 2,000, to four standard errors; an image's class needs its number only."""
    model = drawing(labels="training")
    labels = model.labels(range(2000))
    assert np.bincount(labels) / 2000 == pytest.approx([0.6, 0.3, 0.1], abs=0.044)
    assert model.labels([1999, 3]) == [labels[1999], labels[3]]
    assert drawing(labels="training", seed=1).labels(range(2000)) != labels
    assert model.identity != drawing().identity


def test_weights_that_do_not_tell_the_frequencies_are_refused(folder: Path) -> None:
    tensors, settings = read_safetensors(folder / "model" / "ema_0.99.safetensors")
    del settings["class_counts"]
    write_safetensors(folder / "model" / "ema_0.99.safetensors", tensors, settings)
    with pytest.raises(ConfigError, match=r"sample.labels = training: the weights don't tell .* take equal"):
        drawing(labels="training")


def test_the_reverse_process_is_that_of_the_samples(folder: Path) -> None:
    """Heun asks twice at one t, the second time at the better x_t."""
    for sampler in ("ancestral", "heun"):
        model = drawing(sampler=sampler)
        seen = watch(model, set(model.timesteps))
        assert list(seen) == [*model.timesteps, -1]
        assert np.abs(seen[-1][0].astype(int) - model.images(range(64), ignore)[:4]).max() <= 1


def test_the_figure_of_processes_shows_each_class_in_turn(folder: Path) -> None:
    write_images(folder, ("tower", "church", "bridge"))
    shown = first_images(Path(), {Path("model"): PREPROCESSING.name})
    assert shown
    assert shown.categories == ["tower", "church", "bridge"]
    assert np.array_equal(shown.images, np.load("train.npy")[[0, 16, 32]])


def _main(folder: Path, arguments: list[str], stderr: Path, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    with stderr.open("ab") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = ["sample", "model", *arguments]
    runpy.run_module("stages.sample", run_name="__main__", alter_sys=True)


class Samplers:
    """Starts `python -m stages.sample model`, forked from a process that has imported torch."""

    def __init__(self, processes: ForkServerContext, folder: Path):
        self.processes, self.folder = processes, folder

    def start(self, out: str, *options: str, **environment: str) -> BaseProcess:
        """Start one that writes into `out` and appends to `<out>.err`."""
        arguments = ["--output", out, *options]
        process = self.processes.Process(
            target=_main, args=(self.folder, arguments, self.folder / f"{out}.err", environment)
        )
        process.start()
        return process

    def run(self, out: str, *options: str) -> tuple[int | None, str]:
        """Run one to its end: exit code, and what it wrote to stderr since `out` was first used."""
        process = self.start(out, *options)
        process.join()
        return process.exitcode, (self.folder / f"{out}.err").read_text()

    def run_two(self, out: str, *options: str) -> list[int | None]:
        """Run two that share the work, as torchrun would start them."""
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused.getsockname()[1]), "WORLD_SIZE": "2"}
        ranks = [self.start(out, *options, RANK=rank, LOCAL_RANK=rank, **where) for rank in ("0", "1")]
        for process in ranks:
            process.join()
        return [process.exitcode for process in ranks]

    def wait_for_a_chunk(self, process: BaseProcess) -> None:
        """Wait until the process has drawn one."""
        while not self.kept():
            assert process.is_alive()
            time.sleep(0.01)

    def kept(self) -> list[Path]:
        """The chunks that are there."""
        return list((self.folder / ".cache" / "sample").glob("*/[0-9]*.npy"))


@pytest.fixture
def samplers(processes: ForkServerContext, folder: Path) -> Samplers:
    return Samplers(processes, folder)


def test_two_processes_draw_what_one_draws(samplers: Samplers, folder: Path) -> None:
    assert samplers.run("one")[0] == 0
    assert samplers.run_two("two") == [0, 0]
    assert outputs(folder / "one") == outputs(folder / "two")
    assert "640/640" in (folder / "two.err").read_text()  # the first draws two chunks of four, in five steps
    assert not samplers.kept()
    table = pd.read_csv(folder / "one" / "samples.csv")
    assert np.load(folder / "one" / "samples.npy").shape == (len(table), 48, 48, 3) == (200, 48, 48, 3)
    assert list(table["category"][:4]) == [*CLASSES, "tower"]


def test_fewer_images_at_once_are_the_same_to_a_level(
    samplers: Samplers, folder: Path, write_params: WriteParams
) -> None:
    assert samplers.run("usual")[0] == 0
    write_params({**SMALL, "runtime.batch_images": 3})
    process = samplers.start("few")
    samplers.wait_for_a_chunk(process)
    assert "0-3.npy" in {chunk.name for chunk in samplers.kept()}
    process.join()
    assert process.exitcode == 0
    for name in ("samples.npy", "reverse/reverse.safetensors"):
        assert (folder / "few" / name).stat().st_size == (folder / "usual" / name).stat().st_size
    few, usual = (np.load(folder / out / "samples.npy").astype(int) for out in ("few", "usual"))
    assert np.abs(few - usual).max() <= 1


def test_killed_and_started_again_draws_what_is_missing(samplers: Samplers, folder: Path) -> None:
    assert samplers.run("whole", "--steps", "20")[0] == 0
    process = samplers.start("killed", "--steps", "20")
    samplers.wait_for_a_chunk(process)
    process.kill()
    process.join()
    assert process.exitcode == -9
    assert not (folder / "killed").exists()
    missing = 200 - 64 * len(samplers.kept())
    code, stderr = samplers.run("killed", "--steps", "20")
    assert code == 0
    assert f"sample: continues: {200 - missing} of 200 images are drawn\n" in stderr
    assert f"{missing * 20}/{missing * 20}" in stderr
    assert stderr.splitlines()[-1].startswith("sample: 200 images in killed/samples.npy; see killed/samples.png (")
    assert outputs(folder / "killed") == outputs(folder / "whole")


def test_a_second_process_that_draws_the_same_waits(samplers: Samplers, folder: Path) -> None:
    first = samplers.start("first", "--steps", "20")
    samplers.wait_for_a_chunk(first)
    os.kill(first.pid, signal.SIGSTOP)
    second = samplers.start("second", "--steps", "20")
    while not (said := (folder / "second.err")).exists() or "waits for" not in said.read_text():
        assert second.is_alive()
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGCONT)
    for process in (first, second):
        process.join()
        assert process.exitcode == 0
    assert f"sample: waits for process {first.pid} on " in said.read_text()
    assert "which is drawing the same images (" in said.read_text()
    assert "sample: continues: 200 of 200 images are drawn\n" in said.read_text(), "the second took those of the first"
    assert outputs(folder / "second") == outputs(folder / "first")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--sampler", "magic"],
            "sample: error: --sampler = \"magic\": input should be 'ancestral', 'ddim', 'dpmpp_2m', ",
        ),
        (["--category", "pub"], "sample.category = 'pub': the model knows tower, church, bridge"),
        (["--steps", "1001"], "steps = 1001: a sampler takes from 1 to diffusion.steps = 1000"),
        (["--steps", "many"], 'sample: error: --steps = "many": input should be a valid integer'),
        (["--steps", "[1"], "--steps = '[1': not YAML"),
        (["--eta", "2.0"], ": eta must be from 0 (deterministic) to 1 (ancestral)"),
        (["--stepz", "3"], "unrecognized arguments: --stepz 3; usage: python -m stages.sample [-h]"),
    ],
)
def test_a_wrong_option_is_one_line(samplers: Samplers, folder: Path, options: list[str], message: str) -> None:
    code, stderr = samplers.run("out", *options)
    assert code
    assert stderr.count("\n") == 1
    assert message in stderr
    assert not (folder / "out").exists()


def test_weights_that_are_not_there_are_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="modell: no such file or folder"):
        prepare(Path("modell"), read_params())


def test_another_file_than_inception_s_is_refused_before_the_drawing(
    samplers: Samplers, folder: Path, write_params: WriteParams
) -> None:
    write_params({**SMALL, "evaluate.inception": "none.pth"})
    code, stderr = samplers.run("out")
    assert code == 1
    assert stderr.startswith("sample: error: params.yaml: evaluate.inception = none.pth: no such file (looked for /")
    assert stderr.count("\n") == 1


def test_a_model_without_classes_refuses_one(samplers: Samplers, folder: Path) -> None:
    write_model(folder / "model", [])
    for option in (["--category", "tower"], ["--guidance", "2"], ["--labels", "training"]):
        code, stderr = samplers.run("out", *option)
        assert code == 1
        assert "the model knows no classes" in stderr
    assert samplers.run("out", "--count", "3")[0] == 0
    assert "category" not in pd.read_csv(folder / "out" / "samples.csv")


def test_by_hand_from_one_file_of_weights(folder: Path) -> None:
    write_images(folder, ("tower", "church", "bridge"))
    command = (
        "-m stages.sample model/ema_0.99.safetensors --output out --samples here --count 3 --seed 7 "
        "--sampler unipc --steps 6 --category church --guidance 1.5 --images ."
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, *command.split()], check=True, env=environment, capture_output=True)
    names = {"samples.png", "processes/processes.png"}
    assert set(outputs(folder / "out")) == names
    wanted = drawing(count=3, seed=7, sampler="unipc", steps=6, category="church", guidance=1.5)
    # The process computes with AVX2, this one perhaps with more: to one level of 255.
    assert np.abs(np.load("here/samples.npy").astype(int) - wanted.images(range(3), ignore)).max() <= 1
    names = {"samples.csv", "samples.npy", "reverse/reverse.safetensors"}
    assert set(outputs(folder / "here")) == names
