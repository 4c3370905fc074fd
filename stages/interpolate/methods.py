"""Frames between two noises and between two real images, by every method that the stage `interpolate` compares."""

from itertools import product
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT
from ddpm.diffusion.process import q_sample
from ddpm.images import to_uint8
from ddpm.sampling.interpolation import PATHS, NoisePath, invert, lerp, slerp
from ddpm.sampling.samplers import ImageNoise
from stages.kit.progress import progress
from stages.shared.models.diffusion import Model, ModelSampling, Sampling, sampling
from stages.shared.models.gan import GanModel

ITERATIONS = 2
"""Of each step of the inversion: with 2 the default model's x_T has the norm of noise, from 3 on it is longer."""

METHODS = {
    f"{path}_{sampler}": (path, sampler)
    for path, sampler in product(PATHS, ("ancestral", "ancestral_shared", "ddim", "native"))
}
"""Between two noises: a path with a sampler."""

ENCODED = (0.25, 0.5, 0.75)
"""Fractions of T up to which Ho et al.'s method adds noise to two images."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InterpolateConfig:
    """Which of `METHODS`, for `pairs` pairs of noises; `frames` counts the two ends and has a middle.

    The step noise of `ancestral` is fresh for each frame. With `ancestral_shared`, and with the model's own sampler
    (`native`), all frames of a pair have the same step noise. The page's slider has `shown` pairs.
    """

    pairs: PositiveInt
    shown: PositiveInt
    frames: Annotated[int, Field(ge=3, le=1001)]  # a figure has a column for each: matplotlib draws no wider one
    seed: NonNegativeInt
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    steps: PositiveInt

    def __post_init__(self) -> None:
        if self.frames % 2 == 0:
            raise ValueError(f"frames = {self.frames}: must be odd")
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise ValueError(f"methods = {', '.join(unknown)}: must be of {', '.join(METHODS)}")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods = {', '.join(self.methods)}: each once")


class Drawn(NamedTuple):
    """The noise of each frame, float32 `[pairs, frames, ...]`, and its image, uint8 `[pairs, frames, H, W, 3]`."""

    noises: Tensor
    images: np.ndarray


def between_noises(model: Model, native: Model, config: InterpolateConfig, device: torch.device) -> dict[str, Drawn]:
    """The methods that `config` names, all between the same noises; `native` draws by its own sampler."""
    ends = ImageNoise(config.seed, "interpolate", range(2 * config.pairs), model.shape, device)()
    drawn = {}
    for name in config.methods:
        path, sampler = METHODS[name]
        drawing = native if sampler == "native" else model
        how, noises = way(drawing.own, config, sampler), along(PATHS[path], ends, config.frames)
        drawn[name] = decoded(drawing, how, noises, config.seed, name, fresh=sampler == "ancestral")
    return drawn


def between_latents(model: GanModel, config: InterpolateConfig) -> dict[str, Drawn]:
    """Every path that `config` names, once, between the same noises of a GAN; each pair has one class."""
    ends = model.noise(config.seed, "interpolate", range(2 * config.pairs))
    pair = torch.arange(config.pairs, device=ends.device).repeat_interleave(config.frames)
    drawn = {}
    for path in dict.fromkeys(METHODS[name][0] for name in config.methods):
        noises, images = along(PATHS[path], ends[:, :, None, None], config.frames)[..., 0, 0], []
        for z, ids in zip(noises.flatten(0, 1).split(model.at_once), pair.split(model.at_once), strict=True):
            images.append(to_uint8(model.images(z, ids % len(model.classes) if model.classes else None)))
        frames = np.concatenate(images).reshape(config.pairs, config.frames, *images[0].shape[1:])
        drawn[path] = Drawn(noises, frames)
    return drawn


def between_images(model: Model, config: InterpolateConfig, images: Tensor) -> dict[str, Drawn]:
    """Two methods, between the x_0 `images` `[2 * pairs, C, H, W]`, which are taken in twos.

    `ddim`: both images inverted to x_T, then along the great circle. `encode_<t>` (Ho et al. 2020, section 4.3): each
    with noise of its own up to t, which is the same in all frames, then along the straight line.
    """
    ddim = way(model.own, config, "ddim", clip=False)
    noises = along(slerp, inverted(model, ddim, images), config.frames)
    drawn = {"ddim": decoded(model, ddim, noises, config.seed, "ddim")}
    ancestral = way(model.own, config, "ancestral")
    eps = ImageNoise(config.seed, "interpolate: encode", range(len(images)), model.shape, images.device)()
    for fraction in ENCODED:
        t = int(fraction * model.schedule.steps)
        ts = torch.full((len(images),), t, device=images.device)
        noises = along(lerp, q_sample(model.schedule, images, ts, eps), config.frames)
        drawn[f"encode_{t}"] = decoded(model, ancestral, noises, config.seed, f"encode_{t}", start=t)
    return drawn


def way(own: ModelSampling, config: InterpolateConfig, sampler: str, **chosen: Any) -> Sampling:
    """The model's own way of sampling (`native`), or another sampler in `config.steps` evenly spaced steps."""
    if sampler == "native":
        return sampling(own, "interpolate")
    name = sampler.removesuffix("_shared")
    return sampling(own, "interpolate", sampler=name, steps=config.steps, spacing="trailing", **chosen)


def along(path: NoisePath, ends: Tensor, frames: int) -> Tensor:
    """Noises between `ends` `[2 * pairs, C, H, W]`, taken in twos: `[pairs, frames, C, H, W]`."""
    weights = torch.linspace(0, 1, frames, device=ends.device)
    return torch.stack([path(a, b, weights) for a, b in zip(ends[::2], ends[1::2], strict=True)])


def inverted(model: Model, ddim: Sampling, images: Tensor) -> Tensor:
    """The x_T of each image."""
    predict = model.predictor(ddim.predictor)
    timesteps = model.timesteps(ddim)
    with progress(len(images) * len(timesteps) * ITERATIONS, "eval", label="interpolate, inversion") as bar:

        def on_step(t: int, xt: Tensor, x0: Tensor) -> None:
            bar.update(len(xt))

        parts = images.split(model.at_once)
        return torch.cat([invert(predict, part, model.schedule, timesteps, ITERATIONS, on_step) for part in parts])


def decoded(
    model: Model, how: Sampling, noises: Tensor, seed: int, name: str, *, fresh: bool = False, start: int | None = None
) -> Drawn:
    """The image of each noise, x_T or x at `start`; noise that is added is `fresh` for each frame, or the pair's."""
    pairs, frames = noises.shape[:2]
    ids = torch.arange(pairs * frames) if fresh else torch.arange(pairs).repeat_interleave(frames)
    timesteps = model.timesteps(how)
    evaluations = how.sampler.evaluations if start is None else 1 + sum(t < start for t in timesteps)
    images = []
    with progress(len(ids) * evaluations, "eval", label=f"interpolate, {name}") as bar:

        def on_step(t: int, xt: Tensor, x0: Tensor) -> None:
            bar.update(len(xt))

        for xt, numbers in zip(noises.flatten(0, 1).split(model.at_once), ids.split(model.at_once), strict=True):
            noise = ImageNoise(seed, "interpolate: steps", numbers.tolist(), model.shape, xt.device)
            images.append(model.pixels(model.sample(how, xt, noise, on_step, start=start)))
    return Drawn(noises, np.concatenate(images).reshape(pairs, frames, *images[0].shape[1:]))
