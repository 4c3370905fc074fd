"""Many images of one model: drawn in chunks, which are kept, by one process or several, and put together at the end."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ddpm.config import ConfigError
from ddpm.devices.processes import from_first, rank_and_count
from ddpm.rng import numpy_stream
from ddpm.sampling.samplers import ImageNoise, OnStep
from stages.kit.device import setup
from stages.kit.files import digest, path_given, replacing
from stages.kit.identity import code_digests, platform_of
from stages.kit.launch import first_process
from stages.kit.params import Params
from stages.kit.processes import together
from stages.kit.progress import progress
from stages.shared.files.formats import write_npy, write_npy_header
from stages.shared.models.diffusion import (
    Model,
    ModelSampling,
    SampleConfig,
    Sampling,
    load_model,
    require_unclipped,
    sampling,
    weights_file,
)  # fmt: skip
from stages.shared.models.gan import GanModel
from stages.shared.models.tuned import require_stops


@dataclass(frozen=True)
class Drawing:
    """What is drawn: image i of `model` from noise that `config.seed` and i decide, at `timesteps`, falling.

    `identity` is all that its bytes depend on.
    """

    model: Model
    how: Sampling
    config: SampleConfig
    device: torch.device
    timesteps: list[int]
    identity: Mapping[str, Any]

    @property
    def evaluations(self) -> int:
        """Of the network, for each image, not counting those of guidance."""
        return self.how.sampler.evaluations

    def labels(self, ids: Sequence[int]) -> list[int]:
        """The class of each image, as `labels_of` says."""
        return labels_of(self.config, self.model.classes, self.model.class_counts, ids)

    def images(self, ids: Sequence[int], on_step: OnStep) -> np.ndarray:
        """The images of these numbers, uint8 `[len(ids), H, W, 3]`."""
        noise = ImageNoise(self.config.seed, "sample", ids, self.model.shape, self.device)
        label = torch.tensor(self.labels(ids), device=self.device) if self.model.classes else None
        return self.model.pixels(self.model.sample(self.how, noise(), noise, on_step, label))


def labels_of(config: SampleConfig, classes: Sequence[str], counts: Sequence[int], ids: Sequence[int]) -> list[int]:
    """The class of each image: `config.category`, or as `config.labels` says; none for a model without `classes`.

    With `training` that of image i depends on the seed and on i alone, and is as frequent as in `counts`.
    """
    if config.category:
        return [classes.index(config.category)] * len(ids)
    if config.labels == "training":
        up_to = np.cumsum(counts) / sum(counts)
        chances = [numpy_stream(config.seed, "label", i).random() for i in ids]
        return np.searchsorted(up_to, chances, side="right").tolist()
    return [i % len(classes) for i in ids] if classes else []


class Draws(Protocol):
    """What draws images, whatever the kind of the model: all that the rest of the stage needs of it.

    `identity` is all that their bytes depend on; each image takes so many `evaluations` of a network, not
    counting those of guidance.
    """

    @property
    def model(self) -> Model | GanModel:
        """What is drawn with."""

    @property
    def config(self) -> SampleConfig:
        """The section `sample`."""

    @property
    def device(self) -> torch.device:
        """Where it is drawn."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """By name."""

    @property
    def evaluations(self) -> int:
        """For each image."""

    def labels(self, ids: Sequence[int]) -> list[int]:
        """The class of each image; none for a model without classes."""

    def images(self, ids: Sequence[int], on_step: OnStep) -> np.ndarray:
        """The images of these numbers, uint8 `[len(ids), H, W, 3]`; `on_step` is called with t, x_t and x_0."""


def prepare(weights: Path, params: Params, latents: Path | None = None) -> Drawing:
    """What the section `sample` asks for; of a model that draws latents the folder LATENTS has the autoencoder.

    Raises:
        ConfigError: it can't be, with this model.
    """
    device, config = setup(params), params.section(SampleConfig, "sample")
    model = load_model(weights, params, device, config.precision, latents=latents)
    guide = guide_file(config, params, model.own)
    if guide:
        model = guided(model, load_model(guide, params, device, config.precision, asdict(model.own), latents), guide)
    how = sampling(model.own, "sample", **asdict(config))
    require_classes(config, model.classes, model.class_counts)
    if model.codec:
        require_unclipped(how.predictor)
    identity = {
        "guide": digest(guide) if guide else None,
        "sampling": asdict(how),
        **identity_of(weights_file(weights, params), config, model, device),
    }
    require_stops(model.stops, how.sampler, matched=model.matched)
    return Drawing(model, how, config, device, model.timesteps(how), identity)


def identity_of(file: Path, config: SampleConfig, model: Model | GanModel, device: torch.device) -> dict[str, Any]:
    """What the bytes of images depend on that `model` of FILE draws, but for its way of sampling."""
    settings = {"seed": config.seed, "category": config.category, "labels": config.labels, "at_once": model.at_once}
    return {
        "weights": digest(file),
        "settings": settings,
        "code": code_digests(),
        "platform": {**platform_of(device), "precision": [config.precision, str(model.precision)]},
    }


def guide_file(config: SampleConfig, params: Params, own: ModelSampling) -> Path | None:
    """The weights that `sample.guide` names, of a folder the average in `own`; None where it is empty.

    How the model samples, `own`, stands for the guide's own sampling settings, which nobody needs.

    Raises:
        ConfigError: there are none, or `guidance` makes no use of them.
    """
    if config.guide is None:
        return None
    if config.guidance == 1:
        raise ConfigError(f"params.yaml: sample.guide = {config.guide}: with sample.guidance = 1 it guides nothing")
    try:
        return weights_file(path_given(config.guide), params, asdict(own))
    except ConfigError as error:
        raise ConfigError(f"params.yaml: sample.guide: {error}") from None


def guided(model: Model, guide: Model, file: Path) -> Model:
    """MODEL, guided by GUIDE of FILE.

    Raises:
        ConfigError: they were trained on other images, classes or noise.
    """
    for name in ("shape", "preprocessing", "classes"):
        if getattr(model, name) != getattr(guide, name):
            raise ConfigError(
                f"params.yaml: sample.guide: {file} has {name} {getattr(guide, name)}, the model {getattr(model, name)}"
            )
    if not torch.equal(model.schedule.alpha_bar, guide.schedule.alpha_bar):
        raise ConfigError(f"params.yaml: sample.guide: {file} was trained with another `diffusion` than the model")
    return replace(model, guide=guide.denoiser)


def require_classes(config: SampleConfig, classes: Sequence[str], counts: Sequence[int]) -> None:
    """Fail where `category`, `labels` or `guidance` asks for what a model of such `classes` doesn't know.

    `counts` has the number of training images of each, if the weights tell it.

    Raises:
        ConfigError: naming what it knows.
    """
    if not classes and (config.category or config.labels != "equal" or (config.guidance != 1 and not config.guide)):
        raise ConfigError(
            "params.yaml: sample: the model knows no classes; leave category empty, labels at equal, and guidance at 1 "
            "where there is no guide"
        )
    if config.category and config.category not in classes:
        known = ", ".join(classes)
        raise ConfigError(f"params.yaml: sample.category = {config.category!r}: the model knows {known}")
    if config.labels == "training" and not config.category and not sum(counts):
        raise ConfigError(
            "params.yaml: sample.labels = training: the weights don't tell how many images each class had; "
            "take equal, or train again"
        )


def draw_chunks(drawing: Draws, folder: Path) -> list[Path]:
    """Draw the images that `folder` lacks, each process some of them; return the files of all chunks, in order.

    A chunk is what the network takes at once. Which process draws it changes no byte of it.
    """
    count, at_once = drawing.config.count, drawing.model.at_once
    ranges = (range(first, min(first + at_once, count)) for first in range(0, count, at_once))
    chunks = {folder / f"{ids.start}-{ids.stop}.npy": ids for ids in ranges}
    missing = from_first([file for file in chunks if not file.exists()])
    if first_process() and len(missing) < len(chunks):
        left = sum(len(chunks[file]) for file in missing)
        print(f"sample: continues: {count - left} of {count} images are drawn", file=sys.stderr)
    rank, processes = rank_and_count()
    to_draw = {file: chunks[file] for file in missing[rank::processes]}
    evaluations = sum(map(len, to_draw.values())) * drawing.evaluations
    with together(), progress(evaluations, "eval", label="sample") as bar:

        def on_step(t: int, xt: Tensor, x0: Tensor) -> None:
            bar.update(len(xt))

        for file, ids in to_draw.items():
            write_npy(file, drawing.images(ids, on_step))
    return list(chunks)


def join_chunks(path: Path, chunks: Sequence[Path], drawing: Draws) -> None:
    """Write the chunks as one array, uint8 `[count, size, size, 3]`, with one of them in memory at a time."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        write_npy_header(file, drawing.config.count, drawing.model.size)
        for chunk in chunks:
            file.write(np.load(chunk).data)
