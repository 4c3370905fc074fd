"""Images that occur twice: pixel for pixel, or nearly so, mirrored or not.

The distance between two images is the root mean square of their differences, in levels of 255, as they are or with one
mirrored, whichever is less. Candidates come from k-d trees over 16 numbers an image, the lowest frequencies of its
grey. They are a projection (Parseval), so that no two descriptors are further apart than their images: nothing
within the radius is missed, and what is beyond it is thrown out by looking at the pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree

from ddpm.images import Images

WAVES = 4
"""Frequencies of a descriptor along each side."""
IMAGES_AT_ONCE, BYTES_AT_ONCE = 512, 1 << 25
"""How many images are in memory at once, and how much of large ones: it becomes four times as much, twice."""
PAIRS = 32
"""Pairs compared at once: as many as the processor's cache holds."""

OnBlock = Callable[[int], object]
"""Called after each block with the number of its images, for a progress bar."""


@dataclass(frozen=True)
class Duplicates:
    """Of each image, its nearest duplicate within the radius: `other` is that image's number or -1. All `[N]`."""

    other: np.ndarray
    rms: np.ndarray
    mirrored: np.ndarray

    @classmethod
    def none(cls, images: int) -> "Duplicates":
        """No image has a duplicate yet."""
        return cls(np.full(images, -1), np.zeros(images), np.zeros(images, bool))

    def enter(self, number: int, other: int, rms: float, mirrored: bool) -> None:
        """Note a duplicate of image `number` where it is nearer than one that is known."""
        if self.other[number] < 0 or rms < self.rms[number]:
            self.other[number], self.rms[number], self.mirrored[number] = other, rms, mirrored


def duplicates_within(
    images: Images, among: np.ndarray, radius: float, on_block: OnBlock = lambda images: None
) -> Duplicates:
    """The duplicates among the images of these numbers: an earlier one that has none itself is within `radius` levels.

    So what is left without the duplicates has no two images within the radius. Memory grows by 150 bytes an image.
    """
    duplicates, distinct = Duplicates.none(len(images)), _Forest()
    at_once = _at_once(images)
    for start in range(0, len(among), at_once):
        numbers = among[start : start + at_once]
        block = images[numbers]
        points = descriptors(block)
        for row, other, rms, mirrored in _near(block, points, distinct, images, radius):
            duplicates.enter(numbers[row], other, rms, mirrored)
        new = duplicates.other[numbers] < 0  # among these, some may be duplicates of others
        here = _Forest()
        here.add(points[new], numbers[new])
        for row, other, rms, mirrored in _near(block, points, here, images, radius):
            # Row by row: whether the earlier of the two has a duplicate itself is known by now.
            if other < numbers[row] and duplicates.other[other] < 0:
                duplicates.enter(numbers[row], other, rms, mirrored)
        new = duplicates.other[numbers] < 0
        distinct.add(points[new], numbers[new])
        on_block(len(numbers))
    return duplicates


def duplicates_between(
    images: Images, others: Images, radius: float, on_block: OnBlock = lambda images: None
) -> Duplicates:
    """Of each of `images` its nearest duplicate in `others`, within `radius` levels."""
    duplicates, known = Duplicates.none(len(images)), _Forest()
    at_once = _at_once(images)
    for start in range(0, len(others), at_once):
        block = others[start : start + at_once]
        known.add(descriptors(block), np.arange(start, start + len(block)))
    for start in range(0, len(images), at_once):
        block = images[start : start + at_once]
        for row, other, rms, mirrored in _near(block, descriptors(block), known, others, radius):
            duplicates.enter(start + row, other, rms, mirrored)
        on_block(len(block))
    return duplicates


def _at_once(images: Images) -> int:
    return max(1, min(IMAGES_AT_ONCE, BYTES_AT_ONCE // max(1, images[:1].nbytes)))


def _near(
    block: np.ndarray, points: np.ndarray, forest: "_Forest", others: Images, radius: float
) -> Iterator[tuple[int, int, float, bool]]:
    """Yield (row of `block`, number in `others`, distance, mirrored) for each pair within the radius, in order."""
    pairs = forest.pairs(points, radius)
    as_it_is, mirrored = (images.reshape(len(block), -1).astype(np.float32) for images in (block, block[:, :, ::-1]))
    for start in range(0, len(pairs), PAIRS):
        rows, numbers = pairs[start : start + PAIRS].T
        there = others[numbers].reshape(len(numbers), -1).astype(np.float32)
        plain, turned = (np.sqrt(_mean_squares(images[rows] - there)) for images in (as_it_is, mirrored))
        distances = np.minimum(plain, turned)
        for pair in np.flatnonzero(distances <= radius):
            yield rows[pair], numbers[pair], distances[pair], turned[pair] < plain[pair]


def _mean_squares(rows: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", rows, rows) / rows.shape[1]


def descriptors(images: np.ndarray) -> np.ndarray:
    """float64 `[N, 16]` of uint8 `[N, H, W, 3]`; no two are further apart than their images, mirrored or not."""
    count, height, width, channels = images.shape
    grey = np.repeat(_waves(width) / channels, channels, axis=1)  # the channels' mean: a row of pixels is [W * 3]
    rows = _waves(height) @ images.reshape(count, height, width * channels).astype(np.float32)  # [N, 4, W * 3]
    found = rows @ grey.T
    found[:, :, 1::2] = np.abs(found[:, :, 1::2])  # a mirror image has the others the same and these with another sign
    return found.reshape(count, -1).astype(float)


def _waves(side: int) -> np.ndarray:
    """float32 `[4, side]`: the first waves of the cosine transform, of unit length, over the root of `side`."""
    waves = np.cos(np.pi / side * np.arange(WAVES)[:, None] * (np.arange(side) + 0.5))
    return (waves / np.linalg.norm(waves, axis=1, keepdims=True) / np.sqrt(side)).astype(np.float32)


class _Forest:
    """Descriptors that can be searched while their number grows: trees, each at least twice as large as the next."""

    def __init__(self) -> None:
        self.trees: list[tuple[KDTree, np.ndarray]] = []

    def add(self, points: np.ndarray, numbers: np.ndarray) -> None:
        if not len(points):
            return
        while self.trees and len(self.trees[-1][1]) < 2 * len(numbers):
            tree, more = self.trees.pop()
            points, numbers = np.concatenate([tree.data, points]), np.concatenate([more, numbers])
        self.trees.append((KDTree(points, leafsize=32), numbers))

    def pairs(self, points: np.ndarray, radius: float) -> np.ndarray:
        """`[P, 2]`: rows of the points, and numbers of all that are within the radius of them, in this order."""
        found = [np.zeros((0, 2), int)]
        for tree, numbers in self.trees:
            # A little more, for rounding; the pixels decide.
            places = tree.query_ball_point(points, radius + 0.01, workers=torch.get_num_threads())
            rows = np.repeat(np.arange(len(points)), [len(some) for some in places])
            found.append(np.stack([rows, numbers[np.concatenate([*places, []]).astype(int)]], axis=1))
        pairs = np.concatenate(found)
        return pairs[np.lexsort(pairs.T[::-1])]
