"""What each way to make images costs and how good it is: ordinary runs of the pipeline, judged alike.

    python -m benchmarks.comparison NAME ... --seeds 0 1   # entries of benchmarks/systems.yaml; none: all of them
    python -m benchmarks.comparison --only timing          # 64 images by each of those, in turn
    python -m benchmarks.comparison --table

Run it after `dvc repro`, whose held-out images and features judge. The runs are made in a clone in `.cache/comparison`,
with the seed of training replaced. What that has made, it need not make again, so that an interrupted comparison goes
on where it was; remove the folder when the code has changed. Samples of one number come from the same noise in all
systems that have a sampler. ΔKID is the KID of a system less that of `ancestral_1000` with the same seed, once that has
been run. Minutes are those of `dvc repro train`, `tune` and `gan`, so of a machine that does nothing else meanwhile.
All is kept in `benchmarks/comparison.json`.

Timing: from noise to pixels, without the start of a process; several times round, so that a busy moment falls on all.
1,000 ancestral steps take their turn in the first round alone.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

from benchmarks._clone import Clone
from benchmarks._judges import FEATURES, IMAGES, ROOT, alexnet, judge, reporting_images
from benchmarks.quality_time import machine, shown, summary
from benchmarks.ruler import commit
from ddpm.evaluation.metrics import kid, kid_difference
from ddpm.images import tile_grid
from stages.kit.params import read_params, read_value
from stages.kit.progress import progress
from stages.sample.draw import prepare
from stages.sample.gan import prepare_gan
from stages.shared.files.formats import write_json, write_npy, write_png
from stages.shared.models.gan import is_gan

SYSTEMS, FILE, CACHE = ROOT / "benchmarks/systems.yaml", ROOT / "benchmarks/comparison.json", ROOT / ".cache/comparison"
REFERENCE = "ancestral_1000"
TRAINING = ("train", "tune", "gan")
"""The stages that train, and have their weights in `data/model`, `data/tuned`, `data/gan`."""
WEIGHTS = {"train": "model", "tune": "tuned", "gan": "gan"}
TIMED = 64
"""Images that are timed, as many as the report drew."""


def main() -> None:
    systems: dict[str, dict[str, Any]] = YAML(typ="safe").load(SYSTEMS)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(systems))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training (0)")
    parser.add_argument("--only", choices=["quality", "timing"], help="(both)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of timing (3)")
    parser.add_argument("--table", action="store_true", help="print the table of what there is")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in systems]
    if unknown:
        parser.error(f"{unknown[0]}: not in {SYSTEMS.relative_to(ROOT)}")
    chosen = {name: systems[name] for name in arguments.names or systems}
    found: dict[str, Any] = {"machine": None, "rows": []}
    if FILE.exists():
        found = json.loads(FILE.read_text())
    if not arguments.table:
        if arguments.only != "timing":
            found["held_out_images"] = len(reporting_images())
            for seed in arguments.seeds:
                for name, system in chosen.items():
                    rows = replaced(found["rows"], quality(name, system, seed))
                    found["rows"] = sorted(rows, key=lambda row: (list(systems).index(row["system"]), row["seed"]))
                    write_json(FILE, found)
            found["rows"] = [{**row, "kid_difference": less_reference(row)} for row in found["rows"]]
            write_json(FILE, found)
        if arguments.only != "quality":
            found = timing(found, chosen, arguments.seeds[0], arguments.repeats)
            write_json(FILE, found)
    print(table(found))


def replaced(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """`rows` with `row` in the place of the one of the same system and seed, if there is one, but for its seconds."""
    same = [each for each in rows if (each["system"], each["seed"]) == (row["system"], row["seed"])]
    others = [each for each in rows if each not in same]
    return [*others, {**row, "seconds": same[0]["seconds"] if same else None}]


def quality(name: str, system: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A row without times: run the system in the clone, keep its samples and weights, and judge them."""
    folder, place = CACHE / "clone", CACHE / f"{name}_{seed}"
    if folder.exists():
        clone = Clone.at(folder)
    else:
        clone = Clone(folder)
        (CACHE / "commit").write_text(commit())
    clone.git("checkout", "-q", "params.yaml")
    options = [part for each in [*system["options"], f"seed={seed}"] for part in ("-S", each)]
    call(clone, "exp", "run", "extract", *options)
    minutes = sum(minutes_of(clone, stage) for stage in TRAINING)
    call(clone, "repro", "rank")
    samples = np.load(folder / "data/samples/samples.npy")
    trained = [stage for stage in TRAINING if weights_in(clone, stage)]
    place.mkdir(exist_ok=True)
    write_npy(place / "samples.npy", samples)
    write_png(ROOT / f"benchmarks/grids/comparison_{name}_{seed}.png", tile_grid(samples[:TIMED], columns=8))
    shutil.copytree(weights_in(clone, trained[-1])[0].parent, place / "weights", dirs_exist_ok=True)
    features, held_out = alexnet(), reporting_images()
    return {
        "system": name,
        **system,
        "seed": seed,
        "commit": (CACHE / "commit").read_text(),
        "minutes": round(minutes, 1),
        **told(folder, trained),
        "evaluations": drawing_of(place / "weights", system).evaluations,
        "kid": asdict(kid(features(samples), features(held_out))),
        "kid_difference": None,
        **judge(samples[:IMAGES], held_out),
    }


def told(folder: Path, trained: Sequence[str]) -> dict[str, Any]:
    """What the run in a clone says of itself, in which these stages have trained."""
    params = YAML(typ="safe").load(folder / "params.yaml")
    details = {name: json.loads((folder / f"reports/details/{name}.json").read_text()) for name in (*trained, "rank")}
    steps = sum(details[stage]["steps"] for stage in trained)
    return {
        "images": steps * params["models"][params["model"]]["recipe"]["batch_images"],
        "parameters": details[trained[0]]["parameters"],
        "place": details["rank"]["percentile"]["mean"],
        "copies": details["rank"]["copies"]["samples"],
    }


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


def minutes_of(clone: Clone, stage: str) -> float:
    """Bring a stage up to date; the minutes that this took when its weights were made, 0 if it makes none.

    Of what was interrupted all sittings count.
    """
    file = CACHE / "minutes.json"
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


def less_reference(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """ΔKID of a row; what it was before where samples are missing, as those of a seed without the reference."""
    ours, reference = (CACHE / f"{name}_{row['seed']}" / "samples.npy" for name in (row["system"], REFERENCE))
    if row["system"] == REFERENCE or not (ours.exists() and reference.exists()):
        return row["kid_difference"]
    features = alexnet()
    samples, others = features(np.load(ours)), features(np.load(reference))
    return asdict(kid_difference(samples, others, features(reporting_images())))


def drawing_of(weights: Path, system: Mapping[str, Any]) -> Any:
    """The system's way from noise to `TIMED` images, with these weights."""
    changes = dict(each.removeprefix("sample.").split("=") for each in system["options"] if each.startswith("sample."))
    values = {name: read_value(text, f"sample.{name}", listed=False) for name, text in changes.items()}
    params = read_params({"sample": {**values, "count": TIMED}})
    return prepare_gan(weights, params) if is_gan(weights) else prepare(weights, params)


def timing(found: dict[str, Any], systems: Mapping[str, Mapping[str, Any]], seed: int, repeats: int) -> dict[str, Any]:
    """`found` with the seconds of each of the `systems` that has been run with `seed`."""
    places = {name: CACHE / f"{name}_{seed}" / "weights" for name in systems}
    drawings = {name: drawing_of(place, systems[name]) for name, place in places.items() if place.exists()}
    seconds: dict[str, list[float]] = {name: [] for name in drawings}
    turns = [*drawings, *[name for _ in range(repeats - 1) for name in drawings if name != REFERENCE]]
    with progress(len(turns), "run") as bar:
        for name in drawings:
            if name != REFERENCE:
                drawings[name].images(range(TIMED), lambda *_: None)  # the first call of all takes longer
        for name in turns:
            started = time.perf_counter()
            drawings[name].images(range(TIMED), lambda *_: None)
            seconds[name].append(time.perf_counter() - started)
            bar.update()
    measured = {(name, seed): summary(each) for name, each in seconds.items()}
    rows = [{**row, "seconds": measured.get((row["system"], row["seed"]), row["seconds"])} for row in found["rows"]]
    return {**found, "machine": machine(torch.device("cpu")), "torch": torch.__version__, "rows": rows}


def table(found: Mapping[str, Any]) -> str:
    """All rows as Markdown."""
    lines = [
        f"| system | seed | minutes | images seen | parameters | evaluations | seconds for {TIMED} | KID | ΔKID |"
        + "".join(f" {number}, {features} |" for features in FEATURES for number in ("precision", "recall"))
        + " KID, efficientnet | factors covered | place | copies |",
        "|---|" + "---:|" * (12 + len(FEATURES) * 2),
    ]
    for row in found["rows"]:
        seconds = f"{row['seconds']['median']:.2f}" if row["seconds"] else ""
        counts = f"{row['images']:,} | {row['parameters']:,} | {row['evaluations']:,}"
        quality = [f"{row[f'{number}_{name}']:.2f}" for name in FEATURES for number in ("precision", "recall")]
        cells = [
            row["says"],
            str(row["seed"]),
            f"{row['minutes']:.1f} | {counts} | {seconds}",
            shown(row["kid"]),
            shown(row["kid_difference"]),
            *quality,
            f"{row['kid_efficientnet']:.2f} | {row['covered']} of {row['coverable']} | {row['place']:.2f}",
            f"{row['copies']['value']:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
