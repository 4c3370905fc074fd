"""Rank samples by their LPIPS distance to the nearest training image, as the report picks its best six."""

from collections.abc import Iterator
from pathlib import Path

import lpips
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.images import to_model_range
from ddpm.perceptual import load_lpips, nearest, pair_distances, random_pairs
from ddpm.rng import numpy_stream
from stages._figures import HELD_OUT, REAL, REPORT, SAMPLES, save_figure
from stages._images import open_alike
from stages._io import read_safetensors, write_csv, write_json
from stages._main import StageError, progress, run, setup
from stages._params import read_params
from stages._ranking import REPORT_BEST_SIX, RankConfig

CHUNK = 1024  # images in memory at once
NEIGHBOURS = 2  # of each sample; how far the second is tells a copy from a common motif


def main(
    samples: Path,
    samples_index: Path,
    train: Path,
    train_index: Path,
    val: Path,
    val_index: Path,
    trunk: Path,
    neighbours: Path,
    metrics: Path,
    figure: Path,
    histogram: Path,
) -> None:
    """Write each sample's nearest training image, the best samples beside theirs, and what real images give."""
    params = read_params()
    config = params.section(RankConfig, "rank")
    tensors, metadata = read_safetensors(trunk)
    model = load_lpips(tensors, metadata["net"]).to(setup(params))
    ours, real, unseen = open_alike({samples: samples_index, train: train_index, val: val_index})
    if len(ours) < config.best:
        raise StageError(f"params.yaml: rank.best = {config.best}: there are {len(ours)} samples in {samples}")
    if len(real) < NEIGHBOURS:
        raise StageError(f"{train}: {len(real)} training image; at least {NEIGHBOURS} are needed")
    # As many as there are samples, so that the two distributions can be laid side by side.
    held_out = unseen[np.sort(numpy_stream(config.seed, "rank: held-out").permutation(len(unseen))[: len(ours)])]
    distances, rows = nearest(model, to_model_range(np.concatenate([ours, held_out])), _chunks(real), NEIGHBOURS)
    pairs = random_pairs(len(real), config.pairs, numpy_stream(config.seed, "rank: pairs"))
    table = _table(distances[: len(ours)].numpy(), rows[: len(ours)].numpy())
    found = {
        "samples": distances[: len(ours), 0].numpy(),
        "held_out": distances[len(ours) :, 0].numpy(),
        "real_pairs": _pair_distances(model, real, pairs).numpy(),
    }
    best = table.head(config.best)
    write_csv(neighbours, table)
    write_json(metrics, {"best": _summary(best["distance"].to_numpy()), **{k: _summary(v) for k, v in found.items()}})
    save_figure(figure, _best_figure(best, ours, real))
    save_figure(histogram, _histogram_figure(found, config.best))


def _chunks(images: np.ndarray) -> Iterator[Tensor]:
    with progress(len(images), "img", label="training images") as bar:
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            yield to_model_range(chunk)
            bar.update(len(chunk))


def _pair_distances(model: lpips.LPIPS, images: np.ndarray, pairs: np.ndarray) -> Tensor:
    parts = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    return torch.cat(
        [pair_distances(model, *(to_model_range(images[rows]) for rows in part.T)).cpu() for part in parts]
    )


def _table(distances: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    """One row per sample, the nearest to the training images first; numbers of images count from 0."""
    table = pd.DataFrame(
        {
            "sample": np.arange(len(rows)),
            "neighbour": rows[:, 0],
            "distance": distances[:, 0].astype(float).round(6),
            "second_neighbour": rows[:, 1],
            "second_distance": distances[:, 1].astype(float).round(6),
        }
    )
    table = table.sort_values(["distance", "sample"])
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


def _summary(values: np.ndarray) -> dict[str, float | int]:
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "max": float(values.max()),
        "n": len(values),
    }


def _best_figure(best: pd.DataFrame, samples: np.ndarray, real: np.ndarray) -> Figure:
    """Samples above, the nearest training image of each below, the distance between them."""
    figure = Figure(figsize=(1.35 * len(best) + 0.4, 3.4), layout="constrained")
    axes = figure.subplots(2, len(best), squeeze=False)
    columns = zip(axes.T, best["sample"], best["neighbour"], best["distance"], strict=True)
    for (above, below), sample, neighbour, distance in columns:
        above.imshow(samples[sample], interpolation="nearest")
        above.set_title(f"sample {sample}")
        above.set_xlabel(f"LPIPS {distance:.3f}", fontsize=10, fontweight="bold", color=SAMPLES)
        below.imshow(real[neighbour], interpolation="nearest")
        below.set_xlabel(f"image {neighbour}", color=REAL)
    axes[0, 0].set_ylabel("sample", color=SAMPLES)
    axes[1, 0].set_ylabel("nearest in training", color=REAL)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def _histogram_figure(found: dict[str, np.ndarray], best: int) -> Figure:
    """One panel per distribution on one axis, each with its median, and the report's range through all of them."""
    panels = {
        "samples": (SAMPLES, "samples to their nearest training image"),
        "held_out": (HELD_OUT, "held-out images to their nearest training image"),
        "real_pairs": (REAL, "random pairs of training images"),
    }
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    edges = np.linspace(0, max(max(values.max() for values in found.values()), REPORT_BEST_SIX[1]) * 1.02, 61)
    for axis, (name, (colour, title)) in zip(axes, panels.items(), strict=True):
        values, median = found[name], np.median(found[name])
        axis.axvspan(*REPORT_BEST_SIX, color=REPORT, alpha=0.18, linewidth=0)
        axis.hist(values, edges, weights=np.full(len(values), 1 / len(values)), color=colour, alpha=0.75)
        axis.axvline(median, color=colour, linestyle="--", linewidth=1.2)
        axis.set_title(f"{title}  (n = {len(values)}, median {median:.3f})", loc="left", color=colour)
        axis.set_ylabel("share")
    lowest = np.sort(found["samples"])[:best]
    axes[0].plot(lowest, np.zeros(best), "v", color="black", markersize=5, clip_on=False, label=f"the {best} lowest")
    axes[0].fill_between(
        [], [], color=REPORT, alpha=0.18, linewidth=0, label="the report's six best, 0.29 to 0.32 (LSUN)"
    )
    axes[0].legend(loc="upper right")
    axes[-1].set_xlabel("LPIPS")
    axes[-1].set_xlim(0, edges[-1])
    return figure


if __name__ == "__main__":
    run(main)
