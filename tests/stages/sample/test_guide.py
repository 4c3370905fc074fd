"""Weights of a weaker model that guide the sampling of another, also where no classes are known."""

from pathlib import Path

import numpy as np
import pytest
from support import WriteParams
from test_sample_stage import SMALL, drawing, ignore, write_model

from ddpm.config import ConfigError, parse
from ddpm.diffusion.unet import UNet, UNetConfig
from stages.shared.files.formats import read_safetensors, write_safetensors


@pytest.fixture
def folder(tmp_path: Path, write_params: WriteParams) -> Path:
    """With a model without classes in `model/`, and one with half its weights in `weak/`."""
    write_params(SMALL)
    write_model(tmp_path / "model", [])
    change_weak(tmp_path)
    return tmp_path


def change_weak(folder: Path, **settings: object) -> None:
    tensors, old = read_safetensors(folder / "model" / "ema_0.99.safetensors")
    halves = {name: tensor / 2 for name, tensor in tensors.items()}
    write_safetensors(folder / "weak" / "ema_0.99.safetensors", halves, {**old, **settings})


def test_a_guide_moves_the_samples_away_from_its_own(folder: Path) -> None:
    """With weight 0 they are its own; the file counts among what the samples are made of."""
    plain, guided = drawing(), drawing(guide="weak", guidance=1.5)
    weak = drawing(guide="weak", guidance=0.0).images([0], ignore).astype(float)
    images = [drawn.images([0], ignore).astype(float) for drawn in (plain, guided)]
    assert np.abs(images[0] - images[1]).max() > 1
    assert np.abs(images[1] - weak).mean() > np.abs(images[0] - weak).mean()
    assert plain.identity["guide"] != guided.identity["guide"]
    none = drawing(guide="weak", guidance=1.5, guidance_low=1e9).images([0], ignore)
    assert np.array_equal(none, images[0])


def test_a_narrower_model_guides(folder: Path) -> None:
    """Also where no model of params.yaml has its network, and it doesn't say how it is sampled from."""
    _, settings = read_safetensors(folder / "model" / "ema_0.99.safetensors")
    network = UNet(parse(UNetConfig, {**settings["network"], "channels": 4}, "network"), 48)
    settings = {**settings, "network": {**settings["network"], "channels": 4}, "model": "smoke", "sampling": None}
    write_safetensors(folder / "weak" / "ema_0.99.safetensors", network.state_dict(), settings)
    assert drawing(guide="weak", guidance=1.5).model.guide is not None


def test_a_guide_that_can_not_guide_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"sample\.guide = weak: with sample\.guidance = 1 it guides nothing"):
        drawing(guide="weak")
    with pytest.raises(ConfigError, match=r"sample\.guide: .*nowhere: no such file or folder"):
        drawing(guide="nowhere", guidance=2.0)
    with pytest.raises(ConfigError, match=r"the model knows no classes; .* where there is no guide"):
        drawing(guidance=2.0)
    change_weak(folder, image_recipe="48-squash-bilinear")
    with pytest.raises(ConfigError, match="has preprocessing 48-squash-bilinear, the model 48-center_crop"):
        drawing(guide="weak", guidance=2.0)
    change_weak(folder, classes=["tower"])
    with pytest.raises(ConfigError, match=r"has classes \['tower'\], the model \[\]"):
        drawing(guide="weak", guidance=2.0)
    change_weak(folder, diffusion={"steps": 1000, "schedule": "cosine", "beta_start": 1e-4, "beta_end": 0.02})
    with pytest.raises(ConfigError, match="was trained with another `diffusion` than the model"):
        drawing(guide="weak", guidance=2.0)
