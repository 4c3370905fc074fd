import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.pictures import duplicates
from ddpm.pictures.duplicates import descriptors, duplicates_between, duplicates_within


def rms(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((one.astype(float) - other) ** 2).mean()))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return min(rms(one, other), rms(one[:, ::-1], other))


def pictures(count: int, size: int, seed: int) -> np.ndarray:
    """Few motifs, each many times: as it is, with noise, mirrored."""
    rng = np.random.default_rng(seed)
    motifs = rng.integers(0, 256, (max(1, count // 3), size, size, 3))
    images = motifs[rng.integers(len(motifs), size=count)]
    mirrored = rng.random(count) < 0.4
    images[mirrored] = images[mirrored][:, :, ::-1]
    noise = rng.normal(size=images.shape) * rng.choice([0, 3, 6, 9], size=count)[:, None, None, None]
    return np.clip(images + noise.round().astype(int), 0, 255).astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(5, 13),
    st.integers(0, 999),
    st.integers(1, 30),
    st.sampled_from([1, 900, 1 << 25]),
    st.sampled_from([0.0, 8.0]),
)
def test_duplicates_are_those_of_a_search_by_hand(count, size, seed, block, room, radius):
    images = pictures(count, size, seed)
    among = np.flatnonzero(np.random.default_rng(seed).random(count) < 0.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "IMAGES_AT_ONCE", block)
        patch.setattr(duplicates, "BYTES_AT_ONCE", room)
        found = duplicates_within(images, among, radius)
        between = duplicates_between(images, images[::2], radius)
    kept: list[int] = []
    for number, image in enumerate(images):
        nearest = min(distance(image, other) for other in images[::2])
        assert (between.other[number] >= 0) == (nearest <= radius)
        if number not in among:
            assert found.other[number] == -1
            continue
        near = {other: distance(image, images[other]) for other in kept}
        if near and min(near.values()) <= radius:
            assert found.other[number] in near
            np.testing.assert_allclose(near[found.other[number]], min(near.values()), atol=1e-5)
            np.testing.assert_allclose(found.rms[number], min(near.values()), atol=1e-4)
            there = images[found.other[number]]
            turned = image[:, ::-1] if found.mirrored[number] else image
            np.testing.assert_allclose(rms(turned, there), found.rms[number], atol=1e-4)
        else:
            assert found.other[number] == -1
            kept.append(number)


@settings(max_examples=100, deadline=None)
@given(st.integers(4, 70), st.integers(0, 999))
def test_descriptors_are_no_further_apart_than_the_images(size, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    if rng.random() < 0.5:
        images[1] = np.clip(images[0].astype(int) + rng.integers(-9, 10), 0, 255)  # the case in which they are equal
    one, other = descriptors(images)
    assert np.linalg.norm(one - other) <= distance(*images) + 1e-3  # they are sums in float32
    np.testing.assert_allclose(descriptors(images[:, :, ::-1]), [one, other], atol=1e-3)


def test_many_copies_of_one_image_take_no_time():
    """All pairs would be twelve million."""
    images = np.zeros((5_000, 32, 32, 3), np.uint8)
    images[::2] += 1
    found = duplicates_within(images, np.arange(len(images)), 8.0)
    assert (found.other[1:] == 0).all()
    assert set(found.rms) == {0.0, 1.0}
