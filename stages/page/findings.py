"""What the page says of its numbers: each condition of a sentence has a name here, and the templates ask for it."""

from collections.abc import Mapping, Sequence
from typing import Any

CHANNELS = ("red", "green", "blue")
DRIFTS = ("mean", "std", "saturated")
UNIFORM_BITS = 8
"""Bits per dimension of a distribution that knows nothing of images."""
CHANCE = 0.5
"""The mean place of an image among others of its kind, from 0, the nearest, to 1."""
CLAIMED_FACTORS = ("time", "weather")
"""Of drawn images; the report says that its samples show different ones."""
GOOD_ACCURACY = 0.9
"""Of a classifier; with less, what it says of samples is blurred."""
ENOUGH_BATCHES = 19
"""One more of its kind lies below all of so many values by chance once in twenty."""
NOISE = 0.001
"""With less than this proportion of the image's variance left, x_T is as good as pure noise."""


def findings(
    details: Mapping[str, Any], run: Mapping[str, Any], benchmarks: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """All findings by name, from the stages' `details`, the `run` as `facts.described` has it, and the `benchmarks`."""
    return {
        **of_data_and_model(details, run),
        **of_selection(details["rank"], run),
        **of_evaluation(details["evaluate"]),
        **of_benchmark(benchmarks["quality_time"], run, details["train"]["parameters"]),
        **of_comparison(benchmarks["comparison"]),
        "of_classes": by_system(benchmarks["classes"]["rows"]),
        **of_sizes(benchmarks["sizes"]["rows"]),
    }


def of_data_and_model(details: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, bool]:
    """Duplicates, the end of the forward process, the middle of the report's interpolation, the bound."""
    train, noise = details["extract"]["train"], details["interpolate"]["noise"]
    found = [*train["duplicates_in_training"].values(), *train["duplicates_held_out"].values()]
    report, bits = noise.get("lerp_ancestral"), details["likelihood"].get("bits_per_dim")
    return {
        "duplicates": sum(found) > 0,
        "ends_in_noise": run["alpha_bar_end"] < NOISE,
        "midpoint_farther": report is not None and report["nearest_training"]["midpoint_difference"]["low"] > 0,
        "bound_above_uniform": bits is not None and bits["total"]["value"] > UNIFORM_BITS,
    }


def of_selection(rank: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """How near samples are to training images, and which are flagged as copies."""
    held_out, unseen, copies = rank["held_out"], rank["best_unseen"], rank["copies"]
    params, churches = run["params"], run["source"]["categories"] == ["church_outdoor"]
    return {
        "comparable_with_report": params["data"] == "lsun" and churches and params["extract"]["size"] == 48,
        "samples_nearer": rank["percentile"]["high"] < CHANCE,
        "best_nearer_than_batches": rank["best"]["max"] < rank["batch_means"]["min"],
        "best_against_held_out": _place(rank["best"]["mean"], rank["best_of_held_out"]["mean"]),
        "can_flag": can_flag(copies),
        "flagged": flagged(copies),
        "flagged_if_real": copies["rate"] * copies["samples"]["n"],
        "unseen_are_good": unseen["n"] > 0 and unseen["max"] <= held_out["max"],
    }


def of_evaluation(evaluate: Mapping[str, Any]) -> dict[str, Any]:
    """What the metrics of the samples leave no doubt of."""
    samples, real, factors = evaluate["samples"], evaluate["real"], evaluate.get("factors", {})
    claimed = [factor for name, factor in factors.items() if name in CLAIMED_FACTORS]
    to_training = evaluate["samples_to_training"]
    diversity, of_real = samples["diversity_lpips"], real["diversity_lpips"]
    return {
        "kid_above_zero": measured(samples, "kid")["low"] > 0,
        "nearer_to_training": measured(to_training, "kid")["high"] < measured(samples, "kid")["low"],
        "less_diverse": diversity["high"] < of_real["low"],
        "more_diverse": diversity["low"] > of_real["high"],
        "colours_off": {"samples": colours_off(samples), "real": colours_off(real)},
        "times_and_weathers_occur": all(each["samples"]["covered"] == each["classes"] for each in claimed),
        "times_and_weathers_differ": any(map(_differs, claimed)),
        "differing_factors": [name for name, factor in factors.items() if _differs(factor)],
        "poor_factors": [
            {
                "name": name,
                "mistaken": 100 * (1 - factor["accuracy"]["value"]),
                "says_nothing": factor["accuracy"]["low"] <= factor["majority"],
            }
            for name, factor in factors.items()
            if factor["accuracy"]["low"] < GOOD_ACCURACY
        ],
    }


def _differs(factor: Mapping[str, Any]) -> bool:
    """A distance can't be negative, so chance alone lifts it: it has to lie above that of training images."""
    return bool(factor["samples"]["distance"]["low"] > factor["real"]["distance"]["value"])


def of_benchmark(quality: Mapping[str, Any], run: Mapping[str, Any], parameters: int) -> dict[str, Any]:
    """The rows that the page speaks of, and how they compare; the run's network has so many `parameters`."""
    rows, pick, sampling = quality["rows"], quality["pick"], run["sampling"]
    how = ("sampler", "steps", "spacing")
    reference = next(row for row in rows if row["kid_difference"] is None)
    picked = next(row for row in rows if all(row[key] == pick[key] for key in how))
    times = reference["seconds"], picked["seconds"]
    same_network = quality["model"] == run["params"]["model"] and quality["parameters"] == parameters
    same_run = same_network and quality["timed_images"] == 64
    report_way = reference["sampler"] == "ancestral" and reference["steps"] == 1000
    return {
        "reference": reference,
        "picked": picked,
        "none_is_faster": picked is reference,
        "times_as_fast": round(times[0]["median"] / times[1]["median"]) if all(times) else None,
        "drawn_as_picked": all(sampling.get(key) == picked[key] for key in how),
        "report_seconds": times[0]["median"] if same_run and report_way and times[0] else None,
    }


def of_comparison(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Of the systems that were timed, the first row of each by its name, and the times that one takes as long as a GAN.

    That is the report's way or, where it was not timed, the default.
    """
    timed = {row["system"]: row for row in reversed(comparison["rows"]) if row["seconds"]}
    slow, gan = timed.get("ancestral_1000", timed.get("default")), timed.get("gan")
    times = slow["seconds"]["median"] / gan["seconds"]["median"] if slow and gan else None
    return {"timed": timed, "slow": slow, "times_the_gan": times}


def by_system(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each system, one a seed."""
    systems: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        systems.setdefault(row["system"], []).append(row)
    return systems


def of_sizes(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows of each system, and how many times as many images a second latents of 128 px draw as pixels."""
    seconds = {row["system"]: row["seconds"]["median"] for row in rows if row["seconds"]}
    both = {"tiny_128", "latent_128"} <= seconds.keys()
    return {
        "of_sizes": by_system(rows),
        "times_as_many": seconds["tiny_128"] / seconds["latent_128"] if both else None,
    }


def _place(value: float, among: Mapping[str, Any]) -> str:
    """Whether `value` lies below all the values that `among` sums up, within them, or above; "" if they are too few."""
    if among["n"] < ENOUGH_BATCHES:
        return ""
    return "below" if value < among["min"] else "above" if value > among["max"] else "within"


def measured(values: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """The estimate of `metric` among `values`, whose names go on with the network that the features come from."""
    return next(value for name, value in values.items() if name.startswith(metric))


def can_flag(copies: Mapping[str, Any]) -> bool:
    """Whether there are held-out images that tell copies, and enough of them."""
    return copies["rate"] > 0 and copies["limit"] > 0


def flagged(copies: Mapping[str, Any]) -> int:
    """How many of the samples are flagged as copies."""
    return round(copies["samples"]["value"] * copies["samples"]["n"])


def colours_off(values: Mapping[str, Any]) -> int:
    """In how many of the nine intervals of colour drift 0 does not lie."""
    drifts = [values["colour_drift"][name][channel] for name in DRIFTS for channel in CHANNELS]
    return sum(drift["low"] > 0 or drift["high"] < 0 for drift in drifts)
