"""Samples of several classes are judged class by class."""

import pytest
import torch

from benchmarks.classes import CLASSES, classifier, quality, table


@pytest.fixture(scope="module")
def sets() -> list[dict[str, torch.Tensor]]:
    """Training features, held-out ones and those of samples: three classes that nobody confuses."""
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.eye(3, 8)
    return [
        {of: centre + torch.randn(60, 8, generator=generator) / 4 for of, centre in zip(CLASSES, centres, strict=True)}
        for _ in range(3)
    ]


def test_samples_of_the_right_class_are_seen_and_can_be_learnt_from(sets: list[dict[str, torch.Tensor]]) -> None:
    real, held_out, samples = sets
    found = quality(samples, held_out, classifier(real))
    assert found["learnt"] == 1
    assert all(found["confusion"][of] == {each: 60 * (each == of) for each in CLASSES} for of in CLASSES)
    assert all(abs(found["classes"][of]["kid"]["value"]) < 0.1 for of in CLASSES)


def test_samples_of_the_next_class_teach_what_is_wrong(sets: list[dict[str, torch.Tensor]]) -> None:
    real, held_out, samples = sets
    turned = dict(zip(CLASSES, [samples[of] for of in (*CLASSES[1:], CLASSES[0])], strict=True))
    found = quality(turned, held_out, classifier(real))
    assert found["learnt"] == 0
    assert found["confusion"]["church"] == {"church": 0, "tower": 60, "bridge": 0}
    assert found["classes"]["church"]["kid"]["low"] > 1
    row = {"says": "turned", "seed": 1, "kid_difference": None, **found}
    assert table([row]).splitlines()[-1].endswith("| 0.0% | 0.0% |  |")


def test_samples_that_nobody_asked_for_are_not_called_right(sets: list[dict[str, torch.Tensor]]) -> None:
    real, held_out, samples = sets
    found = quality(samples, held_out, classifier(real), asked=False)
    assert found["seen"] is None
    assert found["learnt"] == 1


def test_one_class_alone_teaches_nothing(sets: list[dict[str, torch.Tensor]]) -> None:
    real, held_out, samples = sets
    assert quality({"tower": samples["tower"]}, held_out, classifier(real))["learnt"] is None
