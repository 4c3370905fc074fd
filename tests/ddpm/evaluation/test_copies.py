"""Copies are told from other images, and the rate at which real images are flagged is kept."""

import numpy as np
import pytest
from drawn import churches
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import correlation

from ddpm.evaluation.copies import copy_distances, p_values, threshold


def rolled(images: np.ndarray, x: int, y: int) -> np.ndarray:
    return np.roll(images, (y, x), axis=(1, 2))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0), (0, -1), (-1, 1)])
def test_a_copy_is_at_distance_0_wherever_it_lies(x: int, y: int, mirrored: bool):
    originals = churches()[:5]
    copies = rolled(originals, x, y)
    found = copy_distances(copies[:, :, ::-1] if mirrored else copies, originals, np.arange(5)[:, None])
    assert np.abs(found).max() < 1e-6
    assert found.dtype == np.float32


def test_light_and_contrast_make_no_difference():
    originals = churches()[:5]
    darker = (originals // 2 + 40).astype(np.uint8)
    assert copy_distances(darker, originals, np.arange(5)[:, None]).max() < 1e-3


def test_distance_is_one_minus_the_correlation():
    images, reference, rows = churches()[:40], churches()[40:], np.array([[3, 5]] * 40)
    found = copy_distances(images, reference, rows)
    wanted = [
        min(
            correlation(image[y : y + 46, x : x + 46].ravel().astype(float), side[1:47, 1:47].ravel().astype(float))
            for side in (reference[row], reference[row][:, ::-1])
            for x in range(3)
            for y in range(3)
        )
        for image in images[[0, 35]]
        for row in (3, 5)
    ]
    assert np.abs(found[[0, 35]].ravel() - wanted).max() < 1e-5
    assert found.min() > 0.02


def test_an_even_image_correlates_with_nothing():
    even = np.full((1, 48, 48, 3), 7, np.uint8)
    assert copy_distances(even, churches(), np.arange(3)[None]).tolist() == [[1, 1, 1]]


def test_p_values_by_hand():
    null = np.array([0.4, 0.1, 0.3, 0.2])
    assert p_values(np.array([0.05, 0.1, 0.25, 1]), null).tolist() == [0.2, 0.4, 0.6, 1]


@given(
    null=st.lists(st.integers(0, 20), min_size=1, max_size=120),
    values=st.lists(st.integers(0, 20), min_size=1),
    per_cent=st.integers(1, 99),
)
def test_the_threshold_is_where_p_values_are_the_rate(null: list[int], values: list[int], per_cent: int):
    found, law = np.array(values, float), np.array(null, float)
    below = p_values(found, law) <= per_cent / 100 + 1e-12
    assert np.array_equal(found < threshold(law, per_cent / 100), below)


def test_real_images_are_flagged_at_the_rate():
    """Of 500 and one from one law each is as likely to be flagged: 5 in 501 are."""
    draws = np.random.default_rng(0).gamma(3, size=501)
    flagged = [draw < threshold(np.delete(draws, index), 0.01) for index, draw in enumerate(draws)]
    assert sum(flagged) == 5
    assert threshold(draws[:98], 0.01) == 0
    assert threshold(draws[:99], 0.01) == draws[:99].min()
