"""Distribution metrics against torch-fidelity, against leaving images out one by one, and on known laws."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from ddpm.metrics import colour_drift, kid, mean_pairwise, precision_recall
from ddpm.rng import normal, numpy_stream


def gaussian(count: int, dim: int, *, std: float = 1, mean: float = 0, seed: int = 0) -> Tensor:
    return normal(numpy_stream(seed, "test gaussian"), (count, dim)) * std + mean


def test_kid_is_torch_fidelitys():
    x, y = gaussian(60, 32, seed=1), gaussian(60, 32, mean=0.4, std=1.2, seed=2)
    theirs = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=60, verbose=False)[KEY_METRIC_KID_MEAN]
    assert kid(x, y).value == pytest.approx(theirs, abs=1e-6, rel=1e-6)
    assert theirs > 0.1, "the sets are too alike to show anything"


def half_width(leave_out: list[list[float]]) -> float:
    """Of the jackknife's interval, from the values without each image of each set."""
    return 1.959964 * sum((len(v) - 1) / len(v) * ((np.array(v) - np.mean(v)) ** 2).sum() for v in leave_out) ** 0.5


def without(rows: Tensor, index: int) -> Tensor:
    return torch.cat([rows[:index], rows[index + 1 :]])


def test_kid_interval_is_the_jackknife():
    x, y = gaussian(9, 8, seed=1), gaussian(14, 8, mean=0.3, seed=2)
    found = kid(x, y)
    leave_out = [[kid(without(x, i), y).value for i in range(9)], [kid(x, without(y, i)).value for i in range(14)]]
    assert found.high - found.value == pytest.approx(half_width(leave_out))
    assert found.value - found.low == pytest.approx(half_width(leave_out))
    assert found.n == 9


def test_kid_is_unbiased_and_its_interval_holds():
    found = [kid(gaussian(40, 16, seed=2 * i), gaussian(60, 16, seed=2 * i + 1)) for i in range(200)]
    values = np.array([each.value for each in found])
    assert abs(values.mean()) < 4 * values.std() / 200**0.5
    assert np.mean([each.low <= 0 <= each.high for each in found]) >= 0.93


def test_mean_pairwise_leaves_the_diagonal_out():
    rows = gaussian(8, 3)
    distances = torch.cdist(rows, rows)
    found = mean_pairwise(distances)
    assert found.value == pytest.approx(torch.pdist(rows).mean().item())
    leave_out = [[torch.pdist(without(rows, i)).mean().item() for i in range(8)]]
    assert found.high - found.value == pytest.approx(half_width(leave_out), rel=1e-5)
    assert distances.diagonal().equal(torch.zeros(8)), "the argument was changed"


def test_precision_and_recall_are_not_swapped():
    narrow, wide = gaussian(300, 4, std=0.2, seed=1), gaussian(200, 4, seed=2)
    precision, recall = precision_recall(narrow, wide, 3)
    assert precision.value > 0.95, "samples from the middle of the data are all plausible"
    assert recall.value < 0.3, "but miss most of it"
    assert (precision.n, recall.n) == (300, 200)
    precision, recall = precision_recall(wide, narrow, 3)
    assert precision.value < 0.3
    assert recall.value > 0.95


def test_same_law_has_high_precision_and_recall_and_a_far_one_none():
    x, y = gaussian(200, 4, seed=1), gaussian(200, 4, seed=2)
    assert all(share.value > 0.75 for share in precision_recall(x, y, 3))
    for share in precision_recall(x, y + 100, 3):
        assert share.value == 0
        assert share.low == pytest.approx(0, abs=1e-12)
        assert share.high == pytest.approx(0.018845, abs=1e-6), "Wilson's bound for 0 of 200"


def test_intervals_of_shares_hold_the_share():
    for n in range(5, 100):
        x = gaussian(n, 2)
        shares = [*precision_recall(x, x, 3), *precision_recall(x, x + 100, 3)]
        assert [share.value for share in shares] == [1, 1, 0, 0]
        assert all(0 <= share.low <= share.value <= share.high <= 1 for share in shares)


def test_colour_drift():
    reference = np.full((2, 4, 4, 3), 100, np.uint8)
    samples = reference.copy()
    samples[..., 0] = 110
    samples[0, :, :, 2], samples[1, :, :, 2] = 0, 255
    drift = colour_drift(samples, reference)
    assert drift["mean"] == pytest.approx({"red": 10, "green": 0, "blue": 27.5})
    assert drift["std"] == pytest.approx({"red": 0, "green": 0, "blue": 127.5})
    assert drift["saturated"] == pytest.approx({"red": 0, "green": 0, "blue": 1})
    assert all(value == 0 for channel in colour_drift(samples, samples).values() for value in channel.values())
