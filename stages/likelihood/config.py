"""What `likelihood` asks for, without what draws its figure: `tools.check` loads it, too."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LikelihoodConfig:
    """So many held-out `images` are evaluated in each of so many `bins` of noise level, at `draws` random t each."""

    images: Annotated[int, Field(ge=2)]
    bins: PositiveInt
    draws: PositiveInt
    seed: NonNegativeInt
