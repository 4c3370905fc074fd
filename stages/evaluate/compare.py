"""How sets of images compare, from their features: as a whole, and category by category."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple

import numpy as np
from torch import Tensor

from ddpm.evaluation.estimates import Estimate
from ddpm.evaluation.metrics import kid, precision_recall
from stages.kit.enough import fewest
from stages.kit.parts import Parts

SETS = ("samples", "real", "held_out")
"""Samples, training images, held-out images."""

Compared = dict[str, Estimate]
"""KID, precision and recall, by their names and the network behind the features, as in `kid_alexnet`."""


def compare(ours: Tensor, theirs: Tensor, neighbourhood: int, network: str, parts: Parts, name: str) -> Compared:
    """Features `[M, D]` against features `[N, D]`, which stand for the real images; M, N > `neighbourhood`.

    What is found is kept in `parts`, as that of the comparison `name`.
    """
    precision, recall = kept_estimates(parts, f"{name} prc", lambda: precision_recall(ours, theirs, neighbourhood))
    [distance] = kept_estimates(parts, f"{name} kid", lambda: [kid(ours, theirs)])
    return {f"kid_{network}": distance, f"precision_{network}": precision, f"recall_{network}": recall}


def kept_estimates(parts: Parts, name: str, compute: Callable[[], Sequence[Estimate]]) -> Sequence[Estimate]:
    """Estimates that are computed once and kept in `parts`."""
    rows = parts.kept(name, lambda: {"estimates": np.array([astuple(each) for each in compute()])})["estimates"]
    return [Estimate(value=value, low=low, high=high, n=int(n)) for value, low, high, n in rows.tolist()]


def compare_categories(
    features: Mapping[str, Tensor],
    categories: Mapping[str, np.ndarray],
    neighbourhood: int,
    network: str,
    parts: Parts,
) -> dict[str, dict[str, Compared]]:
    """Within each category, samples and training images against held-out ones.

    Args:
        features: of each of `SETS`, `[N, D]`.
        categories: the category of each image of each of `SETS`, `[N]`.
        neighbourhood: the k of precision and recall.
        network: whose features they are.
        parts: what is found is kept there.

    Returns:
        By category, in the order of their names; one that has too few images in a set is left out.
    """
    found = {}
    for number, name in enumerate(np.unique(categories["samples"])):
        part = {each: features[each][categories[each] == name] for each in SETS}
        if min(map(len, part.values())) >= fewest(neighbourhood):
            found[str(name)] = {
                each: compare(part[each], part["held_out"], neighbourhood, network, parts, f"category {number} {each}")
                for each in SETS[:2]
            }
    return found
