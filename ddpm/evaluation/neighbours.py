"""The images of a large set that are nearest to each of many by LPIPS: exact, and in flat memory.

Every image becomes a vector (`perceptual`), and a matrix product compares a block of the set with all queries. Its
rounding could swap neighbours that are almost as near, so a few more than asked for are kept, and those that may be
among the nearest are compared once more, by the sum of squares that LPIPS is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ddpm.devices.processes import from_first, rank_and_count, sum_over_processes
from ddpm.evaluation.perceptual import IMAGES_AT_ONCE, Metric, squared_distances
from ddpm.images import Images

BLOCK_BYTES, QUERY_BYTES = 1 << 28, 1 << 30
"""What the vectors of a block and of the queries may fill; more queries take another pass over the set.

A metric that takes fewer images at once than `IMAGES_AT_ONCE` gets so much less for the queries.
"""

MARGIN = 8
"""Candidates kept beyond those asked for."""

TOLERANCE = 1e-5
"""Well beyond what the rounding of the matrix product moves a distance by, about 1e-6."""

OnBlock = Callable[[int, int], None]
"""Called after each block with the number of its images, and how many this process looks at in all.

That grows by those that are compared once more, when they are known.
"""


class Store(Protocol):
    """Where a long search keeps what it has found, by name, and finds it again when it was killed."""

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """What was saved by this name, or None."""

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Replace what was saved by this name."""

    def due(self) -> bool:
        """Whether it is time to save again."""


@dataclass(frozen=True)
class Neighbours:
    """Of Q images the k nearest of the reference, the nearest first; all are `[Q, k]`.

    `distances` are LPIPS, float32. `rows` are row indices in the reference, int64. `mirrored`, bool, is true where the
    mirror image of that row is the neighbour.
    """

    distances: np.ndarray
    rows: np.ndarray
    mirrored: np.ndarray


def nearest(
    metric: Metric,
    queries: Images,
    reference: Images,
    k: int,
    *,
    mirror: bool = False,
    left_out: np.ndarray | None = None,
    on_block: OnBlock = lambda images, total: None,
    store: Store | None = None,
) -> Neighbours:
    """The `k` images of the reference that are nearest to each query; of equally near ones the first comes first.

    Of several processes each looks at its share of the reference. All return the whole result, which doesn't depend on
    how many they are.

    Args:
        metric: LPIPS.
        queries: uint8 `[Q, H, W, 3]`.
        reference: uint8 `[N, H, W, 3]`; it is read block by block, so that it may be a file.
        k: neighbours of each query, different images.
        mirror: compare with the mirror images of the reference too, and count each image as it is nearer.
        left_out: a row of the reference for each query that is no neighbour of it, `[Q]`: itself, or -1 for none.
        on_block: for a progress bar.
        store: of this search alone.

    Raises:
        ValueError: fewer than `k` images.
    """
    others = len(reference) - (left_out is not None)
    if others < k:
        raise ValueError(f"{k} neighbours asked for among {others} images")
    vector_bytes = 4 * metric.embed(queries[:1]).shape[1]
    block = min(metric.at_once, max(1, BLOCK_BYTES // vector_bytes))
    passes = range(0, len(queries), max(1, int(QUERY_BYTES * min(1, metric.at_once / IMAGES_AT_ONCE)) // vector_bytes))
    search = _Search(metric, reference, k, 1 + mirror, block, store, on_block, len(passes))
    found = [
        search.of_pass(
            f"pass {first}",
            queries[first : first + passes.step],
            None if left_out is None else left_out[first : first + passes.step],
        )
        for first in passes
    ]
    return Neighbours(**{name: np.concatenate([each[name] for each in found]) for name in found[0]})


class _Search:
    """Passes of this process over its blocks of the reference, each for some of the queries; goes on where it was."""

    def __init__(
        self,
        metric: Metric,
        reference: Images,
        k: int,
        sides: int,
        block: int,
        store: Store | None,
        on_block: OnBlock,
        passes: int,
    ):
        self.metric, self.reference, self.k, self.sides, self.block = metric, reference, k, sides, block
        self.store, self.on_block = store, on_block
        self.rank, self.processes = rank_and_count()
        self.starts = range(self.rank * block, len(reference), self.processes * block)
        self.sizes = [min(block, len(reference) - start) for start in self.starts]
        self.total = passes * sum(self.sizes)

    def _report(self, images: int) -> None:
        self.on_block(images, self.total)

    def of_pass(self, name: str, queries: Images, left_out: np.ndarray | None) -> dict[str, np.ndarray]:
        """The arrays of `Neighbours` for these queries."""
        done = from_first(self.store.load(name) if self.store else None)
        if done:
            self._report(sum(self.sizes))
            return done
        phi = _embedded(self.metric, queries, self.block)
        distances, rows = map(_gathered, self._candidates(name, phi, left_out))
        arrays = self._compared_again(phi, distances, rows)
        done = dict(zip(("distances", "rows", "mirrored"), arrays, strict=True))
        if self.store and self.rank == 0:
            self.store.save(name, done)
        return done

    def _candidates(self, name: str, phi: Tensor, left_out: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Distances and rows of those nearest to `phi` `[Q, D]` on each side, `[sides, Q, k + MARGIN]`."""
        distances = phi.new_full((self.sides, len(phi), self.k + MARGIN), torch.inf)
        rows = torch.full(distances.shape, -1, device=phi.device)
        # Of each process its own; with another number of processes the blocks are others.
        name = f"{name} of process {self.rank} of {self.processes}"
        begun = self.store.load(name) if self.store else None
        compared = int(begun["blocks"]) if begun else 0
        if begun:
            distances.copy_(torch.from_numpy(begun["distances"]))
            rows.copy_(torch.from_numpy(begun["rows"]))
            self._report(sum(self.sizes[:compared]))
        for number in range(compared, len(self.starts)):
            start, size = self.starts[number], self.sizes[number]
            _compare(self.metric, phi, self.reference[start : start + size], start, left_out, distances, rows)
            self._report(size)
            if self.store and (self.store.due() or number + 1 == len(self.starts)):
                arrays = {"distances": distances.cpu().numpy(), "rows": rows.cpu().numpy()}
                self.store.save(name, {"blocks": np.array(number + 1), **arrays})
        return distances, rows

    def _compared_again(
        self, phi: Tensor, distances: Tensor, rows: Tensor
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The k nearest of the candidates `[sides, Q, K]` of each query: exact distances, rows, and sides."""
        # As no row occurs twice on one side, the k nearest are no farther than the k-th of either.
        limit = distances.sort(dim=2).values[:, :, self.k - 1].amin(dim=0) + TOLERANCE
        side, query, place = (distances <= limit[:, None]).nonzero().numpy().T
        row = rows.numpy()[side, query, place]
        exact = self._exact(phi, query, row, side)
        order = np.lexsort((side, row, exact, query))
        query, row, side, exact = query[order], row[order], side[order], exact[order]
        # Each image as it is nearer.
        once = np.sort(np.unique(query * len(self.reference) + row, return_index=True)[1])
        chosen = once[np.arange(len(once)) - np.searchsorted(query[once], query[once]) < self.k]
        return exact[chosen].reshape(-1, self.k), row[chosen].reshape(-1, self.k), side[chosen].reshape(-1, self.k) == 1

    def _exact(self, phi: Tensor, query: np.ndarray, row: np.ndarray, side: np.ndarray) -> np.ndarray:
        """LPIPS, without a matrix product, of each query to an image that is mirrored where `side` is 1, `[pairs]`."""
        images, image = np.unique(2 * row + side, return_inverse=True)  # many queries have the same neighbours
        pairs = np.argsort(image, kind="stable")
        starts = range(self.rank * self.block, len(images), self.processes * self.block)
        self.total += sum(min(self.block, len(images) - start) for start in starts)
        distance = torch.zeros(len(row))
        for start in starts:
            some = images[start : start + self.block]
            seen = take(self.reference, some // 2)
            vectors = self.metric.embed(np.where(some[:, None, None, None] % 2 == 1, seen[:, :, ::-1], seen))
            first, last = np.searchsorted(image[pairs], [start, start + len(some)])
            for mine in np.split(pairs[first:last], range(self.block, last - first, self.block)):
                apart = phi[query[mine]] - vectors[image[mine] - start]
                distance[mine] = apart.square().sum(dim=1).cpu()
            self._report(len(some))
        return sum_over_processes(distance).numpy()


def _embedded(metric: Metric, images: Images, block: int) -> Tensor:
    """The vectors of all images, `[N, D]`."""
    first = metric.embed(images[:block])
    vectors = first.new_empty(len(images), first.shape[1])  # to concatenate parts would take twice the memory
    vectors[:block] = first
    for start in range(block, len(images), block):
        vectors[start : start + block] = metric.embed(images[start : start + block])
    return vectors


def _compare(
    metric: Metric,
    phi: Tensor,
    images: np.ndarray,
    start: int,
    left_out: np.ndarray | None,
    distances: Tensor,
    rows: Tensor,
) -> None:
    """Enter the images, which stand in the reference from `start` on, among the nearest of `phi` `[Q, D]` so far.

    These are `distances` and `rows`, `[1, Q, K]`, or `[2, Q, K]` with those of the mirror images.
    """
    for side, (nearest_yet, their_rows) in enumerate(zip(distances, rows, strict=True)):
        new = squared_distances(phi, metric.embed(images[:, :, ::-1] if side else images))
        if left_out is not None:
            here = np.flatnonzero((left_out >= start) & (left_out < start + len(images)))
            new[here, left_out[here] - start] = torch.inf
        # Sorting is dear, and most queries soon have no nearer image in a block. Of equal ones the earlier stays.
        changed = (new < nearest_yet[:, -1:]).any(dim=1).nonzero().flatten()
        numbers = torch.arange(start, start + len(images), device=phi.device).expand(len(changed), -1)
        both, order = torch.cat([nearest_yet[changed], new[changed]], dim=1).sort(dim=1, stable=True)
        nearest_yet[changed] = both[:, : distances.shape[2]]
        their_rows[changed] = torch.cat([their_rows[changed], numbers], dim=1).gather(1, order)[:, : rows.shape[2]]


def _gathered(values: Tensor) -> Tensor:
    """`[S, Q, K]` of each process, in all of them: `[S, Q, processes * K]`."""
    rank, processes = rank_and_count()
    gathered = torch.zeros((processes, *values.shape), dtype=values.dtype)
    gathered[rank] = values.cpu()
    return torch.cat([*sum_over_processes(gathered)], dim=2)


def take(images: Images, rows: np.ndarray) -> np.ndarray:
    """The images in these rows, `[n, H, W, 3]`, read one by one.

    Of a file that is mapped the system maps up to 2 MB around each row; for many rows at once that is much memory.
    """
    return np.stack([images[row] for row in rows])
