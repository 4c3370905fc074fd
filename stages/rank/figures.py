"""What the stage `rank` shows: samples above the images that they are near to, and distances as histograms."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm.images import Images
from stages.rank.sets import Sets
from stages.shared.figures import HELD_OUT, INK, REAL, REPORT, SAMPLES, WIDTH
from stages.shared.ranking import REPORT_BEST_SIX

TITLES = {
    "best": "lowest LPIPS to a training image",
    "best_unseen": "lowest LPIPS to a held-out image, without what is flagged",
    "suspects": "likeliest to be copies",
}
PANELS = {
    "samples": (SAMPLES, "samples to their nearest in training"),
    "held_out": (HELD_OUT, "held-out images to their nearest in training"),
    "left_out": (REAL, "training images to the nearest other"),
    "batches": (REAL, "training images, batch to batch"),
}
FLAGGED = "#c74a4a"
"""Colour of what is nearer to a copy than real images are."""


class Row(NamedTuple):
    """Images next to each other, uint8 `[H, W, 3]`, and what stands below each."""

    name: str
    colour: str
    images: Sequence[np.ndarray]
    notes: Sequence[str]


def selections_figure(chosen: Mapping[str, pd.DataFrame], sets: Sets, columns: int) -> Figure:
    """The selections in blocks, each sample above the real images that it is near to."""
    blocks = {name: _rows(name, list(part.itertuples()), sets) for name, part in chosen.items() if len(part)}
    heights = [len(rows) for rows in blocks.values()]
    figure = Figure(figsize=(0.82 * columns + 0.4, 1.25 * sum(heights) + 0.3 * len(blocks)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (name, rows) in zip(parts, blocks.items(), strict=True):
        part.suptitle(TITLES[name], fontsize=9)
        for axes, row in zip(part.subplots(len(rows), columns, squeeze=False), rows, strict=True):
            _draw(axes, row)
    return figure


def _rows(selection: str, samples: Sequence[Any], sets: Sets) -> list[Row]:
    """The rows of one block."""
    drawn = Row(
        "sample",
        SAMPLES,
        [sets.samples[each.sample] for each in samples],
        [f"sample {each.sample}{', flagged' if each.flagged else ''}" for each in samples],
    )
    if selection == "suspects":
        original = [(each.original, each.original_mirrored, f"p = {each.p_value:.3f}") for each in samples]
        return [drawn, _real("likeliest original", REAL, sets.train, original)]
    near = [(each.neighbour, each.mirrored, f"LPIPS {each.distance:.3f}") for each in samples]
    training = _real("nearest in training", REAL, sets.train, near)
    if selection == "best":
        return [drawn, training]
    unseen = [
        (each.held_out_neighbour, each.held_out_mirrored, f"LPIPS {each.held_out_distance:.3f}") for each in samples
    ]
    return [drawn, _real("nearest held-out", HELD_OUT, sets.val, unseen), training]


def _real(name: str, colour: str, images: Images, shown: Sequence[tuple[int, int, str]]) -> Row:
    """Real images: row, whether mirrored, and a number to be told."""
    return Row(
        name,
        colour,
        [images[row][:, ::-1] if mirrored else images[row] for row, mirrored, _ in shown],
        [f"image {row}\n{number}" + ("\nmirrored" if mirrored else "") for row, mirrored, number in shown],
    )


def _draw(axes: Sequence[Axes], row: Row) -> None:
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel(row.name, color=row.colour, fontsize=8)
    for axis, image, note in zip(axes, row.images, row.notes, strict=False):  # a selection may be short
        axis.imshow(image, interpolation="nearest")
        axis.set_xlabel(note, color=row.colour, fontsize=8)


def histogram_figure(
    distances: Mapping[str, np.ndarray], copies: Mapping[str, np.ndarray], best: int, limit: float
) -> Figure:
    """LPIPS in panels on one axis, each with its median and with the report's range; below, distances to originals.

    What is below `limit` there is flagged.
    """
    figure = Figure(figsize=(WIDTH, 8.6), layout="constrained")
    *axes, last = figure.subplots(len(distances) + 1, 1)
    edges = _edges([*distances.values(), np.array(REPORT_BEST_SIX)])
    for axis, (name, values) in zip(axes, distances.items(), strict=True):
        colour, title = PANELS[name]
        axis.axvspan(*REPORT_BEST_SIX, color=REPORT, alpha=0.18, linewidth=0)
        axis.hist(values, edges, weights=_share(values), color=colour, alpha=0.75)
        axis.axvline(np.median(values), color=colour, linestyle="--", linewidth=1.2)
        axis.set(xlim=(0, edges[-1]), ylabel="share")
        axis.set_title(f"{title}\nn = {len(values):,}, median {np.median(values):.3f}", loc="left", color=colour)
    lowest = np.sort(distances["samples"])[:best]
    axes[0].plot(lowest, np.zeros(best), "v", color=INK, markersize=5, clip_on=False, label=f"the {best} lowest")
    label = "the report's six best (LSUN)"
    axes[0].fill_between([], [], color=REPORT, alpha=0.18, linewidth=0, label=label)
    axes[0].legend(loc="upper right")
    axes[-1].set_xlabel("LPIPS")
    edges = _edges(list(copies.values()))
    for name, values in copies.items():
        colour, label = PANELS[name][0], name.replace("_", "-")
        last.hist(values, edges, weights=_share(values), color=colour, histtype="step", linewidth=1.4, label=label)
    last.axvspan(0, limit, color=FLAGGED, alpha=0.18, linewidth=0, label="flagged")
    last.set_title("the same images to their likeliest originals", loc="left")
    last.set(xlim=(0, edges[-1]), ylabel="share", xlabel="1 - correlation of pixels")
    last.legend(loc="upper right")
    return figure


def _edges(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.linspace(0, max(each.max() for each in values) * 1.02, 61)


def _share(values: np.ndarray) -> np.ndarray:
    return np.full(len(values), 1 / len(values))
