"""Whether there are images enough for all stages: the first stage that knows asks, so that nothing is trained in vain.

The numbers belong to later stages, whose parameters are no dependency of those that ask: the answer is yes or an error,
so it changes no output, and another value of theirs makes no images anew and trains no model.
"""

import os

from stages.kit.errors import StageError
from stages.kit.params import Params

RANKED = 3
"""Fewest images of a set for which `rank` reports distances."""


def fewest(neighbourhood: int) -> int:
    """The fewest images of a set that `evaluate` can compare."""
    return max(neighbourhood, 2) + 1


LEAST = {"training": 2 * fewest(1), "held-out": 4}
"""What the lowest values take: `evaluate.neighbourhood` = 1, and `interpolate.pairs` = 2, of two images each."""


def by_dvc() -> bool:
    """Whether this stage is run as one of the pipeline. By hand it takes what it can use."""
    return "DVC_STAGE" in os.environ


def require_enough(params: Params, train: int, held_out: int) -> None:
    """Fail where so many training or held-out images are too few for a later stage.

    Raises:
        StageError: with the parameters to change.
    """
    for kind, found, demands in (
        ("training", train, training_demands(params)),
        ("held-out", held_out, held_out_demands(params)),
    ):
        short = [f"{by} takes {needed}" for by, needed in demands.items() if found < needed]
        if short:
            few, reasons = "image is" if found == 1 else "images are", ", ".join(short)
            raise StageError(f"params.yaml: {found} {kind} {few} too few: {reasons}; {remedy(params, kind, found)}")


def training_demands(params: Params) -> dict[str, int]:
    """How many training images there must be at least, by what needs them."""
    k = number(params, "evaluate", "neighbourhood")
    return {f"evaluate.neighbourhood = {k}": 2 * fewest(k)}


def held_out_demands(params: Params) -> dict[str, int]:
    """How many held-out images there must be at least, by what needs them."""
    pairs, k = number(params, "interpolate", "pairs"), number(params, "evaluate", "neighbourhood")
    return {f"interpolate.pairs = {pairs}": 2 * pairs, f"evaluate.neighbourhood = {k}": fewest(k), "rank": RANKED}


def number(params: Params, section: str, key: str) -> int:
    """The whole number that stands there, or 0: what is none, the stage that reads the section refuses."""
    value = params.mapping(section).get(key)
    return value if isinstance(value, int) else 0


def remedy(params: Params, kind: str, found: int) -> str:
    """What a user can change; with fewer than `LEAST` images no parameter is low enough."""
    place, source = f"sources.{params.top.data}", params.mapping("sources", params.top.data)
    count = "train_images" if kind == "training" else "val_images"
    ways = ["lower this"] if found >= LEAST[kind] else []
    if count in source:
        ways.append(f"raise {place}.{count} = {source[count]}")
    elif source.get("val_fraction") and not source.get("val"):
        ways.append(f"{'lower' if kind == 'training' else 'raise'} {place}.val_fraction = {source['val_fraction']}")
    return ", or ".join([*ways, "add images"])
