"""What `evaluate` asks for, without what measures: `tools.check` loads it, too."""

from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """`neighbourhood`: the k of precision and recall; `inception`: the file of its weights; without it there is no FID.

    `seed` draws the training images that are measured as well, and the bootstrap.
    """

    neighbourhood: PositiveInt
    seed: NonNegativeInt
    inception: str | None
