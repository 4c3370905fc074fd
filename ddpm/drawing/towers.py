"""Towers that stand alone, tall and narrow in the picture's middle: lighthouse, clock, television and skyscraper."""

from dataclasses import dataclass

import numpy as np

from ddpm.drawing.canvas import Canvas, Colour, mixed
from ddpm.drawing.landscape import SNOW, Landscape, choice, draw_ground, draw_hills, draw_path, draw_trees, draw_water
from ddpm.drawing.masonry import (
    LAMP,
    WALLS,
    draw_battlements,
    draw_door,
    draw_window,
    floodlit,
    glass_colour,
    roof_colour,
)

FACTORS = ("wall", "roof", "form", "top", "width", "position", "height")

PAINTS: dict[str, Colour] = {
    **WALLS,
    "red": (198, 56, 46),
    "blue": (44, 88, 148),
    "black": (58, 60, 68),
    "glass": (106, 148, 182),
}
BEACON: Colour = (255, 84, 66)


@dataclass(frozen=True)
class _Form:
    """What towers of one form look like."""

    walls: dict[str, float]
    tops: dict[str, float]
    widths: tuple[float, float]
    roofed: bool


FORMS = {
    "lighthouse": _Form(
        walls={"red": 0.4, "blue": 0.2, "black": 0.2, "white": 0.2},
        tops={"dome": 0.5, "cone": 0.5},
        widths=(0.21, 0.26),
        roofed=True,
    ),
    "clock": _Form(
        walls={"brick": 0.34, "sandstone": 0.3, "grey": 0.18, "white": 0.18},
        tops={"pyramid": 0.5, "dome": 0.25, "battlements": 0.25},
        widths=(0.18, 0.22),
        roofed=True,
    ),
    "television": _Form(
        walls={"grey": 0.6, "white": 0.4}, tops={"disc": 0.5, "ball": 0.5}, widths=(0.12, 0.16), roofed=False
    ),
    "skyscraper": _Form(
        walls={"glass": 0.4, "sandstone": 0.2, "grey": 0.2, "brown": 0.2},
        tops={"flat": 0.2, "mast": 0.25, "stepped": 0.3, "slanted": 0.25},
        widths=(0.22, 0.28),
        roofed=False,
    ),
}


@dataclass(frozen=True)
class _Tower:
    form: str
    wall: str
    roof: str
    top: str
    width: float
    position: float
    height: float

    @property
    def half(self) -> float:
        return self.width / 2


def draw_tower(canvas: Canvas, land: Landscape, rng: np.random.Generator) -> dict[str, str | float]:
    """Draw a tower on its ground under a finished sky; the values of FACTORS."""
    tower = _random_tower(rng)
    _draw_background(canvas, land, tower, rng)
    draw_path(canvas, land, tower.position)
    draw_trees(canvas, land, rng, behind=True, scale=0.7)
    if tower.form == "lighthouse":
        _draw_lighthouse(canvas, land, tower)
    elif tower.form == "clock":
        _draw_clock_tower(canvas, land, tower)
    elif tower.form == "television":
        _draw_television_tower(canvas, land, tower)
    else:
        _draw_skyscraper(canvas, land, tower, rng)
    draw_trees(canvas, land, rng, behind=False, scale=0.7)
    return {name: getattr(tower, name) for name in FACTORS}


def _random_tower(rng: np.random.Generator) -> _Tower:
    name = choice(rng, dict.fromkeys(FORMS, 1 / len(FORMS)))
    form = FORMS[name]
    roof = choice(rng, {"tile": 0.4, "slate": 0.26, "copper": 0.24, "wood": 0.1})
    return _Tower(
        form=name,
        wall=choice(rng, form.walls),
        roof=roof if form.roofed else "",
        top=choice(rng, form.tops),
        width=round(float(rng.uniform(*form.widths)), 3),
        position=round(float(rng.uniform(0.43, 0.57)), 3),
        height=round(float(rng.uniform(0.68, 0.77)), 3),
    )


def _draw_background(canvas: Canvas, land: Landscape, tower: _Tower, rng: np.random.Generator) -> None:
    """A lighthouse stands by the sea, a skyscraper in a town, the others between hills."""
    horizon = land.base - rng.uniform(0.06, 0.1)
    if tower.form == "lighthouse":
        draw_water(canvas, land, "rippled", horizon - 0.04, rng)
        ground = canvas.lit(mixed(SNOW, (160, 160, 160), 0.2) if land.season == "snow" else (128, 122, 112))
        canvas.ellipse(tower.position, land.base + 0.02, 0.34, 0.075, ground)
    elif tower.form == "skyscraper":
        _draw_town(canvas, land, horizon, rng)
    else:
        draw_hills(canvas, land, horizon, rng)
    draw_ground(canvas, land)


def _draw_town(canvas: Canvas, land: Landscape, horizon: float, rng: np.random.Generator) -> None:
    x = canvas.left - 0.05
    while x < canvas.right:
        width, height = rng.uniform(0.09, 0.17), rng.uniform(0.03, 0.24)
        canvas.box(x, horizon - height, x + width, land.base, canvas.lit((132, 146, 166), rng.uniform(0.72, 0.9)))
        x += width


def _paint(land: Landscape, tower: _Tower) -> Colour:
    return floodlit(land, PAINTS[tower.wall])


def _draw_shaft(
    canvas: Canvas, x: float, foot: float, half_foot: float, head: float, half_head: float, colour: Colour
) -> None:
    """A tapering wall with a lit and a dark side."""
    left, right = [(x - half_head, head), (x - half_foot, foot)], [(x + half_foot, foot), (x + half_head, head)]
    canvas.polygon([*left, *right], canvas.lit(colour, 1.04))
    canvas.polygon([*right, (x + 0.4 * half_head, head), (x + 0.4 * half_foot, foot)], canvas.lit(colour, 0.8))


def _draw_lighthouse(canvas: Canvas, land: Landscape, tower: _Tower) -> None:
    x, base, half, height = tower.position, land.base, tower.half, tower.height
    gallery, narrow = base - 0.74 * height, 0.58 * half
    for band in range(5):
        low, high = band / 5, (band + 1) / 5
        colour = floodlit(land, WALLS["white"]) if band % 2 else _paint(land, tower)
        halves = [half + (narrow - half) * share for share in (low, high)]
        heights = [base + (gallery - base) * share for share in (low, high)]
        _draw_shaft(canvas, x, heights[0], halves[0], heights[1], halves[1], colour)
    for share in (0.3, 0.7):
        draw_window(canvas, land, x - 0.02, base + (gallery - base) * share, 0.018, 0.04)
    draw_door(canvas, x, base)
    lamp, cap = gallery - 0.07 * height, gallery - 0.14 * height
    if land.lit:
        for side in (-1, 1):
            canvas.polygon([(x, lamp), (x + side, lamp - 0.11), (x + side, lamp + 0.05)], LAMP, 0.22)
    canvas.box(x - 0.8 * narrow, cap, x + 0.8 * narrow, gallery, LAMP if land.lit else canvas.lit((104, 142, 166)))
    for place in (-0.76, 0.0, 0.76):
        canvas.box(x + (place - 0.06) * narrow, cap, x + (place + 0.06) * narrow, gallery, canvas.lit(PAINTS["black"]))
    canvas.box(x - 1.3 * narrow, gallery - 0.012, x + 1.3 * narrow, gallery + 0.014, canvas.lit(PAINTS["black"]))
    _draw_cap(canvas, land, tower, cap, narrow, base - height)


def _draw_cap(canvas: Canvas, land: Landscape, tower: _Tower, foot: float, half: float, tip: float) -> None:
    """A pointed roof or a dome, with a dark side; a ball on its tip."""
    x, roof, dark = tower.position, *(roof_colour(canvas, land, tower.roof, shade) for shade in (0.96, 0.78))
    canvas.box(x - 0.008, tip - 0.03, x + 0.008, tip + 0.03, dark)
    if tower.top == "dome":
        dome = [(x + half * np.cos(turn), foot + (tip - foot) * np.sin(turn)) for turn in np.linspace(0, np.pi, 15)]
        canvas.polygon(dome, roof)
        canvas.polygon([(x + 0.4 * half, foot), *dome[:6]], dark)
    else:
        over = 1.15 * half
        canvas.polygon([(x - over, foot), (x, tip), (x + over, foot)], roof)
        canvas.polygon([(x + 0.4 * over, foot), (x, tip), (x + over, foot)], dark)
    canvas.ellipse(x, tip - 0.03, 0.014, 0.014, canvas.lit((224, 188, 96)))


def _draw_clock_tower(canvas: Canvas, land: Landscape, tower: _Tower) -> None:
    x, base, half, height, wall = tower.position, land.base, tower.half, tower.height, _paint(land, tower)
    top = base - height * (0.96 if tower.top == "battlements" else 0.76)
    ledge = top + 2.4 * half
    _draw_shaft(canvas, x, base, half, ledge, half, wall)
    draw_window(canvas, land, x - 0.2 * half, (ledge + base - 0.1) / 2, 0.22 * half, 0.06)
    draw_door(canvas, x, base)
    wide = 1.14 * half
    _draw_shaft(canvas, x, ledge, wide, top, wide, wall)
    trim = canvas.lit(mixed(wall, WALLS["white"], 0.6), 0.95)
    for y in (ledge, top):
        canvas.box(x - 1.1 * wide, y - 0.014, x + 1.1 * wide, y + 0.014, trim)
    _draw_clock(canvas, land, x, (top + ledge) / 2, 0.84 * half)
    if tower.top == "battlements":
        draw_battlements(canvas, x, top - 0.01, wide, canvas.lit(wall, 0.95))
    else:
        _draw_cap(canvas, land, tower, top - 0.012, wide, base - height)


def _draw_clock(canvas: Canvas, land: Landscape, x: float, y: float, radius: float) -> None:
    dark = canvas.lit(PAINTS["black"])
    canvas.ellipse(x, y, radius, radius, dark)
    face = (255, 232, 170) if land.lit else canvas.lit((246, 242, 230))
    canvas.ellipse(x, y, 0.84 * radius, 0.84 * radius, face)
    canvas.line([(x, y - 0.6 * radius), (x, y), (x + 0.42 * radius, y + 0.24 * radius)], 0.014, dark)


def _draw_television_tower(canvas: Canvas, land: Landscape, tower: _Tower) -> None:
    x, base, half, height, wall = tower.position, land.base, tower.half, tower.height, _paint(land, tower)
    pod, neck, tip = base - 0.62 * height, base - 0.78 * height, base - height
    _draw_shaft(canvas, x, base, half, base - 0.2 * height, 0.5 * half, wall)
    _draw_shaft(canvas, x, base - 0.2 * height, 0.5 * half, pod, 0.34 * half, wall)
    _draw_shaft(canvas, x, pod, 0.3 * half, neck, 0.22 * half, wall)
    for band in range(4):
        colour = canvas.lit(PAINTS["red"] if band % 2 == 0 else WALLS["white"])
        low, high = neck + (tip - neck) * band / 4, neck + (tip - neck) * (band + 1) / 4
        canvas.box(x - 0.011, high, x + 0.011, low, colour)
    draw_door(canvas, x, base)
    _draw_pod(canvas, land, tower, pod)
    if land.lit:
        canvas.glow(x, tip, 0.04, BEACON)
        canvas.ellipse(x, tip, 0.014, 0.014, BEACON)


def _draw_pod(canvas: Canvas, land: Landscape, tower: _Tower, y: float) -> None:
    x, wall = tower.position, _paint(land, tower)
    glass = glass_colour(canvas, land)
    cover = canvas.lit(SNOW if land.season == "snow" else wall, 1.04)
    if tower.top == "ball":
        canvas.ellipse(x, y, 0.095, 0.095, cover)
        below = [(x + 0.095 * np.cos(turn), y + 0.095 * np.sin(turn)) for turn in np.linspace(0, np.pi, 17)]
        canvas.polygon(below, canvas.lit(wall, 0.8))
        canvas.box(x - 0.09, y - 0.022, x + 0.09, y + 0.022, glass)
        return
    canvas.polygon([(x - 0.14, y), (x - 0.05, y + 0.075), (x + 0.05, y + 0.075), (x + 0.14, y)], canvas.lit(wall, 0.8))
    canvas.polygon([(x - 0.115, y - 0.04), (x - 0.04, y - 0.08), (x + 0.04, y - 0.08), (x + 0.115, y - 0.04)], cover)
    canvas.box(x - 0.115, y - 0.042, x + 0.115, y, glass)
    canvas.box(x - 0.145, y - 0.006, x + 0.145, y + 0.012, canvas.lit(wall, 1.04))


def _draw_skyscraper(canvas: Canvas, land: Landscape, tower: _Tower, rng: np.random.Generator) -> None:
    x, half, height = tower.position, tower.half, tower.height
    steps = {"flat": [(1.0, 0.98)], "mast": [(1.0, 0.84), (0.6, 0.89)], "slanted": [(1.0, 0.88)]}.get(
        tower.top, [(1.0, 0.56), (0.72, 0.82), (0.4, 0.97)]
    )
    if tower.top == "mast":
        canvas.box(x - 0.009, land.base - height, x + 0.009, land.base - 0.88 * height, canvas.lit(WALLS["grey"]))
        if land.lit:
            canvas.glow(x, land.base - height, 0.04, BEACON)
            canvas.ellipse(x, land.base - height, 0.014, 0.014, BEACON)
    for share, top in reversed(steps):
        _draw_block(canvas, land, tower, half * share, land.base - height * top, rng)
    canvas.box(x - half, land.base - 0.05, x + half, land.base, canvas.lit(PAINTS["black"]))
    canvas.box(x - 0.06, land.base - 0.05, x + 0.06, land.base, glass_colour(canvas, land))


def _draw_block(
    canvas: Canvas, land: Landscape, tower: _Tower, half: float, top: float, rng: np.random.Generator
) -> None:
    """One storey block of a skyscraper, down to the ground."""
    x, wall = tower.position, _paint(land, tower)
    rise = 0.1 if tower.top == "slanted" else 0.0
    edge = canvas.lit(SNOW if land.season == "snow" else wall, 0.95)
    canvas.polygon([(x - half, top), (x + half, top - rise), (x + half, top + 0.02), (x - half, top + 0.02)], edge)
    canvas.box(x - half, top + 0.012, x + half, land.base, canvas.lit(wall, 1.04))
    canvas.box(x + 0.45 * half, top + 0.012, x + half, land.base, canvas.lit(wall, 0.8))
    for y in np.arange(top + 0.045, land.base - 0.1, 0.075):
        for place in (-0.66, -0.12):
            lit = land.lit and rng.random() < 0.6
            colour = LAMP if lit else canvas.lit(mixed(wall, (40, 54, 82), 0.7))
            canvas.box(x + (place - 0.17) * half, y, x + (place + 0.17) * half, y + 0.045, colour)
