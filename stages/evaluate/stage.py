"""Compare the samples with real images as distributions, and real images with each other in the same way."""

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.evaluation.colours import colour_drift
from ddpm.evaluation.estimates import Estimate
from ddpm.evaluation.metrics import frechet, require_full_rank
from ddpm.evaluation.perceptual import IMAGES_AT_ONCE, load_lpips
from stages.evaluate.compare import compare, compare_categories, kept_estimates
from stages.evaluate.factors import compare_factors, drawn_factors, predict_factors
from stages.evaluate.figures import colours_figure, factors_figure, metrics_figure
from stages.evaluate.inception import DIMENSIONS, INCEPTION_AT_ONCE, inception_features, load_inception
from stages.evaluate.sets import Sets, diversity_of, features_of, open_sets
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
from stages.shared.formats import read_safetensors, write_json
from stages.shared.images import image_set

FEATURES = {"alex": "alexnet", "vgg": "vgg16"}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """`neighbourhood`: the k of precision and recall; `inception`: the file of its weights; without it there is no FID.

    `seed` draws the training images that are measured as well, and the bootstrap.
    """

    neighbourhood: PositiveInt
    seed: NonNegativeInt
    inception: str | None


def main(*, samples: Path, images: Path, backbone: Path, details: Path, figures: Path) -> str:
    """Compare the SAMPLES in that folder, and training images, with the held-out ones in the folder IMAGES.

    DETAILS gets the numbers, the folder FIGURES `metrics.svg`, `colours.svg` and `factors.svg`; the network BACKBONE
    gives the features.
    """
    params = inception_checked(read_params())
    config, device = params.section(EvaluateConfig, "evaluate"), setup(params)
    announce("evaluate", device, torch.float32)
    runtime = params.section(RuntimeConfig, "runtime")
    at_once = runtime.at_once(IMAGES_AT_ONCE)
    sets = open_sets(samples, images, config.neighbourhood, config.seed)
    tensors, metadata = read_safetensors(backbone)
    model, network = load_lpips(tensors, metadata["net"]).to(device), FEATURES[metadata["net"]]
    ours, train, held_out = sets.images.values()
    inputs = [backbone, *image_set(samples, "samples"), *image_set(images, "train"), *image_set(images, "val")]
    run = run_of({**asdict(config), "at_once": at_once}, device, torch.float32, inputs)
    with parts_folder(repository_root() / ".cache" / "evaluate", run, "evaluating the same samples") as folder:
        parts = Parts(folder)

        def features_in(name: str, images: np.ndarray, rows: np.ndarray | None = None) -> Tensor:
            compute = functools.partial(features_of, model, at_once, images, rows)
            return torch.from_numpy(parts.kept(name, lambda: {"features": compute().numpy()})["features"])

        features = {
            "samples": features_in("samples", ours),
            "real": features_in("real", train, sets.measured),
            "held_out": features_in("held_out", held_out),
        }
        values = compare_all(features, sets, config.neighbourhood, network, parts)

        def diversity_in(name: str, images: np.ndarray, rows: np.ndarray | None = None) -> Estimate:
            compute = functools.partial(diversity_of, model, at_once, images, rows)
            return kept_estimates(parts, f"diversity {name}", lambda: [compute()])[0]

        diversities = diversity_in("samples", ours), diversity_in("real", train, sets.measured)
        rest = functools.cache(lambda: features_in("rest", train, sets.rest))
        drifts = {"samples": colour_drift(ours, held_out), "real": colour_drift(train[sets.measured], held_out)}
        for name, diversity in zip(drifts, diversities, strict=True):
            values[name] |= {"diversity_lpips": diversity, "colour_drift": drifts[name]}

        def pooled() -> tuple[Tensor, Tensor]:
            return features["samples"], torch.cat([features["real"], rest()])

        def inception() -> tuple[Tensor, Tensor]:
            network = load_inception(Path(config.inception or ""), device)
            most = runtime.at_once(INCEPTION_AT_ONCE)
            return inception_features(network, ours, most), inception_features(network, train, most)

        values["frechet"] = {
            f"fd_{network}": _frechet(features["samples"].shape[1], sets, pooled),
            "fid_inception": _frechet(DIMENSIONS, sets, inception if config.inception else None),
        }
        seen, unseen = drawn_factors(sets.tables["train"], sets.tables["held_out"])
        predicted = predict_factors(features, rest(), seen.iloc[sets.rest]) if len(seen.columns) else {}
        if predicted:
            values["factors"] = compare_factors(predicted, unseen, config.seed)
        write_json(details, _nested(values))
        save_figure(figures / "metrics.svg", metrics_figure(values))
        save_figure(figures / "colours.svg", colours_figure(drifts))
        save_figure(figures / "factors.svg", factors_figure(predicted))
    found = values["samples"][f"kid_{network}"]
    return f"KID {found.value:.4f} ({found.low:.4f} to {found.high:.4f}), in {details}; see {figures / 'metrics.svg'}"


def compare_all(
    features: dict[str, Tensor], sets: Sets, neighbourhood: int, network: str, parts: Parts
) -> dict[str, Any]:
    """Samples and training images against held-out images, samples against training images, and each category."""
    held_out, real = features["held_out"], features["real"]
    pairs = {"samples": ("samples", held_out), "real": ("real", held_out), "samples_to_training": ("samples", real)}
    values: dict[str, Any] = {"held_out_images": len(held_out), "training_images": len(real)}
    with progress(len(pairs), "comparison", label="KID, precision, recall") as bar:
        for name, (ours, theirs) in pairs.items():
            values[name] = compare(features[ours], theirs, neighbourhood, network, parts, name)
            bar.update()
    if "category" in sets.tables["samples"] and sets.tables["held_out"]["category"].nunique() > 1:
        tables = {**sets.tables, "real": sets.tables["train"].iloc[sets.measured]}
        categories = {name: tables[name]["category"].to_numpy(str) for name in features}
        values["categories"] = compare_categories(features, categories, neighbourhood, network)
    return values


def _frechet(dimensions: int, sets: Sets, features: Callable[[], tuple[Tensor, Tensor]] | None) -> dict[str, Any]:
    """The samples' distance to all training images, as is the custom, or the words why there is none."""
    ours, train, _ = sets.images.values()
    try:
        require_full_rank(len(ours), len(train), dimensions)
    except ValueError as error:
        return {"refused": str(error)}
    if features is None:
        return {"refused": "evaluate.inception names no weights"}
    table = sets.tables["samples"]
    strata = table["category"].to_numpy(str) if "category" in table else None
    return {**asdict(frechet(*features(), strata)), "all_training_images": len(train)}


def _nested(values: Any) -> Any:
    """`values` with each estimate as a mapping."""
    if isinstance(values, dict):
        return {name: _nested(each) for name, each in values.items()}
    return asdict(values) if isinstance(values, Estimate) else values
