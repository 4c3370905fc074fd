"""What named changes of a model are worth: each trained from several seeds, drawn from and judged alike.

    python -m benchmarks.ruler NAME ... --minutes 10     # of training for each, as the pipeline computes
    python -m benchmarks.ruler NAME ... --images 80000   # as many images for each
    python -m benchmarks.ruler NAME ... --images 80000 --against reporting   # at the end, for what was chosen
    python -m benchmarks.ruler --table                   # of all trials so far

Run it after `dvc repro`. NAME is an entry of `benchmarks/changes.yaml`, or `real`: training images in place of samples.
Every training has its own complete schedule of the learning rate. 2,000 samples, drawn as the change says, are judged
by two sets of features against 2,000 images that no training has seen: those for `choosing`, or those for `reporting`,
which are the pipeline's held-out images and shall choose nothing. Each trial is a line of `benchmarks/trials.csv`; its
first 64 samples are a grid in `benchmarks/grids/`. For equal minutes, steps of all changes are timed in turn before, so
that a busy moment falls on all; then each gets as many images as it can see in that time.
"""

import argparse
import csv
import datetime
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks._changes import CHANGES, change_of, read_changes
from benchmarks._isolated import in_new_process
from benchmarks._judges import FEATURES, IMAGES, REFERENCES, ROOT, judge
from ddpm.images import tile_grid
from stages.kit.params import read_params
from stages.kit.progress import progress
from stages.kit.runtime import RuntimeConfig, set_arithmetic
from stages.shared.files.formats import write_png

LOG = ROOT / "benchmarks/trials.csv"
WARM_UP, TIMED = 5, 20
"""Steps before the rate is measured, and those it is measured over."""


@dataclass(frozen=True)
class Trained:
    """What comes back from a trial: samples, uint8 `[IMAGES, H, W, 3]`, seconds of training, how it was computed."""

    samples: np.ndarray
    seconds: float
    arithmetic: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="real, or a change: " + ", ".join(read_changes()))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="of training for each")
    length.add_argument("--images", type=int, help="for each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training (0 1 2)")
    parser.add_argument(
        "--against", choices=list(REFERENCES), nargs="+", default=["choosing"], help="images to judge by (choosing)"
    )
    parser.add_argument("--threads", type=int, help="of each training (runtime.threads)")
    parser.add_argument("--table", action="store_true", help="print the table of all trials")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in {"real", *read_changes()}]
    if unknown:
        parser.error(f"{unknown[0]}: not in {CHANGES.relative_to(ROOT)}")
    changes = [name for name in arguments.names if name != "real"]
    if changes and not (arguments.minutes or arguments.images):
        parser.error("--minutes or --images: how long is each trained?")
    if "real" in arguments.names:
        record("real", {}, np.load(ROOT / "data/images/train.npy")[:IMAGES], arguments.against)
    threads = prepare(arguments.threads)
    lengths = steps_of(changes, arguments.minutes, arguments.images, threads) if changes else {}
    for seed in arguments.seeds:  # the seeds outside, so that an interrupted search has all changes with some
        for name, steps in lengths.items():
            trained = in_new_process(threads, train_and_draw, name, steps, seed)
            values = {
                "seed": seed,
                "images": steps * change_of(name).recipe.batch_images,
                "minutes": round(trained.seconds / 60, 2),
                "arithmetic": trained.arithmetic,
            }
            record(name, values, trained.samples, arguments.against)
    if arguments.table:
        print(table(pd.read_csv(LOG)))


def prepare(threads: int | None) -> int:
    """Let the processes that train compute as the pipeline's stages do; returns how many threads they have."""
    runtime = read_params().section(RuntimeConfig, "runtime")
    set_arithmetic(runtime)
    return threads or runtime.threads


def steps_of(names: list[str], minutes: float | None, images: int | None, threads: int) -> dict[str, int]:
    """The steps that each change gets."""
    if images:
        return {name: images // change_of(name).recipe.batch_images for name in names}
    assert minutes
    seconds = in_new_process(threads, seconds_per_step, names)
    return {name: round(60 * minutes / each) for name, each in seconds.items()}


def seconds_per_step(names: list[str]) -> dict[str, float]:
    """The median over `TIMED` rounds in which each change takes a step in turn."""
    runs = {name: change_of(name).start(WARM_UP + TIMED, 0).fit for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(WARM_UP + TIMED):
        for name, run in runs.items():
            started = time.perf_counter()
            next(run)
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(measured[WARM_UP:])) for name, measured in seconds.items()}


def train_and_draw(name: str, steps: int, seed: int) -> Trained:
    """Train `name` from its start, and draw from the average that its sampling names."""
    change = change_of(name)
    run = change.start(steps, seed)
    started = time.perf_counter()
    with progress(steps * change.recipe.batch_images, "img", label=f"{name}, seed {seed}") as bar:
        for _ in run.fit:
            bar.update(change.recipe.batch_images)
    seconds = time.perf_counter() - started
    number_format = str(run.precision).removeprefix("torch.")
    return Trained(run.draw(), seconds, f"{number_format} {torch.backends.cpu.get_cpu_capability()}")


def record(name: str, values: dict[str, Any], samples: np.ndarray, references: list[str]) -> None:
    """Judge the samples, write their lines of the log and their grid, and print the lines."""
    if values:
        write_png(ROOT / f"benchmarks/grids/{name}_{values['seed']}.png", tile_grid(samples[:64], columns=8))
    for against in references:
        log_judged(name, values, judge(samples, REFERENCES[against]()), against)


def log_judged(name: str, values: dict[str, Any], judged: dict[str, Any], against: str) -> None:
    """One line of the log, printed too."""
    line = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "change": name,
        "why": read_changes().get(name, {}).get("why", "training images in place of samples"),
        **dict.fromkeys(("seed", "images", "minutes", "arithmetic"), ""),
        **values,
        "against": against,
        **{key: round(value, 4) for key, value in judged.items()},
        "command": " ".join(["python -m benchmarks.ruler", *sys.argv[1:]]),
    }
    new = not LOG.exists()
    with LOG.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(line), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(line)
    print(*(f"{key}={value}" for key, value in line.items() if key not in ("why", "command")), flush=True)


def commit() -> str:
    """The commit that is checked out; with a + if the code differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True).stdout
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "ddpm", "params.yaml"], check=False).returncode
    return head.strip() + "+" * bool(changed)


def table(log: pd.DataFrame) -> str:
    """Mean and standard deviation over seeds of the trials that differ in nothing else, as Markdown."""
    keys = ["against", "change", "commit", "arithmetic", "images"]
    columns = [f"{number}_{features}" for features in FEATURES for number in ("kid", "precision", "recall")]
    lines = [
        "| against | change | commit | images | minutes | seeds | "
        + " | ".join(column.replace("_", ", ") for column in columns)
        + " | factors covered | arithmetic |",
        "|---|---|---|" + "---:|" * (len(columns) + 4) + "---|",
    ]
    for (against, change, at, arithmetic, images), rows in log.groupby(keys, dropna=False, sort=False):
        cells = [*map(str, (against, change, at)), _number(images, ",.0f")]
        cells += [_number(rows["minutes"].mean(), ".1f"), str(len(rows))]
        cells += [_spread(rows[column]) for column in columns]
        cells += [f"{rows['covered'].mean():.0f} of {rows['coverable'].mean():.0f}", _text(arithmetic)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: Any, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _spread(values: pd.Series) -> str:
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


if __name__ == "__main__":
    main()
