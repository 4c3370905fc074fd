"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) as a distance between vectors.

LPIPS v0.1 is, with unit(f_l) the l-th feature map divided by its length over channels at each position,

    LPIPS(a, b) = sum over l, h, w, c of  w_lc / (H_l W_l) * (unit(f_l(a)) - unit(f_l(b)))^2.

All w_lc are >= 0, so it is the squared Euclidean distance between phi(a) and phi(b) with
phi(x) = concat over l of sqrt(w_l / (H_l W_l)) * unit(f_l(x)): a matrix product compares many images with many.
Images are float32 `[B, 3, H, W]` in [-1, 1], at the size they have; `Metric` may resize them before.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import lpips
import numpy as np
import torch
from torch import Tensor
from torch.backends import cudnn
from torch.linalg import vector_norm
from torch.nn.functional import interpolate

from ddpm.evaluation.backbone import verified
from ddpm.images import to_model_range

IMAGES_AT_ONCE = 128
"""Images per forward pass, unless told otherwise. The last bits of a result depend on it."""


def load_lpips(backbone: Mapping[str, Tensor], net: str) -> lpips.LPIPS:
    """The `lpips` package's model with its own linear heads on the given, checked backbone; no network, no gradients.

    Args:
        backbone: tensors named as in `backbone`.
        net: `alex` or `vgg`.

    Raises:
        BackboneError: `backbone` isn't `net`'s.
    """
    tensors = verified(backbone, net)
    # pnet_rand builds the network with random weights, all of which are replaced here.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for name, module in model.net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            layer = name.rpartition(".")[2]  # the slices keep torchvision's numbers
            module.load_state_dict({kind: tensors[f"features.{layer}.{kind}"] for kind in ("weight", "bias")})
    return model.eval().requires_grad_(False)


@contextmanager
def _exact() -> Iterator[None]:
    """Convolutions and products in float32: TF32, cuDNN's default, is off by more than neighbours differ by."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(chosen)


def _maps(model: lpips.LPIPS, images: Tensor) -> tuple[Tensor, ...]:
    """The feature maps that LPIPS compares, each `[B, C_l, H_l, W_l]`."""
    device = model.scaling_layer.shift.device
    with _exact():
        return model.net(model.scaling_layer(images.to(device)))


@torch.no_grad()
def embed(model: lpips.LPIPS, images: Tensor, at_once: int = IMAGES_AT_ONCE) -> Tensor:
    """The embedding phi `[B, D]` without channels of weight zero: D is 10,278 for AlexNet at 48 px, 281,088 for VGG."""
    return torch.cat([_embed(model, block) for block in images.split(at_once)])


def _embed(model: lpips.LPIPS, images: Tensor) -> Tensor:
    if len(images) == 1:  # alone, where oneDNN would sum in another order than for several
        return _embed(model, images.expand(2, -1, -1, -1))[:1]
    parts = []
    for features, head in zip(_maps(model, images), model.lins, strict=True):
        weight = head.model[-1].weight.flatten()
        used = weight > 0
        scale = (weight[used].double() / features[0, 0].numel()).sqrt().float()  # float64 for the reason in `_unit`
        parts.append((_unit(features)[:, used] * scale[:, None, None]).flatten(1))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def pooled_features(model: lpips.LPIPS, images: Tensor, at_once: int = IMAGES_AT_ONCE) -> Tensor:
    """Features for distribution metrics: means over positions of the five maps, normalised over channels as in LPIPS.

    Unlike the last map's raw means they carry texture too, and no image weighs more for its contrast. A map of C
    channels is scaled by sqrt(C): the squares' mean is at most 1, which suits KID's kernel.

    Returns:
        `[B, C_1 + ... + C_5]`: 1,152 numbers for AlexNet, 1,472 for VGG16.
    """
    return torch.cat([_pooled(_maps(model, block)) for block in images.split(at_once)])


def _pooled(maps: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([_unit(m).mean((2, 3)) * m.shape[1] ** 0.5 for m in maps], dim=1)


def _unit(features: Tensor) -> Tensor:
    """`lpips.normalize_tensor` without `sqrt`, which rounds by the maker of the processor: it is MKL's on a CPU."""
    return features / (vector_norm(features, dim=1, keepdim=True) + 1e-10)


def pair_distances(model: lpips.LPIPS, a: Tensor, b: Tensor, at_once: int = IMAGES_AT_ONCE) -> Tensor:
    """LPIPS of each pair (a[i], b[i]), `[B]`, without a matrix product."""
    pairs = zip(a.split(at_once), b.split(at_once), strict=True)
    return torch.cat([(embed(model, x) - embed(model, y)).square().sum(1) for x, y in pairs])


@dataclass(frozen=True)
class Metric:
    """LPIPS of stored images, uint8 `[N, H, W, 3]`: at their own size or, with `size`, resized to that square before.

    Resizing, bilinear and antialiased, changes LPIPS: compare values of one size only. The network takes so many images
    `at_once`.
    """

    model: lpips.LPIPS
    size: int | None = None
    at_once: int = IMAGES_AT_ONCE

    def embed(self, images: np.ndarray) -> Tensor:
        """`embed` of the images, `[N, D]`."""
        return embed(self.model, self._input(images), self.at_once)

    def pair_distances(self, a: np.ndarray, b: np.ndarray) -> Tensor:
        """`pair_distances` of the images, `[N]`, on the CPU."""
        parts = []
        for start in range(0, len(a), self.at_once):  # all of them in float32 would be much memory
            x, y = (self._input(images[start : start + self.at_once]) for images in (a, b))
            parts.append(pair_distances(self.model, x, y, self.at_once).cpu())
        return torch.cat(parts)

    def _input(self, images: np.ndarray) -> Tensor:
        pixels = to_model_range(images)
        return pixels if self.size is None else interpolate(pixels, [self.size] * 2, mode="bilinear", antialias=True)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances between the rows of `a` `[M, D]` and `b` `[N, D]`, `[M, N]`."""
    # A norm takes a tenth of the time that square() and sum() do.
    squares = vector_norm(a, dim=1).square()[:, None] + vector_norm(b, dim=1).square()
    with _exact():
        return torch.addmm(squares, a, b.T, alpha=-2).clamp_min_(0)


def distance_sums(blocks: Callable[[], Iterable[Tensor]]) -> Tensor:
    """Of each row of a matrix the sum of its squared Euclidean distances to the others, float64 `[N]`.

    From two walks over the matrix in `blocks` of rows, each `[n, D]`: sum over j of |a_i - a_j|^2 is
    N |a_i|^2 + sum_j |a_j|^2 - 2 a_i . sum_j a_j.
    """
    walks = [(len(block), block.double().sum(0), block.double().square().sum()) for block in blocks()]
    count, total, squares = (sum(parts) for parts in zip(*walks, strict=True))
    sums = []
    for block in blocks():
        rows = block.double()
        sums.append(count * rows.square().sum(1) + squares - 2 * rows @ total)
    return torch.cat(sums).clamp(min=0)
