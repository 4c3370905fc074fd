"""What ranking by LPIPS asks for, and the number of the report that it is compared with."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT
from stages.kit.enough import RANKED

REPORT_BEST_SIX = (0.29, 0.32)
"""LPIPS of the report's six best samples to their nearest training images, lowest and highest (its figure 5)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RankConfig:
    """`net`: the network behind LPIPS; `input_size`: the square that images are resized to for it, if at all.

    `samples`: how many are ranked, the first ones; `flips`: count a training image mirrored where that is nearer;
    `best`: samples to show; `batches`: pairs of batches of training images, each as large as `samples`; `flag_rate`:
    share of real images that may be taken for copies. `seed` draws the batches and the images to leave out. It is not
    the top-level seed, so that runs which differ in that one are measured with the same yardstick.
    """

    net: Literal["alex", "vgg"]
    input_size: Annotated[int, Field(ge=32, le=512)] | None
    flips: bool
    samples: Annotated[int, Field(ge=RANKED)]
    best: Annotated[int, Field(ge=1, le=200)]  # a figure has a column for each
    batches: Annotated[int, Field(ge=2)]
    flag_rate: Annotated[float, Field(gt=0, lt=1)]
    seed: NonNegativeInt
