"""The drawn classes: repeatable, of LSUN's size, varied in all that is recorded, and told apart by their shapes."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from ddpm.drawing.scenes import CATEGORIES, FACTORS, Scene, draw_scene

SCENES = {category: [draw_scene(0, category, "train", index) for index in range(160)] for category in CATEGORIES}

SHARED = {
    "time": {"day", "dusk", "night"},
    "weather": {"clear", "cloudy", "snowfall"},
    "season": {"summer", "autumn", "snow"},
    "lit": {"yes", "no"},
}
OWN = {
    "church": {
        "wall": {"white", "sandstone", "brick", "grey", "brown"},
        "roof": {"tile", "slate", "copper", "wood"},
        "form": {"side", "front", "twin"},
        "spire": {"spire", "pyramid", "onion", "flat"},
    },
    "tower": {
        "wall": {"white", "sandstone", "brick", "grey", "brown", "red", "blue", "black", "glass"},
        "roof": {"tile", "slate", "copper", "wood", ""},
        "form": {"lighthouse", "clock", "television", "skyscraper"},
        "top": {"dome", "cone", "pyramid", "battlements", "disc", "ball", "flat", "mast", "stepped", "slanted"},
    },
    "bridge": {
        "wall": {"sandstone", "grey", "brick", "brown", "red", "green", "blue", "white"},
        "form": {"arch", "suspension", "truss", "stayed"},
        "spans": {1, 2, 3},
        "water": {"still", "rippled", "frozen"},
    },
}
NUMBERS = {
    "church": {"trees", "width", "position"},
    "tower": {"trees", "width", "position", "height"},
    "bridge": {"trees", "position", "height"},
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_scene_depends_on_its_indices_alone(category: str) -> None:
    expected = SCENES[category]
    for index in (5, 2):
        again = draw_scene(0, category, "train", index)
        assert again.image.tobytes() == expected[index].image.tobytes()
        assert again.factors == expected[index].factors
    others = [draw_scene(1, category, "train", 2), draw_scene(0, category, "val", 2), expected[3]]
    others += [SCENES[other][2] for other in CATEGORIES if other != category]
    assert all(other.image.tobytes() != expected[2].image.tobytes() for other in others)


@pytest.mark.parametrize("category", CATEGORIES)
def test_size_is_lsuns(category: str) -> None:
    sizes = {scene.image.size for scene in SCENES[category]}
    assert {min(size) for size in sizes} == {256}
    assert len(sizes) > 3
    assert {scene.image.mode for scene in SCENES[category]} == {"RGB"}


@pytest.mark.parametrize("category", CATEGORIES)
def test_factors_are_complete_and_every_value_occurs(category: str) -> None:
    scenes = SCENES[category]
    assert all(tuple(scene.factors) == FACTORS for scene in scenes)
    named = SHARED | OWN[category]
    for factor, values in named.items():
        assert {scene.factors[factor] for scene in scenes} == values, factor
    for factor in NUMBERS[category]:
        assert len({float(scene.factors[factor]) for scene in scenes}) >= 5, factor
    for factor in set(FACTORS) - named.keys() - NUMBERS[category]:
        assert {scene.factors[factor] for scene in scenes} == {""}, factor


@pytest.mark.parametrize("category", ["church", "tower"])
def test_a_building_stands_within_the_square(category: str) -> None:
    for scene in SCENES[category]:
        half, position = float(scene.factors["width"]) / 2, float(scene.factors["position"])
        assert 0.05 < position - half < position + half < 0.95


def test_a_bridge_reaches_both_edges_of_a_wide_picture() -> None:
    """Above the hills (row 135) the sharpest step down each outermost column is the road's, as it is further in."""
    wide = [scene for scene in SCENES["bridge"] if scene.image.width > 400 and scene.factors["form"] == "arch"]
    assert wide
    for scene in wide:
        grey = np.asarray(scene.image.convert("L"), float)
        steps = np.abs(np.diff(grey, axis=0))[:135].max(axis=0)
        assert min(steps[:8].min(), steps[-8:].min()) > 0.5 * np.median(steps)


def test_an_unknown_category_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'castle': not one of church, tower, bridge"):
        draw_scene(0, "castle", "train", 0)


def test_classes_are_told_apart_by_their_shapes() -> None:
    """The nearest class mean of the steps between neighbours in 12 x 12 grey pictures; chance is a third."""
    means = np.stack([np.mean([outline(scene) for scene in SCENES[category]], axis=0) for category in CATEGORIES])
    for number, category in enumerate(CATEGORIES):
        unseen = np.stack([outline(draw_scene(0, category, "val", index)) for index in range(60)])
        found = ((unseen[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        assert (found == number).mean() > 0.8, category


def outline(scene: Scene) -> np.ndarray:
    """Where a picture's grey changes, whatever its contrast and whether what is drawn is light or dark."""
    grey = np.asarray(ImageOps.fit(scene.image.convert("L"), (12, 12), Image.Resampling.BOX), float)
    steps = np.concatenate([np.abs(np.diff(grey, axis=axis)).ravel() for axis in (0, 1)])
    return (steps - steps.mean()) / steps.std()
