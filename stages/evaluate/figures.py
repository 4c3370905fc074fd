"""The figures of stage `evaluate`, one for each thing that can be said of the samples."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm.evaluation.metrics import CHANNELS, Estimate
from stages.shared.factors import FACTORS
from stages.shared.figures import HELD_OUT, REAL, SAMPLES

COLOURS = {"samples": SAMPLES, "real": REAL, "held_out": HELD_OUT}
LABELS = {"samples": "samples", "real": "training images", "held_out": "held-out images"}
GRID = {"color": "#e6e6e6", "linewidth": 0.6}


def estimates_figure(panels: Mapping[str, Mapping[str, Estimate]], best: float | None = None) -> Figure:
    """A panel for each of `panels`, by title: each set's value and interval, and a rule at the `best`."""
    figure = Figure(figsize=(7.2, 1.75), layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (title, estimates) in zip(axes, panels.items(), strict=True):
        if best is not None:
            axis.axvline(best, color="#888888", linewidth=0.8)
        for place, (name, estimate) in enumerate(estimates.items()):
            _point(axis, estimate, place, COLOURS[name])
        axis.set_yticks(range(len(estimates)), [LABELS[name] for name in estimates])
        axis.set_ylim(len(estimates) - 0.5, -0.7)
        axis.set_title(title)
        axis.grid(axis="x", **GRID)
    return figure


def _point(axis: Axes, estimate: Estimate, place: float, colour: str) -> None:
    below, above = estimate.value - estimate.low, estimate.high - estimate.value
    axis.errorbar(estimate.value, place, xerr=[[below], [above]], fmt="o", color=colour, capsize=4, markersize=6)
    axis.annotate(f"{estimate.value:.3f}", (estimate.value, place), (0, 7), textcoords="offset points", ha="center")


def colours_figure(drifts: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> Figure:
    """A panel for the mean, the spread and the saturated share: each set's difference from the held-out images."""
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    panels = [
        ("mean", "mean, levels of 255", 1),
        ("std", "spread, levels of 255", 1),
        ("saturated", "saturated, %", 100),
    ]
    for axis, (key, title, factor) in zip(figure.subplots(1, 3), panels, strict=True):
        axis.axhline(0, color="#888888", linewidth=0.8)
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
        axis.set_title(title)
        axis.grid(axis="y", **GRID)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def factors_figure(predicted: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A panel for each factor: the share of each class in each set, as the classifier sees it."""
    if not predicted:
        figure = Figure(figsize=(7.2, 0.6))
        figure.text(0.5, 0.5, "of these images no drawn factors are known", ha="center", va="center")
        return figure
    rows = -(-len(predicted) // 2)
    figure = Figure(figsize=(7.2, 1.9 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False).flat
    for axis, (factor, sets) in zip(axes, predicted.items(), strict=False):
        classes = np.unique(np.concatenate(list(sets.values())))
        for offset, (name, found) in zip((-0.27, 0, 0.27), sets.items(), strict=True):
            shares = [np.mean(found == each) for each in classes]
            axis.bar(np.arange(len(classes)) + offset, shares, 0.25, color=COLOURS[name], label=LABELS[name])
        axis.set_xticks(range(len(classes)), classes)
        axis.set_title(FACTORS[factor])
        axis.set_ylabel("share")
    for axis in axes:  # what is left where their number is odd
        axis.axis("off")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
