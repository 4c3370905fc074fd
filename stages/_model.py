"""A trained model and the way to sample from it, as `params.yaml` asks for them."""

from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT, ConfigError, parse
from ddpm.diffusion import Target
from ddpm.precision import Precision, choose_precision, placed
from ddpm.predictor import make_predictor
from ddpm.samplers import Noise, OnStep, SamplerConfig, run_sampler
from ddpm.schedule import DiffusionConfig, NoiseSchedule
from ddpm.unet import UNet, UNetConfig
from stages._io import read_safetensors
from stages._params import Params


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SampleConfig:
    """The section `sample`; where `sampler`, `steps`, `clip` or `variance` is empty, the model's own stands in."""

    count: PositiveInt
    seed: NonNegativeInt
    sampler: Literal["ancestral", "ddim"] | None
    steps: PositiveInt | None
    clip: bool | None
    variance: Literal["small", "large"] | None
    eta: float
    precision: Precision


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelSampling:
    """How a model is sampled from, `models.<name>.sampling`: from which average of its weights (0: none), and how."""

    ema_decay: float
    sampler: Literal["ancestral", "ddim"]
    steps: PositiveInt
    clip: bool
    variance: Literal["small", "large"]


def model_sampling(params: Params) -> ModelSampling:
    """What the chosen model says of its sampling."""
    return params.section(ModelSampling, "models", params.top.model, "sampling")


def sampler_config(params: Params, sample: SampleConfig) -> SamplerConfig:
    """The sampler that `sample` and the chosen model ask for."""
    own = model_sampling(params)
    values = {
        "sampler": sample.sampler or own.sampler,
        "steps": sample.steps or own.steps,
        "clip": own.clip if sample.clip is None else sample.clip,
        "variance": sample.variance or own.variance,
        "eta": sample.eta,
    }
    return parse(SamplerConfig, values, "params.yaml: sample")


@plain_dataclass(frozen=True)
class Model:
    """What `train` wrote, ready to sample from."""

    network: UNet
    schedule: NoiseSchedule
    target: Target
    precision: torch.dtype
    shape: tuple[int, int, int]
    image_recipe: str
    classes: list[str]

    def sample(
        self,
        config: SamplerConfig,
        xt: Tensor,
        noise: Noise,
        on_step: OnStep | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """Take x_T to x_0, of the class `label` `[B]` where the network knows classes; see `samplers.run_sampler`."""
        predict = make_predictor(
            self.network, self.schedule, self.target, clip=config.clip, precision=self.precision, label=label
        )
        return run_sampler(config, predict, self.schedule, xt, noise, on_step)


def load_model(folder: Path, params: Params, device: torch.device, precision: Precision) -> Model:
    """Load from FOLDER the average that the chosen model is sampled from.

    All that describes the network comes from its metadata, not from `params.yaml`.

    Raises:
        ConfigError: there is no such average.
    """
    decay = model_sampling(params).ema_decay
    weights = folder / (f"ema_{decay}.safetensors" if decay else "raw.safetensors")
    if not weights.exists():
        there = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))) or "nothing"
        raise ConfigError(
            f"params.yaml: models.{params.top.model}.sampling.ema_decay = {decay}: {folder} has {there}; "
            "0 is the weights of the last step"
        )
    tensors, settings = read_safetensors(weights)
    shape = parse(UNetConfig, settings["network"], f"{weights}: network")
    network = UNet(shape, settings["size"], len(settings["classes"]))
    network.load_state_dict(tensors)
    return Model(
        network=placed(network, device).eval(),
        schedule=NoiseSchedule(parse(DiffusionConfig, settings["diffusion"], f"{weights}: diffusion")),
        target=settings["recipe"]["target"],
        precision=choose_precision(precision, device),
        shape=(3, settings["size"], settings["size"]),
        image_recipe=settings["image_recipe"],
        classes=settings["classes"],
    )
