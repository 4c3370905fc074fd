"""Bridges over a river, from one edge of the picture to the other: arches, suspension, truss and stays."""

from dataclasses import dataclass

import numpy as np

from ddpm.drawing.canvas import Canvas, Colour, Point
from ddpm.drawing.landscape import GROUNDS, SNOW, Landscape, choice, draw_hills, draw_trees, draw_water
from ddpm.drawing.masonry import LAMP, WALLS, floodlit

FACTORS = ("wall", "form", "position", "height", "spans", "water")

STEEL: dict[str, Colour] = {
    "red": (196, 70, 50),
    "green": (92, 136, 116),
    "blue": (92, 122, 160),
    "white": (232, 230, 224),
}


@dataclass(frozen=True)
class _Form:
    """What bridges of one form look like."""

    walls: dict[str, float]
    stretch: dict[int, tuple[float, float]]
    """The length of a span, by the number of spans in the square."""
    heights: tuple[float, float]
    pier: float
    """Half the width of what stands in the water."""


FORMS = {
    "arch": _Form(
        walls={"sandstone": 0.4, "grey": 0.25, "brick": 0.25, "brown": 0.1},
        stretch={1: (0.74, 0.86), 2: (0.42, 0.5), 3: (0.3, 0.34)},
        heights=(0.24, 0.31),
        pier=0.04,
    ),
    "suspension": _Form(
        walls={"red": 0.4, "green": 0.3, "blue": 0.3},
        stretch={1: (0.56, 0.68), 2: (0.42, 0.48)},
        heights=(0.13, 0.19),
        pier=0.03,
    ),
    "truss": _Form(
        walls={"red": 0.3, "green": 0.35, "blue": 0.35},
        stretch={1: (0.7, 0.84), 2: (0.42, 0.5)},
        heights=(0.15, 0.21),
        pier=0.04,
    ),
    "stayed": _Form(
        walls={"white": 0.6, "blue": 0.2, "red": 0.2},
        stretch={1: (0.56, 0.68), 2: (0.74, 0.86)},
        heights=(0.11, 0.17),
        pier=0.026,
    ),
}


@dataclass(frozen=True)
class _Bridge:
    form: str
    wall: str
    water: str
    spans: int
    position: float
    height: float
    """Of the road above the water."""
    length: float
    """Of a span."""


def draw_bridge(canvas: Canvas, land: Landscape, rng: np.random.Generator) -> dict[str, str | float]:
    """Draw a bridge and its river under a finished sky; the values of FACTORS."""
    bridge = _random_bridge(land, rng)
    level = land.base - 0.15  # of the water at the far bank; the rest of the picture is for the reflection
    supports = _supports(canvas, bridge)
    draw_hills(canvas, land, level - 0.03, rng)
    draw_trees(canvas, land, rng, behind=True, foot=level, scale=0.5)
    draw = {"arch": _draw_arches, "suspension": _draw_suspension, "truss": _draw_truss, "stayed": _draw_stays}
    draw[bridge.form](canvas, land, bridge, level, supports)
    draw_water(canvas, land, bridge.water, level, rng)
    for x in supports:
        half = FORMS[bridge.form].pier + 0.014
        canvas.box(x - half, level - 0.012, x + half, level + 0.016, canvas.lit(WALLS["grey"], 0.7))
    _draw_near_bank(canvas, land, rng)
    draw_trees(canvas, land, rng, behind=False, foot=1.0, scale=0.8)
    return {name: getattr(bridge, name) for name in FACTORS}


def _random_bridge(land: Landscape, rng: np.random.Generator) -> _Bridge:
    name = choice(rng, dict.fromkeys(FORMS, 1 / len(FORMS)))
    form = FORMS[name]
    spans = int(rng.choice(list(form.stretch)))
    frozen = 0.7 if land.season == "snow" else 0.0
    return _Bridge(
        form=name,
        wall=choice(rng, form.walls),
        water=choice(rng, {"still": 0.5 * (1 - frozen), "rippled": 0.5 * (1 - frozen), "frozen": frozen}),
        spans=spans,
        position=round(float(rng.uniform(0.42, 0.58)), 3),
        height=round(float(rng.uniform(*form.heights)), 3),
        length=float(rng.uniform(*form.stretch[spans])),
    )


def _supports(canvas: Canvas, bridge: _Bridge) -> list[float]:
    """Where piers or pylons stand, from beyond the left edge to beyond the right one."""
    reach = int(np.ceil((canvas.right - canvas.left) / bridge.length)) + 1
    places = [bridge.position + (number - bridge.spans / 2) * bridge.length for number in range(-reach, 2 * reach)]
    margin = bridge.length
    return [x for x in places if canvas.left - margin <= x <= canvas.right + margin]


def _colour(land: Landscape, bridge: _Bridge) -> Colour:
    return floodlit(land, WALLS[bridge.wall] if bridge.form == "arch" else STEEL[bridge.wall])


def _draw_arches(canvas: Canvas, land: Landscape, bridge: _Bridge, level: float, supports: list[float]) -> None:
    wall, deck = _colour(land, bridge), level - bridge.height
    openings = [_opening(x + bridge.length / 2, bridge.length / 2 - 0.04, deck + 0.055, level) for x in supports]
    outline = [point for opening in openings for point in opening]
    for shift, shade in ((0.022, 0.6), (0.0, 1.0)):  # the vault's inside shows behind the face
        top = [(canvas.right + 1, level), (canvas.right + 1, deck), (canvas.left - 1, deck), (canvas.left - 1, level)]
        canvas.polygon([*((x + shift, y) for x, y in outline), *top], canvas.lit(wall, shade))
    for opening in openings:
        canvas.line(opening, 0.014, canvas.lit(wall, 1.12))
    canvas.box(canvas.left, deck + 0.01, canvas.right, deck + 0.024, canvas.lit(wall, 0.78))
    _draw_lamps(canvas, land, bridge, deck - 0.03, supports)
    canvas.box(canvas.left, deck - 0.025, canvas.right, deck + 0.01, canvas.lit(wall, 1.1))
    if land.season == "snow":
        canvas.box(canvas.left, deck - 0.037, canvas.right, deck - 0.023, canvas.lit(SNOW))


def _opening(x: float, half: float, crown: float, level: float) -> list[Point]:
    """An arch about `x`, from its left foot over its crown to its right foot."""
    rise = min(half, level - crown)
    turns = np.linspace(np.pi, 0, 21)
    curve = [(x + half * float(np.cos(turn)), crown + rise * (1 - float(np.sin(turn)))) for turn in turns]
    return [(x - half, level), *curve, (x + half, level)]


def _draw_deck(canvas: Canvas, land: Landscape, colour: Colour, deck: float) -> None:
    top = SNOW if land.season == "snow" else colour
    canvas.box(canvas.left, deck, canvas.right, deck + 0.032, canvas.lit(colour, 0.72))
    canvas.box(canvas.left, deck - 0.008, canvas.right, deck + 0.01, canvas.lit(top))


def _draw_pylon(canvas: Canvas, x: float, top: float, foot: float, half: float, colour: Colour) -> None:
    """A tapering pillar with a lit and a dark side."""
    left, right = [(x - 0.8 * half, top), (x - half, foot)], [(x + half, foot), (x + 0.8 * half, top)]
    canvas.polygon([*left, *right], canvas.lit(colour))
    canvas.polygon([*right, (x + 0.2 * half, top), (x + 0.3 * half, foot)], canvas.lit(colour, 0.78))


def _draw_suspension(canvas: Canvas, land: Landscape, bridge: _Bridge, level: float, supports: list[float]) -> None:
    colour, deck, length = _colour(land, bridge), level - bridge.height, bridge.length
    top = max(deck - 0.56 * length, 0.1)
    for x in supports:
        shares = np.linspace(0, 1, 13)
        cable = [(x + length * float(s), deck - 0.03 + (top + 0.03 - deck) * float(2 * s - 1) ** 2) for s in shares]
        for place in cable[1:-1]:
            canvas.line([place, (place[0], deck)], 0.005, canvas.lit(colour, 0.9))
        canvas.line(cable, 0.014, canvas.lit(colour))
        if land.lit:
            for place in cable[2:-1:2]:
                canvas.ellipse(*place, 0.009, 0.009, LAMP)
    _draw_lamps(canvas, land, bridge, deck, supports)
    _draw_deck(canvas, land, colour, deck)
    for x in supports:
        _draw_pylon(canvas, x, top - 0.03, level, 0.03, colour)


def _draw_stays(canvas: Canvas, land: Landscape, bridge: _Bridge, level: float, supports: list[float]) -> None:
    colour, deck = _colour(land, bridge), level - bridge.height
    top = max(deck - 0.66 * bridge.length, 0.08)
    for x in supports:
        for number in range(1, 8):
            reach, anchor = bridge.length / 2 * number / 7.4, top + 0.022 * (7 - number)
            canvas.line([(x - reach, deck), (x, anchor), (x + reach, deck)], 0.007, canvas.lit(colour, 0.94))
    _draw_lamps(canvas, land, bridge, deck, supports)
    _draw_deck(canvas, land, colour, deck)
    for x in supports:
        _draw_pylon(canvas, x, top - 0.03, level, 0.026, colour)


def _draw_truss(canvas: Canvas, land: Landscape, bridge: _Bridge, level: float, supports: list[float]) -> None:
    colour, deck, length = _colour(land, bridge), level - bridge.height, bridge.length
    panels = 2 * round(length / 0.22)
    rise = 0.15
    _draw_lamps(canvas, land, bridge, deck, supports)
    for x in supports:
        step = length / panels
        chord = [(x + step * number, deck - rise) for number in range(1, panels)]
        canvas.line([(x, deck), *chord, (x + length, deck)], 0.02, canvas.lit(colour))
        for number, (place, y) in enumerate(chord):
            canvas.line([(place, y), (place, deck)], 0.011, canvas.lit(colour, 0.9))
            foot = place + step * (1 if number < len(chord) / 2 - 0.5 else -1)
            if number != (len(chord) - 1) / 2:
                canvas.line([(place, y), (foot, deck)], 0.011, canvas.lit(colour, 0.9))
    _draw_deck(canvas, land, colour, deck)
    for x in supports:
        _draw_pylon(canvas, x, deck + 0.03, level, 0.04, WALLS["grey"])


def _draw_lamps(canvas: Canvas, land: Landscape, bridge: _Bridge, foot: float, supports: list[float]) -> None:
    lamps = max(1, round(bridge.length / 0.26))
    for x in supports:
        for number in range(lamps):
            place, y = x + (number + 0.5) / lamps * bridge.length, foot - 0.055
            canvas.box(place - 0.004, y, place + 0.004, foot, canvas.lit((70, 72, 80)))
            if land.lit:
                canvas.glow(place, y, 0.045, LAMP)
            canvas.ellipse(place, y, 0.012, 0.012, LAMP if land.lit else canvas.lit((226, 226, 220)))


def _draw_near_bank(canvas: Canvas, land: Landscape, rng: np.random.Generator) -> None:
    xs, crest = np.linspace(canvas.left, canvas.right, 17), rng.uniform(-0.2, 1.2)
    shore = [(float(x), 0.955 - 0.03 * float(np.cos(3 * (x - crest)))) for x in xs]
    canvas.polygon([(canvas.left, 2), *shore, (canvas.right, 2)], canvas.lit(GROUNDS[land.season][0]))
