"""What buildings are made of: walls, roofs, windows and doors."""

from ddpm.drawing.canvas import Canvas, Colour, mixed
from ddpm.drawing.landscape import SNOW, Landscape

WALLS: dict[str, Colour] = {
    "white": (238, 234, 224),
    "sandstone": (214, 184, 138),
    "brick": (172, 86, 62),
    "grey": (158, 156, 152),
    "brown": (132, 98, 70),
}
ROOFS: dict[str, Colour] = {
    "tile": (160, 62, 44),
    "slate": (76, 84, 98),
    "copper": (88, 142, 122),
    "wood": (96, 68, 50),
}
LAMP: Colour = (255, 206, 98)


def roof_colour(canvas: Canvas, land: Landscape, roof: str, shade: float = 1.0) -> Colour:
    """The colour of a roof, or of the snow on it."""
    return canvas.lit(SNOW if land.season == "snow" else ROOFS[roof], shade)


def glass_colour(canvas: Canvas, land: Landscape) -> Colour:
    """The colour of a window, dark or with a lamp behind it."""
    return LAMP if land.lit else canvas.lit((52, 58, 76))


def floodlit(land: Landscape, colour: Colour) -> Colour:
    """The colour of a wall or of steel, by night in the warm light of lamps at its foot."""
    return mixed(colour, (255, 226, 170), 0.4) if land.lit and land.time == "night" else colour


def draw_window(canvas: Canvas, land: Landscape, x: float, y: float, half: float, height: float) -> None:
    """Draw a round-arched window about (x, y)."""
    canvas.box(x - half, y - height / 2, x + half, y + height / 2, glass_colour(canvas, land))
    canvas.ellipse(x, y - height / 2, half, half, glass_colour(canvas, land))


def draw_door(canvas: Canvas, x: float, foot: float) -> None:
    """Draw a round-arched door."""
    colour = canvas.lit((86, 54, 36))
    canvas.box(x - 0.032, foot - 0.085, x + 0.032, foot, colour)
    canvas.ellipse(x, foot - 0.085, 0.032, 0.032, colour)


def draw_battlements(canvas: Canvas, x: float, top: float, half: float, colour: Colour) -> None:
    """Draw three merlons along the top of a tower."""
    for place in (-0.8, 0.0, 0.8):
        canvas.box(x + (place - 0.28) * half, top - 0.035, x + (place + 0.28) * half, top, colour)
