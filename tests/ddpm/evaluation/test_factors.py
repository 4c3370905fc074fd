"""The classifier on classes that can be told apart, and the distance of shares on known ones."""

import numpy as np
import pytest
import torch

from ddpm.evaluation.factors import fit_classifier, total_variation
from ddpm.rng import normal, numpy_stream


def clusters(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Features `[count, 16]` around three centres, and the names of these."""
    generator = numpy_stream(seed, "test clusters")
    numbers = generator.integers(3, size=count)
    features = 3 * torch.eye(16)[numbers] + normal(generator, (count, 16)) * 0.5
    return features, np.array(["day", "dusk", "night"])[numbers]


def test_classes_that_lie_apart_are_learnt():
    features, labels = clusters(400, 0)
    unseen, truth = clusters(200, 1)
    predicted = fit_classifier(features, labels)(unseen)
    assert np.mean(predicted == truth) > 0.98
    assert np.array_equal(fit_classifier(features, labels)(unseen), predicted)


def test_rare_classes_are_told_and_without_features_the_commonest_is_the_answer():
    """The penalty is small, and the intercept is there: nine in ten are "day"."""
    generator = numpy_stream(0, "test rare")
    numbers = generator.choice(3, 400, p=(0.9, 0.05, 0.05))
    labels, noise = np.array(["day", "dusk", "night"])[numbers], normal(generator, (400, 16))
    apart = 3 * torch.eye(16)[numbers] + noise * 0.5
    assert np.mean(fit_classifier(apart, labels)(apart) == labels) > 0.98
    assert np.mean(fit_classifier(noise[:, :2], labels)(noise[:, :2]) == "day") > 0.98


def test_one_image_and_one_class_are_enough():
    features, _ = clusters(5, 0)
    assert set(fit_classifier(features[:1], np.array(["day"]))(features)) == {"day"}


def test_total_variation_of_known_shares():
    ours, theirs = np.repeat(["a", "b"], [30, 10]), np.repeat(["a", "b", "c"], [50, 25, 25])
    found = total_variation(ours, theirs, numpy_stream(0, "test"))
    assert found.value == pytest.approx(0.25)
    assert 0 < found.low < 0.25 < found.high < 0.5
    assert found.n == 40
    apart = total_variation(np.array(["a"] * 9), np.array(["b"] * 9), numpy_stream(0, "test"))
    assert (apart.value, apart.low, apart.high) == (1, 1, 1)


@pytest.mark.parametrize("shares", [(0.5, 0.25, 0.25), (0.3, 0.4, 0.3), (0.05, 0.05, 0.9)])
def test_interval_holds_the_true_distance(shares):
    """Where it is 0 too."""
    generator, theirs = numpy_stream(0, "test coverage"), (0.5, 0.25, 0.25)
    truth = np.abs(np.subtract(shares, theirs)).sum() / 2
    held = []
    for _ in range(200):
        ours, real = generator.choice(3, 64, p=shares), generator.choice(3, 500, p=theirs)
        found = total_variation(ours, real, generator)
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) > 0.93
