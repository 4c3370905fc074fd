"""A trained model and the way to sample from it, as `params.yaml` asks for them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from torch import Tensor

from ddpm.autoencoder.network import Codec
from ddpm.config import STRICT, ConfigError, parse
from ddpm.devices.precision import Precision, autocast, autocast_dtype, placed, set_float32_products
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.images import to_uint8
from ddpm.sampling.predictor import Predict, PredictorConfig, make_predictor
from ddpm.sampling.samplers import Noise, OnStep, SamplerConfig, SamplerName, Variance, run_sampler, timesteps_of
from ddpm.sampling.timesteps import Spacing
from stages.kit.params import Params
from stages.kit.runtime import RuntimeConfig
from stages.shared.files.formats import read_metadata, read_safetensors
from stages.shared.models.codec import load_codec

IMAGES_AT_ONCE = 64
"""Images of one pass of the network where `runtime.batch_images` is empty."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SampleConfig:
    """The section `sample`; the model's own replaces `sampler`, `steps`, `spacing`, `clip` and `variance` where empty.

    `category` and `labels` are for conditional models. With an empty `category` all are drawn: as often as each other
    (`equal`) or at random with their frequencies among the training images (`training`). `guide` is the path of the
    weights of a weaker model, a file, or a folder with the same average as the model's own; `PredictorConfig` says what
    `guidance` does.
    """

    count: PositiveInt
    seed: NonNegativeInt
    sampler: SamplerName | None
    steps: PositiveInt | None
    spacing: Spacing | None
    clip: bool | None
    threshold: float | None
    variance: Variance | None
    eta: float
    category: str | None
    labels: Literal["equal", "training"]
    guidance: float
    guidance_low: float
    guidance_high: float | None
    guide: str | None
    precision: Precision


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelSampling:
    """How a model is sampled from, `models.<name>.sampling`: from which average of its weights (0: none), and how."""

    ema_decay: float
    sampler: SamplerName
    steps: PositiveInt
    spacing: Spacing
    clip: bool
    variance: Variance


@plain_dataclass(frozen=True)
class Sampling:
    """How images are drawn: what is done to the network's output, and how the sampler walks."""

    predictor: PredictorConfig
    sampler: SamplerConfig


NOTHING: Mapping[str, Any] = MappingProxyType({})


def own_sampling(file: Path, params: Params, changes: Mapping[str, Any] = NOTHING) -> ModelSampling:
    """How the weights in FILE are sampled from, but for `changes`.

    A file that was exported or imported says so itself. One that `train` wrote names its model, and params.yaml says it
    of that model, whichever it has as `model`: so other sampling settings need no other training.

    Raises:
        ConfigError: FILE has no such weights, or neither says it.
    """
    settings = settings_of(file)
    if settings.get("kind") == "gan":
        raise ConfigError(f"{file} has the generator of a GAN, where a diffusion model is wanted")
    values = settings.get("sampling") or section_of(settings, params)
    if not values and not changes:
        raise ConfigError(
            f"{file} doesn't say how it is sampled from, and params.yaml has no model {settings.get('model', '')} with "
            f"its network; this writes a file that does: python -m tools.export {file} FOLDER "
            "--sampler NAME --steps N --spacing NAME --clip true --variance small"
        )
    described = {"ema_decay": settings.get("ema_decay", 0.0), **values, **changes}
    return parse(ModelSampling, described, f"{file}: sampling")


class Averaged(Protocol):
    """A way of sampling that says from which average of the weights."""

    @property
    def ema_decay(self) -> float:
        """Its decay; 0 is none."""


Own = Callable[[Path, Params, Mapping[str, Any]], Averaged]
"""How the weights in a file are sampled from, as `own_sampling`."""


def section_of(settings: Mapping[str, Any], params: Params) -> Mapping[str, Any]:
    """What params.yaml has as sampling of the model that `settings` name; nothing where that has another network."""
    name = str(settings.get("model", ""))
    if name not in params.mapping("models"):
        return NOTHING
    target = params.mapping("models", name, "recipe").get("target")
    networks = params.mapping("models", name, "network"), settings["network"]
    here, there = (parse(UNetConfig, network, f"models.{name}.network") for network in networks)
    alike = here == there and target == settings["recipe"]["target"]
    return params.mapping("models", name, "sampling") if alike else NOTHING


def sampling(own: ModelSampling, where: str, **chosen: Any) -> Sampling:
    """The model's `own` way of sampling, but for what is `chosen` and not None; `where` names its section in errors."""
    values = {**asdict(own), **{key: value for key, value in chosen.items() if value is not None}}
    predictor, sampler = (
        {field.name: values[field.name] for field in fields(config) if field.name in values}
        for config in (PredictorConfig, SamplerConfig)
    )
    where = f"params.yaml: {where}"
    return Sampling(parse(PredictorConfig, predictor, where), parse(SamplerConfig, sampler, where))


@plain_dataclass(frozen=True)
class Model:
    """What `train` wrote, ready to sample from as its `own` settings say.

    `class_counts` has the number of training images of each of `classes`, or is empty if the weights' file has none.
    `at_once` is how many images one pass of the network should have: another number rounds differently. `guide` is a
    weaker denoiser that guides this one. `shape` is that of x_0: of an image of `size` px or, with a `codec`, of its
    latents. `stops` are the times that tuned weights know; `matched` ones know them together only.
    """

    network: UNet
    denoiser: Denoiser
    shape: tuple[int, int, int]
    size: int
    preprocessing: str
    classes: list[str]
    class_counts: list[int]
    at_once: int
    own: ModelSampling
    stops: list[int]
    matched: bool
    codec: Codec | None = None
    guide: Denoiser | None = None

    @property
    def schedule(self) -> NoiseSchedule:
        """The schedule that the network was trained with."""
        return self.denoiser.schedule

    @property
    def precision(self) -> torch.dtype:
        """The number format of the network's convolutions and matrix products."""
        return self.denoiser.precision

    def encoded(self, images: Tensor) -> Tensor:
        """x_0 `[B, *shape]` of `images` in [-1, 1] `[B, 3, size, size]`: they themselves, or their latents."""
        if self.codec is None:
            return images
        with torch.inference_mode(), autocast(images.device, self.precision):
            return torch.cat([self.codec.encode(part) for part in images.split(self.at_once)])

    def pixels(self, x0: Tensor) -> np.ndarray:
        """The images of x_0 `[B, *shape]`, uint8 `[B, size, size, 3]`."""
        if self.codec is None:
            return to_uint8(x0)
        with torch.inference_mode(), autocast(x0.device, self.precision):
            return to_uint8(torch.cat([self.codec.decode(part) for part in x0.split(self.at_once)]))

    def predictor(self, config: PredictorConfig, label: Tensor | None = None) -> Predict:
        """The denoiser as samplers see it, for the class `label` `[B]` where it knows classes."""
        return make_predictor(self.denoiser, config, label, self.guide)

    def sample(
        self,
        how: Sampling,
        xt: Tensor,
        noise: Noise,
        on_step: OnStep | None = None,
        label: Tensor | None = None,
        start: int | None = None,
    ) -> Tensor:
        """Take x_T, or x at `start`, to x_0, of the class `label` `[B]`; see `samplers.run_sampler`."""
        predict = self.predictor(how.predictor, label)
        return run_sampler(how.sampler, predict, self.schedule, xt, noise, on_step, start, self.stops)

    def timesteps(self, how: Sampling) -> list[int]:
        """Those that `sample` stops at without `start`, falling."""
        return timesteps_of(how.sampler, self.schedule, self.stops)


def weights_file(weights: Path, params: Params, changes: Mapping[str, Any] = NOTHING, own: Own = own_sampling) -> Path:
    """WEIGHTS if it is a file, else the average in that folder which its model is sampled from, as `own` says.

    Raises:
        ConfigError: there is no such file or folder, or no such average in it.
    """
    if weights.is_file():
        return weights
    if not weights.is_dir():
        raise ConfigError(f"{weights}: no such file or folder; `train` writes data/model, `gan` data/gan")
    there = sorted(weights.glob("*.safetensors"))
    if not there:
        raise ConfigError(f"{weights} has no weights; `train` writes data/model, `gan` data/gan")
    decay = own(there[0], params, changes).ema_decay
    file = weights / (f"ema_{decay}.safetensors" if decay else "raw.safetensors")
    if file not in there:
        raise ConfigError(
            f"params.yaml: models.{settings_of(there[0]).get('model')}.sampling.ema_decay = {decay}: "
            f"{weights} has {', '.join(path.name for path in there)}; 0 is the weights of the last step"
        )
    return file


def settings_of(file: Path) -> dict[str, Any]:
    """What the weights in FILE say of themselves.

    Raises:
        ConfigError: it has none, or others than `train` writes.
    """
    try:
        settings = read_metadata(file)
    except SafetensorError as error:
        raise ConfigError(f"{file}: no weights in safetensors format: {error}") from None
    if "network" not in settings:
        raise ConfigError(f"{file}: no weights that stage train has written: its metadata doesn't say of what network")
    return settings


def require_unclipped(predictor: PredictorConfig) -> None:
    """Fail where latents would be kept in the range of pixels.

    Raises:
        ConfigError: naming the parameters.
    """
    if predictor.clip or predictor.threshold is not None:
        raise ConfigError(
            "params.yaml: the model draws latents, which aren't within [-1, 1]: sample.clip, and clip of the model's "
            "sampling, must be false and sample.threshold empty"
        )


def load_model(
    weights: Path,
    params: Params,
    device: torch.device,
    precision: Precision,
    changes: Mapping[str, Any] = NOTHING,
    latents: Path | None = None,
) -> Model:
    """Load the network in WEIGHTS, a file or a folder; all that describes it comes from there, not from `params.yaml`.

    `changes` replace its own sampling settings, by name; see `own_sampling`. The folder LATENTS has the autoencoder of
    a model that draws latents.

    Raises:
        ConfigError: no weights are there, or others than `train` writes, or the autoencoder of others.
    """
    file = weights_file(weights, params, changes)
    own = own_sampling(file, params, changes)
    tensors, settings = read_safetensors(file)
    shape = parse(UNetConfig, settings["network"], f"{file}: network")
    encoded = settings.get("latents")
    channels, side, _ = x0_shape = tuple(encoded["shape"]) if encoded else (3, settings["size"], settings["size"])
    network = UNet(shape, side, len(settings["classes"]), channels)
    network.load_state_dict(tensors)
    network = placed(network, device).eval()
    schedule = NoiseSchedule(
        parse(DiffusionConfig, settings["diffusion"], f"{file}: diffusion"), settings.get("log_snr_shift", 0.0)
    )
    set_float32_products(precision)
    number_format = autocast_dtype(precision, device)
    return Model(
        network=network,
        denoiser=Denoiser(network, schedule, settings["recipe"]["target"], precision=number_format),
        shape=x0_shape,
        size=settings["size"],
        preprocessing=settings["image_recipe"],
        classes=settings["classes"],
        class_counts=settings.get("class_counts", []),
        at_once=params.section(RuntimeConfig, "runtime").at_once(IMAGES_AT_ONCE),
        own=own,
        codec=load_codec(latents, encoded["autoencoder"], device) if encoded else None,
        stops=settings.get("tune", {}).get("stops", []),
        matched=settings.get("tune", {}).get("objective") == "matching",
    )
