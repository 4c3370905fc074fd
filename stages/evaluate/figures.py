"""The figures of stage `evaluate`, one for each thing that can be said of the samples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ddpm.evaluation.colours import CHANNELS
from ddpm.evaluation.estimates import Estimate
from stages.shared.figures import GRID, HELD_OUT, INK, REAL, SAMPLES, WIDTH
from stages.shared.files.images import FACTORS

COLOURS = {"samples": SAMPLES, "real": REAL, "held_out": HELD_OUT, "samples_to_training": SAMPLES}
LABELS = {"samples": "samples", "real": "training images", "held_out": "held-out images"}
ROWS = {"samples": "samples", "real": "training images", "samples_to_training": "samples, to\ntraining images"}
"""In the panels of metrics: what is compared with held-out images, but for the last."""
METRICS = {
    "kid": "KID to held-out images (0 is best)",
    "precision": "precision (1 is best)",
    "recall": "recall (1 is best)",
    "diversity": "diversity: mean LPIPS of pairs",
}


def metrics_figure(values: Mapping[str, Any]) -> Figure:
    """A panel for each metric: the value and the interval of samples, and of training images in their place."""
    figure = Figure(figsize=(WIDTH, 5.0), layout="constrained")
    for axis, (metric, title) in zip(figure.subplots(len(METRICS), 1), METRICS.items(), strict=True):
        rows = {name: each for name in ROWS for key, each in values[name].items() if key.startswith(metric)}
        if metric == "kid":
            axis.axvline(0, color=INK, linewidth=0.8)
        for place, (name, estimate) in enumerate(rows.items()):
            _point(axis, estimate, place, COLOURS[name], "none" if name == "samples_to_training" else COLOURS[name])
        axis.set_yticks(range(len(rows)), [ROWS[name] for name in rows])
        axis.set_ylim(len(rows) - 0.6, -0.8)
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_title(title, loc="left")
        axis.grid(axis="x", **GRID)
    return figure


def _point(axis: Axes, estimate: Estimate, place: float, colour: str, fill: str) -> None:
    below, above = estimate.value - estimate.low, estimate.high - estimate.value
    axis.errorbar(
        estimate.value, place, xerr=[[below], [above]], fmt="o", color=colour, mfc=fill, capsize=4, markersize=6
    )
    value = round(estimate.value, 3) + 0.0  # which makes -0.0 plain 0
    axis.annotate(f"{value:.3f}", (estimate.value, place), (0, 6), textcoords="offset points", ha="center")


def colours_figure(drifts: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> Figure:
    """A panel for the mean, the spread and the saturated share: each set's difference from the held-out images."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    panels = [
        ("mean", "mean, levels of 255", 1),
        ("std", "spread, levels of 255", 1),
        ("saturated", "saturated, percentage points", 100),
    ]
    for axis, (key, title, factor) in zip(figure.subplots(3, 1, sharex=True), panels, strict=True):
        axis.axhline(0, color=INK, linewidth=0.8)
        for offset, (name, drift) in zip((-0.15, 0.15), drifts.items(), strict=True):
            values, low, high = (
                np.array([getattr(drift[key][channel], end) for channel in CHANNELS]) * factor
                for end in ("value", "low", "high")
            )
            places = np.arange(len(CHANNELS)) + offset
            bars = [values - low, high - values]
            axis.errorbar(places, values, bars, fmt="o", color=COLOURS[name], capsize=3, label=LABELS[name])
        axis.set_xticks(range(len(CHANNELS)), CHANNELS)
        axis.set_xlim(-0.5, len(CHANNELS) - 0.5)
        axis.set_title(title, loc="left")
        axis.grid(axis="y", **GRID)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def factors_figure(predicted: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A panel for each factor: the share of each class in each set, as the classifier sees it."""
    if not predicted:
        figure = Figure(figsize=(WIDTH, 0.6))
        figure.text(0.5, 0.5, "of these images no drawn factors are known", ha="center", va="center")
        return figure
    figure = Figure(figsize=(WIDTH, 1.6 * len(predicted) + 0.7), layout="constrained")
    for axis, (factor, sets) in zip(
        figure.subplots(len(predicted), 1, squeeze=False).flat, predicted.items(), strict=True
    ):
        classes = np.unique(np.concatenate(list(sets.values())))
        for offset, (name, found) in zip((-0.27, 0, 0.27), sets.items(), strict=True):
            shares = [np.mean(found == each) for each in classes]
            axis.bar(np.arange(len(classes)) + offset, shares, 0.25, color=COLOURS[name], label=LABELS[name])
        axis.set_xticks(range(len(classes)), classes)
        axis.set_title(f"{FACTORS[factor]}, shares", loc="left")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
