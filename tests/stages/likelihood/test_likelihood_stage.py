"""The stage `likelihood` on a few drawn churches."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from drawn import PREPROCESSING, churches, write_set
from support import WriteParams
from trainers import outputs

from ddpm.config import parse
from ddpm.diffusion.unet import UNet, UNetConfig
from stages.kit.errors import StageError
from stages.kit.params import read_params
from stages.likelihood import stage as likelihood
from stages.shared.files.formats import write_safetensors

NETWORK = {
    "channels": 8, "multipliers": [1, 2], "attention": [6], "blocks": 1, "dropout": 0.0, "patch": 4,
    "groups": 4, "conditional": True, "initial": "xavier",
}  # fmt: skip
CHANGES = {
    "model": "smoke",
    "likelihood": {"images": 8, "bins": 3, "draws": 1, "seed": 0},
    "runtime.device": "cpu",
    "runtime.threads": 1,
}


@pytest.fixture
def folder(tmp_path: Path, write_params: WriteParams) -> Path:
    """With twelve held-out images."""
    write_params(CHANGES)
    write_set(tmp_path / "val", churches()[28:40])
    return tmp_path


def write_model(folder: Path, classes: list[str]) -> None:
    torch.manual_seed(0)
    network = {**NETWORK, "conditional": bool(classes)}
    tensors = UNet(parse(UNetConfig, network, "network"), 48, len(classes)).state_dict()
    settings = {
        "network": network,
        "recipe": {"target": "v"},
        "diffusion": {"steps": 100, "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        "size": 48,
        "image_recipe": PREPROCESSING.name,
        "classes": classes,
        "sampling": read_params().mapping("models", "smoke", "sampling"),
    }
    write_safetensors(folder / "model" / "ema_0.99.safetensors", tensors, settings)


def bounded(folder: Path, out: str) -> tuple[dict, pd.DataFrame]:
    details, levels = folder / out / "likelihood.json", folder / out / "noise_loss.csv"
    likelihood.main(folder / "model", images=folder, details=details, levels=levels, figures=folder / out)
    return json.loads(details.read_text()), pd.read_csv(levels)


@pytest.mark.parametrize("classes", [[], ["tower", "church"]])
def test_bits_are_those_of_the_table(folder: Path, classes: list[str]) -> None:
    write_model(folder, classes)
    found, table = bounded(folder, "a")
    bits = found["bits_per_dim"]
    parts = [bits[name]["value"] for name in ("prior", "steps", "decoder")]
    assert bits["total"]["value"] == pytest.approx(sum(parts), rel=1e-5)
    assert table["bits"].sum() == pytest.approx(bits["steps"]["value"] + bits["decoder"]["value"], rel=1e-5)
    assert list(table["first_step"][1:]) == list(table["last_step"][:-1] + 1)
    steps = table["last_step"] - table["first_step"] + 1
    assert found["simple_loss"]["value"] == pytest.approx((table["eps_error"] * steps).sum() / 100, rel=1e-5)
    assert set(table["n"]) == {8}
    bounded(folder, "b")
    assert outputs(folder / "a") == outputs(folder / "b")


def test_a_category_that_the_model_does_not_know_is_named(folder: Path) -> None:
    write_model(folder, ["tower", "bridge"])
    with pytest.raises(StageError, match=r"val\.csv: images of church; the model knows tower, bridge"):
        bounded(folder, "a")
