"""A trained GAN, ready to make images of noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from ddpm.config import STRICT, ConfigError, parse
from ddpm.devices.precision import Precision, autocast, autocast_dtype, placed, set_float32_products
from ddpm.gan.networks import GanConfig, Generator
from ddpm.rng import normal, numpy_stream
from stages.kit.params import Params
from stages.kit.runtime import RuntimeConfig
from stages.shared.files.formats import read_safetensors
from stages.shared.models.diffusion import IMAGES_AT_ONCE, NOTHING, settings_of, weights_file


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GanSampling:
    """How a GAN is sampled from: from which average of the generator's weights (0: none)."""

    ema_decay: float


@plain_dataclass(frozen=True)
class GanModel:
    """The generator that `gan` wrote. Fields named as in `diffusion.Model` mean the same."""

    generator: Generator
    size: int
    preprocessing: str
    classes: list[str]
    class_counts: list[int]
    at_once: int
    precision: torch.dtype

    def noise(self, seed: int, purpose: str, ids: Sequence[int]) -> Tensor:
        """What the images of these numbers are made of, `[len(ids), Z]`: each depends on the seed and its number."""
        channels = (self.generator.config.latent_channels,)
        drawn = torch.stack([normal(numpy_stream(seed, purpose, i), channels) for i in ids])
        return drawn.to(self.generator.basis.device)

    @torch.inference_mode()
    def images(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """One evaluation: noise `[B, Z]`, of the class `label` `[B]`, to images float32 `[B, 3, H, W]`."""
        with autocast(z.device, self.precision):
            return self.generator(z, label).float()


def folder_of(weights: Path, gan: Path | None, params: Params) -> Path:
    """GAN, where it is given and the chosen model is one, else WEIGHTS."""
    return gan if gan and params.model().kind == "gan" else weights


def is_gan(weights: Path) -> bool:
    """Whether a GAN's generator is in WEIGHTS, a file or a folder.

    Raises:
        ConfigError: a file there has other weights than `train` and `gan` write.
    """
    files = [weights] if weights.is_file() else sorted(weights.glob("*.safetensors"))
    return bool(files) and settings_of(files[0]).get("kind") == "gan"


def gan_sampling(file: Path, params: Params, changes: Mapping[str, Any] = NOTHING) -> GanSampling:
    """What params.yaml has as sampling of the model that the weights in FILE name.

    Raises:
        ConfigError: it has no such model.
    """
    name = str(settings_of(file).get("model"))
    values = {**params.mapping("models", name, "sampling"), **changes}
    return parse(GanSampling, values, f"params.yaml: models.{name}.sampling")


def load_gan(weights: Path, params: Params, device: torch.device, precision: Precision) -> GanModel:
    """Load the generator in WEIGHTS, a file or a folder; all that describes it comes from there.

    Raises:
        ConfigError: no such weights are there.
    """
    file = weights_file(weights, params, own=gan_sampling)
    tensors, settings = read_safetensors(file)
    generator = Generator(
        parse(GanConfig, settings["network"], f"{file}: network"), settings["size"], len(settings["classes"])
    )
    generator.load_state_dict(tensors)
    set_float32_products(precision)
    return GanModel(
        generator=placed(generator, device).eval(),
        size=settings["size"],
        preprocessing=settings["image_recipe"],
        classes=settings["classes"],
        class_counts=settings["class_counts"],
        at_once=params.section(RuntimeConfig, "runtime").at_once(IMAGES_AT_ONCE),
        precision=autocast_dtype(precision, device),
    )


def require_no_sampler(section: str, values: Mapping[str, Any]) -> None:
    """Fail where the `section` of params.yaml asks for what only diffusion models have.

    Raises:
        ConfigError: naming it.
    """
    neutral = {"eta": 0.0, "guidance": 1.0, "guidance_low": 0.0}
    names = ("sampler", "steps", "spacing", "clip", "threshold", "variance", "guide", "guidance_high", *neutral)
    for name in names:
        if values[name] != neutral.get(name):
            wanted = f"{neutral[name]:g}" if name in neutral else "empty"
            raise ConfigError(f"params.yaml: {section}.{name} = {values[name]}: a GAN has none; leave it {wanted}")
