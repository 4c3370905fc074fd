"""Images of several sizes are judged at one, and a run of the pipeline tells what it took."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks._runs import told
from benchmarks.sizes import less, reduced, table
from ddpm.pictures.resizing import Preprocessing, resize


def test_all_sizes_are_judged_at_48_px() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    small = reduced(images)
    assert np.array_equal(small[2], resize(images[2], Preprocessing(size=48, geometry="center_crop", filter="lanczos")))
    assert reduced(small) is small


def test_what_is_nearer_to_the_held_out_images_has_the_lower_kid() -> None:
    near, far, held_out = (torch.randn(60, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    found = less([near, held_out], [far + 1, held_out])
    assert found["high"] < 0


def test_a_run_tells_all_of_its_trainings(tmp_path: Path) -> None:
    model = {"recipe": {"batch_images": 16}, "autoencoder": {"recipe": {"batch_images": 8}}}
    params = {"model": "latent", "models": {"latent": model}, "tune": {"batch_images": 4}}
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    details = {
        "autoencode": {"steps": 10, "parameters": 3},
        "train": {"steps": 100, "parameters": 5},
        "tune": {"steps": 1, "parameters": 5},
        "rank": {"percentile": {"mean": 0.5}, "copies": {"samples": {"value": 0.0}}},
    }
    (tmp_path / "reports/details").mkdir(parents=True)
    for stage, values in details.items():
        (tmp_path / f"reports/details/{stage}.json").write_text(json.dumps(values))
    found = told(tmp_path, ["autoencode", "train", "tune"], ranked=True)
    assert found == {"images": 80 + 1600 + 4, "parameters": 8, "place": 0.5, "copies": {"value": 0.0}}
    (tmp_path / "params.yaml").write_text(json.dumps({**params, "tune": {"batch_images": None}}))
    assert told(tmp_path, ["tune"], ranked=False) == {"images": 16, "parameters": 0}


@pytest.mark.parametrize(
    "floor", [None, {"kid": {"decoded": {"value": 0.1, "low": 0, "high": 1}}, "psnr": {"value": 30.0}}]
)
def test_a_row_has_a_cell_for_each_column(floor: dict[str, object] | None) -> None:
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    numbers = {"kid": estimate, "kid_difference": None, "precision": estimate, "recall": estimate}
    row = {"says": "latents", "seed": 1, "minutes": 3.0, "images": 5, "parameters": 7, "seconds": {"median": 8.0}}
    made = table([{**row, "own": numbers, "small": numbers, "autoencoder": floor}])
    head, _, line = made.splitlines()
    assert head.count("|") == line.count("|")
    assert "| 8.0 |" in line
