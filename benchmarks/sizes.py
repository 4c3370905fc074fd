"""Larger images, in pixels and in the latents of an autoencoder: ordinary runs of the pipeline, judged at two sizes.

    python -m benchmarks.sizes NAME ... --seeds 0 1    # entries of benchmarks/sizes.yaml; none: all of them
    python -m benchmarks.sizes --timing                # 64 images by each of those, in turn
    python -m benchmarks.sizes --table                 # judge what there is, and print it

Each seed has a clone of its own in `.cache/sizes`, so that two seeds can train at once, one thread each. Samples and
weights are kept there: what is made, need not be made again. Remove the folder when the code has changed.

Features depend on the size of the images. So samples are judged twice: as they are, by held-out images of their size,
and at 48 px, by held-out images of their size that have been made smaller in the same way. Only numbers of the second
kind can stand beside each other. ΔKID is the KID of latents less that of pixels with the same size and seed. The floor
is the KID of one half of the held-out images, encoded and decoded, to the other half.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from torch import Tensor

from benchmarks._judges import ROOT, alexnet, compared
from benchmarks._runs import call, clone_in, drawing_of, ran, samples_of, seconds_of
from benchmarks.quality_time import shown
from benchmarks.ruler import commit
from ddpm.evaluation.metrics import kid_difference
from ddpm.images import tile_grid
from ddpm.pictures.resizing import Preprocessing, resize
from stages.kit.params import read_params
from stages.shared.files.formats import write_json, write_npy, write_png

SYSTEMS, FILE, CACHE = ROOT / "benchmarks/sizes.yaml", ROOT / "benchmarks/results/sizes.json", ROOT / ".cache/sizes"
COMMON = ("runtime.threads=1", "runtime.portable=false", "sample.count=500")
SIZE = 48
"""Pixels at which images of all sizes are compared."""


def main() -> None:
    systems: dict[str, dict[str, Any]] = YAML(typ="safe").load(SYSTEMS)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(systems))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training (0)")
    parser.add_argument(
        "--timing", action="store_true", help="of what there is of the first of the seeds, train nothing"
    )
    parser.add_argument("--table", action="store_true", help="judge what there is, train nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(systems):
        parser.error(f"{min(unknown)}: not in {SYSTEMS.relative_to(ROOT)}")
    if arguments.timing:
        kept = kept_of(arguments.names or systems, arguments.seeds[0])
        drawings = {name: drawing_of(place, [*systems[name]["options"], *COMMON]) for name, place in kept.items()}
        for name, seconds in seconds_of(drawings, repeats=3).items():
            write_json(kept[name] / "seconds.json", seconds)
    elif arguments.table:
        seeds = sorted({int(folder.name.partition("_")[2]) for folder in CACHE.glob("clone_*")})
        rows = [row for seed in seeds for row in judged(systems, seed)]
        write_json(FILE, {"commit": commit(), "rows": rows})
        print(table(rows))
    else:
        for seed in arguments.seeds:
            for name in arguments.names or systems:
                draw(name, systems[name]["options"], seed)


def place_of(name: str, seed: int) -> Path:
    """Where the samples and the weights of a system are kept."""
    return CACHE / f"{name}_{seed}"


def kept_of(names: Iterable[str], seed: int) -> dict[str, Path]:
    """Where those of the systems are kept that were run with this seed."""
    return {name: place_of(name, seed) for name in names if (place_of(name, seed) / "told.json").exists()}


def draw(name: str, options: Sequence[str], seed: int) -> None:
    """Run a system in the clone of its seed and keep what it has drawn, unless that is there."""
    place = place_of(name, seed)
    if (place / "told.json").exists():
        return
    clone, changes = clone_in(CACHE / f"clone_{seed}"), [*COMMON, *options, f"seed={seed}"]
    found = {**ran(clone, changes, place, CACHE / f"minutes_{seed}.json", last="sample"), "autoencoder": None}
    if (place / "latents").exists():
        call(clone, "repro", "evaluate")
        details = json.loads((clone.folder / "reports/details/evaluate.json").read_text())
        found["autoencoder"] = details["autoencoder"]
    write_npy(place / "held_out.npy", np.load(clone.folder / "data/images/val.npy"))
    write_png(ROOT / f"benchmarks/grids/sizes_{name}_{seed}.png", tile_grid(samples_of(place)[:32], columns=8))
    write_json(place / "told.json", found)


def judged(systems: Mapping[str, Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """A row for each system that was run with this seed."""
    features = alexnet()
    kept = kept_of(systems, seed)
    images = {name: (samples_of(place), np.load(place / "held_out.npy")) for name, place in kept.items()}
    # By name: features of samples and of held-out images, as they are and at 48 px.
    own = {name: [features(each) for each in pair] for name, pair in images.items()}
    small = {name: [features(reduced(each)) for each in pair] for name, pair in images.items()}
    rows = []
    for name, place in kept.items():
        other, seconds = systems[name].get("against"), place / "seconds.json"
        row = {
            "system": name,
            **systems[name],
            "seed": seed,
            "size": images[name][0].shape[1],
            **json.loads((place / "told.json").read_text()),
            "seconds": json.loads(seconds.read_text()) if seconds.exists() else None,
        }
        for of, sets in {"own": own, "small": small}.items():
            difference = less(sets[name], sets[other]) if other in kept else None
            numbers = {number: asdict(each) for number, each in compared(*sets[name]).items()}
            row[of] = {**numbers, "kid_difference": difference}
        rows.append(row)
    return rows


def reduced(images: np.ndarray) -> np.ndarray:
    """Images uint8 `[N, H, W, 3]` made `SIZE` pixels wide as `extract` does it; those that are so wide stay."""
    if images.shape[1] == SIZE:
        return images
    extract = read_params().mapping("extract")
    preprocessing = Preprocessing(size=SIZE, geometry=extract["geometry"], filter=extract["filter"])
    return np.stack([resize(image, preprocessing) for image in images])


def less(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> dict[str, Any]:
    """KID of our samples less that of theirs, to the same held-out images."""
    return asdict(kid_difference(ours[0], theirs[0], ours[1]))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows as Markdown."""
    numbers = ("KID", "ΔKID", "precision", "recall")
    heads = ["seed", "minutes", "images seen", "parameters", "images/s"]
    heads += [*(f"at its size: {each}" for each in numbers), *(f"at 48 px: {each}" for each in numbers)]
    lines = [f"| system | {' | '.join(heads)} | floor: KID | PSNR |", f"|---|{'---:|' * (len(heads) + 2)}"]
    for row in rows:
        rate = f"{64 / row['seconds']['median']:.1f}" if row["seconds"] else ""
        cells = [row["says"], str(row["seed"]), f"{row['minutes']:.1f}", f"{row['images']:,}", f"{row['parameters']:,}"]
        cells += [rate]
        for of in ("own", "small"):
            cells += [shown(row[of]["kid"]), shown(row[of]["kid_difference"])]
            cells += [f"{row[of][each]['value']:.2f}" for each in ("precision", "recall")]
        floor = row["autoencoder"]
        cells += [shown(floor["kid"]["decoded"]), f"{floor['psnr']['value']:.1f}"] if floor else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
