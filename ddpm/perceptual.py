"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) as a distance between vectors, and nearest neighbours by it.

LPIPS v0.1 is, with unit(f_l) the l-th feature map divided by its length over channels at each position,

    LPIPS(a, b) = sum over l, h, w, c of  w_lc / (H_l W_l) * (unit(f_l(a)) - unit(f_l(b)))^2.

All w_lc are >= 0, so it is the squared Euclidean distance between phi(a) and phi(b) with
phi(x) = concat over l of sqrt(w_l / (H_l W_l)) * unit(f_l(x)): a matrix product compares many images with many.
Images are float32 `[B, 3, H, W]` in [-1, 1], at the size they have: nothing is resized.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

import lpips
import numpy as np
import torch
from torch import Tensor
from torch.backends import cudnn

from ddpm.trunk import verified

BLOCK = 128
"""Images per forward pass. Fixed, because the last bits of a result depend on it."""

MARGIN = 8
"""Candidates kept beyond those asked for: the matrix product's rounding may swap neighbours that are almost as near."""


def load_lpips(trunk: Mapping[str, Tensor], net: str) -> lpips.LPIPS:
    """The `lpips` package's model with its own linear heads on the given, checked trunk; no network, no gradients.

    Args:
        trunk: tensors named as in `ddpm.trunk`.
        net: `alex` or `vgg`.

    Raises:
        ddpm.trunk.TrunkError: `trunk` isn't `net`'s.
    """
    tensors = verified(trunk, net)
    # pnet_rand builds the network with random weights, all of which are replaced here.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for name, module in model.net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            layer = name.rpartition(".")[2]  # the slices keep torchvision's numbers
            module.load_state_dict({kind: tensors[f"features.{layer}.{kind}"] for kind in ("weight", "bias")})
    return model.eval().requires_grad_(False)


def _exact() -> AbstractContextManager[None]:
    """Convolutions in float32: TF32, cuDNN's default, is off by more than neighbours differ in distance."""
    return cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def _maps(model: lpips.LPIPS, images: Tensor) -> tuple[Tensor, ...]:
    """The feature maps that LPIPS compares, each `[B, C_l, H_l, W_l]`."""
    device = model.scaling_layer.shift.device
    with _exact():
        return model.net(model.scaling_layer(images.to(device)))


@torch.no_grad()
def embed(model: lpips.LPIPS, images: Tensor) -> Tensor:
    """The embedding phi `[B, D]`, less channels of weight zero: D is 10,278 for AlexNet at 48x48, 281,088 for VGG."""
    return torch.cat([_embed(model, block) for block in images.split(BLOCK)])


def _embed(model: lpips.LPIPS, images: Tensor) -> Tensor:
    parts = []
    for features, head in zip(_maps(model, images), model.lins, strict=True):
        weight = head.model[-1].weight.flatten()
        used = weight > 0
        scale = (weight[used] / features[0, 0].numel()).sqrt()
        unit = lpips.normalize_tensor(features)[:, used]
        parts.append((unit * scale[:, None, None]).flatten(1))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def pooled_features(model: lpips.LPIPS, images: Tensor) -> Tensor:
    """Features for distribution metrics: means over positions of the five maps, normalised over channels as in LPIPS.

    Unlike the last map's raw means they carry texture too, and no image weighs more for its contrast. A map of C
    channels is scaled by sqrt(C): the squares' mean is at most 1, which suits KID's kernel.

    Returns:
        `[B, C_1 + ... + C_5]`: 1,152 numbers for AlexNet, 1,472 for VGG16.
    """
    return torch.cat([_pooled(_maps(model, block)) for block in images.split(BLOCK)])


def _pooled(maps: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([lpips.normalize_tensor(each).mean((2, 3)) * each.shape[1] ** 0.5 for each in maps], dim=1)


@torch.no_grad()
def pair_distances(model: lpips.LPIPS, a: Tensor, b: Tensor) -> Tensor:
    """LPIPS of each pair (a[i], b[i]) by the `lpips` package itself, `[B]`."""
    device = model.scaling_layer.shift.device
    with _exact():
        pairs = zip(a.split(BLOCK), b.split(BLOCK), strict=True)
        return torch.cat([model(x.to(device), y.to(device)).flatten() for x, y in pairs])


def random_pairs(n: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Rows of `count` random pairs among `n` >= 2 images, the two of a pair distinct: int64 `[count, 2]`."""
    first = generator.integers(n, size=count)
    return np.stack([first, (first + generator.integers(1, n, size=count)) % n], axis=1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances between the rows of `a` `[M, D]` and `b` `[N, D]`, `[M, N]`."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1)[None, :]
    return torch.addmm(squares, a, b.T, alpha=-2).clamp_min_(0)


@torch.no_grad()
def nearest(model: lpips.LPIPS, queries: Tensor, reference: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The `k` images of `reference` that are nearest to each query by LPIPS.

    The reference is passed over once and its memory use doesn't grow with it. The distances are those of
    `pair_distances`; of equally near images the first comes first.

    Args:
        model: from `load_lpips`.
        queries: `[Q, 3, H, W]`.
        reference: at least `k` images of the same size in chunks `[n, 3, H, W]` of any length.
        k: neighbours per query.

    Returns:
        Distances `[Q, k]`, rising, and rows of the reference, int64 `[Q, k]`, both on the CPU.

    Raises:
        ValueError: fewer than `k` images.
    """
    phi = embed(model, queries)
    distances, rows = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    images: dict[int, Tensor] = {}
    seen = 0
    for block in _blocks(reference):
        found = squared_distances(phi, embed(model, block)).cpu()
        numbers = torch.arange(seen, seen + len(block)).expand(len(queries), -1)
        distances, order = torch.cat([distances, found], 1).sort(dim=1, stable=True)
        rows = torch.cat([rows, numbers], 1).gather(1, order)[:, : k + MARGIN]
        distances = distances[:, : k + MARGIN]
        # Clones, because a view would keep its whole block in memory.
        images = {row: images[row] if row < seen else block[row - seen].clone() for row in rows.unique().tolist()}
        seen += len(block)
    if seen < k:
        raise ValueError(f"{k} neighbours asked for among {seen} images")
    return _rescored(model, queries, rows, images, k)


def _rescored(
    model: lpips.LPIPS, queries: Tensor, rows: Tensor, images: Mapping[int, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """The `k` nearest of each query's candidates `rows` `[Q, K]`, by `lpips` itself."""
    rows = rows.sort(dim=1).values  # so that the stable sort below breaks ties by row
    distances = torch.empty(rows.shape)
    for query, candidates in enumerate(rows.tolist()):
        near = torch.stack([images[row] for row in candidates])
        distances[query] = pair_distances(model, queries[query].expand_as(near), near).cpu()
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], rows.gather(1, order)[:, :k]


def _blocks(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """The images of all chunks, `BLOCK` at a time, so that no result depends on how they came."""
    waiting: Tensor | None = None
    for chunk in chunks:
        waiting = chunk if waiting is None else torch.cat([waiting, chunk])
        while len(waiting) >= BLOCK:
            yield waiting[:BLOCK]
            waiting = waiting[BLOCK:]
    if waiting is not None and len(waiting):
        yield waiting
