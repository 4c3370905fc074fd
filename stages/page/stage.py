"""What the other stages wrote, told as one page for the browser and one for GitHub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Curve

from stages.kit.files import digest, write_text
from stages.kit.params import Params, read_params
from stages.page.claims import CLAIMS, HO_ET_AL, REPORT_PARAMETERS
from stages.page.curves import comparison_figure, game_figure, loss_figure, quality_figure
from stages.page.facts import described, estimates, headline, records
from stages.page.findings import findings
from stages.page.publish import Figure, plot_of, publish, publish_one, publish_sheets
from stages.page.render import render
from stages.page.sheets import SHOWN, neighbour_sheet, path_sheet, reverse_sheet
from stages.shared.figures import save_figure
from stages.shared.files.absent import NOTE
from stages.shared.files.formats import write_json
from stages.shared.files.images import FACTORS, image_set
from stages.shared.ranking import REPORT_BEST_SIX

STAGES = ("extract", "autoencode", "train", "tune", "gan", "interpolate", "rank", "evaluate", "likelihood")
"""Those whose details are told."""
SECTIONS = (
    ("", "What the report says, and what this run says of it"),
    (1, "Two processes"),
    (2, "Training and sampling"),
    (3, "Samples"),
    (4, "Interpolation"),
    (5, "Selection"),
    (6, "Evaluation"),
    (7, "Quality and time"),
    (8, "Few evaluations, and a GAN"),
    (9, "Several classes, larger images"),
    (10, "Do it again"),
)
"""Of the page; sections 1 and 3 to 5 have the numbers of the report's figures."""
BENCHMARKS = ("quality_time", "comparison", "classes", "sizes")
"""Those whose tables are shown."""


def main(
    *,
    details: Path,
    figures: Path,
    losses: Path,
    latents: Path,
    model: Path,
    gan: Path,
    tuned: Path,
    images: Path,
    samples: Path,
    neighbours: Path,
    benchmarks: Path,
    reports: Path,
) -> str:
    """Write `index.html`, `page.md`, `metrics.json` and the folder `figures` into the folder REPORTS.

    The numbers come from the folder DETAILS, the FIGURES from the folder in which the stages have drawn them, the
    curves from the tables in the folder LOSSES, what other runs came to from the folder BENCHMARKS. What moves in the
    page comes from the real IMAGES, the SAMPLES and the table of their NEIGHBOURS. The files of LATENTS, MODEL, TUNED
    and GAN are named with their digests. LATENTS has a picture where there are latents.
    """
    params = read_params()
    told = {stage: json.loads((details / f"{stage}.json").read_text(encoding="utf-8")) for stage in STAGES}
    others = {name: json.loads((benchmarks / f"{name}.json").read_text(encoding="utf-8")) for name in BENCHMARKS}
    published = reports / "figures"
    if params.model().kind == "gan":
        told["train"] = told["gan"]
    curves = {**loss_curves(losses, told), "quality_time": quality_figure(others["quality_time"])}
    if timed := [row for row in others["comparison"]["rows"] if row["seconds"]]:
        curves["comparison"] = comparison_figure(timed)
    shown = published_figures(figures, curves, latents / "reconstructions.png", published)
    train, val, drawn = image_set(images, "train"), image_set(images, "val"), image_set(samples, "samples")
    weights = [file for made in (latents, model, tuned, gan) for file in sorted(made.iterdir()) if file.name != NOTE]
    files = [train.array, val.array, *weights, drawn.array]
    facts = {
        **facts_of(params, told, others),
        "same_weights": others["quality_time"]["weights"] in map(digest, model.glob("*.safetensors")),
        "figures": shown,
        "digests": [(path.as_posix(), digest(path)) for path in files],
        **moving(params, images, samples, neighbours),
    }
    publish_sheets(facts["sheets"], published)
    page = reports / "index.html"
    write_text(page, render("page.html", facts, escape=True))
    write_text(reports / "page.md", render("page.md", facts, escape=False))
    write_json(reports / "metrics.json", headline(told))
    return f"the page {page}, the same in {reports / 'page.md'}, and {reports / 'metrics.json'}"


def loss_curves(losses: Path, told: Mapping[str, Any]) -> dict[str, Curve]:
    """The figures of the loss tables in LOSSES that the stages have `told` of."""
    if "absent" in told["gan"]:
        curves = {"loss": loss_figure(pd.read_csv(losses / "loss.csv"))}
    else:
        curves = {"loss": game_figure(pd.read_csv(losses / "gan_loss.csv"))}
    if "absent" not in told["tune"]:
        curves["tune_loss"] = loss_figure(pd.read_csv(losses / "tune_loss.csv"), "loss of tuning")
    return curves


def published_figures(
    drawn: Path, curves: Mapping[str, Curve], reconstructions: Path, folder: Path
) -> dict[str, Figure]:
    """All figures of the page, in `folder`: what stages have DRAWN, the `curves`, and RECONSTRUCTIONS, if any."""
    shown = publish(drawn, folder)
    for name, curve in curves.items():
        save_figure(folder / f"{name}.svg", curve)
        shown[name] = plot_of(folder / f"{name}.svg")
    if reconstructions.exists():
        shown["reconstructions"] = publish_one(reconstructions, folder)
    return shown


def facts_of(params: Params, told: dict[str, Any], benchmarks: dict[str, Any]) -> dict[str, Any]:
    """What follows from the parameters, from what the stages have `told`, and from the benchmarks."""
    run = described(params, told["autoencode"].get("shape"), told["tune"].get("sampling"))
    return {
        **told,
        **run,
        "findings": findings(told, run, benchmarks),
        "quality": benchmarks["quality_time"],
        **{name: benchmarks[name] for name in ("comparison", "classes", "sizes")},
        "report_best": REPORT_BEST_SIX,
        "report_parameters": REPORT_PARAMETERS,
        "claims": CLAIMS,
        "ho": HO_ET_AL,
        "sections": SECTIONS,
        "records": records(told["extract"]),
        "factors": FACTORS,
        "estimates": list(estimates(told)),
    }


def moving(params: Params, images: Path, samples: Path, neighbours: Path) -> dict[str, Any]:
    """What the page's sliders show, and what they say."""
    interpolate = params.mapping("interpolate")
    trajectory = samples / "reverse" / "reverse.safetensors"
    reverse, steps = reverse_sheet(trajectory) if trajectory.exists() else (None, [])
    gallery_sheet, gallery = neighbour_sheet(samples, images, neighbours, params.mapping("rank")["best"])
    paths = path_sheet(samples / "interpolation.npy", interpolate["shown"])
    return {
        "sheets": {"paths": paths, **({"reverse": reverse} if reverse else {}), "samples": gallery_sheet},
        "gallery": gallery,
        "gallery_size": SHOWN,
        "moments": [*(f"t = {t:,}" for t in steps), "the sample"],
        "mixtures": [f"{index / (interpolate['frames'] - 1):.3g}" for index in range(interpolate["frames"])],
    }
