"""The stage `evaluate` on a few drawn churches, and the weights of Inception."""

import io
import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import PREPROCESSING, churches
from support import WriteParams
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from stages.evaluate import stage as evaluate
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.inception import DIMENSIONS, inception_features, load_inception
from stages.kit import inception as _inception
from stages.kit.errors import StageError
from stages.kit.files import digest
from stages.kit.params import read_params
from stages.kit.parts import Parts
from stages.kit.runtime import RuntimeConfig
from stages.shared.files.formats import write_safetensors

TIMES = ["day", "night"]
CHANGES = {"model": "smoke", "runtime.device": "cpu", "runtime.threads": 1}
FIGURES = ("metrics", "colours", "factors")


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
    assert "here are 8 and 28" in found["frechet"]["fd_alexnet"]["refused"]
    assert "2,048 features" in found["frechet"]["fid_inception"]["refused"]
    time = found["factors"]["time"]
    assert (time["classes"], time["samples"]["covered"]) == (2, 2)
    assert time["accuracy"]["value"] == 1
    assert time["samples"]["distance"] == {"value": 0, "low": 0, "high": time["samples"]["distance"]["high"], "n": 8}
    assert {path.stem for path in (folder / "a").glob("*.svg")} == set(FIGURES)
    assert list(found["samples_to_training"]) == ["kid_alexnet", "precision_alexnet", "recall_alexnet"]
    assert (found["held_out_images"], found["training_images"]) == (12, 8)
    assert "categories" not in found
    assert evaluated(folder, "b") == found
    assert all(path.read_bytes() == (folder / "b" / path.name).read_bytes() for path in (folder / "a").iterdir())


def test_without_drawn_factors_there_is_nothing_of_them(folder: Path) -> None:
    write_index(folder / "val.csv", 12)
    assert "factors" not in evaluated(folder, "a")
    assert (folder / "a" / "factors.svg").exists()


def test_samples_are_compared_with_training_images_too(folder: Path) -> None:
    """Copies of training images are nearer to these than to held-out ones, and all lie among them."""
    np.save(folder / "samples.npy", np.load(folder / "train.npy"))
    write_index(folder / "samples.csv", 28)
    found = evaluated(folder, "a")
    to_training, to_held_out = (found[name] for name in ("samples_to_training", "samples"))
    assert to_training["kid_alexnet"]["value"] < to_held_out["kid_alexnet"]["value"]
    assert to_training["recall_alexnet"]["value"] == 1


def test_each_category_is_compared_with_its_own(folder: Path) -> None:
    """Dark samples and bright ones, in equal parts: with the categories swapped they are far from their own."""

    def categories(name: str, *, swapped: bool = False) -> None:
        table = pd.read_csv(folder / f"{name}.csv").sort_values("row")
        table["category"] = np.where((table["row"] % 2 == 0) != swapped, "dark", "bright")
        table.to_csv(folder / f"{name}.csv", index=False)

    for name in ("train", "val", "samples"):
        categories(name)
    own = evaluated(folder, "a")["categories"]
    assert list(own) == ["bright", "dark"]
    assert sum(each["real"]["kid_alexnet"]["n"] for each in own.values()) == 8
    assert own["dark"]["samples"]["recall_alexnet"]["n"] == 6
    assert own["dark"]["samples"]["kid_alexnet"]["value"] != own["bright"]["samples"]["kid_alexnet"]["value"]
    categories("samples", swapped=True)
    other = evaluated(folder, "b")["categories"]
    for name, each in other.items():
        assert each["samples"]["kid_alexnet"]["value"] > own[name]["samples"]["kid_alexnet"]["value"]


def test_categories_are_strata_where_as_many_of_each_were_drawn() -> None:
    """Where chance decided how many, it belongs to the interval."""
    equal, by_chance = (pd.DataFrame({"category": names}) for names in (["a", "b", "a"], ["a", "a", "a", "b"]))
    assert list(evaluate.strata_of(equal)) == ["a", "b", "a"]
    assert evaluate.strata_of(by_chance) is None
    assert evaluate.strata_of(pd.DataFrame({"row": [0]})) is None


def test_too_few_images_are_refused(folder: Path, write_params: WriteParams) -> None:
    write_params({**CHANGES, "evaluate.neighbourhood": 8})
    with pytest.raises(StageError, match=r"samples.npy: 8 images to compare; evaluate.neighbourhood = 8 needs 9"):
        evaluated(folder, "a")
    assert not (folder / "a").exists()


def accept(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Take the file at PATH for the one that has the right digest, because that one can't be had everywhere."""
    monkeypatch.setattr(_inception, "BYTES", path.stat().st_size)
    monkeypatch.setattr(_inception, "DIGEST", digest(path))


@pytest.fixture(scope="module")
def network() -> FeatureExtractorInceptionV3:
    """With random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        empty = io.BytesIO()
        torch.save({}, empty)
        empty.seek(0)
        return FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=empty)


def test_inception_s_weights_lie_in_the_checkout_and_give_its_features(
    network: FeatureExtractorInceptionV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `dvc exp run --temp`, where the stage runs in another folder."""
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    accept(monkeypatch, tmp_path / "weights.pth")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir("/")
    found = inception_features(load_inception(Path("weights.pth"), torch.device("cpu")), churches()[:2], 2)
    assert found.shape == (2, DIMENSIONS)
    assert torch.equal(found, network(torch.from_numpy(churches()[:2]).permute(0, 3, 1, 2))[0])


def test_inception_s_features_are_computed_once(
    network: FeatureExtractorInceptionV3, write_params: WriteParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a run before has kept are taken."""
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    accept(monkeypatch, tmp_path / "weights.pth")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    write_params({**CHANGES, "evaluate.inception": "weights.pth"})
    params = read_params()
    sets: Any = SimpleNamespace(images={"samples": churches()[:2], "train": churches()[2:5]})
    config, runtime = params.section(EvaluateConfig, "evaluate"), params.section(RuntimeConfig, "runtime")
    features = evaluate.inception_of(config, Parts(tmp_path), sets, runtime, torch.device("cpu"))
    assert features is not None
    ours, train = features()
    assert [part.shape for part in (ours, train)] == [(2, DIMENSIONS), (3, DIMENSIONS)]
    Parts(tmp_path).save("inception samples", {"features": np.zeros((2, DIMENSIONS), np.float32)})
    ours, again = features()
    assert not ours.any()
    assert torch.equal(again, train)


class Forged:
    """A pickle of it makes a file where it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("ran",)


def test_a_forged_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if its digest were right."""
    monkeypatch.chdir(tmp_path)
    for write in (
        lambda: Path("a.pth").write_bytes(pickle.dumps(Forged(), protocol=2)),
        lambda: torch.save(Forged(), "a.pth"),
    ):
        write()
        accept(monkeypatch, Path("a.pth"))
        with pytest.raises(StageError, match=r"a\.pth: not read, because it holds more than tensors: [^\n]+$"):
            load_inception(Path("a.pth"), torch.device("cpu"))
        assert not Path("ran").exists()


def test_another_file_is_refused_before_anything_is_measured(folder: Path, write_params: WriteParams) -> None:
    """All digits of its digest count, also where there are too few images for FID."""
    write_params({**CHANGES, "evaluate.inception": "a.pth"})
    with pytest.raises(StageError, match=r"inception = a\.pth: no such file \(looked for /.*/a\.pth\); take weights-"):
        evaluated(folder, "a")
    (folder / "a.pth").touch()
    with pytest.raises(StageError, match=r"0 bytes, not 95,628,359"):
        evaluated(folder, "a")
    os.truncate(folder / "a.pth", 95_628_359)
    with pytest.raises(StageError, match=r"its SHA-256 is [0-9a-f]{64}, not 6726825d[0-9a-f]{56}; take weights-"):
        evaluated(folder, "a")
    assert not (folder / "a").exists()
