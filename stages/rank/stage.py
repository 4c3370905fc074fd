"""Stage `rank`: LPIPS of samples to training images, as the report picks its best six, and which samples are copies."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ddpm.evaluation.copies import copy_distances, p_values, threshold
from ddpm.evaluation.estimates import proportion
from ddpm.evaluation.neighbours import OnBlock, nearest, take
from ddpm.evaluation.perceptual import IMAGES_AT_ONCE, Metric, load_lpips
from stages.kit.device import announce, setup
from stages.kit.errors import StageError
from stages.kit.files import repository_root
from stages.kit.identity import run_of
from stages.kit.launch import first_process
from stages.kit.params import read_params
from stages.kit.parts import Parts
from stages.kit.processes import distributed, together
from stages.kit.progress import progress
from stages.kit.runtime import RuntimeConfig
from stages.kit.state import parts_folder
from stages.rank.figures import histogram_figure, selections_figure
from stages.rank.sets import Sets, open_sets
from stages.rank.yardsticks import best_of_batches, between_batches, spread, with_interval
from stages.shared.figures import save_figure
from stages.shared.files.formats import read_backbone, write_csv, write_json
from stages.shared.files.images import DUPLICATES, image_set
from stages.shared.ranking import RankConfig

SETS = ("samples", "held_out", "left_out")

CANDIDATES = 8
"""Training images among which the original of a copy is looked for: by LPIPS that of a shifted copy came fifth."""


def main(
    *, samples: Path, images: Path, backbone: Path, neighbours: Path, details: Path, distances: Path, figures: Path
) -> str:
    """Compare the SAMPLES in that folder with the real IMAGES in that folder, by LPIPS with the network BACKBONE.

    NEIGHBOURS gets a row for each sample, DETAILS the numbers of samples and real images, DISTANCES how the distances
    are distributed, for `dvc plots`. In the folder FIGURES, `best.png` shows the best samples beside what they are
    near, `selections.png` two other selections, `nearest.svg` the distances.
    """
    params = read_params()
    config = params.section(RankConfig, "rank")
    with distributed():
        with together():
            tensors, net = read_backbone(backbone)
            device = setup(params)
            at_once = params.section(RuntimeConfig, "runtime").at_once(IMAGES_AT_ONCE)
            metric = Metric(load_lpips(tensors, net).to(device), config.input_size, at_once)
            sets = open_sets(samples, images, config.samples, config.seed)
            if len(sets.samples) < config.best:
                raise StageError(f"params.yaml: rank.best = {config.best}: {samples} has {len(sets.samples)} to rank")
        announce("rank", device, torch.float32)
        inputs = [backbone, images / DUPLICATES, *image_set(samples, "samples")]
        inputs += [*image_set(images, "train"), *image_set(images, "val")]
        run = run_of({**asdict(config), "at_once": at_once}, device, torch.float32, inputs)
        with parts_folder(repository_root() / ".cache" / "rank", run, "ranking the same samples") as folder:
            # Held-out images that have originals tell no copy from what is new: none is flagged.
            rate = 0.0 if sets.repeated else config.flag_rate
            table = with_tests(compare(metric, sets, config.flips, Parts(folder)), rate)
            ranked = ranked_samples(metric, sets, table, config.flips, Parts(folder, "held_out_"))
            if first_process():
                batches = between_batches(
                    metric, sets.train, len(sets.samples), config.batches, config.seed, Parts(folder, "batches_")
                )
                publish(Paths(neighbours, details, distances, figures), config, rate, sets, table, ranked, batches)
    best = ranked["distance"].head(config.best)
    return (
        f"LPIPS of the best {len(best)}: {best.min():.3f} to {best.max():.3f}, in {details}; see {figures / 'best.png'}"
    )


class Paths(NamedTuple):
    """Where the results go."""

    neighbours: Path
    details: Path
    distances: Path
    figures: Path


def publish(
    paths: Paths,
    config: RankConfig,
    rate: float,
    sets: Sets,
    table: pd.DataFrame,
    ranked: pd.DataFrame,
    batches: np.ndarray,
) -> None:
    """Write tables, numbers and figures."""
    chosen = selections(ranked, config.best)
    groups = by_set(table, "distance") | {"batches": batches.ravel()}
    found = summary(table, chosen, groups, rate) | {
        "batch_means": spread(batches.mean(axis=1)),
        "best_of_held_out": best_of_batches(groups["held_out"], len(sets.samples), config.best, config.seed),
    }
    size = config.input_size or sets.samples.shape[1]
    write_csv(paths.neighbours, ranked.round(6))
    write_csv(paths.distances, distributions(by_set(table, "distance")).round(6))
    write_json(paths.details, {"lpips": {"net": config.net, "input_size": size, "flips": config.flips}, **found})
    save_figure(paths.figures / "best.png", selections_figure({"best": chosen.pop("best")}, sets, config.best))
    save_figure(paths.figures / "selections.png", selections_figure(chosen, sets, config.best))
    copies = by_set(table, "copy_distance")
    save_figure(paths.figures / "nearest.svg", histogram_figure(groups, copies, config.best, found["copies"]["limit"]))


def compare(metric: Metric, sets: Sets, flips: bool, parts: Parts) -> pd.DataFrame:
    """A row for each sample, held-out image and training image that is left out: what it is near in training."""
    compared = sets.samples, sets.val[sets.held_out], take(sets.train, sets.left_out)
    images = np.concatenate(compared)
    itself = np.full(len(images), -1)
    itself[-len(sets.left_out) :] = sets.left_out
    k = min(CANDIDATES, len(sets.train) - 1)
    with bar("training images") as on_block:
        found = nearest(metric, images, sets.train, k, mirror=flips, left_out=itself, on_block=on_block, store=parts)
    copies = copy_distances(images, sets.train, found.rows)
    original = copies.argmin(axis=1)
    # The second is no near duplicate of the first; where all are, it is the last.
    other = sets.group[found.rows] != sets.group[found.rows[:, :1]]
    second = np.where(other.any(axis=1), other.argmax(axis=1), k - 1)
    image = np.arange(len(images))
    table = pd.DataFrame(
        {
            "set": np.repeat(SETS, [len(part) for part in compared]),
            "distance": found.distances[:, 0].astype(float),
            "neighbour": found.rows[:, 0],
            "mirrored": found.mirrored[:, 0].astype(int),
            "second_distance": found.distances[image, second].astype(float),
            "second_neighbour": found.rows[image, second],
            "copy_distance": copies[image, original].astype(float),
            "original": found.rows[image, original],
            "original_mirrored": found.mirrored[image, original].astype(int),
        }
    )
    return table.assign(ratio=(table["distance"] / table["second_distance"]).fillna(1.0))


def with_tests(table: pd.DataFrame, rate: float) -> pd.DataFrame:
    """The table with each image's place among the held-out ones, by LPIPS and as a copy, and whether it is flagged."""
    distances, copies = table["distance"].to_numpy(), table["copy_distance"].to_numpy()
    held_out = (table["set"] == "held_out").to_numpy()
    return table.assign(
        percentile=p_values(distances, distances[held_out]),
        p_value=p_values(copies, copies[held_out]),
        flagged=(copies < threshold(copies[held_out], rate)).astype(int),
    )


def by_set(table: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    """The values of a column, `[n]` for each set."""
    return {name: table.loc[table["set"] == name, column].to_numpy() for name in SETS}


def distributions(distances: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """For each set the quantiles 0, 0.01, ... 1 (`share`) of its distances: as many rows for any number of images."""
    quantiles = np.linspace(0, 1, 101)
    parts = [
        pd.DataFrame({"set": name, "share": quantiles, "distance": np.quantile(values, quantiles)})
        for name, values in distances.items()
    ]
    return pd.concat(parts)


def ranked_samples(metric: Metric, sets: Sets, table: pd.DataFrame, flips: bool, parts: Parts) -> pd.DataFrame:
    """The samples in the order of their distances, each with the nearest held-out image as well."""
    with bar("held-out images") as on_block:
        held_out = sets.val[sets.held_out]
        unseen = nearest(metric, sets.samples, held_out, 1, mirror=flips, on_block=on_block, store=parts)
    ranked = table[table["set"] == "samples"].drop(columns="set")
    ranked.insert(0, "sample", np.arange(len(ranked)))
    ranked = ranked.assign(
        held_out_distance=unseen.distances[:, 0].astype(float),
        held_out_neighbour=sets.held_out[unseen.rows[:, 0]],
        held_out_mirrored=unseen.mirrored[:, 0].astype(int),
    ).sort_values(["distance", "sample"])
    ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
    return ranked


def selections(ranked: pd.DataFrame, best: int) -> dict[str, pd.DataFrame]:
    """The first `best` samples of three orders.

    `best` is the report's: near to a training image, where a copy would win. `best_unseen` are near to a held-out
    image instead, which nothing can be a copy of, and not flagged. `suspects` are the likeliest copies.
    """
    return {
        "best": ranked.head(best),
        "best_unseen": ranked[ranked["flagged"] == 0].sort_values(["held_out_distance", "sample"]).head(best),
        "suspects": ranked.sort_values(["copy_distance", "sample"]).head(best),
    }


def summary(
    table: pd.DataFrame, chosen: Mapping[str, pd.DataFrame], distances: Mapping[str, np.ndarray], rate: float
) -> dict[str, Any]:
    """The metrics: LPIPS of two selections and of the sets, places among the held-out images, and copies."""
    best, copies = chosen["best"], by_set(table, "copy_distance")["held_out"]
    return {
        "best": spread(best["distance"].to_numpy()) | {"flagged": int(best["flagged"].sum())},
        "best_unseen": spread(chosen["best_unseen"]["held_out_distance"].to_numpy()),
        **{name: with_interval(values) for name, values in distances.items()},
        "percentile": with_interval(by_set(table, "percentile")["samples"]),
        "ratio": {name: with_interval(values) for name, values in by_set(table, "ratio").items()},
        "copies": {
            "rate": rate,
            "limit": threshold(copies, rate),
            **{name: asdict(proportion(flags.mean(), len(flags))) for name, flags in by_set(table, "flagged").items()},
        },
    }


@contextmanager
def bar(label: str) -> Iterator[OnBlock]:
    """A progress bar, moved on by `nearest`."""
    with progress(None, "img", label=label) as shown:

        def on_block(images: int, total: int) -> None:
            shown.total = total
            shown.update(images)

        yield on_block
