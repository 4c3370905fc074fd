"""The page's own plots: the training loss, and the benchmark of quality against time."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from stages.shared.figures import REAL, SAMPLES


def loss_figure(losses: pd.DataFrame) -> Figure:
    """The loss by epoch, and the learning rate below it."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    marker = "o" if len(losses) == 1 else ""
    above.plot(losses["epoch"], losses["loss"], color=SAMPLES, linewidth=1.4, marker=marker)
    above.set(yscale="log", ylabel="training loss")
    # The loss of a run spans less than two decades, where powers of ten alone leave one tick or none.
    above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    above.yaxis.set_major_formatter("{x:g}")
    above.yaxis.set_minor_formatter(NullFormatter())
    above.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    below.plot(losses["epoch"], losses["learning_rate"], color=REAL, linewidth=1.2, marker=marker)
    below.set(ylabel="learning rate", xlabel="epoch", ylim=(0, None))
    below.set_xlim(0, None)
    return figure


SPACINGS = {"trailing": "-", "logsnr": "--", "linspace": "-.", "leading": ":"}
"""How the line of each is drawn."""


def quality_figure(quality: Mapping[str, Any]) -> Figure:
    """KID by evaluations, a line for each sampler and spacing; 1,000 ancestral steps as a band, the pick in a ring."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in quality["rows"] if row["precision"] == "auto"]
    reference = next(row["kid"] for row in rows if row["kid_difference"] is None)
    axes.axhspan(reference["low"], reference["high"], color="#ebebeb", linewidth=0, label="1,000 ancestral steps")
    axes.axhline(0, color="#888888", linewidth=0.8)
    colours = {name: f"C{index}" for index, name in enumerate(dict.fromkeys(row["sampler"] for row in rows))}
    lines = list(dict.fromkeys((row["sampler"], row["spacing"]) for row in rows))
    for place, (sampler, spacing) in enumerate(lines):
        line = [row for row in rows if (row["sampler"], row["spacing"]) == (sampler, spacing)]
        # Beside each other, because many samplers have as many evaluations.
        beside = 1.012 ** (place - len(lines) / 2)
        label = f"{sampler}, {spacing}" if spacing != "trailing" else sampler
        _kid_line(axes, line, beside, color=colours[sampler], linestyle=SPACINGS[spacing], label=label)
        for row in line:
            if all(row[key] == value for key, value in quality["pick"].items()):
                axes.plot(row["evaluations"] * beside, row["kid"]["value"], "ko", markersize=12, fillstyle="none")
    ticks = sorted({5} | {row["evaluations"] for row in rows if row["sampler"] == "ancestral"})
    axes.set(xscale="log", xlabel="evaluations of the network for each image", ylabel="KID to held-out images")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _kid_line(axes: Axes, rows: Sequence[Mapping[str, Any]], beside: float, **style: Any) -> None:
    kids = [row["kid"] for row in rows]
    axes.errorbar(
        [row["evaluations"] * beside for row in rows],
        [kid["value"] for kid in kids],
        [[kid["value"] - kid["low"] for kid in kids], [kid["high"] - kid["value"] for kid in kids]],
        **style,
        linewidth=1,
        elinewidth=0.7,
        marker="o",
        markersize=3,
    )
