"""What each way to make images costs and how good it is: ordinary runs of the pipeline, judged alike.

    python -m benchmarks.comparison NAME ... --seeds 0 1   # entries of benchmarks/systems.yaml; none: all of them
    python -m benchmarks.comparison --only timing          # 64 images by each of those, in turn
    python -m benchmarks.comparison --table

Run it after `dvc repro`, whose held-out images and features judge. The runs are made in a clone in `.cache/comparison`,
with the seed of training replaced. What that has made, it need not make again, so that an interrupted comparison goes
on where it was; remove the folder when the code has changed. Samples of one number come from the same noise in all
systems that have a sampler. ΔKID is the KID of a system less that of `ancestral_1000` with the same seed, once that has
been run. Minutes are those of `dvc repro` of the stages that train, so of a machine that does nothing else meanwhile.
All is kept in `benchmarks/results/comparison.json`.

Timing: from noise to pixels, without the start of a process; several times round, so that a busy moment falls on all.
1,000 ancestral steps take their turn in the first round alone.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from ruamel.yaml import YAML

from benchmarks._judges import FEATURES, IMAGES, ROOT, alexnet, judge, reporting_images
from benchmarks._runs import TIMED, clone_in, drawing_of, ran, samples_of, seconds_of
from benchmarks.quality_time import machine, shown
from benchmarks.ruler import commit
from ddpm.evaluation.metrics import kid, kid_difference
from ddpm.images import tile_grid
from stages.shared.files.formats import write_json, write_png

SYSTEMS, CACHE = ROOT / "benchmarks/systems.yaml", ROOT / ".cache/comparison"
FILE = ROOT / "benchmarks/results/comparison.json"
REFERENCE = "ancestral_1000"


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
    print(table(found["rows"]))


def replaced(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """`rows` with `row` in the place of the one of the same system and seed, if there is one, but for its seconds."""
    same = [each for each in rows if (each["system"], each["seed"]) == (row["system"], row["seed"])]
    others = [each for each in rows if each not in same]
    return [*others, {**row, "seconds": same[0]["seconds"] if same else None}]


def quality(name: str, system: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A row without times: run the system in the clone, keep its samples and weights, and judge them."""
    place, options = CACHE / f"{name}_{seed}", [*system["options"], f"seed={seed}"]
    if not (CACHE / "clone").exists():
        clone_in(CACHE / "clone")
        (CACHE / "commit").write_text(commit())
    found = ran(clone_in(CACHE / "clone"), options, place, CACHE / "minutes.json")
    samples, features, held_out = samples_of(place), alexnet(), reporting_images()
    write_png(ROOT / f"benchmarks/grids/comparison_{name}_{seed}.png", tile_grid(samples[:TIMED], columns=8))
    return {
        "system": name,
        **system,
        "seed": seed,
        "commit": (CACHE / "commit").read_text(),
        **found,
        "evaluations": drawing_of(place, options).evaluations,
        "kid": asdict(kid(features(samples), features(held_out))),
        "kid_difference": None,
        **judge(samples[:IMAGES], held_out),
    }


def less_reference(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """ΔKID of a row; what it was before where samples are missing, as those of a seed without the reference."""
    ours, reference = (CACHE / f"{name}_{row['seed']}" for name in (row["system"], REFERENCE))
    if row["system"] == REFERENCE or not (ours.exists() and reference.exists()):
        return row["kid_difference"]
    features = alexnet()
    samples, others = features(samples_of(ours)), features(samples_of(reference))
    return asdict(kid_difference(samples, others, features(reporting_images())))


def timing(found: dict[str, Any], systems: Mapping[str, Mapping[str, Any]], seed: int, repeats: int) -> dict[str, Any]:
    """`found` with the seconds of each of the `systems` that has been run with `seed`."""
    places = {name: CACHE / f"{name}_{seed}" for name in systems}
    drawings = {name: drawing_of(place, systems[name]["options"]) for name, place in places.items() if place.exists()}
    measured = seconds_of(drawings, repeats, once=[REFERENCE])
    seconds = {(name, seed): each for name, each in measured.items()}
    rows = [{**row, "seconds": seconds.get((row["system"], row["seed"]), row["seconds"])} for row in found["rows"]]
    return {**found, "machine": machine(torch.device("cpu")), "torch": torch.__version__, "rows": rows}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows as Markdown."""
    lines = [
        f"| system | seed | minutes | images seen | parameters | evaluations | seconds for {TIMED} | KID | ΔKID |"
        + "".join(f" {number}, {features} |" for features in FEATURES for number in ("precision", "recall"))
        + " KID, efficientnet | factors covered | place | copies |",
        "|---|" + "---:|" * (12 + len(FEATURES) * 2),
    ]
    for row in rows:
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
