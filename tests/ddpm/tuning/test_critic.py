"""The critic of matching: what it learns from, and what it asks of the weights that draw."""

from typing import Any

import numpy as np
import pytest
import torch
from test_matching import CPU, IMAGES, RECIPE, SCHEDULE, TIMES, TUNE
from torch.nn.functional import softplus

from ddpm.config import parse
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import q_sample
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.tuning.critic import LOSS_RATIO, verdict
from ddpm.tuning.matching import Matcher, MatchState
from ddpm.tuning.tuner import StopBatches, TuneConfig, Tuner

NETWORK = {
    "channels": 8, "multipliers": [1, 2], "attention": [], "blocks": 1, "dropout": 0.0, "patch": 1, "groups": 2,
    "conditional": False, "initial": "zero",
}  # fmt: skip
WEIGHT = 0.5


@pytest.fixture
def started() -> tuple[Matcher, MatchState]:
    """Training images are black, and what is drawn is next to grey."""
    torch.manual_seed(0)
    network = UNet(parse(UNetConfig, NETWORK, "network"), 8)
    tune = parse(TuneConfig, {**TUNE, "critic_weight": WEIGHT}, "tune")
    trained = parse(Recipe, {**RECIPE, "learning_rate": 0.01}, "recipe")
    shared = {"flip": False, "clip_norm": 1.0, "micro_batch_images": None, "precision": "float32"}
    config = parse(TrainConfig, shared, "train")

    def batches(recipe: Recipe) -> StopBatches:
        return StopBatches(TIMES, np.zeros_like(IMAGES), None, 0, SCHEDULE, recipe, flip=False, seed=0, device=CPU)

    tuner = Tuner(tune, TIMES, network, batches(tune.recipe(trained, 80)), SCHEDULE, config, clip=True)
    fake_recipe = tune.fake_score_recipe(trained, 80)
    trainer = Matcher(tuner, batches(fake_recipe), tune.matching_recipe(trained, 80))
    return trainer, MatchState(network, trainer.recipe, CPU, fake_recipe=fake_recipe, critic=True)


def judged(state: MatchState, x0: torch.Tensor, draw: Any) -> torch.Tensor:
    """The critic's logits for these images, noised as `draw` says."""
    Denoiser(state.fake.model, SCHEDULE, "x0")(q_sample(SCHEDULE, x0, draw.t, draw.eps), draw.t)
    return verdict(state.fake.model)


def test_it_learns_to_tell_training_images_from_drawn_ones(started: tuple[Matcher, MatchState]) -> None:
    trainer, state = started
    for step in range(40):
        trainer.fake_trainer.train_step(state.fake, [trainer.image(state, trainer.batches.micro_batch(step, range(8)))])
    draw = trainer.batches.micro_batch(99, range(8))
    little = draw.t < TIMES[1]
    assert torch.equal(draw.real, -torch.ones(8, 3, 8, 8))
    assert (judged(state, draw.real, draw)[little] > 0).all()
    assert (judged(state, trainer.drawn(state, draw), draw)[little] < 0).all()


def test_its_loss_is_that_of_a_gan_beside_the_fake_score_s_own(started: tuple[Matcher, MatchState]) -> None:
    trainer, state = started
    draw = trainer.batches.micro_batch(0, range(8))
    found = trainer.fake_trainer.losses(state.fake, trainer.image(state, draw))
    drawn = trainer.drawn(state, draw).detach()
    own = Denoiser(state.fake.model, SCHEDULE, "x0").losses(drawn, draw.t, draw.eps)
    fake, real = judged(state, drawn, draw), judged(state, draw.real, draw)
    assert torch.allclose(found, own + LOSS_RATIO * WEIGHT * (softplus(fake) + softplus(-real)), rtol=1e-4)


def test_it_moves_what_is_drawn_and_learns_nothing_meanwhile(started: tuple[Matcher, MatchState]) -> None:
    trainer, state = started
    draw = trainer.batches.micro_batch(0, range(8))
    x0 = trainer.drawn(state, draw).detach().requires_grad_()
    trainer.drawn = lambda state, draw: x0  # type: ignore[method-assign]

    def gradient(weight: float) -> torch.Tensor:
        trainer.critic_weight = weight
        return torch.autograd.grad(trainer.losses(state, draw).sum(), x0)[0]

    (expected,) = torch.autograd.grad(softplus(-judged(state, x0, draw)).sum(), x0)
    assert expected.abs().max() > 0
    assert torch.allclose(gradient(WEIGHT) - gradient(0.0), WEIGHT * expected, rtol=1e-3, atol=1e-7)
    trainer.critic_weight = WEIGHT
    trainer.losses(state, draw).sum().backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in state.fake.parameters)
