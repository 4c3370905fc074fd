"""The embedded data set: buildings drawn with Pillow, each a function of (seed, category, split, index)."""

from dataclasses import dataclass

from PIL import Image

from ddpm.drawing import bridges, churches, landscape, towers
from ddpm.drawing.canvas import Canvas
from ddpm.rng import numpy_stream

_DRAW = {"church": churches.draw_church, "tower": towers.draw_tower, "bridge": bridges.draw_bridge}

CATEGORIES = tuple(_DRAW)
"""The classes that can be drawn."""
FACTORS = tuple(dict.fromkeys(landscape.FACTORS + churches.FACTORS + towers.FACTORS + bridges.FACTORS))
"""The columns of every scene's factors: what was drawn, not what can be measured in the picture."""


@dataclass(frozen=True)
class Scene:
    """A picture, RGB with a short side of 256 px, and what was drawn in it: FACTORS, "" where one doesn't apply."""

    image: Image.Image
    factors: dict[str, str | float]


def draw_scene(seed: int, category: str, split: str, index: int) -> Scene:
    """Draw picture `index` of a category in a split; no other category or picture has a part in it.

    Raises:
        ValueError: the category isn't one of CATEGORIES.
    """
    if category not in _DRAW:
        raise ValueError(f"category {category!r}: not one of {', '.join(CATEGORIES)}")
    rng = numpy_stream(seed, f"scene/{category}/{split}", index)
    land = landscape.random_landscape(rng)
    canvas = Canvas(land.aspect, landscape.LIGHT[land.time])
    landscape.draw_sky(canvas, land, rng)
    factors = land.factors() | _DRAW[category](canvas, land, rng)
    if land.weather == "snowfall":
        landscape.draw_flakes(canvas, rng)
    return Scene(canvas.finished(), {name: factors.get(name, "") for name in FACTORS})
