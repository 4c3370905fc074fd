"""What the distances of the best samples are measured with: batches of real images, as the report has it and fairly."""

from typing import Any

import numpy as np
import torch

from ddpm.evaluation.estimates import mean
from ddpm.evaluation.neighbours import take
from ddpm.evaluation.perceptual import Metric
from ddpm.images import Images
from ddpm.rng import numpy_stream
from stages.kit.parts import Parts
from stages.kit.progress import progress


def between_batches(metric: Metric, images: Images, size: int, count: int, seed: int, parts: Parts) -> np.ndarray:
    """LPIPS between batches of real images, the report's yardstick: image i of a batch to image i of another.

    What a pair of batches gives is kept in `parts`.

    Returns:
        `[count, size]` for `count` pairs of batches, each of `size` images, or of half of all if these are fewer. The
        batches of a pair have no image in common.
    """
    size, found = min(size, len(images) // 2), []
    with progress(count * size, "pair", label="batches") as bar:
        for number in range(count):
            rows = numpy_stream(seed, "rank: batches", number).permutation(len(images))[: 2 * size]

            def distances(rows: np.ndarray = rows) -> dict[str, np.ndarray]:
                a, b = take(images, rows[:size]), take(images, rows[size:])
                return {"distances": metric.pair_distances(a, b).numpy()}

            found.append(parts.kept(str(number), distances)["distances"])
            bar.update(size)
    return np.stack(found)


def best_of_batches(distances: np.ndarray, size: int, best: int, seed: int) -> dict[str, Any]:
    """What the `best` of `size` real images are like: the yardstick for samples that were picked in the same way.

    Args:
        distances: of held-out images to their nearest training images, `[N]`.
        size: images in a batch.
        best: how many of each batch count, those with the lowest distances.
        seed: of the batches, which have no image in common.

    Returns:
        `spread` over the N // size batches of the lowest, the mean and the highest distance of a batch's best.
    """
    order = numpy_stream(seed, "rank: best of batches").permutation(len(distances))
    batches = np.sort(distances[order[: len(order) // size * size]].reshape(-1, size), axis=1)[:, :best]
    return {"lowest": spread(batches[:, 0]), "mean": spread(batches.mean(1)), "highest": spread(batches[:, -1])}


def spread(values: np.ndarray) -> dict[str, Any]:
    """Lowest, median, mean and highest; of no values only that there are none."""
    names = ("min", "median", "mean", "max") if len(values) else ()
    return {name: float(getattr(np, name)(values)) for name in names} | {"n": len(values)}


def with_interval(values: np.ndarray) -> dict[str, Any]:
    """The same, and the 95 % interval of the mean."""
    estimate = mean(torch.tensor(values))
    return {**spread(values), "low": estimate.low, "high": estimate.high}
