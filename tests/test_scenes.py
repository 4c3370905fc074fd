"""The drawn churches: repeatable, of LSUN's size, and varied in everything that is recorded."""

import pytest

from ddpm.scenes import FACTORS, draw_scene

SCENES = {index: draw_scene(0, "train", index) for index in range(200)}


def test_a_scene_depends_on_its_indices_alone() -> None:
    for index in (5, 2):
        again = draw_scene(0, "train", index)
        assert again.image.tobytes() == SCENES[index].image.tobytes()
        assert again.factors == SCENES[index].factors
    others = [draw_scene(1, "train", 2), draw_scene(0, "val", 2), SCENES[3]]
    assert all(other.image.tobytes() != SCENES[2].image.tobytes() for other in others)


def test_size_is_lsuns() -> None:
    assert {min(scene.image.size) for scene in SCENES.values()} == {256}
    assert len({scene.image.size for scene in SCENES.values()}) > 3


@pytest.mark.parametrize(("factor", "values"), [("time", 3), ("weather", 3), ("season", 3), ("form", 3), ("spire", 4)])
def test_every_value_of_a_factor_occurs(factor: str, values: int) -> None:
    assert len({scene.factors[factor] for scene in SCENES.values()}) == values


def test_factors_are_complete_and_the_church_fills_the_square() -> None:
    for scene in SCENES.values():
        assert tuple(sorted(scene.factors)) == tuple(sorted(FACTORS))
        half, position = float(scene.factors["width"]) / 2, float(scene.factors["position"])
        assert 0.05 < position - half < position + half < 0.95
        assert half > 0.2
