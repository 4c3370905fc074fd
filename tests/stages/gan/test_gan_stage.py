"""A GAN from images to weights, samples and paths: killed and continued, told in a line where it fails."""

import json
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import write_images
from support import WriteParams
from trainers import SMALL_GAN, Trainers, outputs

import stages.gan.stage
import stages.interpolate.stage
import stages.likelihood.stage
import stages.sample.stage
import stages.train.stage
from ddpm.config import ConfigError
from stages.kit.params import read_params
from stages.shared.files.absent import NOTE
from stages.shared.files.formats import read_metadata, read_safetensors
from stages.shared.models.diffusion import load_model
from stages.shared.models.gan import load_gan

CLASSES = ("tower", "church", "bridge")
CONDITIONAL = {**SMALL_GAN, "epochs": 1, "models.gan.network.conditional": True}


@pytest.fixture
def gans(processes: ForkServerContext, tmp_path: Path, write_params: WriteParams) -> Trainers:
    """To train a small GAN in `tmp_path`."""
    write_params(SMALL_GAN)
    write_images(tmp_path)
    return Trainers(processes, tmp_path, "gan")


@pytest.fixture
def trained(gans: Trainers, tmp_path: Path, write_params: WriteParams) -> Path:
    """The folder of the weights of a conditional GAN."""
    write_images(tmp_path, CLASSES)
    write_params(CONDITIONAL)
    assert gans.run()[0] == 0
    return tmp_path / "out" / "gan"


def test_killed_and_started_again_is_uninterrupted(gans: Trainers, tmp_path: Path) -> None:
    gans.run("whole", root="a")
    for wait in (0.02, 0.2):
        started = time.time()
        process = gans.start("killed", root="b")
        gans.wait_for_state("b", started)
        time.sleep(wait)
        process.kill()
        process.join()
        assert process.exitcode == -9, "it had ended before"
        assert not (tmp_path / "killed").exists()
    code, stderr = gans.run("killed", root="b")
    assert code == 0
    assert "gan: continues at step" in stderr
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
    assert outputs(tmp_path / "whole").keys() == {
        "gan.json", "loss.csv", "gan/raw.safetensors", "gan/ema_0.99.safetensors", "gan/ema_0.999.safetensors",
    }  # fmt: skip
    table = pd.read_csv(tmp_path / "whole" / "loss.csv")
    assert tuple(table.columns) == stages.gan.stage.COLUMNS
    assert list(table["step"]) == list(range(1, 37))
    assert table["learning_rate"].is_monotonic_decreasing
    details = json.loads((tmp_path / "whole" / "gan.json").read_text())
    assert details["last_tenth"]["critic_loss"] == pytest.approx(table["critic_loss"][-3:].mean(), rel=1e-4)


def test_two_processes_train_what_one_does(gans: Trainers, tmp_path: Path, write_params: WriteParams) -> None:
    write_params({**SMALL_GAN, "epochs": 1, "train.micro_batch_images": 2})
    assert gans.run("one", root="a")[0] == 0
    assert gans.run_two("two", root="b")[0] == [0, 0]
    one, two = (pd.read_csv(tmp_path / out / "loss.csv") for out in ("one", "two"))
    assert np.allclose(one, two, rtol=1e-3, atol=1e-5)
    weights = (read_safetensors(tmp_path / out / "gan" / "raw.safetensors")[0] for out in ("one", "two"))
    a, b = weights
    assert max((a[key] - b[key]).abs().max() for key in a) < 1e-3


def test_a_run_that_diverges_ends_in_one_line(gans: Trainers, tmp_path: Path, write_params: WriteParams) -> None:
    rates = {"models.gan.recipe.learning_rate": 1e30, "models.gan.recipe.last_learning_rate": 1e30}
    write_params({**SMALL_GAN, **rates, "runtime.save_every_seconds": 60})
    code, stderr = gans.run()
    assert code == 1
    last = stderr.splitlines()[-1]
    assert last.startswith("gan: error: step ")
    assert "gives values that are not finite, of training images " in last
    assert last.endswith("raise models.gan.recipe.gamma, now 10, or lower learning_rate, now 1e+30")
    assert not (tmp_path / "out").exists()


def test_each_stage_leaves_the_other_kind_alone(write_params: WriteParams, tmp_path: Path) -> None:
    for model, kind in (("tiny", "diffusion"), ("gan", "gan")):
        write_params({"model": model})
        folder, details, losses = tmp_path / kind, tmp_path / f"{kind}.json", tmp_path / f"{kind}.csv"
        folder.mkdir()
        (folder / "raw.safetensors").touch()  # of the last run
        files = {"images": tmp_path, "details": details, "losses": losses}
        if kind == "gan":
            said = stages.train.stage.main(model=folder, **files)
            assert said == "nothing to do: models.gan is a GAN"
        else:
            said = stages.gan.stage.main(gan=folder, **files)
            assert said == "nothing to do: models.tiny is a diffusion model"
        assert [file.name for file in folder.iterdir()] == [NOTE]
        assert json.loads(details.read_text())["absent"] in said
        assert len(pd.read_csv(losses)) == 0


def test_an_unknown_kind_is_named(write_params: WriteParams) -> None:
    write_params({"models.tiny.kind": "magic"})
    with pytest.raises(ConfigError, match=r"models\.tiny\.kind = \"magic\": input should be 'diffusion' or 'gan'"):
        read_params().model()


def test_samples_depend_on_their_number_and_on_no_batch(trained: Path, tmp_path: Path) -> None:
    def draw(out: str, **changes: object) -> np.ndarray:
        folder = tmp_path / out
        stages.sample.stage.main(
            tmp_path / "none", gan=trained, changes={"count": 10, **changes}, samples=folder, figures=folder
        )
        return np.load(folder / "samples.npy")

    drawn = draw("all")
    assert drawn.shape == (10, 48, 48, 3)
    assert list(pd.read_csv(tmp_path / "all" / "samples.csv")["category"][:4]) == ["tower", "church", "bridge", "tower"]
    for name in ("processes", "reverse"):
        assert [file.name for file in (tmp_path / "all" / name).iterdir()] == [NOTE]
    assert np.array_equal(draw("few", count=3), drawn[:3])
    assert not np.array_equal(draw("seed", seed=1), drawn)
    assert not np.array_equal(draw("towers", category="tower")[1], drawn[1])
    for wrong, message in (
        ({"steps": 10}, "sample.steps = 10: a GAN has none; leave it empty"),
        ({"guidance": 2.0}, "sample.guidance = 2.0: a GAN has none; leave it 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            draw("wrong", **wrong)


def test_paths_start_and_end_at_the_images_of_their_noises(trained: Path, tmp_path: Path) -> None:
    changes = {"pairs": 4, "frames": 3}
    stages.interpolate.stage.main(trained, changes=changes, samples=tmp_path / "paths", figures=tmp_path / "paths")
    paths = np.load(tmp_path / "paths" / "interpolation.npy")
    assert paths.shape == (2, 4, 3, 48, 48, 3)  # lerp and slerp, whatever samplers are named
    assert np.array_equal(paths[0][:, [0, 2]], paths[1][:, [0, 2]])
    assert not np.array_equal(paths[0][:, 1], paths[1][:, 1])
    assert not np.array_equal(paths[0, 0, 0], paths[0, 1, 0])


def test_what_a_gan_has_no_number_for_is_absent_with_the_reason(trained: Path, tmp_path: Path) -> None:
    files = {"details": tmp_path / "likelihood.json", "levels": tmp_path / "levels.csv"}
    stages.likelihood.stage.main(trained, images=tmp_path, figures=tmp_path, **files)
    assert "no image a probability" in json.loads(files["details"].read_text())["absent"]
    assert [file.name for file in (tmp_path / "noise_loss").iterdir()] == [NOTE]
    with pytest.raises(ConfigError, match="has the generator of a GAN, where a diffusion model is wanted"):
        load_model(trained, read_params(), torch.device("cpu"), "float32")


def test_weights_say_what_they_are_and_with_which_code(trained: Path) -> None:
    settings = read_metadata(trained / "raw.safetensors")
    assert settings["kind"] == "gan"
    assert settings["classes"] == list(CLASSES)
    assert settings["class_counts"] == [16, 16, 16]
    assert settings["code"].keys() == {"ddpm.gan.networks"}
    model = load_gan(trained, read_params(), torch.device("cpu"), "float32")
    assert model.at_once == 64
