"""A trained model and the way to sample from it, as `params.yaml` asks for them."""

from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT, parse
from ddpm.precision import Precision, choose_precision, placed
from ddpm.predictor import Predict, make_predictor
from ddpm.samplers import Noise, OnStep, SamplerConfig, run_sampler
from ddpm.schedule import DiffusionConfig, NoiseSchedule
from ddpm.unet import UNet, UNetConfig
from stages._io import read_safetensors
from stages._params import Params


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SampleConfig:
    """The section `sample`; where `sampler` or `steps` is empty, the model's own stands in."""

    count: PositiveInt
    seed: NonNegativeInt
    sampler: Literal["ancestral", "ddim"] | None
    steps: PositiveInt | None
    clip: bool
    variance: Literal["small", "large"]
    eta: float
    precision: Precision


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelSampling:
    """The sampler that suits a model, `models.<name>.sampling`."""

    sampler: Literal["ancestral", "ddim"]
    steps: PositiveInt


def sampler_config(params: Params, sample: SampleConfig) -> SamplerConfig:
    """The sampler that `sample` and the chosen model ask for."""
    own = params.section(ModelSampling, "models", params.top.model, "sampling")
    values = {
        "sampler": sample.sampler or own.sampler,
        "steps": sample.steps or own.steps,
        "clip": sample.clip,
        "variance": sample.variance,
        "eta": sample.eta,
    }
    return parse(SamplerConfig, values, "params.yaml: sample")


@plain_dataclass(frozen=True)
class Model:
    """What `train` wrote, ready to sample from."""

    predict: Predict
    schedule: NoiseSchedule
    shape: tuple[int, int, int]
    image_recipe: str

    def sample(self, config: SamplerConfig, xt: Tensor, noise: Noise, on_step: OnStep | None = None) -> Tensor:
        """Take x_T to x_0; see `ddpm.samplers.run_sampler`."""
        return run_sampler(config, self.predict, self.schedule, xt, noise, on_step)


def load_model(weights: Path, device: torch.device, sample: SampleConfig) -> Model:
    """Load WEIGHTS; all that describes the network comes from their metadata, not from `params.yaml`."""
    tensors, settings = read_safetensors(weights)
    network = UNet(parse(UNetConfig, settings["network"], f"{weights}: network"), settings["size"])
    network.load_state_dict(tensors)
    schedule = NoiseSchedule(parse(DiffusionConfig, settings["diffusion"], f"{weights}: diffusion"))
    predict = make_predictor(
        placed(network, device).eval(),
        schedule,
        settings["recipe"]["target"],
        clip=sample.clip,
        precision=choose_precision(sample.precision, device),
    )
    return Model(predict, schedule, (3, settings["size"], settings["size"]), settings["image_recipe"])
