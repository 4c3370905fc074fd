"""Training: what a step sees, that it learns, and that a run continued is the run uninterrupted."""

import io

import numpy as np
import pytest
import torch

from ddpm.config import parse
from ddpm.diffusion import q_sample, simple_loss, training_target
from ddpm.images import to_model_range
from ddpm.rng import word
from ddpm.schedule import DiffusionConfig, NoiseSchedule
from ddpm.training import (
    Recipe,
    TrainConfig,
    Trainer,
    TrainState,
    batch_indices,
    draw_timesteps,
    ema_decay_at,
    learning_rate_at,
)
from ddpm.unet import UNet, UNetConfig

CPU = torch.device("cpu")
SCHEDULE = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02))
NETWORK = {"channels": 32, "multipliers": [1, 2], "attention": [], "blocks": 1, "dropout": 0.1, "patch": 1}
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 1, 1, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)


def start(total_steps: int, target: str = "eps", **config: object) -> tuple[Trainer, TrainState]:
    recipe = Recipe(
        target=target,
        timesteps="uniform",
        batch_images=4,
        learning_rate=2e-3,
        warmup_steps=5,
        adam_beta2=0.99,
        ema_decay=0.9,
    )
    shared = TrainConfig(**{"flip": True, "clip_norm": 1.0, "precision": "float32", **config})
    trainer = Trainer(IMAGES, SCHEDULE, recipe, shared, seed=0, total_steps=total_steps, device=CPU)
    torch.manual_seed(word(0, "weights"))
    return trainer, TrainState(UNet(parse(UNetConfig, NETWORK, "network"), 8), recipe, CPU)


def run(trainer: Trainer, state: TrainState, steps: int | None = None) -> None:
    for _ in trainer.fit(state):
        if state.step == steps:
            return


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_an_epoch_sees_every_image_once() -> None:
    seen = np.concatenate([batch_indices(7, step, 24, 4) for step in range(12)])
    assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24))
    assert list(seen[:24]) != list(seen[24:])


def test_a_continued_run_is_the_uninterrupted_run() -> None:
    """Also with dropout and flips, through the file format, and in a process that drew other random numbers."""
    trainer, whole = start(12)
    run(trainer, whole)
    trainer, first = start(12)
    run(trainer, first, steps=5)
    torch.save(first.state_dict(), file := io.BytesIO())
    torch.randn(100)
    trainer, second = start(12)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    run(trainer, second)
    whole.read_losses()
    second.read_losses()
    assert second.losses == whole.losses
    assert equal(second.ema.state_dict(), whole.ema.state_dict())
    assert equal(second.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_it_learns(target: str) -> None:
    """The error on images of one colour each, at one noise level, falls well below an untrained network's."""
    trainer, state = start(200, target)
    x0, t = to_model_range(IMAGES), torch.full((len(IMAGES),), 300)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))

    def error() -> float:
        with torch.no_grad():
            output = state.model.eval()(q_sample(SCHEDULE, x0, t, eps), t)
        state.model.train()
        return float(simple_loss(output, training_target(target, SCHEDULE, x0, t, eps)).mean())

    before = error()
    run(trainer, state)
    assert error() < 0.7 * before


def test_the_average_follows_the_weights() -> None:
    trainer, state = start(3)
    before = [parameter.clone() for parameter in state.ema.parameters()]
    trainer.train_step(state)
    decay = ema_decay_at(0, 0.9)
    assert decay == pytest.approx(0.1)
    pairs = zip(before, state.model.parameters(), state.ema.parameters(), strict=True)
    assert not any(parameter.requires_grad for parameter in state.ema.parameters())
    assert all(torch.allclose(decay * old + (1 - decay) * new, average, atol=1e-7) for old, new, average in pairs)
    assert ema_decay_at(10**6, 0.9999) == 0.9999


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [learning_rate_at(step, 100, 1e-3, 10) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[55] == pytest.approx(5e-4)
    assert rates[100] == pytest.approx(0)


@pytest.mark.parametrize(("law", "share"), [("uniform", 0.5), ("log_normal", 0.795)])
def test_timesteps_follow_their_law(law: str, share: float) -> None:
    """The share below T / 2, where noise is 3.44 times the signal; P(1.5 z < ln 3.44) = 0.795 for normal z."""
    t = draw_timesteps(law, SCHEDULE, 40_000, np.random.default_rng(0))
    assert 0 <= int(t.min()) < int(t.max()) <= 999
    assert float((t < 500).float().mean()) == pytest.approx(share, abs=0.01)
