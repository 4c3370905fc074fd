"""Compare the samples with real images as distributions, and real images with each other in the same way."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ddpm.evaluation.colours import colour_drift
from ddpm.evaluation.estimates import Estimate
from ddpm.evaluation.metrics import frechet, require_full_rank
from ddpm.evaluation.perceptual import IMAGES_AT_ONCE, load_lpips
from stages.evaluate.autoencoder import compare_decoded
from stages.evaluate.compare import compare, compare_categories, kept_estimates
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.factors import Predicted, compare_factors, drawn_factors, predict_factors
from stages.evaluate.figures import colours_figure, factors_figure, metrics_figure
from stages.evaluate.inception import DIMENSIONS, INCEPTION_AT_ONCE, inception_features, load_inception
from stages.evaluate.sets import Kept, Sets, open_sets
from stages.kit.device import announce, setup
from stages.kit.files import repository_root
from stages.kit.identity import run_of
from stages.kit.inception import inception_checked
from stages.kit.params import read_params
from stages.kit.parts import Parts
from stages.kit.progress import progress
from stages.kit.runtime import RuntimeConfig
from stages.kit.state import parts_folder
from stages.shared.figures import save_figure
from stages.shared.files.formats import read_backbone, write_json
from stages.shared.files.images import image_set
from stages.shared.files.latents import latents_in

FEATURES = {"alex": "alexnet", "vgg": "vgg16"}


def main(
    *, samples: Path, images: Path, backbone: Path, details: Path, figures: Path, latents: Path | None = None
) -> str:
    """Compare the SAMPLES in that folder, and training images, with the held-out ones in the folder IMAGES.

    DETAILS gets the numbers, the folder FIGURES `metrics.svg`, `colours.svg` and `factors.svg`; the network BACKBONE
    gives the features. An autoencoder in the folder LATENTS is judged, too, by what it makes of held-out images.
    """
    params = inception_checked(read_params())
    config, device = params.section(EvaluateConfig, "evaluate"), setup(params)
    announce("evaluate", device, torch.float32)
    runtime = params.section(RuntimeConfig, "runtime")
    at_once = runtime.at_once(IMAGES_AT_ONCE)
    sets = open_sets(samples, images, config.neighbourhood, config.seed)
    tensors, net = read_backbone(backbone)
    model, network = load_lpips(tensors, net).to(device), FEATURES[net]
    autoencoders = [file for file in [latents and latents_in(latents).autoencoder] if file and file.exists()]
    sets_read = [*image_set(samples, "samples"), *image_set(images, "train"), *image_set(images, "val")]
    inputs = [backbone, *sets_read, *autoencoders]
    run = run_of({**asdict(config), "at_once": at_once}, device, torch.float32, inputs)
    with parts_folder(repository_root() / ".cache" / "evaluate", run, "evaluating the same samples") as folder:
        measure, train = Kept(model, at_once, Parts(folder)), sets.images["train"]
        values, features = compare_all(measure, sets, config, network)
        inception = inception_of(config, measure.parts, sets, runtime, device)
        values["frechet"] = distances(measure, features, sets, network, inception)
        seen, unseen = drawn_factors(sets.tables["train"], sets.tables["held_out"])
        predicted: Predicted = {}
        if len(seen.columns):
            learnt = measure.features("rest", train, sets.rest)
            predicted = predict_factors(features, learnt, seen.iloc[sets.rest])
            values["factors"] = compare_factors(predicted, unseen, config.seed)
        if autoencoders:
            values["autoencoder"] = compare_decoded(measure, autoencoders[0], sets, features["held_out"], device)
        write_json(details, _nested(values))
        drifts = {name: values[name]["colour_drift"] for name in ("samples", "real")}
        save_figure(figures / "metrics.svg", metrics_figure(values))
        save_figure(figures / "colours.svg", colours_figure(drifts))
        save_figure(figures / "factors.svg", factors_figure(predicted))
    found = values["samples"][f"kid_{network}"]
    return f"KID {found.value:.4f} ({found.low:.4f} to {found.high:.4f}), in {details}; see {figures / 'metrics.svg'}"


def compare_all(
    measure: Kept, sets: Sets, config: EvaluateConfig, network: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Samples and training images against held-out images, samples against training images, and each category.

    Returns:
        The numbers, and the features of the three sets that were compared.
    """
    ours, train, held_out = sets.images.values()
    features = {
        "samples": measure.features("samples", ours),
        "real": measure.features("real", train, sets.measured),
        "held_out": measure.features("held_out", held_out),
    }
    pairs = {
        "samples": ("samples", "held_out"),
        "real": ("real", "held_out"),
        "samples_to_training": ("samples", "real"),
    }
    values: dict[str, Any] = {"held_out_images": len(held_out), "training_images": len(sets.measured)}
    k = config.neighbourhood
    with progress(len(pairs), "comparison", label="KID, precision, recall") as bar:
        for name, (one, other) in pairs.items():
            values[name] = compare(features[one], features[other], k, network, measure.parts, name)
            bar.update()
    if "category" in sets.tables["samples"] and sets.tables["held_out"]["category"].nunique() > 1:
        tables = {**sets.tables, "real": sets.tables["train"].iloc[sets.measured]}
        categories = {name: tables[name]["category"].to_numpy(str) for name in features}
        values["categories"] = compare_categories(features, categories, k, network, measure.parts)
    for name, images, rows in (("samples", ours, None), ("real", train, sets.measured)):
        drift = colour_drift(images if rows is None else images[rows], held_out)
        values[name] |= {"diversity_lpips": measure.diversity(name, images, rows), "colour_drift": drift}
    return values, features


Features = Callable[[], tuple[Tensor, Tensor]]
"""Features of the samples and of all training images, `[M, D]` and `[N, D]`."""


def inception_of(
    config: EvaluateConfig, parts: Parts, sets: Sets, runtime: RuntimeConfig, device: torch.device
) -> Features | None:
    """Inception's features, where its weights are given; computed once and kept in `parts`."""
    if not config.inception:
        return None
    weights = Path(config.inception)

    def features() -> tuple[Tensor, Tensor]:
        network, most = load_inception(weights, device), runtime.at_once(INCEPTION_AT_ONCE)

        def of(name: str) -> Tensor:
            compute = partial(inception_features, network, sets.images[name], most)
            found = parts.kept(f"inception {name}", lambda: {"features": compute().numpy()})
            return torch.from_numpy(found["features"])

        return of("samples"), of("train")

    return features


def distances(
    measure: Kept, features: dict[str, Tensor], sets: Sets, network: str, inception: Features | None
) -> dict[str, Any]:
    """The Frechet distances, by name."""

    def pooled() -> tuple[Tensor, Tensor]:
        rest = measure.features("rest", sets.images["train"], sets.rest)
        return features["samples"], torch.cat([features["real"], rest])

    return {
        f"fd_{network}": _frechet(network, features["samples"].shape[1], sets, measure.parts, pooled),
        "fid_inception": _frechet("inception", DIMENSIONS, sets, measure.parts, inception),
    }


def _frechet(name: str, dimensions: int, sets: Sets, parts: Parts, features: Features | None) -> dict[str, Any]:
    """The samples' distance to all training images, as is the custom, or the words why there is none."""
    ours, train, _ = sets.images.values()
    try:
        require_full_rank(len(ours), len(train), dimensions)
    except ValueError as error:
        return {"refused": str(error)}
    if features is None:
        return {"refused": "evaluate.inception names no weights"}
    strata = strata_of(sets.tables["samples"])
    [distance] = kept_estimates(parts, f"frechet {name}", lambda: [frechet(*features(), strata)])
    return {**asdict(distance), "all_training_images": len(train)}


def strata_of(samples: pd.DataFrame) -> np.ndarray | None:
    """The category of each sample, where as many of each were drawn; None where chance decided that too."""
    if "category" not in samples:
        return None
    counts = samples["category"].value_counts()
    return samples["category"].to_numpy(str) if counts.max() - counts.min() <= 1 else None


def _nested(values: Any) -> Any:
    """`values` with each estimate as a mapping."""
    if isinstance(values, dict):
        return {name: _nested(each) for name, each in values.items()}
    return asdict(values) if isinstance(values, Estimate) else values
