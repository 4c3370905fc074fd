"""What surrounds every building: sky, ground, water, trees and snow, by time of day, weather and season."""

from dataclasses import dataclass

import numpy as np

from ddpm.drawing.canvas import Canvas, Colour, mixed

SKIES: dict[str, list[tuple[Colour, Colour]]] = {
    "day": [((88, 150, 220), (190, 220, 240)), ((120, 175, 225), (215, 230, 240)), ((60, 120, 200), (165, 205, 238))],
    "dusk": [((84, 70, 130), (246, 150, 90)), ((110, 90, 150), (250, 180, 130)), ((60, 70, 120), (235, 120, 80))],
    "night": [((8, 12, 34), (34, 44, 84)), ((12, 16, 44), (46, 52, 96))],
}
OVERCAST: dict[str, Colour] = {"day": (176, 184, 194), "dusk": (150, 128, 136), "night": (38, 42, 58)}
CLOUDS: dict[str, Colour] = {"day": (236, 240, 244), "dusk": (226, 168, 150), "night": (58, 62, 82)}
GROUNDS: dict[str, list[Colour]] = {
    "summer": [(96, 140, 62), (120, 156, 74)],
    "autumn": [(150, 126, 62), (164, 112, 56)],
    "snow": [(236, 240, 246), (222, 230, 240)],
}
LEAVES: dict[str, list[Colour]] = {
    "summer": [(52, 100, 48), (72, 118, 52)],
    "autumn": [(196, 112, 34), (178, 76, 36), (208, 150, 50)],
    "snow": [(60, 84, 74), (164, 184, 198)],
}
LIGHT: dict[str, Colour] = {"day": (255, 255, 255), "dusk": (226, 168, 150), "night": (112, 118, 160)}
WATER: dict[str, Colour] = {"day": (58, 112, 150), "dusk": (84, 72, 106), "night": (14, 22, 46)}
ICE: Colour = (216, 228, 238)
SNOW: Colour = (238, 242, 248)

FACTORS = ("time", "weather", "season", "trees", "lit")


@dataclass(frozen=True)
class Landscape:
    """What is common to all that stands in one picture."""

    aspect: float
    time: str
    weather: str
    season: str
    base: float
    """Height of the ground on which a building stands."""
    trees: int
    lit: bool
    """Whether lamps burn."""

    def factors(self) -> dict[str, str | float]:
        """The values of FACTORS."""
        return {**{name: getattr(self, name) for name in FACTORS}, "lit": "yes" if self.lit else "no"}


def choice(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """One of the names, by their probabilities."""
    return str(rng.choice(list(weights), p=list(weights.values())))


def random_landscape(rng: np.random.Generator) -> Landscape:
    """Draw time of day, weather, season and the like."""
    time = choice(rng, {"day": 0.5, "dusk": 0.25, "night": 0.25})
    season = choice(rng, {"summer": 0.5, "autumn": 0.24, "snow": 0.26})
    weather = choice(rng, {"clear": 0.6, "cloudy": 0.4})
    if season == "snow" and rng.random() < 0.35:
        weather = "snowfall"
    return Landscape(
        aspect=float(rng.choice([0.8, 1.0, 1.2, 4 / 3, 4 / 3, 1.5, 1.78])),
        time=time,
        weather=weather,
        season=season,
        base=float(rng.uniform(0.80, 0.87)),
        trees=int(rng.integers(0, 5)),
        lit=bool(rng.random() < {"day": 0.0, "dusk": 0.75, "night": 0.95}[time]),
    )


def draw_sky(canvas: Canvas, land: Landscape, rng: np.random.Generator) -> None:
    """Fill the picture with the sky and what is in it."""
    high, low = SKIES[land.time][rng.integers(len(SKIES[land.time]))]
    if land.weather != "clear":
        high, low = mixed(high, OVERCAST[land.time], 0.65), mixed(low, OVERCAST[land.time], 0.55)
    canvas.fade(high, low, 1 / 1.15)
    if land.weather == "clear" and land.time == "night":
        for _ in range(14):
            canvas.ellipse(
                rng.uniform(canvas.left, canvas.right), rng.uniform(-0.1, 0.5), 0.005, 0.005, (210, 214, 235)
            )
        canvas.ellipse(rng.choice([0.14, 0.86]), rng.uniform(0.1, 0.22), 0.055, 0.055, (238, 234, 208))
    if land.weather == "clear" and land.time == "dusk":
        canvas.ellipse(rng.choice([0.1, 0.9]), rng.uniform(0.5, 0.66), 0.07, 0.07, (255, 222, 150))
    if land.weather == "cloudy":
        for _ in range(int(rng.integers(2, 5))):
            x, y = rng.uniform(canvas.left, canvas.right), rng.uniform(0.02, 0.36)
            for dx in (-0.1, 0.0, 0.09):
                rx, ry = rng.uniform(0.08, 0.14), rng.uniform(0.03, 0.055)
                canvas.ellipse(x + dx, y + abs(dx) * 0.25, rx, ry, CLOUDS[land.time])


def draw_hills(canvas: Canvas, land: Landscape, horizon: float, rng: np.random.Generator) -> None:
    """Draw distant hills, and land below them down to the picture's edge."""
    xs = np.linspace(canvas.left, canvas.right, 6)
    hills = [(float(x), horizon - 0.07 * rng.random()) for x in xs]
    canvas.polygon([(canvas.left, 2), *hills, (canvas.right, 2)], canvas.lit(GROUNDS[land.season][1], 0.8))


def draw_ground(canvas: Canvas, land: Landscape) -> None:
    """Draw the ground on which the building stands."""
    canvas.box(canvas.left, land.base - 0.02, canvas.right, 2, canvas.lit(GROUNDS[land.season][0]))


def draw_path(canvas: Canvas, land: Landscape, door: float) -> None:
    """Draw the path that leads up to the door at `door`."""
    colour = canvas.lit((205, 190, 160) if land.season != "snow" else (196, 198, 206))
    top, bottom = [(door - 0.03, land.base), (door + 0.03, land.base)], [(door + 0.14, 1.3), (door - 0.1, 1.3)]
    canvas.polygon([*top, *bottom], colour)


def draw_water(canvas: Canvas, land: Landscape, kind: str, level: float, rng: np.random.Generator) -> None:
    """Turn all that is below `level` into still, rippled or frozen water that reflects what has been drawn."""
    if kind == "frozen":
        canvas.mirror(level, canvas.lit(ICE), 0.22)
    else:
        canvas.mirror(level, WATER[land.time], 0.52 if kind == "still" else 0.38)
    streak = {"frozen": canvas.lit(SNOW), "still": CLOUDS[land.time], "rippled": CLOUDS[land.time]}[kind]
    canvas.box(canvas.left, level, canvas.right, level + 0.007, streak, 0.4)
    for _ in range({"frozen": 5, "still": 3, "rippled": 14}[kind]):
        x, down = rng.uniform(canvas.left, canvas.right), rng.uniform(0.03, 0.3)
        length = rng.uniform(0.4, 0.8) * (0.06 + 0.4 * down)  # what is nearer looks larger
        canvas.ellipse(x, level + down, length, 0.03 * length if kind != "frozen" else 0.1 * length, streak, 0.4)


def draw_trees(
    canvas: Canvas,
    land: Landscape,
    rng: np.random.Generator,
    *,
    behind: bool,
    foot: float | None = None,
    scale: float = 1.0,
) -> None:
    """Draw the trees behind the building or those before it, at the sides of the square."""
    if foot is None:
        foot = land.base + (-0.02 if behind else 0.05)
    for number in range(land.trees):
        edge = rng.uniform(0.0, 0.16) if not behind else rng.uniform(0.02, 0.24)
        x, conifer = (edge if rng.random() < 0.5 else 1 - edge), rng.random() < 0.4
        height, tone = rng.uniform(0.2, 0.4), LEAVES[land.season][rng.integers(len(LEAVES[land.season]))]
        if (number % 2 == 0) == behind:
            _draw_tree(canvas, x, foot, height * scale, scale, conifer, canvas.lit(tone, 0.85 if behind else 1.0))


def _draw_tree(
    canvas: Canvas, x: float, foot: float, height: float, scale: float, conifer: bool, colour: Colour
) -> None:
    canvas.box(x - 0.012 * scale, foot - height * 0.5, x + 0.012 * scale, foot, canvas.lit((84, 62, 46)))
    if not conifer:
        canvas.ellipse(x, foot - height * 0.68, 0.09 * scale, height * 0.34, colour)
        return
    for level in range(3):
        top, half = foot - height * (1 - 0.25 * level), (0.05 + 0.022 * level) * scale
        canvas.polygon([(x, top), (x + half, top + height * 0.42), (x - half, top + height * 0.42)], colour)


def draw_flakes(canvas: Canvas, rng: np.random.Generator) -> None:
    """Let it snow."""
    for x, y in zip(rng.uniform(canvas.left, canvas.right, 60), rng.uniform(-0.2, 1.2, 60), strict=True):
        canvas.ellipse(x, y, 0.007, 0.007, (244, 246, 250))
