"""Stage `likelihood`: how well the network sees through noise on held-out images, and how many bits one costs."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.evaluation.estimates import Estimate, mean
from ddpm.evaluation.likelihood import Denoise, Terms, VariationalBound, measure, noise_levels
from ddpm.images import to_model_range
from ddpm.rng import numpy_stream
from ddpm.sampling.samplers import ImageNoise
from stages.kit.device import announce, setup
from stages.kit.errors import StageError
from stages.kit.params import read_params
from stages.kit.progress import progress
from stages.likelihood.config import LikelihoodConfig
from stages.shared.figures import GRID, HELD_OUT, INK, SAMPLES, WIDTH, save_figure
from stages.shared.files.absent import emptied, nothing_to_do, require_outputs_alone
from stages.shared.files.formats import write_csv, write_json
from stages.shared.files.images import class_numbers, image_set, open_images, require_one_preprocessing
from stages.shared.models.diffusion import Model, load_model

ABSENT = "a GAN gives no image a probability, and it knows no noise levels"
"""Why a GAN has neither losses by noise level nor bits per dimension."""
COLUMNS = (
    "first_step", "last_step", "log_snr", *(f"{name}{end}" for name in ("eps_error", "x0_error", "bits")
    for end in ("", "_low", "_high")), "n",
)  # fmt: skip
NO_BITS = (
    "the bound holds for latents, which are no pixels of 256 levels: bits of a latent's value say nothing of an image"
)
"""Why a model of latents has no bits per dimension."""


def main(
    weights: Path, *, images: Path, details: Path, levels: Path, figures: Path, latents: Path | None = None
) -> str:
    """Evaluate the model in WEIGHTS on the held-out images in the folder IMAGES: bits per dimension and loss.

    DETAILS has the numbers, the table LEVELS those by noise level, which `noise_loss/noise_loss.svg` in the folder
    FIGURES shows. A GAN has neither, as it gives no image a probability.
    The network is taken as `models.<name>.sampling` has it, clipped or not and with that variance, but in float32, at
    all T steps and without guidance. Of a model of latents, whose autoencoder is in the folder LATENTS, the losses are
    those of latents, and there are no bits per dimension.
    """
    params, folder = read_params(), figures / "noise_loss"
    require_outputs_alone(folder)
    if params.model().kind == "gan":
        return nothing_to_do(ABSENT, details, [folder], {levels: COLUMNS})
    config, device = params.section(LikelihoodConfig, "likelihood"), setup(params)
    model = load_model(weights, params, device, "float32", latents=latents)
    announce("likelihood", device, model.precision)
    val, val_index = image_set(images, "val")
    opened = open_images(val, val_index)
    require_one_preprocessing({weights: model.preprocessing, val_index: opened.preprocessing})
    if len(opened.array) < 2:
        raise StageError(f"{val}: {len(opened.array)} image; at least 2 are needed")
    order = numpy_stream(config.seed, "likelihood: images").permutation(len(opened.array))
    rows = np.sort(order[: config.images])
    labels = class_numbers(val_index, model.classes)[rows] if model.classes else None
    runs = noise_levels(model.schedule, config.bins)
    terms, prior = evaluated(model, opened.array, rows, labels, runs, config, device)
    bits = None if model.codec else Bits(*(each / np.log(2) / np.prod(model.shape) for each in (terms.nats, prior)))
    measured = summary(terms, bits, runs)
    write_json(details, measured)
    by_level = level_table(model, terms, bits, runs)
    write_csv(levels, by_level)
    figure = emptied(folder) / "noise_loss.svg"
    save_figure(figure, level_figure(by_level))
    said = "no bits/dim, losses of latents"
    if bits:
        total = measured["bits_per_dim"]["total"]
        said = f"{total['value']:.3f} bits/dim ({total['low']:.3f} to {total['high']:.3f})"
    return f"{said} on {len(rows):,} held-out images, in {details}; see {figure}"


def evaluated(
    model: Model,
    images: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray | None,
    runs: list[range],
    config: LikelihoodConfig,
    device: torch.device,
) -> tuple[Terms, Tensor]:
    """The terms of the bound for the images of these `rows`, and the bound's end L_T of each, `[len(rows)]`."""
    bound = VariationalBound(model.schedule, model.own.variance)
    found, priors = [], []
    with progress(len(rows) * len(runs) * config.draws, "eval", label="held-out images") as bar:
        for start in range(0, len(rows), model.at_once):
            ids = rows[start : start + model.at_once].tolist()
            x0 = model.encoded(to_model_range(images[ids]).to(device))
            label = None if labels is None else torch.from_numpy(labels[start : start + model.at_once]).to(device)
            denoise = denoiser(model, label, clip=model.own.clip, seen=bar.update)
            generators = [numpy_stream(config.seed, "likelihood: t", i) for i in ids]
            noise = ImageNoise(config.seed, "likelihood", ids, model.shape, device)
            with torch.inference_mode():
                found.append(measure(bound, denoise, x0, runs, config.draws, generators, noise))
                priors.append(bound.prior(x0).cpu())
    return Terms(*(torch.cat(batches) for batches in zip(*found, strict=True))), torch.cat(priors)


class Bits(NamedTuple):
    """Bits per dimension of each image, at each level `[B, levels]` and of the end of the forward process `[B]`."""

    levels: Tensor
    prior: Tensor


def denoiser(model: Model, label: Tensor | None, *, clip: bool, seen: Callable[[int], object]) -> Denoise:
    """The model's denoiser for images of the class `label`, clipped or not; it calls `seen` with B."""

    def denoise(xt: Tensor, t: Tensor) -> Tensor:
        x0 = model.denoiser(xt, t, label)
        seen(len(xt))
        return x0.clamp(-1, 1) if clip else x0

    return denoise


def summary(terms: Terms, bits: Bits | None, runs: list[range]) -> dict[str, Any]:
    """Bits per dimension and where they arise, or why there are none, and equation (14) with t drawn uniformly."""
    fractions = torch.tensor([len(run) for run in runs]) / sum(map(len, runs))
    loss = {"simple_loss": asdict(mean(terms.eps_error @ fractions.double()))}
    if bits is None:
        return {"absent": NO_BITS, **loss}
    found: dict[str, Estimate] = {
        "total": mean(bits.prior + bits.levels.sum(1)),
        "prior": mean(bits.prior),
        "steps": mean(bits.levels[:, 1:].sum(1)),
        "decoder": mean(bits.levels[:, 0]),
    }
    return {"bits_per_dim": {name: asdict(estimate) for name, estimate in found.items()}, **loss}


def level_table(model: Model, terms: Terms, bits: Bits | None, runs: list[range]) -> pd.DataFrame:
    """A row for each run of steps: what the errors are there, means over images with their intervals."""
    rows = []
    for column, run in enumerate(runs):
        row: dict[str, float] = {"first_step": run.start, "last_step": run.stop - 1}
        row["log_snr"] = float(np.mean([2 * model.schedule.half_log_snr(t) for t in run]))
        measured = {"eps_error": terms.eps_error, "x0_error": terms.x0_error}
        for name, values in {**measured, **({"bits": bits.levels} if bits else {})}.items():
            estimate = mean(values[:, column])
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        rows.append({name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()})
    return pd.DataFrame(rows).assign(n=len(terms.nats))


def level_figure(table: pd.DataFrame) -> Figure:
    """Errors by noise level, and the bits that each level costs, where the table has them."""
    panels = 2 if "bits" in table else 1
    figure = Figure(figsize=(WIDTH, 4.6 if panels == 2 else 2.5), layout="constrained")
    axes = np.atleast_1d(figure.subplots(panels, 1, sharex=True))
    errors = axes[0]
    ratio = np.exp(-table["log_snr"] / 2)
    for name, label, colour in (("eps_error", "of ε", SAMPLES), ("x0_error", "of x\N{SUBSCRIPT ZERO}", HELD_OUT)):
        errors.plot(ratio, table[name], "o-", color=colour, markersize=3, linewidth=1.2, label=label)
        errors.fill_between(ratio, table[f"{name}_low"], table[f"{name}_high"], color=colour, alpha=0.25, linewidth=0)
    errors.axhline(1, color=INK, linewidth=0.8)
    errors.set(yscale="log", ylabel="mean squared error", title="error of ε and of x\N{SUBSCRIPT ZERO}")
    errors.legend()
    if "bits" in table:
        axes[1].bar(ratio, table["bits"], width=ratio * 0.4, color=SAMPLES)
        axes[1].set(ylabel="bits per dimension", title="share in the bound")
    for axis in axes:
        axis.set_xscale("log")
        axis.grid(axis="y", **GRID)
        axis.set_axisbelow(True)
    axes[-1].set_xlabel(f"noise / signal, from t = 0 to t = {table['last_step'].max()}")
    return figure
