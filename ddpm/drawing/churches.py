"""Churches, from the side or the front: large flat shapes, so that a small network learns them in minutes."""

from dataclasses import dataclass

import numpy as np

from ddpm.drawing.canvas import Canvas
from ddpm.drawing.landscape import Landscape, choice, draw_ground, draw_hills, draw_path, draw_trees
from ddpm.drawing.masonry import WALLS, draw_battlements, draw_door, draw_window, glass_colour, roof_colour

FACTORS = ("wall", "roof", "form", "spire", "width", "position")

TIPS = {"spire": 0.26, "pyramid": 0.14, "onion": 0.2, "flat": 0.0}
"""How far each form of a tower's end rises above it."""


@dataclass(frozen=True)
class _Church:
    wall: str
    roof: str
    form: str
    spire: str
    width: float
    position: float
    nave: float
    tower: float
    turn: int
    """The side on which the nave lies, seen from the tower."""


def draw_church(canvas: Canvas, land: Landscape, rng: np.random.Generator) -> dict[str, str | float]:
    """Draw a church on its ground under a finished sky; the values of FACTORS."""
    church = _random_church(rng)
    draw_hills(canvas, land, land.base - rng.uniform(0.04, 0.1), rng)
    draw_ground(canvas, land)
    draw_path(canvas, land, _tower_of_side(church) if church.form == "side" else church.position)
    draw_trees(canvas, land, rng, behind=True)
    if church.form == "side":
        _draw_side(canvas, land, church)
    else:
        _draw_front(canvas, land, church)
    draw_trees(canvas, land, rng, behind=False)
    return {name: getattr(church, name) for name in FACTORS}


def _random_church(rng: np.random.Generator) -> _Church:
    return _Church(
        wall=choice(rng, {"white": 0.34, "sandstone": 0.24, "brick": 0.18, "grey": 0.14, "brown": 0.1}),
        roof=choice(rng, {"tile": 0.4, "slate": 0.34, "copper": 0.14, "wood": 0.12}),
        form=choice(rng, {"side": 0.5, "front": 0.28, "twin": 0.22}),
        spire=choice(rng, {"spire": 0.45, "pyramid": 0.25, "onion": 0.18, "flat": 0.12}),
        width=round(float(rng.uniform(0.5, 0.66)), 3),
        position=round(float(rng.uniform(0.44, 0.56)), 3),
        nave=float(rng.uniform(0.22, 0.29)),
        tower=float(rng.uniform(0.36, 0.46)),
        turn=-1 if rng.random() < 0.5 else 1,
    )


def _tower_of_side(church: _Church) -> float:
    return church.position - church.turn * church.width * 0.31


def _draw_side(canvas: Canvas, land: Landscape, church: _Church) -> None:
    turn, tower = church.turn, _tower_of_side(church)
    far = church.position + turn * church.width / 2
    eaves = land.base - church.nave
    ridge = eaves - church.nave * 0.62
    canvas.box(min(tower, far), eaves, max(tower, far), land.base, canvas.lit(WALLS[church.wall]))
    slope = [(tower, eaves), (tower, ridge), (far - turn * 0.05, ridge), (far + turn * 0.02, eaves)]
    canvas.polygon(slope, roof_colour(canvas, land, church.roof))
    for part in (0.28, 0.54, 0.8):
        draw_window(canvas, land, tower + (far - tower) * part, eaves + church.nave * 0.6, 0.025, 0.1)
    _draw_tower(canvas, land, church, tower, 0.085, land.base - church.tower)
    draw_door(canvas, tower, land.base)


def _draw_front(canvas: Canvas, land: Landscape, church: _Church) -> None:
    x, half, inner = church.position, church.width / 2, church.width * 0.41
    eaves = land.base - church.nave
    ridge = eaves - church.nave * 0.62
    if church.form == "front":
        _draw_tower(canvas, land, church, x, 0.08, ridge - 0.13)
    canvas.box(x - inner, eaves, x + inner, land.base, canvas.lit(WALLS[church.wall]))
    gable = [(x - inner - 0.02, eaves + 0.01), (x, ridge - 0.04), (x + inner + 0.02, eaves + 0.01)]
    canvas.polygon(gable, roof_colour(canvas, land, church.roof))
    front = [(x - inner + 0.02, eaves + 0.01), (x, ridge), (x + inner - 0.02, eaves + 0.01)]
    canvas.polygon(front, canvas.lit(WALLS[church.wall], 0.95))
    canvas.ellipse(x, eaves - 0.015, 0.036, 0.036, glass_colour(canvas, land))
    for side in (-1, 1):
        if church.form == "twin":
            _draw_tower(canvas, land, church, x + side * half * 0.74, 0.068, land.base - church.tower)
        draw_window(canvas, land, x + side * inner * 0.5, eaves + church.nave * 0.55, 0.026, 0.12)
    draw_door(canvas, x, land.base)


def _draw_tower(canvas: Canvas, land: Landscape, church: _Church, x: float, half: float, top: float) -> None:
    """A tower with a lit and a dark side, its bell window, and what it ends in."""
    wall = WALLS[church.wall]
    canvas.box(x - half, top, x + half, land.base, canvas.lit(wall, 1.04))
    canvas.box(x + half * 0.45, top, x + half, land.base, canvas.lit(wall, 0.8))
    draw_window(canvas, land, x - half * 0.1, top + 0.075, half * 0.32, 0.06)
    if church.spire == "flat":
        draw_battlements(canvas, x, top, half, canvas.lit(wall, 0.92))
        return
    tip = top - TIPS[church.spire] * (1.0 if church.form == "side" else 0.75)
    roof, dark = (roof_colour(canvas, land, church.roof, shade) for shade in (0.96, 0.76))
    over = half * 1.18
    if church.spire == "onion":
        canvas.ellipse(x, top - 0.05, over, 0.065, roof)
        canvas.polygon([(x - over * 0.72, top - 0.085), (x, tip), (x + over * 0.72, top - 0.085)], roof)
    else:
        canvas.polygon([(x - over, top), (x, tip), (x + over, top)], roof)
        canvas.polygon([(x + over * 0.4, top), (x, tip), (x + over, top)], dark)
    gold = canvas.lit((224, 188, 96))
    canvas.box(x - 0.006, tip - 0.055, x + 0.006, tip + 0.01, gold)
    canvas.box(x - 0.02, tip - 0.042, x + 0.02, tip - 0.03, gold)
