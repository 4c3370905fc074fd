"""What the page finds in the numbers, at and beside each limit."""

import pytest
from page_inputs import CLASSES, COMPARISON, DETAILS, QUALITY, SIZES, drawn, estimate

from stages.page.curves import front
from stages.page.findings import findings

RUN = {
    "params": {"data": "lsun", "model": "tiny", "extract": {"size": 48}},
    "sampling": {"sampler": "unipc", "steps": 10, "spacing": "logsnr"},
    "source": {"categories": ["church_outdoor"]},
    "alpha_bar_end": 4e-5,
}


def changed(values, path, value):
    """The nested mapping `values` with one value changed, by its dotted name."""
    key, _, rest = path.partition(".")
    return {**values, key: changed(values[key], rest, value) if rest else value}


def found(changes=(), run=RUN, quality=QUALITY):
    details = DETAILS
    for path, value in dict(changes).items():
        details = changed(details, path, value)
    return findings(
        details, run, {"quality_time": quality, "comparison": COMPARISON, "classes": CLASSES, "sizes": SIZES}
    )


@pytest.mark.parametrize(
    ("name", "path", "below", "above"),
    [
        ("samples_nearer", "rank.percentile.high", 0.499, 0.5),
        ("best_nearer_than_batches", "rank.best.max", 0.549, 0.55),
        ("nearer_to_training", "evaluate.samples_to_training.kid_alexnet.high", 0.449, 0.45),
        ("unseen_are_good", "rank.best_unseen.max", 0.3, 0.301),
        ("less_diverse", "evaluate.samples.diversity_lpips.high", 0.199, 0.2),
    ],
)
def test_true_below_a_limit(name, path, below, above):
    assert found({path: below})[name] is True
    assert found({path: above})[name] is False


@pytest.mark.parametrize(
    ("name", "path", "below", "above"),
    [
        ("kid_above_zero", "evaluate.samples.kid_alexnet.low", 0.0, 0.001),
        ("more_diverse", "evaluate.samples.diversity_lpips.low", 0.3, 0.301),
        ("midpoint_farther", "interpolate.noise.lerp_ancestral.nearest_training.midpoint_difference.low", 0.0, 0.001),
        ("bound_above_uniform", "likelihood.bits_per_dim.total.value", 8.0, 8.001),
        ("duplicates", "extract.train.duplicates_in_training", {"exact": 0, "near": 0}, {"exact": 0, "near": 1}),
    ],
)
def test_true_above_a_limit(name, path, below, above):
    outside = {"extract.train.duplicates_held_out": {"exact": 0, "near": 0}}
    assert found({**outside, path: below})[name] is False
    assert found({**outside, path: above})[name] is True


def test_without_the_report_s_interpolation_nothing_is_said_of_its_middle():
    assert found({"interpolate.noise": {}})["midpoint_farther"] is False


@pytest.mark.parametrize(("mean", "place"), [(0.169, "below"), (0.17, "within"), (0.27, "within"), (0.271, "above")])
def test_the_best_are_placed_among_the_best_of_real_images(mean, place):
    assert found({"rank.best.mean": mean})["best_against_held_out"] == place
    for few in ({"n": 0}, {"n": 18, "min": 0.17, "max": 0.27}):
        assert found({"rank.best.mean": mean, "rank.best_of_held_out.mean": few})["best_against_held_out"] == ""


def test_no_selection_is_no_good_selection():
    assert found({"rank.best_unseen": {"n": 0}, "rank.held_out.max": 9.0})["unseen_are_good"] is False


@pytest.mark.parametrize(("data", "size", "same"), [("lsun", 48, True), ("demo", 48, False), ("lsun", 64, False)])
def test_only_the_report_s_data_are_compared_with_it(data, size, same):
    run = changed(changed(RUN, "params.data", data), "params.extract.size", size)
    assert found(run=run)["comparable_with_report"] is same
    others = changed(run, "source.categories", ["church_outdoor", "tower"])
    assert found(run=others)["comparable_with_report"] is False


def test_flagged_samples_are_counted():
    copied = found({"rank.copies.samples": estimate(3 / 64), "rank.copies.rate": 0.5})
    assert (copied["can_flag"], copied["flagged"], copied["flagged_if_real"]) == (True, 3, 32)
    for nothing in ("rate", "limit"):
        assert found({f"rank.copies.{nothing}": 0.0})["can_flag"] is False


def test_colours_off_are_those_without_zero():
    """Of each three red and green are off in the made-up details, and blue is not."""
    assert found()["colours_off"] == {"samples": 6, "real": 6}
    touching = {"value": 1.0, "low": 0.0, "high": 2.0, "n": 64}
    channels = {"red": touching, "green": estimate(-3.0), "blue": estimate(3.0)}
    assert found({"evaluate.samples.colour_drift.std": channels})["colours_off"] == {"samples": 6, "real": 6}


def test_factors_are_told_apart():
    factors = DETAILS["evaluate"]["factors"]
    off = {**factors["time"], "samples": {"distance": estimate(0.2), "covered": 3}}
    blind = {**factors["spire"], "accuracy": estimate(0.4, 500)}
    told = found({"evaluate.factors": {"time": off, "spire": factors["spire"], "form": blind}})
    assert told["differing_factors"] == ["time"]
    assert [(each["name"], each["says_nothing"]) for each in told["poor_factors"]] == [("spire", False), ("form", True)]
    assert [each["mistaken"] for each in told["poor_factors"]] == pytest.approx([30, 60])
    assert told["times_and_weathers_occur"] is False  # of four 3 are covered
    assert told["times_and_weathers_differ"] is True


@pytest.mark.parametrize("name", ["time", "weather"])
def test_the_claim_is_of_times_and_weathers(name: str):
    """What is wrong with another factor says nothing of it."""
    time, other = DETAILS["evaluate"]["factors"]["time"], {"time": "weather", "weather": "time"}[name]
    right = {**time, "samples": {"distance": estimate(0.0), "covered": time["classes"]}}
    wrong = {**time, "samples": {"distance": estimate(0.9), "covered": time["classes"] - 1}}
    said = [
        tuple(found({"evaluate.factors": factors})[f"times_and_weathers_{key}"] for key in ("occur", "differ"))
        for factors in ({name: right, "form": wrong}, {name: wrong, other: right})
    ]
    assert said == [(True, False), (False, True)]


def test_the_benchmark_s_rows_are_found():
    told = found()
    assert (told["reference"], told["picked"]) == (QUALITY["rows"][0], QUALITY["rows"][2])
    assert (told["none_is_faster"], told["drawn_as_picked"], told["times_as_fast"]) == (False, True, 100)
    assert told["report_seconds"] == 100
    assert found(run=changed(RUN, "params.model", "paper"))["report_seconds"] is None
    assert found({"train.parameters": 1})["report_seconds"] is None
    assert found(run=changed(RUN, "sampling.steps", 20))["drawn_as_picked"] is False


def test_a_benchmark_without_times_or_gain():
    untimed = drawn("ancestral", 1000, 0.006, kid_difference=None, seconds=None)
    pick = {"sampler": "ancestral", "steps": 1000, "spacing": "trailing", "precision": "auto"}
    told = found(quality={**QUALITY, "rows": [untimed], "pick": pick})
    assert told["none_is_faster"] is True
    assert [told[name] for name in ("times_as_fast", "report_seconds")] == [None, None]


@pytest.mark.parametrize(("left", "noise"), [(4e-5, True), (0.001, False)])
def test_an_end_with_signal_is_no_noise(left, noise):
    assert found(run=changed(RUN, "alpha_bar_end", left))["ends_in_noise"] is noise


def test_no_row_of_the_pareto_front_is_beaten_in_both():
    rows = [
        drawn("a", 10, 0.05),
        drawn("b", 10, 0.03),
        drawn("c", 20, 0.04),
        drawn("d", 50, 0.03),
        drawn("e", 100, 0.01),
    ]
    assert [row["sampler"] for row in front(rows[::-1])] == ["b", "e"]
