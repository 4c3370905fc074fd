"""The stage `rank`: copies among the samples are found, near duplicates in the data mislead nobody, processes share."""

import io
import json
import os
import runpy
import socket
import sys
from contextlib import closing
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import churches, unseen, write_duplicates, write_set
from PIL import Image
from support import WriteParams
from torch import Tensor

from ddpm.config import ConfigError
from stages.kit.errors import StageError
from stages.rank import stage as rank
from stages.rank.sets import open_sets
from stages.rank.yardsticks import best_of_batches
from stages.shared.files.formats import write_safetensors

SMALL = {"rank.batches": 2, "rank.flag_rate": 0.05, "runtime.device": "cpu", "runtime.threads": 1}
OUTPUTS = ("neighbours.csv", "rank.json", "distances.csv", "best.png", "selections.png", "nearest.svg")


def jpeg(image: np.ndarray) -> np.ndarray:
    Image.fromarray(image).save(buffer := io.BytesIO(), "jpeg", quality=75)
    return np.asarray(Image.open(buffer))


def planted() -> np.ndarray:
    """Copies of the training images 0 to 5, `[6, 48, 48, 3]`."""
    exact, flipped, right, down, encoded, bright = churches()[:6]
    right, down = np.roll(right, 1, axis=1), np.roll(down, 1, axis=0)
    return np.stack([exact, flipped[:, ::-1], right, down, jpeg(encoded), np.clip(bright * 1.02, 0, 255).round()])


@pytest.fixture
def folder(tmp_path: Path, write_params: WriteParams, backbone: dict[str, Tensor]) -> Path:
    """48 training and 48 held-out churches; of 12 samples the first six are copies."""
    write_params(SMALL)
    write_set(tmp_path / "samples", np.concatenate([planted(), unseen()[54:60]]))
    write_set(tmp_path / "train", churches())
    write_set(tmp_path / "val", unseen()[:48])
    write_duplicates(tmp_path / "duplicates.csv")
    write_safetensors(tmp_path / "backbone.safetensors", backbone, {"net": "alex"})
    return tmp_path


def options(folder: Path, out: str) -> dict[str, Path]:
    """Those of the stage, with images and samples in `folder` and all outputs in the folder `out`."""
    files = dict(zip(("neighbours", "details", "distances"), OUTPUTS, strict=False))
    written = {name: folder / out / file for name, file in files.items()}
    backbone = folder / "backbone.safetensors"
    return {"samples": folder, "images": folder, "backbone": backbone, **written, "figures": folder / out}


def test_copies_are_flagged_and_not_offered(folder: Path) -> None:
    said = rank.main(**options(folder, "out"))
    assert said.startswith("LPIPS of the best 6: 0.000 to 0.")
    table = pd.read_csv(folder / "out" / "neighbours.csv").sort_values("sample").reset_index(drop=True)
    assert table["flagged"].tolist() == [1] * 6 + [0] * 6
    assert table["original"][:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert (table["p_value"][:6] <= 0.05).all()
    assert table["distance"][:2].tolist() == [0, 0]
    assert table["mirrored"][:2].tolist() == [0, 1]
    curves = pd.read_csv(folder / "out" / "distances.csv").set_index(["set", "share"])["distance"]
    assert {name: len(part) for name, part in curves.groupby("set")} == dict.fromkeys(rank.SETS, 101)
    assert curves["samples", 0.5] == pytest.approx(table["distance"].median(), abs=1e-6)
    metrics = json.loads((folder / "out" / "rank.json").read_text())
    assert [curves["held_out", share] for share in (0, 0.5, 1)] == pytest.approx(
        [metrics["held_out"][name] for name in ("min", "median", "max")], abs=1e-6
    )
    assert metrics["copies"]["samples"] | {"low": 0, "high": 1} == {"value": 0.5, "low": 0, "high": 1, "n": 12}
    assert metrics["copies"]["held_out"]["value"] <= 0.05
    counts = {"best": 6, "samples": 12, "held_out": 48, "left_out": 48, "batches": 24, "best_unseen": 6}
    assert {name: metrics[name]["n"] for name in counts} == counts
    assert metrics["best"]["flagged"] >= 4
    assert metrics["batch_means"]["n"] == 2
    assert metrics["batch_means"]["max"] < metrics["batches"]["max"], "means of batches"
    held_out = metrics["best_of_held_out"]
    assert {name: each["n"] for name, each in held_out.items()} == dict.fromkeys(("lowest", "mean", "highest"), 4)
    assert held_out["lowest"]["min"] == metrics["held_out"]["min"]
    assert metrics["best_unseen"]["max"] == pytest.approx(table["held_out_distance"][6:].max(), abs=1e-6)


def test_the_best_of_batches_are_those_of_each() -> None:
    """Of three batches of four, whose two nearest are known: each image is in one batch."""
    distances = np.arange(12.0)
    found = best_of_batches(distances, size=4, best=4, seed=0)
    assert found["lowest"]["min"] == 0
    assert found["highest"]["max"] == 11
    assert found["mean"]["mean"] == pytest.approx(5.5), "all images count where all are taken"
    two = best_of_batches(distances, size=12, best=2, seed=0)
    assert [two[name]["mean"] for name in ("lowest", "mean", "highest")] == [0, 0.5, 1]
    assert best_of_batches(distances, size=13, best=2, seed=0)["mean"] == {"n": 0}


def test_of_samples_that_all_are_copies_none_is_offered(folder: Path, write_params: WriteParams) -> None:
    write_params({**SMALL, "rank.best": 2})
    write_set(folder / "samples", churches()[:3])
    rank.main(**options(folder, "out"))
    assert json.loads((folder / "out" / "rank.json").read_text())["best_unseen"] == {"n": 0}


def test_near_duplicates_are_told_apart(folder: Path) -> None:
    """Training images 7 and 9 repeat 2; 11 is held out as well, as row 40."""
    write_duplicates(folder / "duplicates.csv", (7, "train", 2), (9, "train", 2), (11, "val", 40), (99, "train", 2))
    sets = open_sets(folder, folder, count=10, seed=0)
    assert len(sets.samples) == 10
    assert sets.group[[2, 7, 9, 11]].tolist() == [2, 2, 2, 11]
    assert 40 not in sets.held_out
    assert len(sets.held_out) == 47
    assert {2, 7, 9}.isdisjoint(sets.left_out)
    assert len(sets.left_out) == 45


@pytest.mark.parametrize(
    "pairs",
    [[(row, "val", row) for row in range(48)], [(row, "train", 0) for row in range(1, 48)]],
    ids=["no held-out image is new", "all training images are alike"],
)
def test_frames_of_one_video_are_ranked_and_none_is_flagged(folder: Path, pairs: list[tuple[int, str, int]]) -> None:
    write_set(folder / "val", churches())
    write_duplicates(folder / "duplicates.csv", *pairs)
    sets = open_sets(folder, folder, count=10, seed=0)
    assert sets.repeated
    assert (len(sets.held_out), len(sets.left_out)) == (48, 48)
    rank.main(**options(folder, "out"))
    copies = json.loads((folder / "out" / "rank.json").read_text())["copies"]
    assert (copies["rate"], copies["limit"], copies["samples"]["value"]) == (0, 0, 0)


def test_the_second_neighbour_is_no_duplicate_of_the_first(folder: Path) -> None:
    images = churches().copy()
    images[[20, 30]] = images[0] + np.uint8(1)
    write_set(folder / "train", images)
    write_duplicates(folder / "duplicates.csv", (20, "train", 0), (30, "train", 0))
    rank.main(**options(folder, "out"))
    first = pd.read_csv(folder / "out" / "neighbours.csv").set_index("sample").loc[0]
    assert first["neighbour"] == 0
    assert first["second_neighbour"] not in (20, 30)
    assert first["second_distance"] > 0.01


def _main(folder: Path, out: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["rank", *(word for name, path in options(folder, out).items() for word in (f"--{name}", str(path)))]
    runpy.run_module("stages.rank", run_name="__main__", alter_sys=True)


def test_two_processes_write_what_one_writes(folder: Path, processes: ForkServerContext) -> None:
    write_set(folder / "train", np.concatenate([churches(), churches() // 2, 255 - churches()]))  # more than one block
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused.getsockname()[1]), "WORLD_SIZE": "2"}
    two = [{**where, "RANK": number, "LOCAL_RANK": number} for number in ("0", "1")]
    calls = [("one", {}), *(("two", environment) for environment in two)]
    started = [processes.Process(target=_main, args=(folder, *call)) for call in calls]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0]
    one, two = ({name: (folder / out / name).read_bytes() for name in OUTPUTS} for out in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rank.best": 13}, StageError, "rank.best = 13: .* has 12 to rank"),
        ({"rank.flag_rate": 0.0}, ConfigError, "rank.flag_rate = 0.0: input should be greater than 0"),
        ({"rank.input_size": 8}, ConfigError, "rank.input_size = 8: input should be greater than or equal to 32"),
    ],
)
def test_what_cannot_be_ranked_is_one_line(
    folder: Path, write_params: WriteParams, change: dict, error: type[Exception], message: str
) -> None:
    write_params({**SMALL, **change})
    with pytest.raises(error, match=message):
        rank.main(**options(folder, "out"))
    assert not (folder / "out").exists()


def test_too_few_images_are_refused(folder: Path) -> None:
    write_set(folder / "val", unseen()[:2])
    with pytest.raises(StageError, match=r"val.npy: 2 images; rank needs 3"):
        rank.main(**options(folder, "out"))
