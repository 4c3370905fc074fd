"""Inception's features by torch-fidelity, those of the FID that papers give."""

import io
import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from stages.kit.errors import StageError
from stages.kit.inception import inception_weights
from stages.kit.progress import progress

DIMENSIONS = 2048
INCEPTION_AT_ONCE = 64
"""Images per forward pass where `runtime.batch_images` is empty."""


def load_inception(path: Path, device: torch.device) -> FeatureExtractorInceptionV3:
    """The network with the weights in the file PATH, relative to the checkout.

    Raises:
        StageError: it isn't the file that `inception_weights` wants, or holds anything but tensors.
    """
    file = inception_weights(path)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise StageError(f"{file}: not read, because it holds more than tensors: {reason}") from None
    # torch-fidelity unpickles whatever it is given, so it gets what was just written here.
    tensors = io.BytesIO()
    torch.save(state, tensors)
    tensors.seek(0)
    network = FeatureExtractorInceptionV3("inception", [str(DIMENSIONS)], feature_extractor_weights_path=tensors)
    return network.to(device)


def inception_features(model: FeatureExtractorInceptionV3, images: np.ndarray, at_once: int) -> Tensor:
    """Features `[N, 2048]` of uint8 `[N, H, W, 3]`, `at_once` in a pass; the network itself enlarges to 299 x 299."""
    device, parts = next(model.parameters()).device, []
    with torch.inference_mode(), progress(len(images), "img", label="Inception") as bar:
        for start in range(0, len(images), at_once):
            block = torch.from_numpy(np.array(images[start : start + at_once])).permute(0, 3, 1, 2)
            parts.append(model(block.to(device))[0].cpu())
            bar.update(len(block))
    return torch.cat(parts)
