"""What the other stages wrote, told as one page for the browser and one for GitHub."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from stages.kit.files import digest, write_text
from stages.kit.params import Params, read_params
from stages.page.claims import CLAIMS, HO_ET_AL, REPORT_PARAMETERS
from stages.page.curves import loss_figure, quality_figure
from stages.page.facts import described, estimates, headline, records
from stages.page.findings import findings
from stages.page.publish import plot_of, publish, publish_sheets
from stages.page.render import render
from stages.page.sheets import neighbour_sheet, path_sheet, reverse_sheet
from stages.shared.factors import FACTORS
from stages.shared.figures import save_figure
from stages.shared.formats import write_json
from stages.shared.images import image_set
from stages.shared.ranking import REPORT_BEST_SIX

STAGES = ("extract", "train", "tune", "interpolate", "rank", "evaluate", "likelihood")
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
    (8, "Do it again"),
)
"""Of the page; sections 1 and 3 to 5 have the numbers of the report's figures."""


def main(
    *,
    details: Path,
    figures: Path,
    losses: Path,
    tune_losses: Path,
    model: Path,
    tuned: Path,
    images: Path,
    samples: Path,
    neighbours: Path,
    quality: Path,
    reports: Path,
) -> str:
    """Write `index.html`, `page.md`, `metrics.json` and the folder `figures` into the folder REPORTS.

    The numbers come from the folder DETAILS, the FIGURES from the folder in which the stages have drawn them, curves
    from the tables LOSSES and TUNE_LOSSES, and QUALITY against time from a benchmark. What moves in the page comes from
    the real IMAGES, the SAMPLES and the table of their NEIGHBOURS. The files of MODEL and TUNED are named with digests.
    """
    params = read_params()
    told = {stage: json.loads((details / f"{stage}.json").read_text(encoding="utf-8")) for stage in STAGES}
    benchmark = json.loads(quality.read_text(encoding="utf-8"))
    published = reports / "figures"
    shown = publish(figures, published)
    curves = {"loss": loss_figure(pd.read_csv(losses)), "quality_time": quality_figure(benchmark)}
    if "absent" not in told["tune"]:
        curves["tune_loss"] = loss_figure(pd.read_csv(tune_losses), "loss of tuning")
    for name, figure in curves.items():
        save_figure(published / f"{name}.svg", figure)
        shown[name] = plot_of(published / f"{name}.svg")
    train, val, drawn = image_set(images, "train"), image_set(images, "val"), image_set(samples, "samples")
    files = [train.array, val.array, *sorted(model.iterdir()), *sorted(tuned.iterdir()), drawn.array]
    facts = {
        **facts_of(params, told, benchmark),
        "same_weights": benchmark["weights"] in map(digest, model.glob("*.safetensors")),
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


def facts_of(params: Params, told: dict[str, Any], benchmark: dict[str, Any]) -> dict[str, Any]:
    """What follows from the parameters, from what the stages have `told`, and from the benchmark."""
    run = described(params, told["tune"].get("sampling"))
    return {
        **told,
        **run,
        "findings": findings(told, run, benchmark),
        "quality": benchmark,
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
    reverse, steps = reverse_sheet(samples / "reverse.safetensors")
    gallery_sheet, gallery = neighbour_sheet(samples, images, neighbours)
    paths = path_sheet(samples / "interpolation.npy", interpolate["shown"])
    return {
        "sheets": {"paths": paths, "reverse": reverse, "samples": gallery_sheet},
        "gallery": gallery,
        "moments": [*(f"t = {t:,}" for t in steps), "the sample"],
        "mixtures": [f"{index / (interpolate['frames'] - 1):.3g}" for index in range(interpolate["frames"])],
    }
