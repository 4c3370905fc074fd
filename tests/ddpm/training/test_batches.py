"""What a training step sees."""

import numpy as np
import pytest
import torch
from test_training import RECIPE

from ddpm.config import parse
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.images import to_model_range
from ddpm.training.batches import Batches, timestep_law
from ddpm.training.recipe import Recipe, total_steps

SCHEDULE = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02))
IMAGES = np.random.default_rng(0).integers(0, 256, (22, 8, 8, 3), np.uint8)


def batches(**recipe: object) -> Batches:
    parsed = parse(Recipe, {**RECIPE, **recipe}, "recipe")
    return Batches(IMAGES, None, 0, SCHEDULE, parsed, flip=True, seed=7, device=torch.device("cpu"))


def test_an_epoch_sees_every_image_once() -> None:
    seen = np.concatenate([batches().indices(step) for step in range(11)])
    assert sorted(seen[:22]) == sorted(seen[22:]) == list(range(22))
    assert list(seen[:22]) != list(seen[22:])


def test_the_rest_of_an_epoch_can_be_dropped() -> None:
    dropping = batches(drop_last=True)
    for epoch in range(2):
        seen = np.concatenate([dropping.indices(5 * epoch + step) for step in range(5)])
        assert len(set(seen)) == 20
    assert total_steps(dropping.recipe, 3, 22) == 15
    assert total_steps(batches().recipe, 3, 22) == 16


def test_a_part_is_a_slice_of_the_batch() -> None:
    """So neither micro-batches nor the number of processes change what is seen."""
    whole = batches().micro_batch(3, range(4))
    parts = [batches().micro_batch(3, places) for places in (range(1), range(1, 4))]
    for index in range(3):
        assert torch.equal(whole[index], torch.cat([part[index] for part in parts]))


def test_pixels_are_the_images_or_their_mirror_images() -> None:
    mirrored = 0
    for step in range(50):
        batch, real = batches().micro_batch(step, range(4)), to_model_range(IMAGES[batches().indices(step)])
        as_is, flipped = ((batch.x0 == x).flatten(1).all(dim=1) for x in (real, real.flip(3)))
        assert (as_is | flipped).all()
        mirrored += int(flipped.sum())
    assert 70 < mirrored < 130


def test_no_image_is_mirrored_where_that_is_not_wanted() -> None:
    recipe = parse(Recipe, RECIPE, "recipe")
    drawn = Batches(IMAGES, None, 0, SCHEDULE, recipe, flip=False, seed=7, device=torch.device("cpu"))
    for step in range(10):
        assert torch.equal(drawn.micro_batch(step, range(4)).x0, to_model_range(IMAGES[drawn.indices(step)]))


def test_mirroring_labels_and_times_are_drawn_independently() -> None:
    """Each of the four kinds of 8,000 images as often as its two chances say, to four standard errors; t likewise."""
    recipe = parse(Recipe, {**RECIPE, "label_dropout": 0.3, "batch_images": 200}, "recipe")
    labels = np.arange(22) % 3
    drawn = Batches(IMAGES, labels, 3, SCHEDULE, recipe, flip=True, seed=7, device=torch.device("cpu"))
    mirrored, dropped, t = [], [], []
    for step in range(40):
        batch, real = drawn.micro_batch(step, range(200)), to_model_range(IMAGES[drawn.indices(step)])
        assert batch.label is not None
        mirrored.append((batch.x0 != real).flatten(1).any(dim=1))
        dropped.append(batch.label == 3)
        t.append(batch.t.double())
        kept = ~dropped[-1]
        assert torch.equal(batch.label[kept], torch.from_numpy(labels[drawn.indices(step)])[kept])
    flips, drops, times = torch.cat(mirrored), torch.cat(dropped), torch.cat(t)
    for flip, flip_chance in ((True, 0.5), (False, 0.5)):
        for drop, drop_chance in ((True, 0.3), (False, 0.7)):
            chance = flip_chance * drop_chance
            share = float(((flips == flip) & (drops == drop)).double().mean())
            assert share == pytest.approx(chance, abs=4 * (chance * (1 - chance) / 8000) ** 0.5)
    for both in (torch.stack([times, flips.double()]), torch.stack([times, drops.double()])):
        assert abs(float(torch.corrcoef(both)[0, 1])) < 4 / 8000**0.5


def test_noise_is_standard_normal() -> None:
    eps = torch.cat([batches().micro_batch(step, range(4)).eps for step in range(100)])
    assert float(eps.mean()) == pytest.approx(0, abs=0.02)
    assert float(eps.std()) == pytest.approx(1, abs=0.02)
    assert len(eps.flatten(1).unique(dim=0)) == 400


@pytest.mark.parametrize(
    ("law", "share"),
    [
        ({"timesteps": "uniform"}, 0.5),
        ({"timesteps": "log_normal"}, 0.795),
        ({"timesteps": "log_normal", "timesteps_mean": -1.2, "timesteps_std": 1.2}, 0.979),
    ],
)
def test_timesteps_follow_their_law(law: dict, share: float) -> None:
    """The share below T / 2, where noise is 3.44 times the signal: P(m + s z < ln 3.44 = 1.236) for normal z."""
    probability = timestep_law(batches(**law).recipe, SCHEDULE)
    assert probability.sum() == pytest.approx(1, abs=1e-12)
    assert probability[:500].sum() == pytest.approx(share, abs=0.001)
    t = torch.cat([batches(**law).micro_batch(step, range(4)).t for step in range(500)])
    assert 0 <= int(t.min()) < int(t.max()) <= 999
    assert float((t < 500).float().mean()) == pytest.approx(share, abs=0.04)


def test_every_timestep_is_drawn_as_often_as_its_law_says() -> None:
    """Of four steps, the first and the last too: to four standard errors of 2,000 draws."""
    schedule = NoiseSchedule(DiffusionConfig(steps=4, schedule="cosine", beta_start=0.0, beta_end=0.0))
    recipe = parse(Recipe, {**RECIPE, "batch_images": 200, "timesteps": "log_normal"}, "recipe")
    drawn = Batches(IMAGES, None, 0, schedule, recipe, flip=False, seed=7, device=torch.device("cpu"))
    t = torch.cat([drawn.micro_batch(step, range(200)).t for step in range(10)])
    for share, chance in zip(np.bincount(t, minlength=4) / 2000, timestep_law(recipe, schedule), strict=True):
        assert share == pytest.approx(chance, abs=4 * (chance * (1 - chance) / 2000) ** 0.5)


def test_time_steps_of_a_shifted_schedule_are_those_of_the_schedule() -> None:
    shifted = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02), -1.9617)
    recipe = batches(timesteps="log_normal").recipe
    assert timestep_law(recipe, shifted) == pytest.approx(timestep_law(recipe, SCHEDULE), abs=1e-9)
