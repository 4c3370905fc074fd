"""Arrays of images to model input and back, and to one picture: one pair of range conversions, one grid."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Images(Protocol):
    """uint8 `[N, H, W, 3]`, an array or a file that is read where it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def to_model_range(images: np.ndarray | Tensor) -> Tensor:
    """uint8 `[N, H, W, C]` to float32 `[N, C, H, W]` in [-1, 1]."""
    # The copy makes a read-only memory map, as np.load(mmap_mode="r") gives it, acceptable to torch.
    pixels = torch.from_numpy(np.array(images)) if isinstance(images, np.ndarray) else images
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1


def to_uint8(images: Tensor) -> np.ndarray:
    """Float `[N, C, H, W]` in [-1, 1] to uint8 `[N, H, W, C]`, rounded and clamped; undoes `to_model_range` exactly."""
    levels = (images.float() * 127.5 + 127.5).round().clamp(0, 255)
    return np.ascontiguousarray(levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())


def tile_grid(images: np.ndarray, columns: int, padding: int = 2, scale: int = 1) -> np.ndarray:
    """Lay images out row by row, on nothing.

    Args:
        images: uint8 `[N, H, W, 3]`.
        columns: images per row, where there are so many; the last row may be shorter.
        padding: transparent pixels around each image, after scaling.
        scale: each pixel becomes a square of so many pixels.

    Returns:
        RGBA, uint8 `[rows * (H * scale + padding) + padding, columns * (W * scale + padding) + padding, 4]`.
    """
    large = images.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = large.shape[1] + padding, large.shape[2] + padding
    columns = min(columns, len(large))
    rows = -(-len(large) // columns)
    grid = np.zeros((rows * height + padding, columns * width + padding, 4), np.uint8)
    for index, image in enumerate(large):
        top, left = index // columns * height + padding, index % columns * width + padding
        tile = grid[top : top + image.shape[0], left : left + image.shape[1]]
        tile[..., :3], tile[..., 3] = image, 255
    return grid
