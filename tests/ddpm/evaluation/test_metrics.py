"""Distribution metrics against torch-fidelity, against leaving images out one by one, and on known laws."""

import os
import subprocess
import sys
from dataclasses import astuple

import numpy as np
import pytest
import torch
from support import REPOSITORY
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from ddpm.evaluation.colours import colour_drift
from ddpm.evaluation.estimates import mean, mean_pairwise
from ddpm.evaluation.metrics import frechet, kid, kid_difference, precision_recall
from ddpm.rng import normal, numpy_stream


def gaussian(count: int, dim: int, *, std: float = 1, mean: float = 0, seed: int = 0) -> Tensor:
    return normal(numpy_stream(seed, "test gaussian"), (count, dim)) * std + mean


def test_kid_is_torch_fidelitys():
    x, y = gaussian(60, 32, seed=1), gaussian(60, 32, mean=0.4, std=1.2, seed=2)
    theirs = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=60, verbose=False)[KEY_METRIC_KID_MEAN]
    assert kid(x, y).value == pytest.approx(theirs, abs=1e-6, rel=1e-6)
    assert theirs > 0.1, "the sets are too alike to show anything"


def test_kid_and_its_interval_do_not_depend_on_what_is_in_memory_at_once(monkeypatch):
    x, y = gaussian(60, 32, seed=1), gaussian(50, 32, mean=0.4, seed=2)
    whole = kid(x, y), kid_difference(x, gaussian(60, 32, seed=3), y)
    monkeypatch.setattr("ddpm.evaluation.metrics.ROWS_AT_ONCE", 7)
    blocks = kid(x, y), kid_difference(x, gaussian(60, 32, seed=3), y)
    for one, other in zip(whole, blocks, strict=True):
        assert astuple(one) == pytest.approx(astuple(other), rel=1e-9)


def half_width(leave_out: list[list[float]]) -> float:
    """Of the jackknife's interval, from the values without each image of each set."""
    return 1.959964 * sum((len(v) - 1) / len(v) * ((np.array(v) - np.mean(v)) ** 2).sum() for v in leave_out) ** 0.5


def without(rows: Tensor, index: int) -> Tensor:
    return torch.cat([rows[:index], rows[index + 1 :]])


def long_and_thin(count: int, mean: float, seed: int) -> Tensor:
    """Almost all of what varies does so in one direction, as the time of day in pictures."""
    return gaussian(count, 16, std=0.2, seed=seed) + mean + 0.7 * gaussian(count, 1, seed=seed + 1)


@pytest.mark.parametrize("mean", [0, 0.3, 1])
def test_kid_is_unbiased_and_its_interval_holds(mean):
    """Of two sets of 1,000, whose KID is known, 40 and 120 are drawn many times."""
    x, y, generator = long_and_thin(1000, mean, 0), long_and_thin(1000, 0, 2), numpy_stream(0, "test draws")
    truth = kid(x, y).value
    found = [kid(x[generator.permutation(1000)[:40]], y[generator.permutation(1000)[:120]]) for _ in range(300)]
    values = np.array([each.value for each in found])
    assert abs(values.mean() - truth) < 4 * values.std() / 300**0.5
    assert np.mean([each.low <= truth <= each.high for each in found]) >= 0.9
    assert all(each.low <= each.value <= each.high for each in found)
    assert found[0].n == 40


def test_lower_end_of_kid_has_the_variance_of_equal_laws_and_of_the_jackknife():
    """2 (1 / m + 1 / n)^2 times the mean square of the centred kernels (Gretton et al. 2012), plus the jackknife's."""
    x, y = gaussian(9, 8, seed=1), gaussian(14, 8, mean=0.3, seed=2)
    found, kernels = kid(x, y), (x.double() @ y.double().T / 8 + 1) ** 3
    centred = kernels - kernels.mean(0) - kernels.mean(1, keepdim=True) + kernels.mean()
    equal = 2 * (1 / 9 + 1 / 14) ** 2 * float(centred.square().sum()) / (8 * 13)
    leave_out = [[kid(without(x, i), y).value for i in range(9)], [kid(x, without(y, i)).value for i in range(14)]]
    expected = (1.959964**2 * equal + half_width(leave_out) ** 2) ** 0.5
    assert found.value - found.low == pytest.approx(expected, rel=1e-6)


def test_difference_of_kids_and_its_jackknife_over_pairs():
    x, z, y = gaussian(9, 8, seed=1), gaussian(9, 8, std=1.2, seed=2), gaussian(14, 8, mean=0.3, seed=3)

    def difference(x, z, y):
        return kid(x, y).value - kid(z, y).value

    found = kid_difference(x, z, y)
    assert found.value == pytest.approx(difference(x, z, y))
    leave_out = [
        [difference(without(x, i), without(z, i), y) for i in range(9)],
        [difference(x, z, without(y, i)) for i in range(14)],
    ]
    assert found.high - found.value == pytest.approx(half_width(leave_out))
    assert found.n == 9


@pytest.mark.parametrize(("shift", "least", "most"), [(0, 0.97, 1), (1, 0.91, 0.98)])
def test_interval_of_the_difference_holds_0_for_two_sets_of_one_law(shift, least, most):
    """More often than in 95 % of cases if that is the law of the reference as well."""
    found = []
    for i in range(0, 600, 3):
        x, z = (gaussian(40, 16, mean=shift, seed=seed) for seed in (i, i + 1))
        found.append(kid_difference(x, z, gaussian(60, 16, seed=i + 2)))
    assert least <= np.mean([each.low <= 0 <= each.high for each in found]) <= most


def test_difference_of_a_set_and_almost_the_same_set_is_narrow():
    x, y = gaussian(40, 16, std=0.8, seed=1), gaussian(60, 16, seed=2)
    found = kid_difference(x, x + 0.01 * gaussian(40, 16, seed=3), y)
    assert found.high - found.low < 0.05 * (kid(x, y).high - kid(x, y).low)


def test_mean_has_the_interval_of_students_law():
    found = mean(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert (found.value, found.n) == (3, 4)
    assert found.high - 3 == pytest.approx(3.182446 * np.std([1, 2, 3, 6], ddof=1) / 2)


def test_mean_pairwise_leaves_the_diagonal_out():
    rows = gaussian(8, 3)
    found = mean_pairwise(torch.cdist(rows, rows).sum(1))
    assert found.value == pytest.approx(torch.pdist(rows).mean().item())
    leave_out = [[torch.pdist(without(rows, i)).mean().item() for i in range(8)]]
    assert found.high - found.value == pytest.approx(half_width(leave_out), rel=1e-5)


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


def test_both_intervals_are_those_of_the_smaller_set():
    """Whose chance moves the balls, or what lies in them, as a whole."""
    x, y = gaussian(20, 4, seed=1), gaussian(300, 4, seed=2)
    for found in (*precision_recall(x, y, 3), *precision_recall(y, x, 3)):
        assert found.high - found.low > 0.15


def test_frechet_distance_of_known_laws_and_its_interval():
    """Of N(m, a^2 I) and N(0, b^2 I) it is |m|^2 + D (a - b)^2."""
    x, y = gaussian(2000, 8, mean=0.5, std=1.5, seed=1), gaussian(4000, 8, seed=2)
    found = frechet(x, y)
    assert found.low < 8 * (0.5**2 + 0.5**2) < found.high
    assert found.high - found.low < 0.8
    assert found.n == 2000


def test_frechet_distance_is_torch_fidelitys():
    sets = gaussian(100, 8, mean=0.5, seed=1), gaussian(120, 8, seed=2)
    laws = [{"mu": x.double().mean(0).numpy(), "sigma": np.cov(x.double().numpy(), rowvar=False)} for x in sets]
    expected = fid_statistics_to_metric(*laws, verbose=False)[KEY_METRIC_FID]
    assert frechet(*sets).value == pytest.approx(expected, rel=1e-6)


def test_the_smallest_sets_that_are_not_refused_have_replicates_of_full_rank():
    """The jackknife leaves out a tenth: with one sample less, a replicate has as many rows as dimensions."""
    found = frechet(gaussian(73, 64, seed=1), gaussian(65, 64, seed=2))
    assert 0 < found.low < found.value < found.high


def test_interval_of_the_frechet_distance_does_not_grow_with_classes_in_turn():
    """Without strata the groups are random, and the chance of their shares is all that widens the interval."""
    classes = np.arange(2000) % 10
    centres = 20 * gaussian(10, 8, seed=3)
    reference = gaussian(4000, 8, seed=2) + centres[torch.arange(4000) % 10]
    x = gaussian(2000, 8, seed=1) + centres[torch.from_numpy(classes)]
    whole, stratified = frechet(x, reference), frechet(x, reference, classes)
    one = frechet(gaussian(2000, 8, seed=1), gaussian(4000, 8, seed=2))
    assert stratified.high - stratified.low < 4 * (one.high - one.low)
    assert stratified.high - stratified.low < whole.high - whole.low < 10


def test_precision_and_recall_of_many_samples_need_little_memory():
    """Their whole matrix of distances would have 288 MB, and torch-fidelity took three of them.

    glibc keeps freed blocks of up to 32 MB, now and then a third of a gigabyte of them, unless its limit is fixed.
    """
    code = """if True:
        import resource, torch
        from ddpm.evaluation import metrics
        metrics.ROWS_AT_ONCE = 256
        x, y = torch.randn(6000, 16), torch.randn(300, 16)
        metrics.precision_recall(x[:300], y, 3), metrics.kid(x[:300], y)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        metrics.precision_recall(x, y, 3), metrics.kid(x, y)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 150_000, "kB"


@pytest.mark.parametrize("sizes", [(64, 200), (200, 64)])
def test_frechet_distance_of_a_singular_covariance_is_refused(sizes):
    x, y = (gaussian(count, 64) for count in sizes)
    with pytest.raises(ValueError, match=f"it needs 73 samples and 65 real images; here are {sizes[0]} and {sizes[1]}"):
        frechet(x, y)


def test_colour_drift():
    reference = np.full((2, 4, 4, 3), 100, np.uint8)
    samples = reference.copy()
    samples[..., 0] = 110
    samples[0, :, :, 2], samples[1, :, :, 2] = 0, 255
    drift = colour_drift(samples, reference)
    values = {name: [channels[each].value for each in ("red", "green", "blue")] for name, channels in drift.items()}
    assert values == {"mean": [10, 0, 27.5], "std": [0, 0, 127.5], "saturated": [0, 0, 1]}
    assert all(each.value == 0 for channels in colour_drift(samples, samples).values() for each in channels.values())


def test_colour_drift_has_the_interval_of_means_over_images():
    generator = numpy_stream(0, "test colours")
    ours, theirs = (generator.integers(0, high, (count, 4, 4, 3), np.uint8) for high, count in ((200, 12), (256, 30)))
    found = colour_drift(ours, theirs)["mean"]["green"]
    means = [images[..., 1].mean((1, 2)) for images in (ours, theirs)]
    assert found.value == pytest.approx(means[0].mean() - means[1].mean())
    error = sum(each.var(ddof=1) / len(each) for each in means) ** 0.5
    assert found.high - found.value == pytest.approx(1.959964 * error)
    assert found.n == 12
