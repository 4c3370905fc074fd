"""Stage `report`: what the other stages wrote, told as one page for the browser and one for GitHub."""

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from stages.kit.files import digest, write_text
from stages.kit.params import MAPS, SCALARS, Params, read_params
from stages.page.sheets import neighbour_sheet, path_sheet, reverse_sheet, uri
from stages.shared.factors import FACTORS
from stages.shared.figures import REAL, SAMPLES, save_figure
from stages.shared.formats import write_json
from stages.shared.ranking import REPORT_BEST_SIX

MACHINE = ("runtime",)
"""Parameters that change no result, and that differ from machine to machine."""


def main(
    templates: Path,
    extract: Path,
    train: Path,
    interpolate: Path,
    rank: Path,
    evaluate: Path,
    likelihood: Path,
    losses: Path,
    weights: Path,
    images: Path,
    held_out: Path,
    drawn: Path,
    trajectory: Path,
    frames: Path,
    neighbours: Path,
    quality: Path,
    data: Path,
    samples: Path,
    forward: Path,
    reverse: Path,
    reverse_animated: Path,
    interpolation: Path,
    interpolation_real: Path,
    interpolation_animated: Path,
    best: Path,
    nearest: Path,
    kid: Path,
    precision_recall: Path,
    diversity: Path,
    colours: Path,
    factors: Path,
    noise_loss: Path,
    page: Path,
    markdown: Path,
    merged: Path,
    loss: Path,
    quality_time: Path,
) -> str:
    """Fill TEMPLATES to PAGE and MARKDOWN from metrics, tables and figures; write all metrics to MERGED.

    Draw LOSS, and QUALITY_TIME from the benchmark QUALITY, which was taken with WEIGHTS or with others. What moves in
    the page comes from the arrays: training and HELD_OUT images, samples that were DRAWN, their TRAJECTORY and their
    NEIGHBOURS, and the FRAMES of interpolation.
    """
    params = read_params()
    sources = {"extract": extract, "train": train, "interpolate": interpolate, "rank": rank, "evaluate": evaluate}
    sources["likelihood"] = likelihood
    metrics = {stage: json.loads(path.read_text(encoding="utf-8")) for stage, path in sources.items()}
    write_json(merged, metrics)
    save_figure(loss, loss_figure(pd.read_csv(losses)))
    measured = json.loads(quality.read_text(encoding="utf-8"))
    save_figure(quality_time, quality_figure(measured))
    figures = {"forward": forward, "data": data, "loss": loss, "samples": samples, "reverse": reverse}
    figures |= {"reverse_animated": reverse_animated, "interpolation": interpolation}
    figures |= {"interpolation_real": interpolation_real, "interpolation_animated": interpolation_animated}
    figures |= {"best": best, "nearest": nearest, "kid": kid}
    figures |= {"precision_recall": precision_recall, "diversity": diversity, "colours": colours, "factors": factors}
    figures |= {"noise_loss": noise_loss, "quality_time": quality_time}
    facts = {
        **metrics,
        "quality": measured,
        "same_weights": measured["weights"] in map(digest, weights.glob("*.safetensors")),
        "figures": {name: Picture(path) for name, path in figures.items()},
        "report_best": REPORT_BEST_SIX,
        "factors": FACTORS,
        "estimates": list(estimates(metrics)),
        "digests": [(path.as_posix(), digest(path)) for path in (images, held_out, *sorted(weights.iterdir()), drawn)],
        **moving(params, images, held_out, drawn, trajectory, frames, neighbours),
        **described(params),
    }
    write_text(page, render(templates, "report.html", page, facts, escape=True))
    write_text(markdown, render(templates, "report.md", markdown, facts, escape=False))
    return f"the page {page}, the same in {markdown}, all metrics in {merged}"


@dataclass(frozen=True)
class Picture:
    """A PNG, to be shown by a template."""

    path: Path

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        with Image.open(self.path) as image:
            return image.size

    @property
    def uri(self) -> str:
        """The picture as a data URI, pixel for pixel; an animation as the file that it is."""
        with Image.open(self.path) as image:
            if not getattr(image, "is_animated", False):
                return uri(image)
        return f"data:image/png;base64,{base64.b64encode(self.path.read_bytes()).decode()}"

    def seen_from(self, page: Path) -> str:
        """The file's path relative to the folder of `page`."""
        return Path(os.path.relpath(self.path, page.parent)).as_posix()


def moving(
    params: Params, images: Path, held_out: Path, drawn: Path, trajectory: Path, frames: Path, neighbours: Path
) -> dict[str, Any]:
    """What the page's sliders show, and what they say."""
    interpolate = params.mapping("interpolate")
    reverse, steps = reverse_sheet(trajectory)
    samples, gallery = neighbour_sheet(drawn, images, held_out, neighbours)
    return {
        "sheets": {"paths": path_sheet(frames, interpolate["shown"]), "reverse": reverse, "samples": samples},
        "gallery": gallery,
        "moments": [*(f"t = {t:,}" for t in steps), "the sample"],
        "mixtures": [f"{index / (interpolate['frames'] - 1):.3g}" for index in range(interpolate["frames"])],
    }


def estimates(metrics: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every value with an interval, by its dotted name."""
    if {"value", "low", "high", "n"} <= metrics.keys():
        yield name, metrics
    else:
        for key, value in metrics.items():
            if isinstance(value, Mapping):
                yield from estimates(value, f"{name}.{key}".lstrip("."))


def described(params: Params) -> dict[str, Any]:
    """The parameters as the templates use them, and what follows from them without a run."""
    top = params.top
    model, sample = params.mapping("models", top.model), params.mapping("sample")
    schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"))
    dimensions = 3 * params.mapping("extract")["size"] ** 2
    return {
        "params": params.values,
        "source": params.mapping("sources", top.data),
        "model": model,
        "sampling": {key: own if sample.get(key) is None else sample[key] for key, own in model["sampling"].items()},
        "alpha_bar_end": schedule.at(schedule.steps - 1),
        "dimensions": dimensions,
        "shell": {"ends": sqrt(dimensions), "middle": sqrt(dimensions / 2)},
        "parameters": list(parameters(params)),
    }


def parameters(params: Params) -> Iterator[tuple[str, str]]:
    """Every parameter that this run depends on, by its dotted name, and its value."""
    chosen = {"sources": params.top.data, "models": params.top.model}
    for key in SCALARS + MAPS:
        if key in chosen:
            yield from _flat(f"{key}.{chosen[key]}", params.mapping(key, chosen[key]))
        elif key not in MACHINE:
            yield from _flat(key, params.values[key])


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)


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


def render(templates: Path, name: str, target: Path, facts: Mapping[str, Any], *, escape: bool) -> str:
    """The template `name` filled with `facts`, for the place `target`; `escape` what has a meaning in HTML."""
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"count": lambda number: f"{number:,}", "decimal": decimal}
    return environment.get_template(name).render(facts, target=target)


def decimal(number: float, digits: int = 3, *, sign: bool = False) -> str:
    """`number` with `digits` decimal places and a real minus; with a plus where a `sign` is asked for."""
    rounded = round(number, digits) + 0.0  # which makes -0.0 plain 0
    return f"{rounded:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")
