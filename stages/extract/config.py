"""What `extract` asks for, without what decodes pictures: `tools.check` loads it, too."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from ddpm.config import STRICT
from ddpm.pictures.encodings import Truncated
from ddpm.pictures.resizing import Preprocessing


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExtractConfig(Preprocessing):
    """The preprocessing, what counts as unusable, how much of a split may be so, and what is done about duplicates."""

    max_bad_fraction: Annotated[float, Field(ge=0, le=1)]
    dedupe: Literal["keep", "drop"]
    max_pixels: PositiveInt
    truncated: Truncated
