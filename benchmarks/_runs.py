"""Ordinary runs of the pipeline in a clone, and what benchmarks keep of them: samples, weights and what the run says.

In the folder PLACE of a run, `samples`, `latents`, `model`, `tuned` and `gan` are those of `data/` that it has made.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from benchmarks._clone import Clone
from benchmarks._judges import ROOT
from benchmarks.quality_time import summary
from stages.kit.params import read_params, read_value
from stages.kit.progress import progress
from stages.sample.draw import Draws, prepare
from stages.sample.gan import prepare_gan

WEIGHTS = {"autoencode": "latents", "train": "model", "tune": "tuned", "gan": "gan"}
"""The stages that train, and the folders in `data/` that have their weights."""
TIMED = 64
"""Images that are timed, as many as the report drew."""


def clone_in(folder: Path) -> Clone:
    """The clone that lies in FOLDER; a new one of the repository as it stands, where there is none."""
    return Clone.at(folder) if folder.exists() else Clone(folder)


def ran(clone: Clone, options: Sequence[str], place: Path, spent: Path, last: str = "rank") -> dict[str, Any]:
    """Run the pipeline with these OPTIONS, as `dvc exp run -S` takes them, and keep what it made in PLACE.

    It ends with the stage `rank`, or with `sample` where that is the LAST one to run.

    Returns:
        Minutes of training, of which the file SPENT keeps account, and what `told` has.
    """
    clone.git("checkout", "-q", "params.yaml")
    call(clone, "exp", "run", "extract", *[part for each in options for part in ("-S", each)])
    minutes = sum(minutes_of(clone, stage, spent) for stage in WEIGHTS)
    call(clone, "repro", last)
    trained = [stage for stage in WEIGHTS if weights_in(clone, stage)]
    for kept in ("samples", *(WEIGHTS[stage] for stage in trained)):
        shutil.copytree(clone.folder / "data" / kept, place / kept, dirs_exist_ok=True)
    return {"minutes": round(minutes, 1), **told(clone.folder, trained, ranked=last == "rank")}


def call(clone: Clone, *arguments: str) -> None:
    """Run `dvc ...` in the clone, with all that it says.

    Raises:
        SystemExit: it failed.
    """
    print(f"{clone.folder.relative_to(ROOT)}: dvc {' '.join(arguments)}", flush=True)
    if clone.start(*arguments).wait():
        raise SystemExit(f"dvc {' '.join(arguments)} failed in {clone.folder}")


def weights_in(clone: Clone, stage: str) -> list[Path]:
    """The files of weights that a stage has left, none if it had nothing to do."""
    return sorted((clone.folder / "data" / WEIGHTS[stage]).glob("*.safetensors"))


def minutes_of(clone: Clone, stage: str, file: Path) -> float:
    """Bring a stage up to date; the minutes that this took when its weights were made, 0 if it makes none.

    Of what was interrupted all sittings count. FILE keeps account.
    """
    spent: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    started = time.perf_counter()
    try:
        call(clone, "repro", stage)
    finally:
        spent["pending"] = spent.get("pending", 0.0) + (time.perf_counter() - started) / 60
        file.write_text(json.dumps(spent))
    pending = spent.pop("pending")
    lock = YAML(typ="safe").load(clone.folder / "dvc.lock")["stages"][stage]
    minutes = spent.setdefault(lock["outs"][0]["md5"], pending) if weights_in(clone, stage) else 0.0
    file.write_text(json.dumps(spent))
    return minutes


def told(folder: Path, trained: Sequence[str], *, ranked: bool) -> dict[str, Any]:
    """What the run in a clone says of itself, in which these stages have trained, and whose samples may be `ranked`."""
    params = YAML(typ="safe").load(folder / "params.yaml")
    model = params["models"][params["model"]]
    stages = [*trained, "rank"] if ranked else trained
    details = {name: json.loads((folder / f"reports/details/{name}.json").read_text()) for name in stages}
    recipes = {stage: (model["autoencoder"] if stage == "autoencode" else model)["recipe"] for stage in trained}
    batches = {stage: recipe["batch_images"] for stage, recipe in recipes.items()}
    if "tune" in batches:
        batches["tune"] = params["tune"]["batch_images"] or batches["tune"]
    found = {
        "images": sum(details[stage]["steps"] * batch for stage, batch in batches.items()),
        "parameters": sum(details[stage]["parameters"] for stage in trained if stage != "tune"),
    }
    if ranked:
        found |= {"place": details["rank"]["percentile"]["mean"], "copies": details["rank"]["copies"]["samples"]}
    return found


def samples_of(place: Path) -> np.ndarray:
    """The samples of a run, uint8 `[N, H, W, 3]`."""
    samples: np.ndarray = np.load(place / "samples/samples.npy")
    return samples


def drawing_of(place: Path, options: Sequence[str]) -> Draws:
    """The way from noise to `TIMED` images of the run with these OPTIONS that is kept in PLACE."""
    changes: dict[str, dict[str, Any]] = {"sample": {"count": TIMED}, "runtime": {}}
    for each in options:
        name, _, text = each.partition("=")
        section, _, key = name.partition(".")
        if section in changes:
            changes[section][key] = read_value(text, name, listed=False)
    params, latents = read_params(changes), place / "latents"
    if (place / "gan").exists():
        return prepare_gan(place / "gan", params)
    weights = next(folder for folder in (place / "tuned", place / "model") if folder.exists())
    return prepare(weights, params, latents if latents.exists() else None)


def seconds_of(drawings: Mapping[str, Draws], repeats: int, once: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Seconds for `TIMED` images of each, in turn, so that a busy moment falls on all; of those in `once` in one round.

    From noise to pixels, without the start of a process.
    """
    seconds: dict[str, list[float]] = {name: [] for name in drawings}
    several = [name for name in drawings if name not in once]
    turns = [*drawings, *several * (repeats - 1)]
    with progress(len(turns), "run") as bar:
        for name in several:
            drawings[name].images(range(TIMED), lambda *_: None)  # the first call of all takes longer
        for name in turns:
            started = time.perf_counter()
            drawings[name].images(range(TIMED), lambda *_: None)
            seconds[name].append(time.perf_counter() - started)
            bar.update()
    return {name: summary(each) for name, each in seconds.items()}
