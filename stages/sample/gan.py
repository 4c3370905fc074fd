"""Many images of a GAN."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm.images import to_uint8
from ddpm.sampling.samplers import OnStep
from stages.kit.device import setup
from stages.kit.params import Params
from stages.sample.draw import identity_of, labels_of, require_classes
from stages.shared.models.diffusion import SampleConfig, weights_file
from stages.shared.models.gan import GanModel, gan_sampling, load_gan, require_no_sampler


@dataclass(frozen=True)
class GanDrawing:
    """What is drawn: image i of `model` from noise that `config.seed` and i decide, in one evaluation."""

    model: GanModel
    config: SampleConfig
    device: torch.device
    identity: Mapping[str, Any]
    evaluations: int = 1

    def labels(self, ids: Sequence[int]) -> list[int]:
        """The class of each image, as `labels_of` says."""
        return labels_of(self.config, self.model.classes, self.model.class_counts, ids)

    def images(self, ids: Sequence[int], on_step: OnStep) -> np.ndarray:
        """The images of these numbers, uint8 `[len(ids), H, W, 3]`."""
        z = self.model.noise(self.config.seed, "sample", ids)
        label = torch.tensor(self.labels(ids), device=self.device) if self.model.classes else None
        images = self.model.images(z, label)
        on_step(0, images, images)
        return to_uint8(images)


def prepare_gan(weights: Path, params: Params) -> GanDrawing:
    """What the section `sample` asks for, of the GAN in WEIGHTS.

    Raises:
        ConfigError: it can't be, with this model.
    """
    device, config = setup(params), params.section(SampleConfig, "sample")
    require_no_sampler("sample", asdict(config))
    model = load_gan(weights, params, device, config.precision)
    require_classes(config, model.classes, model.class_counts)
    file = weights_file(weights, params, own=gan_sampling)
    return GanDrawing(model, config, device, identity_of(file, config, model, device))
