"""Compare the samples with held-out images as distributions, and real images with them in the same way."""

from dataclasses import asdict
from pathlib import Path

import lpips
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT
from ddpm.images import to_model_range
from ddpm.metrics import CHANNELS, Estimate, colour_drift, kid, mean_pairwise, precision_recall
from ddpm.perceptual import embed, load_lpips, pooled_features, squared_distances
from ddpm.rng import numpy_stream
from stages._figures import REAL, SAMPLES, save_figure
from stages._images import open_alike
from stages._io import read_safetensors, write_json
from stages._main import StageError, run, setup
from stages._params import read_params

FEATURES = {"alex": "alexnet", "vgg": "vgg16"}
TITLES = {
    "kid": "KID (0 is best)",
    "precision": "precision",
    "recall": "recall",
    "diversity": "diversity: mean LPIPS",
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """`neighbourhood`: the k of precision and recall; `seed` draws the training images that are measured as well."""

    neighbourhood: int
    seed: int

    def __post_init__(self) -> None:
        if self.neighbourhood < 1 or self.seed < 0:
            raise ValueError("neighbourhood must be at least 1 and seed at least 0")


def main(
    samples: Path,
    samples_index: Path,
    train: Path,
    train_index: Path,
    val: Path,
    val_index: Path,
    trunk: Path,
    metrics: Path,
    figure: Path,
) -> None:
    """Write the metrics of the samples against `val`, and those of as many training images beside them."""
    params = read_params()
    config = params.section(EvaluateConfig, "evaluate")
    tensors, metadata = read_safetensors(trunk)
    model = load_lpips(tensors, metadata["net"]).to(setup(params))
    ours, real, reference = open_alike({samples: samples_index, train: train_index, val: val_index})
    smallest = min(len(ours), len(real), len(reference))
    if smallest <= max(config.neighbourhood, 2):
        raise StageError(f"{smallest} images; evaluate.neighbourhood = {config.neighbourhood} needs more")
    drawn = real[np.sort(numpy_stream(config.seed, "evaluate: real").permutation(len(real))[: len(ours)])]
    features = FEATURES[metadata["net"]]
    found, colours, values = {}, {}, {}
    for name, images in {"samples": ours, "real": drawn}.items():
        found[name] = _measure(model, images, reference, config.neighbourhood, features)
        colours[name] = colour_drift(images, reference)
        estimates = {metric: asdict(estimate) for metric, estimate in found[name].items()}
        values[name] = {**estimates, "colour_drift": {**colours[name], "n": len(images)}}
    write_json(metrics, {**values, "reference_images": len(reference)})
    save_figure(figure, _figure(found, colours))


def _measure(
    model: lpips.LPIPS, images: np.ndarray, reference: np.ndarray, neighbourhood: int, features: str
) -> dict[str, Estimate]:
    ours, theirs = (pooled_features(model, to_model_range(each)) for each in (images, reference))
    precision, recall = precision_recall(ours, theirs, neighbourhood)
    phi = embed(model, to_model_range(images))
    return {
        f"kid_{features}": kid(ours, theirs),
        f"precision_{features}": precision,
        f"recall_{features}": recall,
        "diversity_lpips": mean_pairwise(squared_distances(phi, phi)),
    }


def _figure(found: dict[str, dict[str, Estimate]], colours: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """One panel per metric, samples beside real images, and one for the mean colours."""
    figure = Figure(figsize=(10.5, 2.9), layout="constrained")
    *axes, last = figure.subplots(1, len(found["samples"]) + 1, width_ratios=[1] * len(found["samples"]) + [1.5])
    for axis, name in zip(axes, found["samples"], strict=True):
        _estimates(axis, {"samples": found["samples"][name], "real": found["real"][name]})
        axis.set_title(TITLES[name.partition("_")[0]])
        if name.startswith(("precision", "recall")):
            axis.set_ylim(0, 1.03)
    for offset, (name, colour) in zip((-0.2, 0.2), (("samples", SAMPLES), ("real", REAL)), strict=True):
        means = colours[name]["mean"]
        last.bar(np.arange(3) + offset, [means[channel] for channel in CHANNELS], 0.38, color=colour, label=name)
    last.axhline(0, color="#888888", linewidth=0.8)
    last.set_xticks(range(3), CHANNELS)
    last.set_title("mean colour less held-out")
    last.set_ylabel("levels of 255")
    return figure


def _estimates(axis: Axes, estimates: dict[str, Estimate]) -> None:
    for place, (estimate, colour) in enumerate(zip(estimates.values(), (SAMPLES, REAL), strict=True)):
        below, above = estimate.value - estimate.low, estimate.high - estimate.value
        axis.errorbar(place, estimate.value, [[below], [above]], fmt="o", color=colour, capsize=4, markersize=6)
        axis.annotate(f"{estimate.value:.3g}", (place, estimate.value), (7, 0), textcoords="offset points", va="center")
    axis.set_xticks(range(len(estimates)), list(estimates))
    axis.set_xlim(-0.4, len(estimates) + 0.1)


if __name__ == "__main__":
    run(main)
