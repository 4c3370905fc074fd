"""Several classes in one network against one class alone: ordinary runs of the pipeline, judged class by class.

    python -m benchmarks.classes NAME ... --seeds 0 1    # entries of benchmarks/classes.yaml; none: all of them
    python -m benchmarks.classes --table                 # judge what there is, and print it
    python -m benchmarks.classes --photos ...            # of benchmarks/classes_photos.yaml: photographs, not drawings

Each seed has a clone of its own in `.cache/classes` or `.cache/classes_photos`, so that two seeds can train at once,
one thread each. Samples and weights are kept there: what is made, need not be made again. Remove the folder when the
code has changed.

A sample is of the class that its network was asked for. Without labels it is of the class that a classifier sees, which
has learnt from real training images; all classifiers here are ridge regressions on AlexNet's features. `seen` is how
many samples look to it like what was asked for. The other way round, `learnt` is how many held-out images are told
right by a classifier that has learnt from samples alone. All is compared with the held-out images of the class.
"""

import argparse
import functools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from torch import Tensor

from benchmarks._judges import ROOT, Features, alexnet, compared
from benchmarks._runs import clone_in, ran, samples_of
from benchmarks.quality_time import shown
from benchmarks.ruler import commit
from ddpm.evaluation.factors import fit_classifier
from ddpm.evaluation.metrics import kid_difference
from ddpm.images import tile_grid
from stages.shared.files.formats import write_json, write_png
from stages.shared.files.images import read_index

CLASSES = ("church", "tower", "bridge")
REFERENCE = "church"
OF_EACH = 1000
"""Samples of each class."""
Sets = Mapping[str, Tensor]
"""Features `[N, D]` by class."""
COMMON = ("runtime.threads=1", "runtime.portable=false")
PHOTOS = ROOT.parent / "shared/data/real"
OF_ALL = {
    "classes": ["data=classes"],
    "classes_photos": [
        "data=path",
        *(f"sources.path.{split}='{PHOTOS}/{{category}}_{split}_lmdb'" for split in ("train", "val")),
        "models.tiny.network.dropout=0.1",
    ],
}
"""Options of all systems of a study."""


@dataclass(frozen=True)
class Study:
    """What is compared, `benchmarks/NAME.yaml`, and where the runs, `.cache/NAME`, and what they found are kept."""

    name: str

    @functools.cached_property
    def systems(self) -> dict[str, dict[str, Any]]:
        """The entries: what a table calls each, and its options."""
        systems: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / f"benchmarks/{self.name}.yaml")
        return systems

    @property
    def cache(self) -> Path:
        """A folder with a clone for each seed, and one for each run."""
        return ROOT / ".cache" / self.name

    def place(self, name: str, seed: int) -> Path:
        """Where the samples and the weights of a system are kept."""
        return self.cache / f"{name}_{seed}"

    def runs(self, seed: int) -> dict[str, Path]:
        """The places of the systems that have been run with this seed."""
        places = {name: self.place(name, seed) for name in self.systems}
        return {name: place for name, place in places.items() if (place / "told.json").exists()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="entries (all)")
    parser.add_argument("--photos", action="store_true", help=f"of photographs in {PHOTOS}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training (0)")
    parser.add_argument("--table", action="store_true", help="judge what there is, train nothing")
    arguments = parser.parse_args()
    study = Study("classes_photos" if arguments.photos else "classes")
    if unknown := set(arguments.names) - set(study.systems):
        parser.error(f"{min(unknown)}: not in benchmarks/{study.name}.yaml, which has {', '.join(study.systems)}")
    if not arguments.table:
        for seed in arguments.seeds:
            for name in arguments.names or study.systems:
                draw(study, name, seed)
        return
    seeds = sorted({int(folder.name.partition("_")[2]) for folder in study.cache.glob("clone_*")})
    rows = [row for seed in seeds for row in judged(study, seed)]
    write_json(ROOT / f"benchmarks/results/{study.name}.json", {"commit": commit(), "rows": rows})
    print(table(rows))


def draw(study: Study, name: str, seed: int) -> None:
    """Run a system in the clone of its seed and keep what it has drawn, unless that is there."""
    if name in study.runs(seed):
        return
    folder, place, alone = study.cache / f"clone_{seed}", study.place(name, seed), name in CLASSES
    count = OF_EACH if alone else OF_EACH * len(CLASSES)
    labelled = str(study.place("labelled", seed) / "model")
    own = [each.replace("{labelled}", labelled) for each in study.systems[name]["options"]]
    changes = [*COMMON, *OF_ALL[study.name], *own, f"seed={seed}", f"sample.count={count}"]
    found = ran(clone_in(folder), changes, place, study.cache / f"minutes_{seed}.json")
    if not alone:  # the same for all seeds of training
        shutil.copytree(folder / "data/images", study.cache / "images", dirs_exist_ok=True)
    grid = tile_grid(samples_of(place)[:48], columns=8)
    write_png(ROOT / f"benchmarks/grids/{study.name}_{name}_{seed}.png", grid)
    write_json(place / "told.json", found)


def judged(study: Study, seed: int) -> list[dict[str, Any]]:
    """A row for each system that was run with this seed, one for the three networks together, one for real images."""
    features = alexnet()
    real, held_out = (
        {of: features(images) for of, images in by_class(study.cache / f"images/{split}").items()}
        for split in ("train", "val")
    )
    classify, kept = classifier(real), study.runs(seed)
    drawn = {name: drawn_by_class(place, name, features, classify) for name, place in kept.items()}
    if all(each in drawn for each in CLASSES):
        drawn["three"] = {each: drawn[each][each] for each in CLASSES}
    drawn["real"] = {of: rows[:OF_EACH] for of, rows in real.items()}
    says = {"three": "three networks, one a class", "real": "training images"}
    return [
        {
            "system": name,
            "says": study.systems[name]["says"] if name in kept else says[name],
            "seed": seed,
            **(json.loads((kept[name] / "told.json").read_text()) if name in kept else {}),
            **quality(sets, held_out, classify, asked=name not in kept or was_asked(name, kept[name])),
            "kid_difference": less_reference(sets, drawn, held_out) if name not in (REFERENCE, "three") else None,
        }
        for name, sets in drawn.items()
    ]


def by_class(images: Path) -> dict[str, np.ndarray]:
    """The images of a set, IMAGES.npy, uint8 `[N, H, W, 3]` by class."""
    array, table = np.load(images.with_suffix(".npy"), mmap_mode="r"), read_index(images.with_suffix(".csv"))
    return {of: array[table.loc[table["category"] == of, "row"].to_numpy()] for of in CLASSES}


def classifier(sets: Sets) -> Callable[[Tensor], np.ndarray]:
    """What has learnt from features by class to tell the class of others."""
    labels = np.repeat(list(sets), [len(rows) for rows in sets.values()])
    return fit_classifier(torch.cat(list(sets.values())), labels)


def drawn_by_class(place: Path, name: str, features: Features, classify: Callable[[Tensor], np.ndarray]) -> Sets:
    """Features of the samples of a system by class: the one that was asked for, else the one that is seen."""
    rows, table = features(samples_of(place)), read_index(place / "samples/samples.csv")
    if name in CLASSES:
        return {name: rows}
    labels = table["category"].to_numpy(str) if was_asked(name, place) else classify(rows)
    return {of: rows[torch.from_numpy(labels == of)] for of in CLASSES}


def was_asked(name: str, place: Path) -> bool:
    """Whether the network of a system was asked for samples of a class, or knows but one."""
    return name in CLASSES or "category" in read_index(place / "samples/samples.csv")


def quality(
    sets: Sets, held_out: Sets, classify: Callable[[Tensor], np.ndarray], *, asked: bool = True
) -> dict[str, Any]:
    """Numbers of a system by class, the classes seen in it if they were `asked` for, and what can be learnt from it."""
    found: dict[str, Any] = {"classes": {}, "confusion": {}, "seen": None, "learnt": None}
    right = 0
    for of, rows in sets.items():
        numbers = compared(rows, held_out[of])
        found["classes"][of] = {name: asdict(estimate) for name, estimate in numbers.items()}
        if asked:
            seen = classify(rows)
            found["confusion"][of] = {each: int((seen == each).sum()) for each in CLASSES}
            right += found["confusion"][of][of]
    if asked:
        found["seen"] = right / sum(len(rows) for rows in sets.values())
    if len(sets) == len(CLASSES):
        learnt = classifier(sets)
        found["learnt"] = float(np.mean([np.mean(learnt(held_out[of]) == of) for of in CLASSES]))
    return found


def less_reference(sets: Sets, drawn: Mapping[str, Sets], held_out: Sets) -> dict[str, Any] | None:
    """KID of a system's churches less that of the network that has learnt churches alone, with the same seed."""
    if REFERENCE not in sets or REFERENCE not in drawn:
        return None
    pairs = min(len(sets[REFERENCE]), len(drawn[REFERENCE][REFERENCE]))
    ours, theirs = (each[REFERENCE][:pairs] for each in (sets, drawn[REFERENCE]))
    return asdict(kid_difference(ours, theirs, held_out[REFERENCE]))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows as Markdown."""
    heads = [
        "churches: KID",
        "ΔKID",
        "precision",
        "recall",
        *(f"{each}: KID" for each in CLASSES[1:]),
        "seen",
        "learnt",
    ]
    lines = [f"| system | seed | images seen | {' | '.join(heads)} | copies |", "|---|" + "---:|" * (3 + len(heads))]
    for row in rows:
        of = row["classes"]
        church = of.get(REFERENCE)
        cells = [row["says"], str(row["seed"]), f"{row['images']:,}" if "images" in row else ""]
        cells += [shown(church["kid"]) if church else "", shown(row["kid_difference"])]
        cells += [f"{church[each]['value']:.2f}" if church else "" for each in ("precision", "recall")]
        cells += [f"{of[each]['kid']['value']:.3f}" if each in of else "" for each in CLASSES[1:]]
        cells += [
            "" if row["seen"] is None else f"{row['seen']:.1%}",
            "" if row["learnt"] is None else f"{row['learnt']:.1%}",
        ]
        cells += [f"{row['copies']['value']:.0%}" if "copies" in row else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
