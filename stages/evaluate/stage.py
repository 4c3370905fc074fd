"""Compare the samples with held-out images as distributions, and real images with them in the same way."""

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.evaluation.metrics import (
    Estimate,
    colour_drift,
    frechet,
    kid,
    mean_pairwise,
    precision_recall,
    require_full_rank,
)
from ddpm.evaluation.perceptual import distance_sums, embed, load_lpips, pooled_features
from ddpm.images import to_model_range
from ddpm.rng import numpy_stream
from stages.evaluate.factors import compare_factors, predict_factors, read_factors
from stages.evaluate.figures import colours_figure, estimates_figure, factors_figure
from stages.evaluate.inception import DIMENSIONS, inception_features, load_inception
from stages.kit.device import setup
from stages.kit.errors import StageError
from stages.kit.inception import inception_checked
from stages.kit.params import read_params
from stages.kit.progress import progress
from stages.shared.factors import FACTORS
from stages.shared.figures import save_figure
from stages.shared.formats import read_safetensors, write_json
from stages.shared.images import image_set, open_alike

FEATURES = {"alex": "alexnet", "vgg": "vgg16"}
IMAGES_AT_ONCE = 1024
"""Images in memory at once."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """`neighbourhood`: the k of precision and recall; `inception`: the file of its weights; without it there is no FID.

    `seed` draws the training images that are measured as well, and the bootstrap.
    """

    neighbourhood: PositiveInt
    seed: NonNegativeInt
    inception: str | None


def main(*, samples: Path, images: Path, backbone: Path, details: Path, figures: Path) -> str:
    """Compare the SAMPLES in that folder, and as many training images, with the held-out ones in the folder IMAGES.

    DETAILS gets the numbers, the folder FIGURES `kid.png`, `precision_recall.png`, `diversity.png`, `colours.png` and
    `factors.png`; the network BACKBONE gives the features.
    """
    params = inception_checked(read_params())
    config, device = params.section(EvaluateConfig, "evaluate"), setup(params)
    tensors, metadata = read_safetensors(backbone)
    model = load_lpips(tensors, metadata["net"]).to(device)
    train, val = image_set(images, "train"), image_set(images, "val")
    ours, real, reference = open_alike(dict([image_set(samples, "samples"), train, val]))
    smallest = min(len(ours), len(real), len(reference))
    if smallest <= max(config.neighbourhood, 2):
        raise StageError(f"{smallest} images; evaluate.neighbourhood = {config.neighbourhood} needs more")
    order = numpy_stream(config.seed, "evaluate: real").permutation(len(real))
    drawn, rest = np.sort(order[: len(ours)]), np.sort(order[len(ours) :])
    compared, network = {"samples": ours, "real": real[drawn]}, FEATURES[metadata["net"]]
    extract = functools.partial(_features, model)
    features = {name: extract(images) for name, images in {**compared, "held_out": reference}.items()}
    found = {
        name: _measured(features[name], features["held_out"], config.neighbourhood, network)
        | {"diversity_lpips": _diversity(model, images)}
        for name, images in compared.items()
    }
    drifts = {name: colour_drift(images, reference) for name, images in compared.items()}
    learnt, held_out = read_factors(train.table).iloc[rest], read_factors(val.table)
    known = [name for name in FACTORS if name in learnt and name in held_out and len(rest)]
    predicted = predict_factors(features, extract(real[rest]), learnt[known]) if known else {}
    inception = functools.partial(_inception_features, config.inception, device) if config.inception else None
    values: dict[str, Any] = {name: _nested({**found[name], "colour_drift": drifts[name]}) for name in compared}
    values["reference_images"] = len(reference)
    values["frechet"] = {
        f"fd_{network}": _frechet(features["samples"].shape[1], ours, real, extract),
        "fid_inception": _frechet(DIMENSIONS, ours, real, inception),
    }
    if known:
        values["factors"] = compare_factors(predicted, held_out, config.seed)
    write_json(details, values)
    kids, precisions, recalls, diversities = (
        {name: found[name][metric] for name in compared} for metric in found["samples"]
    )
    save_figure(figures / "kid.png", estimates_figure({"KID": kids}, best=0))
    save_figure(figures / "precision_recall.png", estimates_figure({"precision": precisions, "recall": recalls}))
    save_figure(figures / "diversity.png", estimates_figure({"mean LPIPS of pairs": diversities}))
    save_figure(figures / "colours.png", colours_figure(drifts))
    save_figure(figures / "factors.png", factors_figure(predicted))
    ours_kid = kids["samples"]
    said = f"KID {ours_kid.value:.4f} ({ours_kid.low:.4f} to {ours_kid.high:.4f})"
    return f"{said}, in {details}; see {figures / 'kid.png'}"


def _features(model: lpips.LPIPS, images: np.ndarray) -> Tensor:
    """`pooled_features` of uint8 `[N, H, W, 3]` on the CPU, `[N, D]`."""
    parts = []
    with progress(len(images), "img", label="features") as bar:
        for start in range(0, len(images), IMAGES_AT_ONCE):
            chunk = images[start : start + IMAGES_AT_ONCE]
            parts.append(pooled_features(model, to_model_range(chunk)).cpu())
            bar.update(len(chunk))
    return torch.cat(parts)


def _inception_features(weights: str, device: torch.device, images: np.ndarray) -> Tensor:
    return inception_features(load_inception(Path(weights), device), images)


def _measured(ours: Tensor, theirs: Tensor, neighbourhood: int, network: str) -> dict[str, Estimate]:
    """What the `network`'s features `[M, D]` and `[N, D]` say of a set."""
    precision, recall = precision_recall(ours, theirs, neighbourhood)
    return {f"kid_{network}": kid(ours, theirs), f"precision_{network}": precision, f"recall_{network}": recall}


def _diversity(model: lpips.LPIPS, images: np.ndarray) -> Estimate:
    return mean_pairwise(distance_sums(embed(model, to_model_range(images))))


def _frechet(
    dimensions: int, ours: np.ndarray, real: np.ndarray, extract: Callable[[np.ndarray], Tensor] | None
) -> dict[str, Any]:
    """The samples' distance to all training images, as is the custom, or the words why there is none."""
    try:
        require_full_rank(len(ours), len(real), dimensions)
    except ValueError as error:
        return {"refused": str(error)}
    if extract is None:
        return {"refused": "evaluate.inception names no weights"}
    return {**asdict(frechet(extract(ours), extract(real))), "training_images": len(real)}


def _nested(values: Any) -> Any:
    return asdict(values) if isinstance(values, Estimate) else {name: _nested(each) for name, each in values.items()}
