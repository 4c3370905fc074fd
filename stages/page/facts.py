"""What the templates say in numbers: metrics, parameters, and what follows from them without a run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from stages.kit.params import MAPS, SCALARS, Params
from stages.page.findings import can_flag, flagged, measured

MOST = 12
"""Categories that a table has a column for."""
KINDS = {"diffusion": "denoising diffusion model", "gan": "generative adversarial network"}
"""The kinds of models, in words."""
MACHINE = ("runtime",)
"""Parameters that change no result, and that differ from machine to machine."""


def headline(details: Mapping[str, Any]) -> dict[str, float]:
    """The few numbers that `dvc metrics` shows and compares, from the details of the stages; docs/dvc.md explains them.

    KID with its 95 % interval, precision and recall of the samples against held-out images, mean LPIPS of the best
    samples to their nearest training image, the number of samples flagged as copies, where any can be, the last
    training loss. A GAN has none: its two losses say how the game stands, not how good the images are.
    """
    samples, rank = details["evaluate"]["samples"], details["rank"]
    kid, precision, recall = (measured(samples, metric) for metric in ("kid", "precision", "recall"))
    loss = details["train"].get("loss")
    return {
        "kid": kid["value"],
        "kid_low": kid["low"],
        "kid_high": kid["high"],
        "precision": precision["value"],
        "recall": recall["value"],
        "lpips6": rank["best"]["mean"],
        **({"copies": flagged(rank["copies"])} if can_flag(rank["copies"]) else {}),
        **({"loss": loss["last_tenth"]} if loss else {}),
    }


def records(extract: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What became of the records: the names of `columns`, and the numbers of each split; columns of zeros are left out.

    A category's column is there where there are several, but not more than `MOST`.
    """
    train = extract["train"]
    several = train["images_of"] if 1 < len(train["images_of"]) <= MOST else {}
    encodings = train["encoding"] | extract["val"]["encoding"]  # a rare one only where it occurs
    kinds = {"encoding": encodings, "mode": train["mode"], "images_of": several}
    paths: list[tuple[str, ...]] = [("n",), ("images",), ("bad",), ("dropped",), ("enlarged",)]
    paths += [(kind, name) for kind, names in kinds.items() for name in names]
    table = {path: [_at(extract[split], path) for split in ("train", "val")] for path in paths}
    shown = {path: numbers for path, numbers in table.items() if any(numbers)}
    names = {"n": "records", "images": "used"}
    return {
        "columns": [names.get(path[-1], path[-1]) for path in shown],
        "train": [numbers[0] for numbers in shown.values()],
        "val": [numbers[1] for numbers in shown.values()],
    }


def _at(values: Any, path: Sequence[str]) -> int:
    for key in path:
        values = values.get(key, 0)  # a category may have no held-out images
    return values


def estimates(metrics: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every value with an interval, by its dotted name."""
    if {"value", "low", "high", "n"} <= metrics.keys():
        yield name, metrics
    else:
        for key, value in metrics.items():
            if isinstance(value, Mapping):
                yield from estimates(value, f"{name}.{key}".lstrip("."))


def described(
    params: Params, latents: Sequence[int] | None = None, tuned: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The parameters as the templates use them, and what follows from them without a run.

    `latents` is the shape of what the model draws, where that isn't an image, and `tuned` is how tuned weights are
    sampled from, if there are any.
    """
    top = params.top
    model, sample = params.mapping("models", top.model), params.mapping("sample")
    sampling = tuned or model["sampling"]
    schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"), params.model().log_snr_shift)
    channels, side = latents[:2] if latents else (3, params.mapping("extract")["size"])
    network, gan = model["network"], model["kind"] == "gan"
    dimensions = network["latent_channels"] if gan else channels * side**2
    return {
        "page_title": f"A {KINDS[model['kind']]}, from data to samples",
        "params": params.values,
        "source": params.mapping("sources", top.data),
        "model": model,
        "sampling": {key: own if sample.get(key) is None else sample[key] for key, own in sampling.items()},
        "alpha_bar_end": schedule.at(schedule.steps - 1),
        "dimensions": dimensions,
        "side": side,
        "attended": [] if gan else attended(network, side),
        "shell": {"ends": sqrt(dimensions), "middle": sqrt(dimensions / 2)},
        "parameters": list(parameters(params)),
    }


def attended(network: Mapping[str, Any], side: int) -> list[int]:
    """The resolutions with self-attention, in feature-map pixels, of a network for `side` x `side` values."""
    levels, first = len(network["multipliers"]), side // network["patch"]
    return [each if each > 0 else first // 2 ** (levels + each) for each in network["attention"]]


def parameters(params: Params) -> Iterator[tuple[str, str]]:
    """Every parameter that this run depends on, by its dotted name, and its value."""
    chosen = {"sources": params.top.data, "models": params.top.model}
    for key in SCALARS + MAPS:
        if key in chosen:
            yield from _flat(f"{key}.{chosen[key]}", params.mapping(key, chosen[key]))
        elif key not in MACHINE and (key != "tune" or params.mapping(key)["objective"] != "none"):
            yield from _flat(key, params.values[key])


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
