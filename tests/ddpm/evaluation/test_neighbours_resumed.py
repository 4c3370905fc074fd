"""A search for neighbours that is killed and begun again finds the same, and doesn't look again at what it has seen."""

import numpy as np
import pytest
from torch import Tensor

from ddpm.evaluation.neighbours import Neighbours, nearest
from ddpm.evaluation.perceptual import Metric, load_lpips


class Kept:
    """A store that is due after every block, and is killed when it has saved so often."""

    def __init__(self) -> None:
        self.arrays: dict[str, dict[str, np.ndarray]] = {}
        self.left = 0

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        return self.arrays.get(name)

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        self.arrays[name] = {key: value.copy() for key, value in arrays.items()}
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def due(self) -> bool:
        return True


def test_killed_after_every_save(backbone: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    metric, queries, reference = Metric(load_lpips(backbone, "alex"), at_once=16), images[:6], images[6:]
    vector_bytes = 4 * metric.embed(queries[:1]).shape[1]
    monkeypatch.setattr("ddpm.evaluation.neighbours.QUERY_BYTES", 3 * vector_bytes * 8)  # two passes of three
    whole, store, seen = nearest(metric, queries, reference, 2, mirror=True), Kept(), []

    def search() -> Neighbours:
        counts: list[tuple[int, int]] = []
        seen.append(counts)
        return nearest(
            metric, queries, reference, 2, mirror=True, store=store, on_block=lambda *count: counts.append(count)
        )

    kills = 2 * (4 + 1)  # each pass has four blocks, and its result
    for _ in range(kills):
        store.left = 1
        with pytest.raises(KeyboardInterrupt):
            search()
    found = search()
    for ours, theirs in zip(vars(found).values(), vars(whole).values(), strict=True):
        assert np.array_equal(ours, theirs)
    assert sum(images for images, _ in seen[-1]) == seen[-1][-1][1] == 2 * 64
    assert len(seen[-1]) == 2, "both passes were there"
