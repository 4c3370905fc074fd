"""The factors that images were drawn with, from their tables, and how sets of images compare in them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ddpm.evaluation.estimates import proportion
from ddpm.evaluation.factors import fit_classifier, total_variation
from ddpm.rng import numpy_stream
from stages.shared.files.images import FACTORS

Predicted = Mapping[str, Mapping[str, np.ndarray]]
"""By factor and by set, the class of each image `[N]` as the classifier sees it."""


def drawn_factors(train: pd.DataFrame, held_out: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The columns of both tables for those `FACTORS` that both know; "none" where one has no meaning for an image."""
    tables = train, held_out
    known = [name for name in FACTORS if all(name in table and (table[name] != "").any() for table in tables)]
    seen, unseen = (table[known].replace("", "none") for table in tables)
    return seen, unseen


def predict_factors(features: Mapping[str, Tensor], learnt: Tensor, factors: pd.DataFrame) -> Predicted:
    """What a classifier sees in each set of features `[N, D]`, after it has `learnt` each column of `factors`."""
    found = {}
    for name, labels in factors.items():
        classify = fit_classifier(learnt, labels.to_numpy(str))
        found[str(name)] = {of: classify(rows) for of, rows in features.items()}
    return found


def compare_factors(predicted: Predicted, held_out: pd.DataFrame, seed: int) -> dict[str, Any]:
    """By factor: how well the classifier does on the held-out images, and how near the other sets are to these.

    Both sides are as predicted, so that what the classifier confuses cancels. `majority` is the
    accuracy of the majority baseline, which predicts the commonest class for every held-out image. `covered` counts the
    `classes` seen in the held-out images that are seen in the set too.
    """
    found = {}
    for name, sets in predicted.items():
        truth, theirs = held_out[name].to_numpy(str), sets["held_out"]
        classes = np.unique(theirs)
        found[name] = {
            "classes": len(classes),
            "accuracy": asdict(proportion(float(np.mean(theirs == truth)), len(truth))),
            "majority": float(np.unique(truth, return_counts=True)[1].max() / len(truth)),
        }
        for each in ("samples", "real"):
            stream = numpy_stream(seed, f"evaluate: {name} of {each}")
            distance = total_variation(sets[each], theirs, stream)
            found[name][each] = {"distance": asdict(distance), "covered": int(np.isin(classes, sets[each]).sum())}
    return found
