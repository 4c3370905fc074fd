import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm.config import ConfigError, parse
from ddpm.pictures.resizing import Preprocessing, resize

FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}


def recipe(size=48, geometry="center_crop", filter_name="lanczos"):
    return Preprocessing(size=size, geometry=geometry, filter=filter_name)


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.integers(32, 128),
    geometry=st.sampled_from(["center_crop", "squash"]),
    filter_name=st.sampled_from(sorted(FILTERS)),
    seed=st.integers(0, 99),
)
def test_the_recipe_is_pillows_resize_to_two_levels(width, height, size, geometry, filter_name, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    cut = pixels[top : top + side, left : left + side] if geometry == "center_crop" else pixels
    expected = np.asarray(Image.fromarray(cut).resize((size, size), FILTERS[filter_name]))
    found = resize(pixels, recipe(size, geometry, filter_name))
    assert found.dtype == np.uint8
    assert found.shape == (size, size, 3)
    difference = np.abs(found.astype(int) - expected)
    if geometry == "squash" and height > width:
        # Columns before rows, where Pillow takes rows first: what overshoots the range in between is cut off elsewhere.
        assert difference.mean() < 3
    else:
        assert difference.max() <= 2


def test_resizing_is_antialiased():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert np.abs(resize(board, recipe(filter_name="bilinear")).astype(int) - 127).max() < 8


def test_one_pixel_and_a_very_wide_picture_have_an_outcome():
    assert (resize(np.full((1, 1, 3), 77, np.uint8), recipe()) == 77).all()
    wide = np.zeros((2, 20_000, 3), np.uint8)
    wide[:, 9_999:10_001] = 200
    assert (resize(wide, recipe()) == 200).all()
    assert resize(wide, recipe(geometry="squash")).max() < 5


def test_the_name_tells_recipes_apart():
    names = {
        recipe(size, geometry, filter_name).name
        for size in (48, 64, 128)
        for geometry in ("center_crop", "squash")
        for filter_name in FILTERS
    }
    assert len(names) == 18
    assert recipe().name == "48-center_crop-lanczos-7fbb454f"  # another one says: all images are to be made anew


@pytest.mark.parametrize(("key", "value"), [("size", 4), ("size", 48.5), ("filter", "nearest"), ("geometry", "random")])
def test_impossible_recipes_are_named(key, value):
    values = {"size": 48, "geometry": "center_crop", "filter": "lanczos", key: value}
    with pytest.raises(ConfigError, match=rf"extract\.{key} = "):
        parse(Preprocessing, values, "extract")
