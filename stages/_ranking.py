"""What ranking by LPIPS asks for, and the number of the report that it is compared with."""

from typing import Literal

from pydantic.dataclasses import dataclass

from ddpm.config import STRICT

REPORT_BEST_SIX = (0.29, 0.32)
"""LPIPS of the report's six best samples to their nearest training images, lowest and highest (its figure 5)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RankConfig:
    """`net`: the network behind LPIPS; `best`: samples to show; `pairs`: random pairs of real images to compare with.

    `seed` draws those pairs and the held-out images. It is not the top-level seed, so that runs which differ in that
    one are measured with the same yardstick.
    """

    net: Literal["alex", "vgg"]
    best: int
    pairs: int
    seed: int

    def __post_init__(self) -> None:
        if self.best < 1 or self.pairs < 2 or self.seed < 0:
            raise ValueError("best must be at least 1, pairs at least 2 and seed at least 0")
