"""The stage `autoencode` on a few drawn churches, and what comes after it for a model of latents."""

import json
import os
import runpy
import signal
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import unseen, write_images, write_set
from support import WriteParams
from torch import Tensor
from trainers import Trainers, outputs

from ddpm.autoencoder.network import LATENT_STD
from ddpm.config import ConfigError
from stages.autoencode import stage as autoencode
from stages.evaluate import stage as evaluate
from stages.kit.errors import StageError
from stages.likelihood import stage as likelihood
from stages.sample import stage as sample
from stages.shared.files.absent import NOTE
from stages.shared.files.formats import read_metadata, read_safetensors, write_safetensors
from stages.train import stage as train

SMALL = {
    "model": "latent",
    "epochs": 1,
    "models.latent.network.channels": 8,
    "models.latent.recipe.batch_images": 16,
    "models.latent.autoencoder.network.channels": 8,
    "models.latent.autoencoder.recipe.epochs": 4,
    "models.latent.autoencoder.recipe.batch_images": 8,
    "models.latent.autoencoder.recipe.learning_rate": 0.003,
    "models.latent.autoencoder.recipe.warmup_steps": 2,
    "sample.count": 8,
    "sample.steps": 3,
    "likelihood.images": 4,
    "likelihood.bins": 2,
    "train.precision": "float32",
    "runtime.device": "cpu",
    "runtime.threads": 1,
    "runtime.save_every_seconds": 0,
}


@pytest.fixture
def folder(
    tmp_path: Path, write_params: WriteParams, backbone: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """48 training and 12 held-out images, these from dark to bright as if by category, and LPIPS."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    write_params(SMALL)
    write_images(tmp_path)
    held_out = unseen()[:12]
    write_set(tmp_path / "val", held_out[np.argsort(held_out.mean((1, 2, 3)))])
    write_safetensors(tmp_path / "backbone.safetensors", backbone, {"net": "alex"})
    return tmp_path


def run(out: Path = Path("out")) -> str:
    written = {"latents": out / "latents", "details": out / "autoencode.json", "losses": out / "loss.csv"}
    return autoencode.main(images=Path(), **written)


def test_two_processes_train_what_one_does(processes: ForkServerContext, folder: Path) -> None:
    autoencoders = Trainers(processes, folder, "autoencode")
    assert autoencoders.run("one", root="a")[0] == 0
    assert autoencoders.run_two("two", root="b")[0] == [0, 0]
    one, two = (pd.read_csv(folder / out / "loss.csv") for out in ("one", "two"))
    assert np.allclose(one, two, rtol=1e-3, atol=1e-5)
    assert outputs(folder / "one").keys() == outputs(folder / "two").keys()


def trained(latents: Path | None) -> str:
    written = {"model": Path("model"), "details": Path("train.json"), "losses": Path("loss.csv")}
    return train.main(images=Path(), latents=latents, **written)


def judged(latents: Path, details: Path) -> str:
    places = {"samples": Path("samples"), "images": Path(), "latents": latents, "figures": Path("judged")}
    return evaluate.main(backbone=Path("backbone.safetensors"), details=details, **places)


def drawn(latents: Path | None) -> np.ndarray:
    sample.main(Path("model"), changes={}, latents=latents, images=Path(), samples=Path("samples"), figures=Path())
    return np.load("samples/samples.npy")


def test_for_a_model_of_pixels_there_is_nothing_to_do(folder: Path, write_params: WriteParams) -> None:
    write_params({})
    (folder / "out" / "latents").mkdir(parents=True)
    (folder / "out" / "latents" / "train.npy").touch()  # of the model before
    assert run() == "nothing to do: models.tiny learns pixels, not latents"
    assert [file.name for file in (folder / "out" / "latents").iterdir()] == [NOTE]
    assert json.loads((folder / "out" / "autoencode.json").read_text()) == {
        "absent": "models.tiny learns pixels, not latents"
    }
    assert list(pd.read_csv(folder / "out" / "loss.csv")) == ["epoch", "step", "loss", "learning_rate"]


@pytest.mark.slow
def test_latents_are_learnt_drawn_and_evaluated(folder: Path) -> None:
    """Normalised over both orientations; samples are images; and no other autoencoder decodes them."""
    run()
    latents = folder / "out" / "latents"
    array = np.load(latents / "train.npy")
    assert (array.shape, array.dtype) == ((48, 2, 4, 12, 12), np.float32)
    assert np.allclose(array.mean((0, 1, 3, 4)), 0, atol=1e-3)
    assert np.allclose(array.std((0, 1, 3, 4)), LATENT_STD, rtol=1e-3)
    found = json.loads((folder / "out" / "autoencode.json").read_text())
    assert (found["shape"], found["steps"], found["held_out_images"]) == ([4, 12, 12], 24, 12)
    assert len(found["channels"]) == 4
    code = read_metadata(latents / "autoencoder.safetensors")["code"]
    assert set(code) == {"ddpm.autoencoder.network", "ddpm.diffusion.blocks"}
    trained(latents)
    samples = drawn(latents)
    assert (samples.shape, samples.dtype) == ((8, 48, 48, 3), np.uint8)
    assert samples.std() > 0
    said = likelihood.main(
        Path("model"), latents=latents, images=Path(), details=Path("l.json"), levels=Path("l.csv"), figures=Path()
    )
    assert said.startswith("no bits/dim, losses of latents")
    evaluated = json.loads((folder / "l.json").read_text())
    assert "no pixels of 256 levels" in evaluated["absent"]
    assert evaluated["simple_loss"]["value"] > 0
    assert not {"bits", "bits_low"} & set(pd.read_csv(folder / "l.csv"))
    judged(latents, Path("e.json"))
    floor = json.loads((folder / "e.json").read_text())["autoencoder"]
    assert 5 < floor["psnr"]["value"] < 40
    assert floor["lpips"]["value"] > 0
    assert floor["kid"]["decoded"]["value"] > floor["kid"]["real"]["value"]
    assert floor["kid"]["real"]["value"] < 0.05  # 0.17 between the darker and the brighter half
    with pytest.raises(ConfigError, match="name the folder with their autoencoder"):
        drawn(None)
    file = latents / "autoencoder.safetensors"
    tensors, metadata = read_safetensors(file)
    write_safetensors(file, tensors, {**metadata, "seed": 1})
    with pytest.raises(ConfigError, match="another autoencoder than that of the latents"):
        drawn(latents)


def test_latents_that_are_missing_or_of_other_images_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="name their folder, as --latents data/latents"):
        trained(None)
    latents = folder / "latents"
    latents.mkdir()
    with pytest.raises(StageError, match=r"train.npy: not there.*`autoencode` writes it"):
        trained(latents)
    np.save(latents / "train.npy", np.zeros((47, 2, 4, 12, 12), np.float32))
    made = {"size": 48, "image_recipe": "48-center_crop-lanczos-0"}
    write_safetensors(latents / "autoencoder.safetensors", {"a": torch.zeros(1)}, made)
    with pytest.raises(StageError, match=r"latents of 47 images of 48 px .*, not of 48 images"):
        trained(latents)


def _killed(folder: Path) -> None:
    os.chdir(folder)
    os.environ["DVC_ROOT"] = str(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ddpm", "stages")]:
        del sys.modules[name]  # what the fork server has loaded beyond the stage counts as its code
    sys.argv = [
        "autoencode", "--images", ".", "--latents", "killed/latents",
        "--details", "killed/autoencode.json", "--losses", "killed/loss.csv",
    ]  # fmt: skip
    runpy.run_module("stages.autoencode", run_name="__main__", alter_sys=True)


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(
    folder: Path, write_params: WriteParams, processes: ForkServerContext
) -> None:
    write_params({**SMALL, "runtime.portable": False})
    whole = folder / "whole"
    process = processes.Process(target=_killed, args=(folder,))
    process.start()
    states = folder / ".cache" / "autoencode"
    while process.is_alive() and not list(states.glob("*/state.pt")):
        process.join(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    step = torch.load(next(states.glob("*/state.pt")), weights_only=True)["step"]
    assert 0 < step < 24
    again = processes.Process(target=_killed, args=(folder,))
    again.start()
    again.join()
    assert again.exitcode == 0
    (folder / "killed").rename(whole)
    for state in states.glob("*/*"):
        state.unlink()
    third = processes.Process(target=_killed, args=(folder,))
    third.start()
    third.join()
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert len(files) == 5
    for file in files:
        assert (whole / file).read_bytes() == (folder / "killed" / file).read_bytes(), file
