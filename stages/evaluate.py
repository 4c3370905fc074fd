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
from ddpm.images import to_model_range
from ddpm.metrics import Estimate, colour_drift, frechet, kid, mean_pairwise, precision_recall, require_full_rank
from ddpm.perceptual import distance_sums, embed, load_lpips, pooled_features
from ddpm.rng import numpy_stream
from stages._command import run
from stages._evaluation_figures import colours_figure, estimates_figure, factors_figure
from stages._factors import FACTORS, compare_factors, predict_factors, read_factors
from stages._figures import save_figure
from stages._images import open_alike
from stages._inception import DIMENSIONS, inception_features, load_inception
from stages._io import read_safetensors, write_json
from stages._main import StageError, progress, setup
from stages._params import read_params

FEATURES = {"alex": "alexnet", "vgg": "vgg16"}
CHUNK = 1024
"""Images in memory at once."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """`neighbourhood`: the k of precision and recall; `inception`: the file of its weights; without it there is no FID.

    `seed` draws the training images that are measured as well, and the bootstrap.
    """

    neighbourhood: PositiveInt
    seed: NonNegativeInt
    inception: str | None


def main(
    samples: Path,
    samples_index: Path,
    train: Path,
    train_index: Path,
    val: Path,
    val_index: Path,
    trunk: Path,
    metrics: Path,
    kid_figure: Path,
    precision_recall_figure: Path,
    diversity_figure: Path,
    colour_figure: Path,
    factor_figure: Path,
) -> str:
    """Write the metrics of the samples against `val`, and of as many training images beside them, with figures."""
    params = read_params()
    config, device = params.section(EvaluateConfig, "evaluate"), setup(params)
    tensors, metadata = read_safetensors(trunk)
    model = load_lpips(tensors, metadata["net"]).to(device)
    ours, real, reference = open_alike({samples: samples_index, train: train_index, val: val_index})
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
    learnt, held_out = read_factors(train_index).iloc[rest], read_factors(val_index)
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
    write_json(metrics, values)
    kids, precisions, recalls, diversities = (
        {name: found[name][metric] for name in compared} for metric in found["samples"]
    )
    save_figure(kid_figure, estimates_figure({"KID": kids}, best=0))
    save_figure(precision_recall_figure, estimates_figure({"precision": precisions, "recall": recalls}))
    save_figure(diversity_figure, estimates_figure({"mean LPIPS of pairs": diversities}))
    save_figure(colour_figure, colours_figure(drifts))
    save_figure(factor_figure, factors_figure(predicted))
    distance = kids["samples"]
    return f"KID {distance.value:.4f} ({distance.low:.4f} to {distance.high:.4f}), in {metrics}; see {kid_figure}"


def _features(model: lpips.LPIPS, images: np.ndarray) -> Tensor:
    """`pooled_features` of uint8 `[N, H, W, 3]` on the CPU, `[N, D]`."""
    parts = []
    with progress(len(images), "img", label="features") as bar:
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
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


if __name__ == "__main__":
    run(main)
