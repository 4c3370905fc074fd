"""Inception's features by torch-fidelity, those of the FID that papers give."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from stages.kit.errors import StageError
from stages.kit.files import digest
from stages.kit.progress import progress

DIGEST = "6726825d"
"""How the SHA-256 of the weights starts; their file's name ends with it."""
DIMENSIONS = 2048
IMAGES_AT_ONCE = 64
"""Images per forward pass."""


def load_inception(path: Path, device: torch.device) -> FeatureExtractorInceptionV3:
    """The network with the weights PATH, as converted from the first one that FID was computed with.

    Raises:
        StageError: they are others. Read they are only then, because a pickle can do anything.
    """
    found = digest(path)
    if not found.startswith(DIGEST):
        raise StageError(
            f"params.yaml: evaluate.inception = {path}: its SHA-256 starts with {found[: len(DIGEST)]}, not {DIGEST}: "
            "take weights-inception-2015-12-05-6726825d.pth, of torch-fidelity's release v0.2.0"
        )
    return FeatureExtractorInceptionV3("inception", [str(DIMENSIONS)], feature_extractor_weights_path=path).to(device)


def inception_features(model: FeatureExtractorInceptionV3, images: np.ndarray) -> Tensor:
    """Features `[N, 2048]` of uint8 `[N, H, W, 3]`, which the network itself enlarges to 299 x 299."""
    device, parts = next(model.parameters()).device, []
    with torch.inference_mode(), progress(len(images), "img", label="Inception") as bar:
        for start in range(0, len(images), IMAGES_AT_ONCE):
            block = torch.from_numpy(np.array(images[start : start + IMAGES_AT_ONCE])).permute(0, 3, 1, 2)
            parts.append(model(block.to(device))[0].cpu())
            bar.update(len(block))
    return torch.cat(parts)
