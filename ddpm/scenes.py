"""The embedded data set: churches drawn with Pillow, each a function of (seed, split, index).

Coordinates are fractions of the central square, y downwards; x runs a little past it on wide pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ddpm.rng import numpy_stream

SIDE = 256
"""Pixels of the short side, as in LSUN."""
SCALE = 2
"""Supersampling: Pillow's polygons have hard edges."""

Colour = tuple[int, int, int]
Point = tuple[float, float]

SKIES: dict[str, list[tuple[Colour, Colour]]] = {
    "day": [((88, 150, 220), (190, 220, 240)), ((120, 175, 225), (215, 230, 240)), ((60, 120, 200), (165, 205, 238))],
    "dusk": [((84, 70, 130), (246, 150, 90)), ((110, 90, 150), (250, 180, 130)), ((60, 70, 120), (235, 120, 80))],
    "night": [((8, 12, 34), (34, 44, 84)), ((12, 16, 44), (46, 52, 96))],
}
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
GROUNDS: dict[str, list[Colour]] = {
    "summer": [(96, 140, 62), (120, 156, 74)],
    "autumn": [(150, 126, 62), (164, 112, 56)],
    "snow": [(236, 240, 246), (222, 230, 240)],
}
LEAVES: dict[str, list[Colour]] = {
    "summer": [(52, 100, 48), (72, 118, 52)],
    "autumn": [(196, 112, 34), (178, 76, 36), (208, 150, 50)],
    "snow": [(60, 84, 74), (200, 210, 220)],
}
LIGHT: dict[str, Colour] = {"day": (255, 255, 255), "dusk": (226, 168, 150), "night": (112, 118, 160)}

TIPS = {"spire": 0.26, "pyramid": 0.14, "onion": 0.2, "flat": 0.0}
"""How far each form of a tower's end rises above it."""

FACTORS = ("time", "weather", "season", "wall", "roof", "form", "spire", "width", "position", "trees", "lit")
"""The columns that every scene's factors fill: what was drawn, not what can be measured in the picture."""

WINDOW: dict[str, Colour] = {"dark": (52, 58, 76), "lit": (255, 206, 98)}


@dataclass(frozen=True)
class Scene:
    """A picture, RGB with a short side of 256 px, and what was drawn in it."""

    image: Image.Image
    factors: dict[str, str | float]


@dataclass(frozen=True)
class _Plan:
    """All that is drawn at random, but for the places of clouds, stars and flakes."""

    aspect: float
    time: str
    weather: str
    season: str
    wall: str
    roof: str
    form: str
    spire: str
    width: float
    position: float
    base: float
    nave: float
    tower: float
    trees: int
    lit: bool
    mirrored: bool


def draw_scene(seed: int, split: str, index: int) -> Scene:
    """Draw scene `index` of `split`."""
    rng = numpy_stream(seed, f"scene/{split}", index)
    plan = _draw_plan(rng)
    canvas = _Canvas(plan)
    _draw_sky(canvas, plan, rng)
    _draw_ground(canvas, plan, rng)
    _draw_trees(canvas, plan, rng, behind=True)
    _draw_church(canvas, plan)
    _draw_trees(canvas, plan, rng, behind=False)
    if plan.weather == "snowfall":
        _draw_flakes(canvas, rng)
    image = canvas.finished()
    factors = {name: getattr(plan, name) for name in FACTORS if name != "lit"}
    return Scene(image, {**factors, "lit": "yes" if plan.lit else "no"})


def _draw_plan(rng: np.random.Generator) -> _Plan:
    time = _choice(rng, {"day": 0.5, "dusk": 0.25, "night": 0.25})
    season = _choice(rng, {"summer": 0.5, "autumn": 0.24, "snow": 0.26})
    weather = _choice(rng, {"clear": 0.6, "cloudy": 0.4})
    if season == "snow" and rng.random() < 0.35:
        weather = "snowfall"
    return _Plan(
        aspect=float(rng.choice([0.8, 1.0, 1.2, 4 / 3, 4 / 3, 1.5, 1.78])),
        time=time,
        weather=weather,
        season=season,
        wall=_choice(rng, {"white": 0.34, "sandstone": 0.24, "brick": 0.18, "grey": 0.14, "brown": 0.1}),
        roof=_choice(rng, {"tile": 0.4, "slate": 0.34, "copper": 0.14, "wood": 0.12}),
        form=_choice(rng, {"side": 0.5, "front": 0.28, "twin": 0.22}),
        spire=_choice(rng, {"spire": 0.45, "pyramid": 0.25, "onion": 0.18, "flat": 0.12}),
        width=round(float(rng.uniform(0.5, 0.66)), 3),
        position=round(float(rng.uniform(0.44, 0.56)), 3),
        base=float(rng.uniform(0.80, 0.87)),
        nave=float(rng.uniform(0.22, 0.29)),
        tower=float(rng.uniform(0.36, 0.46)),
        trees=int(rng.integers(0, 5)),
        lit=bool(rng.random() < {"day": 0.0, "dusk": 0.75, "night": 0.95}[time]),
        mirrored=bool(rng.random() < 0.5),
    )


def _choice(rng: np.random.Generator, weights: dict[str, float]) -> str:
    return str(rng.choice(list(weights), p=list(weights.values())))


class _Canvas:
    """A picture addressed in fractions of the central square, lit as the time of day asks."""

    def __init__(self, plan: _Plan):
        width, height = (round(SIDE * plan.aspect), SIDE) if plan.aspect >= 1 else (SIDE, round(SIDE / plan.aspect))
        self.final = width, height
        self.size = SCALE * SIDE
        self.left, self.top = SCALE * (width - SIDE) / 2, SCALE * (height - SIDE) / 2
        self.image = Image.new("RGB", (SCALE * width, SCALE * height))
        self.draw = ImageDraw.Draw(self.image)
        self.light = np.array(LIGHT[plan.time]) / 255

    def lit(self, colour: Colour, shade: float = 1.0) -> Colour:
        """The colour as this light shows it."""
        red, green, blue = np.clip(np.array(colour) * self.light * shade, 0, 255).astype(int).tolist()
        return red, green, blue

    def at(self, point: Point) -> Point:
        """Pixels of a point."""
        return self.left + point[0] * self.size, self.top + point[1] * self.size

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self.draw.polygon([self.at(point) for point in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.draw.rectangle([self.at((left, top)), self.at((right, bottom))], fill=colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self.draw.ellipse([self.at((x - rx, y - ry)), self.at((x + rx, y + ry))], fill=colour)

    def finished(self) -> Image.Image:
        return self.image.resize(self.final, Image.Resampling.BOX)

    def span(self) -> Point:
        """The left and the right edge."""
        return -self.left / self.size, 1 + self.left / self.size


def _draw_sky(canvas: _Canvas, plan: _Plan, rng: np.random.Generator) -> None:
    high, low = (np.array(colour, float) for colour in SKIES[plan.time][rng.integers(len(SKIES[plan.time]))])
    if plan.weather != "clear":
        grey = {"day": (176, 184, 194), "dusk": (150, 128, 136), "night": (38, 42, 58)}[plan.time]
        high, low = 0.35 * high + 0.65 * np.array(grey), 0.45 * low + 0.55 * np.array(grey)
    width, height = canvas.image.size
    down = np.clip(np.linspace(0, 1.15, height), 0, 1)[:, None]
    column = (high + (low - high) * down).astype(np.uint8)
    canvas.image.paste(Image.fromarray(np.broadcast_to(column[:, None], (height, width, 3)).copy()))
    left, right = canvas.span()
    if plan.time == "night" and plan.weather == "clear":
        for _ in range(14):
            x, y = rng.uniform(left, right), rng.uniform(-0.1, 0.5)
            canvas.ellipse(x, y, 0.005, 0.005, (210, 214, 235))
        canvas.ellipse(rng.choice([0.14, 0.86]), rng.uniform(0.1, 0.22), 0.055, 0.055, (238, 234, 208))
    if plan.time == "dusk" and plan.weather == "clear":
        canvas.ellipse(rng.choice([0.1, 0.9]), rng.uniform(0.5, 0.66), 0.07, 0.07, (255, 222, 150))
    if plan.weather == "cloudy":
        tone = {"day": (236, 240, 244), "dusk": (226, 168, 150), "night": (58, 62, 82)}[plan.time]
        for _ in range(int(rng.integers(2, 5))):
            x, y = rng.uniform(left, right), rng.uniform(0.02, 0.36)
            for dx in (-0.1, 0.0, 0.09):
                canvas.ellipse(x + dx, y + abs(dx) * 0.25, rng.uniform(0.08, 0.14), rng.uniform(0.03, 0.055), tone)


def _draw_ground(canvas: _Canvas, plan: _Plan, rng: np.random.Generator) -> None:
    near, far = GROUNDS[plan.season]
    left, right = canvas.span()
    horizon = plan.base - rng.uniform(0.04, 0.1)
    hills = [(x, horizon - 0.07 * rng.random()) for x in np.linspace(left, right, 6)]
    canvas.polygon([(left, 2), *hills, (right, 2)], canvas.lit(far, 0.8))
    canvas.box(left, plan.base - 0.02, right, 2, canvas.lit(near))
    door = plan.position if plan.form != "side" else plan.position + 0.1 * (1 if plan.mirrored else -1)
    path = (205, 190, 160) if plan.season != "snow" else (196, 198, 206)
    canvas.polygon(
        [(door - 0.03, plan.base), (door + 0.03, plan.base), (door + 0.14, 1.3), (door - 0.1, 1.3)], canvas.lit(path)
    )


def _draw_trees(canvas: _Canvas, plan: _Plan, rng: np.random.Generator, *, behind: bool) -> None:
    for number in range(plan.trees):
        edge = rng.uniform(0.0, 0.16) if not behind else rng.uniform(0.02, 0.24)
        x, conifer = (edge if rng.random() < 0.5 else 1 - edge), rng.random() < 0.4
        height, tone = rng.uniform(0.2, 0.4), LEAVES[plan.season][rng.integers(len(LEAVES[plan.season]))]
        if (number % 2 == 0) != behind:
            continue
        foot = plan.base + (-0.02 if behind else 0.05)
        colour = canvas.lit(tone, 0.85 if behind else 1.0)
        canvas.box(x - 0.012, foot - height * 0.5, x + 0.012, foot, canvas.lit((84, 62, 46)))
        if conifer:
            for level in range(3):
                top, half = foot - height * (1 - 0.25 * level), 0.05 + 0.022 * level
                canvas.polygon([(x, top), (x + half, top + height * 0.42), (x - half, top + height * 0.42)], colour)
        else:
            canvas.ellipse(x, foot - height * 0.68, 0.09, height * 0.34, colour)


def _draw_church(canvas: _Canvas, plan: _Plan) -> None:
    half, base = plan.width / 2, plan.base
    x = plan.position
    turn = -1 if plan.mirrored else 1
    eaves = base - plan.nave
    ridge = eaves - plan.nave * 0.62
    if plan.form == "side":
        tower = x - turn * half * 0.62
        far = x + turn * half
        _wall(canvas, plan, min(tower, far), max(tower, far), eaves, base, 1.0)
        slope = [(tower, eaves), (tower, ridge), (far - turn * 0.05, ridge), (far + turn * 0.02, eaves)]
        canvas.polygon(slope, _roof_colour(canvas, plan, 1.0))
        for part in (0.28, 0.54, 0.8):
            _window(canvas, plan, tower + (far - tower) * part, eaves + plan.nave * 0.6, 0.025, 0.1)
        _draw_tower(canvas, plan, tower, 0.085, base, base - plan.tower)
        _door(canvas, plan, tower)
        return
    towers = (x,) if plan.form == "front" else (x - half * 0.74, x + half * 0.74)
    if plan.form == "front":
        _draw_tower(canvas, plan, x, 0.08, base, ridge - 0.13)
    inner = half * 0.82
    _wall(canvas, plan, x - inner, x + inner, eaves, base, 1.0)
    gable = [(x - inner - 0.02, eaves + 0.01), (x, ridge - 0.04), (x + inner + 0.02, eaves + 0.01)]
    canvas.polygon(gable, _roof_colour(canvas, plan, 1.0))
    front = [(x - inner + 0.02, eaves + 0.01), (x, ridge), (x + inner - 0.02, eaves + 0.01)]
    canvas.polygon(front, canvas.lit(WALLS[plan.wall], 0.95))
    canvas.ellipse(x, eaves - 0.015, 0.036, 0.036, _glass(canvas, plan))
    if plan.form == "twin":
        for tower in towers:
            _draw_tower(canvas, plan, tower, 0.068, base, base - plan.tower)
    for side in (-1, 1):
        _window(canvas, plan, x + side * inner * 0.5, eaves + plan.nave * 0.55, 0.026, 0.12)
    _door(canvas, plan, x)


def _wall(canvas: _Canvas, plan: _Plan, left: float, right: float, top: float, bottom: float, shade: float) -> None:
    canvas.box(left, top, right, bottom, canvas.lit(WALLS[plan.wall], shade))


def _roof_colour(canvas: _Canvas, plan: _Plan, shade: float) -> Colour:
    return canvas.lit((238, 242, 248) if plan.season == "snow" else ROOFS[plan.roof], shade)


def _glass(canvas: _Canvas, plan: _Plan) -> Colour:
    return WINDOW["lit"] if plan.lit else canvas.lit(WINDOW["dark"])


def _window(canvas: _Canvas, plan: _Plan, x: float, y: float, half: float, height: float) -> None:
    canvas.box(x - half, y - height / 2, x + half, y + height / 2, _glass(canvas, plan))
    canvas.ellipse(x, y - height / 2, half, half, _glass(canvas, plan))


def _door(canvas: _Canvas, plan: _Plan, x: float) -> None:
    colour = canvas.lit((86, 54, 36))
    canvas.box(x - 0.032, plan.base - 0.085, x + 0.032, plan.base, colour)
    canvas.ellipse(x, plan.base - 0.085, 0.032, 0.032, colour)


def _draw_tower(canvas: _Canvas, plan: _Plan, x: float, half: float, base: float, top: float) -> None:
    """A tower with a lit and a dark side, its bell window, and what it ends in."""
    _wall(canvas, plan, x - half, x + half, top, base, 1.04)
    _wall(canvas, plan, x + half * 0.45, x + half, top, base, 0.8)
    _window(canvas, plan, x - half * 0.1, top + 0.075, half * 0.32, 0.06)
    roof, dark = _roof_colour(canvas, plan, 0.96), _roof_colour(canvas, plan, 0.76)
    over = half * 1.18
    tip = top - TIPS[plan.spire] * (1.0 if plan.form == "side" else 0.75)
    if plan.spire == "flat":
        for place in (-0.8, 0.0, 0.8):
            left, right = x + (place - 0.28) * half, x + (place + 0.28) * half
            _wall(canvas, plan, left, right, top - 0.035, top, 0.92)
        return
    if plan.spire == "onion":
        canvas.ellipse(x, top - 0.05, over, 0.065, roof)
        canvas.polygon([(x - over * 0.72, top - 0.085), (x, tip), (x + over * 0.72, top - 0.085)], roof)
    else:
        canvas.polygon([(x - over, top), (x, tip), (x + over, top)], roof)
        canvas.polygon([(x + over * 0.4, top), (x, tip), (x + over, top)], dark)
    gold = canvas.lit((224, 188, 96))
    canvas.box(x - 0.006, tip - 0.055, x + 0.006, tip + 0.01, gold)
    canvas.box(x - 0.02, tip - 0.042, x + 0.02, tip - 0.03, gold)


def _draw_flakes(canvas: _Canvas, rng: np.random.Generator) -> None:
    left, right = canvas.span()
    for x, y in zip(rng.uniform(left, right, 60), rng.uniform(-0.2, 1.2, 60), strict=True):
        canvas.ellipse(x, y, 0.007, 0.007, (244, 246, 250))
