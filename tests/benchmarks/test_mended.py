"""What `benchmarks.mended` makes of samples: the property of training images, and no other."""

import numpy as np
import pytest

from benchmarks.mended import MENDED, brightness, by_scale, greenness, power, warmth

RNG = np.random.default_rng(0)
REAL = 60 + 100 * RNG.random((40, 1, 1, 3)) + RNG.normal(0, 20, (40, 48, 48, 3))
MIDDLES = (np.arange(40) + 0.5) / 40
SAMPLES = 90 + 30 * RNG.random((40, 1, 1, 3)) + RNG.normal(0, 5, (40, 48, 48, 3))


def test_brightness_has_the_ranks_of_real_images() -> None:
    mended = MENDED["brightness"](SAMPLES, REAL)
    assert np.array_equal(np.argsort(brightness(mended)), np.argsort(brightness(SAMPLES)))
    assert np.sort(brightness(mended)) == pytest.approx(np.quantile(brightness(REAL), MIDDLES))


def test_colour_is_mended_and_brightness_stays() -> None:
    mended = MENDED["colour"](SAMPLES, REAL)
    assert np.allclose(brightness(mended), brightness(SAMPLES))
    for kind in (warmth, greenness):
        assert np.sort(kind(mended)) == pytest.approx(np.quantile(kind(REAL), MIDDLES))
        assert np.array_equal(np.argsort(kind(mended)), np.argsort(kind(SAMPLES)))


def test_each_frequency_gets_the_power_of_real_images_and_means_stay() -> None:
    mended = MENDED["fine and coarse"](SAMPLES, REAL)
    assert np.allclose(mended.mean(axis=(1, 2)), SAMPLES.mean(axis=(1, 2)))
    assert by_scale(power(mended)) == pytest.approx(by_scale(power(REAL)))
    assert min(by_scale(power(REAL))) > 10 * max(by_scale(power(SAMPLES)))


def test_white_noise_has_the_same_power_at_every_scale() -> None:
    noise = np.random.default_rng(1).normal(0, 3, (50, 48, 48, 3))
    assert by_scale(power(noise)) == pytest.approx([9 * 48 * 48] * 4, rel=0.05)
