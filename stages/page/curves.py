"""The page's own plots: the training loss, or both of a GAN, and the benchmarks of quality against time."""

from collections.abc import Iterator, Mapping, Sequence
from math import log
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from stages.shared.figures import GRID, HELD_OUT, INK, REAL, REPORT, SAMPLES, WIDTH

Rows = Sequence[Mapping[str, Any]]
"""Of the benchmark: a sampler with its number of evaluations and its KID."""


def loss_figure(losses: pd.DataFrame, name: str = "training loss") -> Figure:
    """The loss of this name by epoch, and the learning rate below it."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
    marker = "o" if len(losses) == 1 else ""
    above.plot(losses["epoch"], losses["loss"], color=SAMPLES, linewidth=1.4, marker=marker)
    above.set(yscale="log", ylabel=name)
    # The loss of a run spans less than two decades, where powers of ten alone leave one tick or none.
    above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    above.yaxis.set_major_formatter("{x:g}")
    above.yaxis.set_minor_formatter(NullFormatter())
    above.grid(axis="y", **GRID)
    below.plot(losses["epoch"], losses["learning_rate"], color=REAL, linewidth=1.2, marker=marker)
    below.set(ylabel="rate", xlabel="epoch", ylim=(0, None))
    below.set_xlim(0, None)
    return figure


def game_figure(table: pd.DataFrame) -> Figure:
    """Both losses of a GAN by epoch, and the squared gradients of the critic below them."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    marker = "o" if len(table) == 1 else ""
    for axes, kind, real, fake in ((above, "loss", "critic_loss", "generator_loss"), (below, "steep", "real", "fake")):
        names = {real: real.removesuffix("_loss"), fake: fake.removesuffix("_loss")}
        for (name, label), colour in zip(names.items(), (REAL, SAMPLES), strict=True):
            column = name if kind == "loss" else f"{kind}_{name}"
            axes.plot(table["epoch"], table[column], color=colour, linewidth=1.4, marker=marker, label=label)
        axes.grid(axis="y", **GRID)
        axes.legend()
    above.axhline(log(2), color=INK, linewidth=0.8)
    above.set(ylabel="loss", ylim=(0, None))
    below.set(ylabel="squared gradient", xlabel="epoch", yscale="log")
    below.set_xlim(0, None)
    return figure


LINES = {"ancestral": ("o", REPORT), "ddim": ("s", SAMPLES)}
"""The samplers of the report and of its future work: a line each."""


def quality_figure(quality: Mapping[str, Any]) -> Figure:
    """KID by evaluations: ancestral sampling, DDIM, and the rows that no other row beats in both."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in quality["rows"] if row["precision"] == "auto"]
    others = [row for row in rows if row["sampler"] not in LINES]
    axes.plot(*_points(others), "x", color=REAL, markersize=4, label="other samplers")
    for name, (marker, colour) in LINES.items():
        _line(axes, [row for row in rows if row["sampler"] == name], marker=marker, color=colour, label=name)
    best = list(front(rows))
    axes.plot(*_points(best), color=INK, linewidth=1, linestyle="--", label="Pareto front")
    for row in best:
        if all(row[key] == value for key, value in quality["pick"].items()):
            axes.plot(*_points([row]), "o", color=INK, markersize=12, fillstyle="none", label="chosen")
    axes.axhline(0, color=INK, linewidth=0.8)
    ticks = sorted({5} | {row["evaluations"] for row in rows if row["sampler"] == "ancestral"})
    axes.set(xscale="log", xlabel="evaluations of the network for each image", ylabel="KID to held-out images")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", **GRID)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


COLOURS = {
    "DDPM": REPORT,
    "DDIM": SAMPLES,
    "consistency": HELD_OUT,
    "matching": "#8a5fb8",
    "matching without a critic": "#c3a9de",
    "GAN": "#c0504d",
}
"""Of systems whose names begin so; the others are the default sampler."""


def comparison_figure(rows: Rows) -> Figure:
    """KID by the seconds that 64 images take: a point for each row with its evaluations, a line for each family."""
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    families: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["says"].partition(",")[0], []).append(row)
    for name, members in families.items():
        x, kids = [row["seconds"]["median"] for row in members], [row["kid"] for row in members]
        ends = [[abs(kid["value"] - kid[end]) for kid in kids] for end in ("low", "high")]
        style: dict[str, Any] = {
            "marker": "o",
            "color": COLOURS.get(name, INK),
            "linewidth": 1.2 if len({row["evaluations"] for row in members}) == len(members) else 0,  # several recipes
            "elinewidth": 0.8,
            "markersize": 4,
        }
        axes.errorbar(x, [kid["value"] for kid in kids], ends, **style, label=name)
        for row, seconds in zip(members, x, strict=True):
            place = (seconds, row["kid"]["value"])
            axes.annotate(f"{row['evaluations']:,}", place, (5, 3), textcoords="offset points", fontsize="small")
    axes.set(xscale="log", xlabel="seconds for 64 images", ylabel="KID to held-out images")
    axes.set_yscale("symlog", linthresh=0.01, linscale=0.4)
    axes.set_ylim(min(0, *(row["kid"]["low"] for row in rows)), 2 * max(row["kid"]["high"] for row in rows))
    axes.margins(x=0.1)
    axes.grid(axis="y", **GRID)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def front(rows: Rows) -> Iterator[Mapping[str, Any]]:
    """The Pareto front: rows with a lower KID than all that need as many evaluations or fewer, by evaluations."""
    lowest = float("inf")
    for row in sorted(rows, key=lambda row: (row["evaluations"], row["kid"]["value"])):
        if row["kid"]["value"] < lowest:
            lowest = row["kid"]["value"]
            yield row


def _points(rows: Rows) -> tuple[list[float], list[float]]:
    return [row["evaluations"] for row in rows], [row["kid"]["value"] for row in rows]


def _line(axes: Axes, rows: Rows, **style: Any) -> None:
    kids = [row["kid"] for row in rows]
    below, above = ([abs(kid["value"] - kid[end]) for kid in kids] for end in ("low", "high"))
    axes.errorbar(*_points(rows), [below, above], **style, linewidth=1.2, elinewidth=0.8, markersize=4)
