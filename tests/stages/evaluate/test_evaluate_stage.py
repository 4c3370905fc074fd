"""The stage `evaluate` on a few drawn churches, and the weights of Inception."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import PREPROCESSING, churches
from PIL import Image
from support import WriteParams
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from stages.evaluate import inception as _inception
from stages.evaluate import stage as evaluate
from stages.kit.errors import StageError
from stages.shared.formats import write_safetensors

TIMES = ["day", "night"]
CHANGES = {"model": "smoke", "runtime.device": "cpu", "runtime.threads": 1}
FIGURES = ("kid", "precision_recall", "diversity", "colours", "factors")


@pytest.fixture
def folder(tmp_path: Path, write_params: WriteParams, backbone: dict[str, Tensor]) -> Path:
    """With images and their tables; half of them are dark, and their tables say so."""
    write_params(CHANGES)
    images = churches().copy()
    images[::2] //= 3
    for name, rows in {"train": slice(0, 28), "val": slice(28, 40), "samples": slice(40, 48)}.items():
        np.save(tmp_path / f"{name}.npy", images[rows])
        write_index(tmp_path / f"{name}.csv", len(images[rows]), time=[TIMES[row % 2] for row in range(48)[rows]][::-1])
    write_safetensors(tmp_path / "backbone.safetensors", backbone, {"net": "alex"})
    return tmp_path


def write_index(path: Path, count: int, **columns: list[str]) -> None:
    """The last image stands first in the table."""
    table = {"row": range(count - 1, -1, -1), "category": "church", "label": 0, "preprocessing": PREPROCESSING.name}
    pd.DataFrame(table).assign(**columns).to_csv(path, index=False)


def evaluated(folder: Path, out: str) -> dict:
    written = {"details": folder / out / "evaluate.json", "figures": folder / out}
    evaluate.main(samples=folder, images=folder, backbone=folder / "backbone.safetensors", **written)
    return json.loads((folder / out / "evaluate.json").read_text())


def test_samples_and_real_images_are_measured_alike(folder: Path) -> None:
    found = evaluated(folder, "a")
    assert list(found["samples"]) == list(found["real"])
    assert found["samples"]["kid_alexnet"]["n"] == found["real"]["kid_alexnet"]["n"] == 8
    drift = found["samples"]["colour_drift"]["mean"]["red"]
    assert drift["low"] < drift["value"] < drift["high"]
    assert "8 samples and 28 real images" in found["frechet"]["fd_alexnet"]["refused"]
    assert "2,048 features" in found["frechet"]["fid_inception"]["refused"]
    time = found["factors"]["time"]
    assert (time["classes"], time["samples"]["covered"]) == (2, 2)
    assert time["accuracy"]["value"] == 1
    assert time["samples"]["distance"] == {"value": 0, "low": 0, "high": time["samples"]["distance"]["high"], "n": 8}
    assert all(Image.open(folder / "a" / f"{name}.png").width == 792 for name in FIGURES)
    assert evaluated(folder, "b") == found
    assert all(path.read_bytes() == (folder / "b" / path.name).read_bytes() for path in (folder / "a").iterdir())


def test_without_drawn_factors_there_is_nothing_of_them(folder: Path) -> None:
    write_index(folder / "val.csv", 12)
    assert "factors" not in evaluated(folder, "a")
    assert (folder / "a" / "factors.png").exists()


def test_too_few_images_are_refused(folder: Path, write_params: WriteParams) -> None:
    write_params({**CHANGES, "evaluate.neighbourhood": 8})
    with pytest.raises(StageError, match=r"8 images; evaluate.neighbourhood = 8 needs more"):
        evaluated(folder, "a")
    assert not (folder / "a").exists()


def test_inception_s_weights_are_held_to_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random ones, because the file can't be had everywhere."""
    path = tmp_path / "weights.pth"
    torch.save({}, path)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
    torch.save(network.state_dict(), path)
    with pytest.raises(StageError, match=r"weights\.pth: its SHA-256 starts with \w{8}, not 6726825d"):
        _inception.load_inception(path, torch.device("cpu"))
    monkeypatch.setattr(_inception, "DIGEST", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    loaded = _inception.load_inception(path, torch.device("cpu"))
    found = _inception.inception_features(loaded, churches()[:2])
    assert found.shape == (2, _inception.DIMENSIONS)
    assert torch.equal(found, network(torch.from_numpy(churches()[:2]).permute(0, 3, 1, 2))[0])
