"""A picture addressed in fractions of its central square, so that one drawing suits every aspect ratio."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SIDE = 256
"""Pixels of the short side, as in LSUN."""
SCALE = 2
"""Supersampling: Pillow's polygons have hard edges."""

Colour = tuple[int, int, int]
Point = tuple[float, float]


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """The colour that has `share` of `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


class Canvas:
    """A picture under a light.

    Points are fractions of the central square, y downwards; x runs a little past it on wide pictures, y on tall ones.
    """

    def __init__(self, aspect: float, light: Colour):
        width, height = (round(SIDE * aspect), SIDE) if aspect >= 1 else (SIDE, round(SIDE / aspect))
        self._final = width, height
        self._size = SCALE * SIDE
        self._left, self._top = SCALE * (width - SIDE) / 2, SCALE * (height - SIDE) / 2
        self._image = Image.new("RGB", (SCALE * width, SCALE * height))
        self._opaque = ImageDraw.Draw(self._image)
        self._mixing = ImageDraw.Draw(self._image, "RGBA")  # slower
        self._light = np.array(light) / 255
        self.left, self.right = -self._left / self._size, 1 + self._left / self._size

    def lit(self, colour: Colour, shade: float = 1.0) -> Colour:
        """The colour as this light shows it."""
        red, green, blue = np.clip(np.array(colour) * self._light * shade, 0, 255).astype(int).tolist()
        return red, green, blue

    def fade(self, high: Colour, low: Colour, reach: float) -> None:
        """Fill the picture from `high` at its top to `low`, which is reached at the fraction `reach` of its height."""
        width, height = self._image.size
        down = np.clip(np.linspace(0, 1 / reach, height), 0, 1)[:, None]
        column = (np.array(high) + (np.array(low, float) - high) * down).astype(np.uint8)
        self._image.paste(Image.fromarray(np.broadcast_to(column[:, None], (height, width, 3)).copy()))

    def polygon(self, points: Sequence[Point], colour: Colour, alpha: float = 1.0) -> None:
        """Fill a polygon."""
        draw, fill = self._brush(colour, alpha)
        draw.polygon([self._at(point) for point in points], fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour, alpha: float = 1.0) -> None:
        """Fill an upright rectangle."""
        draw, fill = self._brush(colour, alpha)
        draw.rectangle([self._at((left, top)), self._at((right, bottom))], fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, alpha: float = 1.0) -> None:
        """Fill an ellipse about (x, y)."""
        draw, fill = self._brush(colour, alpha)
        draw.ellipse([self._at((x - rx, y - ry)), self._at((x + rx, y + ry))], fill=fill)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a line through the points."""
        self._opaque.line([self._at(point) for point in points], fill=colour, width=round(width * self._size))

    def glow(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Lay a halo around a lamp."""
        for share in (1.0, 0.75, 0.5):
            self.ellipse(x, y, share * radius, share * radius, colour, 0.13)

    def mirror(self, level: float, water: Colour, clarity: float) -> None:
        """Show below `level` what is above it, upside down and mixed with the water's own colour."""
        width, height = self._image.size
        y = round(self._at((0, level))[1])
        above = self._image.crop((0, 2 * y - height, width, y)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        self._image.paste(Image.blend(Image.new("RGB", above.size, water), above, clarity), (0, y))

    def finished(self) -> Image.Image:
        """The picture in its final size."""
        return self._image.resize(self._final, Image.Resampling.BOX)

    def _brush(self, colour: Colour, alpha: float) -> tuple[ImageDraw.ImageDraw, tuple[int, ...]]:
        return (self._opaque, colour) if alpha == 1 else (self._mixing, (*colour, round(255 * alpha)))

    def _at(self, point: Point) -> Point:
        return self._left + point[0] * self._size, self._top + point[1] * self._size
