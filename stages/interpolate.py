"""Stage `interpolate`: images between two images, by interpolating the noise that they start from."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from lpips import LPIPS
from matplotlib.figure import Figure
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.images import to_model_range, to_uint8
from ddpm.interpolation import PATHS
from ddpm.perceptual import load_lpips, pair_distances
from ddpm.samplers import ImageNoise, SamplerConfig
from stages._figures import save_figure, strip_figure
from stages._io import read_safetensors, write_json, write_npy
from stages._main import progress, run, setup
from stages._model import Model, SampleConfig, load_model, sampler_config
from stages._params import read_params


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InterpolateConfig:
    """Every path with every sampler, for `pairs` pairs of noises; `frames` counts the two ends and has a middle."""

    pairs: PositiveInt
    frames: Annotated[int, Field(ge=3)]
    seed: NonNegativeInt
    paths: Annotated[tuple[Literal["lerp", "slerp"], ...], Field(min_length=1)]
    samplers: Annotated[tuple[Literal["ancestral", "ddim"], ...], Field(min_length=1)]
    steps: PositiveInt | None

    def __post_init__(self) -> None:
        if self.frames % 2 == 0:
            raise ValueError(f"frames = {self.frames}: must be odd")
        for names in (self.paths, self.samplers):
            if len(set(names)) < len(names):
                raise ValueError(f"{', '.join(names)}: each once")


def main(weights: Path, trunk: Path, frames: Path, metrics: Path, figure: Path) -> None:
    """Interpolate noise for the model in the folder WEIGHTS into FRAMES; METRICS measure each path.

    FRAMES are uint8 [methods, pairs, frames, H, W, 3], those of a conditional model without a class.
    """
    params = read_params()
    device, config = setup(params), params.section(InterpolateConfig, "interpolate")
    sample = replace(params.section(SampleConfig, "sample"), steps=config.steps)
    model = load_model(weights, params, device, sample.precision)
    tensors, metadata = read_safetensors(trunk)
    lpips = load_lpips(tensors, metadata["net"])
    ends = ImageNoise(config.seed, "interpolate", range(2 * config.pairs), model.shape, device)()
    weight = torch.linspace(0, 1, config.frames, device=device)
    drawn, measured = [], {}
    for path, sampler in product(config.paths, config.samplers):
        noises = torch.cat([PATHS[path](a, b, weight) for a, b in zip(ends[::2], ends[1::2], strict=True)])
        images = draw(model, sampler_config(params, replace(sample, sampler=sampler)), noises, config.seed)
        drawn.append(images.reshape(config.pairs, config.frames, *images.shape[1:]))
        measured[f"{path}_{sampler}"] = measure(noises.unflatten(0, (config.pairs, config.frames)), drawn[-1], lpips)
    write_npy(frames, np.stack(drawn))
    write_json(metrics, measured)
    save_figure(figure, compare(drawn, list(measured)))


def draw(model: Model, config: SamplerConfig, noises: Tensor, seed: int) -> np.ndarray:
    """The image of each noise; a sampler that needs more noise gets fresh noise for each frame, as the report's did."""
    fresh = ImageNoise(seed, "interpolate/steps", range(len(noises)), model.shape, noises.device)
    with progress(len(noises) * config.steps, "eval", label=f"interpolate, {config.sampler}") as bar:

        def on_step(t: int, xt: Tensor, x0: Tensor) -> None:
            bar.update(len(xt))

        return to_uint8(model.sample(config, noises, fresh, on_step))


def measure(noises: Tensor, images: np.ndarray, lpips: LPIPS) -> dict[str, Any]:
    """How far the path leaves the shell of noise, and how evenly its images change from frame to frame.

    The largest step over the mean one is 1 for an even path; a jump makes it large.
    """
    norms = noises.flatten(2).norm(dim=2).mean(dim=0)  # [frames]
    pixels = to_model_range(images.reshape(-1, *images.shape[2:])).unflatten(0, images.shape[:2])
    steps = pair_distances(lpips, pixels[:, :-1].flatten(0, 1), pixels[:, 1:].flatten(0, 1))
    steps = steps.unflatten(0, (len(images), -1))  # [pairs, frames - 1]
    return {
        "noise_norm": {"ends": float(norms[[0, -1]].mean()), "middle": float(norms[len(norms) // 2])},
        "lpips_step": {"mean": float(steps.mean()), "largest": float(steps.max()), "n": steps.numel()},
        "pairs": len(images),
    }


def compare(drawn: list[np.ndarray], names: list[str]) -> Figure:
    """One row for each pair and method, the methods of a pair below each other."""
    rows = np.stack(drawn, axis=1)  # [pairs, methods, frames, H, W, 3]
    pairs, methods, frames = rows.shape[:3]
    labels = [name.replace("_", ", ") for name in names] * pairs
    columns = [f"{index / (frames - 1):.3g}" for index in range(frames)]
    return strip_figure(rows.reshape(pairs * methods, *rows.shape[2:]), columns, labels, group=methods)


if __name__ == "__main__":
    run(main)
