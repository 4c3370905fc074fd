"""Training a GAN: the steps, the averages, a run continued, and a run from which nothing will come."""

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.config import ConfigError, parse
from ddpm.gan.networks import Critic, GanConfig, Generator
from ddpm.gan.pairing import critic_loss, generator_loss
from ddpm.gan.trainer import GanRecipe, GanState, GanTrainer, PairBatches, Signs, require_a_game
from ddpm.training.diverged import DivergedError
from ddpm.training.recipe import TrainConfig

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
NETWORK = {"latent_channels": 8, "channels": [8, 6], "blocks": 1, "conditional": False}
RECIPE = {
    "batch_images": 4, "learning_rate": 2e-3, "last_learning_rate": 5e-4, "gamma": 2.0, "last_gamma": 0.2,
    "burn_in": 0.5, "adam_beta2": 0.99, "ema_decays": [0.9, 0.5],
}  # fmt: skip


def start(
    epochs: int, micro_batch_images: int | None = None, labels: np.ndarray | None = None, **recipe: object
) -> tuple[GanTrainer, GanState]:
    learnt = parse(GanRecipe, {**RECIPE, **recipe}, "recipe")
    config = {"flip": True, "clip_norm": 1.0, "micro_batch_images": micro_batch_images, "precision": "float32"}
    shape = parse(GanConfig, {**NETWORK, "conditional": labels is not None}, "network")
    batches = PairBatches(IMAGES, labels, 8, learnt, flip=True, seed=0, device=CPU)
    torch.manual_seed(0)
    state = GanState(Generator(shape, 8, 3), Critic(shape, 8, 3), learnt, CPU)
    return GanTrainer(batches, learnt, parse(TrainConfig, config, "train"), epochs=epochs), state


def run(trainer: GanTrainer, state: GanState, steps: int | None = None) -> None:
    for _ in trainer.fit(state):
        if state.step == steps:
            break
    state.read_losses()


def weights(state: GanState) -> list[Tensor]:
    return [p.detach().clone() for each in [*state.networks, *state.averages] for p in each.parameters()]


def equal(a: GanState, b: GanState) -> bool:
    return a.signs == b.signs and all(map(torch.equal, weights(a), weights(b)))


def test_a_continued_run_is_the_uninterrupted_run() -> None:
    trainer, straight = start(3)
    run(trainer, straight)
    assert straight.step == 18
    _, stopped = start(3)
    run(trainer, stopped, steps=7)
    torch.save(stopped.state_dict(), file := io.BytesIO())
    _, continued = start(3)
    file.seek(0)
    continued.load_state_dict(torch.load(file, weights_only=True))
    assert continued.step == 7
    run(trainer, continued)
    assert equal(straight, continued)
    assert not equal(straight, stopped)


def test_micro_batches_change_only_the_rounding() -> None:
    labels = np.arange(24) % 3
    states = []
    for size in (None, 1, 3):
        trainer, state = start(1, size, labels)
        run(trainer, state, steps=2)
        states.append(state)
    for other in states[1:]:
        assert all(map(lambda a, b: torch.allclose(a, b, atol=1e-3), weights(states[0]), weights(other)))
        assert np.allclose(states[0].signs, other.signs, rtol=1e-3, atol=1e-4)


def test_averages_of_the_generator_weigh_every_step_by_its_age() -> None:
    trainer, state = start(2)
    history: list[list[Tensor]] = []
    for _ in trainer.fit(state):
        history.append([parameter.detach().double().clone() for parameter in state.generator.parameters()])
    ages = torch.arange(len(history), dtype=torch.float64).flip(0)
    for average, decay in zip(state.averages, trainer.recipe.ema_decays, strict=True):
        share = decay**ages / (decay**ages).sum()
        for *past, mean in zip(*history, average.parameters(), strict=True):
            assert torch.allclose(torch.tensordot(share, torch.stack(past), 1).float(), mean, atol=1e-6)


def test_each_network_takes_a_step_of_its_own_loss() -> None:
    """Adam's first step is the sign of the gradient, here of the losses as they are defined, with the penalties."""
    trainer, state = start(1)
    generator, critic = copy.deepcopy(state.generator), copy.deepcopy(state.critic)
    gamma, places = RECIPE["gamma"], range(4)
    pairs = trainer.batches.micro_batch(0, places, "critic")
    x = torch.stack([pairs.real, generator(pairs.z).detach()]).requires_grad_()
    scores = critic(x[0]), critic(x[1])
    norms = torch.autograd.grad(scores[0].sum() + scores[1].sum(), x, create_graph=True)[0].square().sum((2, 3, 4))
    (critic_loss(*scores) + gamma / 2 * norms.sum(0)).mean().backward()
    rate = RECIPE["learning_rate"]
    steps = [(p, p.detach() - rate * p.grad.sign(), p.grad.abs() > 1e-4) for p in critic.parameters()]
    run(trainer, state, steps=1)
    for (_, expected, clear), found in zip(steps, state.critic.parameters(), strict=True):
        assert torch.allclose(found[clear], expected[clear], atol=1e-5)
    pairs = trainer.batches.micro_batch(0, places, "generator")
    generator_loss(state.critic(pairs.real), state.critic(generator(pairs.z))).mean().backward()
    for p, found in zip(generator.parameters(), state.generator.parameters(), strict=True):
        clear = p.grad.abs() > 1e-4
        assert torch.allclose(found[clear], (p - rate * p.grad.sign())[clear], atol=1e-5)
    assert state.signs[0].steep_fake == pytest.approx(float(norms[1].detach().mean()), rel=1e-4)


def test_rates_and_penalties_fall_by_half_a_cosine_and_stay() -> None:
    recipe = parse(GanRecipe, RECIPE, "recipe")
    assert recipe.at(0, 100) == (2e-3, 2.0)
    assert recipe.at(25, 100) == pytest.approx((1.25e-3, 1.1))
    assert recipe.at(50, 100) == recipe.at(99, 100) == (5e-4, 0.2)


def test_pairs_are_those_of_their_step_and_place() -> None:
    """Whichever process makes them; the generator's noise is not the critic's, and neither are its real images."""
    labels = np.arange(24) % 3
    batches = start(1, labels=labels)[0].batches
    whole, part = (batches.micro_batch(5, places, "critic") for places in (range(4), range(2, 4)))
    assert all(torch.equal(one[2:], other) for one, other in zip(whole, part, strict=True))
    turn = batches.micro_batch(5, range(4), "generator")
    assert not torch.isclose(turn.z, whole.z).any()
    assert whole.label.tolist() == labels[batches.indices(5)].tolist()
    assert turn.label.tolist() == labels[batches.indices(6)].tolist()


def signs(count: int, **values: Any) -> list[Signs]:
    usual = {"critic_loss": 0.6, "generator_loss": 0.8, "margin": 0.1, "wins": 0.6, "steep_real": 1.0,
             "steep_fake": 1.0, "out_of_range": 0.0}  # fmt: skip
    return [Signs(**{**usual, **values})] * count


def test_a_run_from_which_nothing_will_come_says_why() -> None:
    usual = signs(300)
    require_a_game([*usual, *signs(50, steep_fake=900.0)], 50)
    require_a_game([*usual, *signs(200, critic_loss=0.02)], 50)
    with pytest.raises(DivergedError, match=r"diverges: its squared gradient is 1100 at step 300, and usually 1$"):
        require_a_game([*usual, *signs(50, steep_fake=1100.0)], 50)
    with pytest.raises(DivergedError, match=r"the critic wins: its loss up to step 499 is 0\.005"):
        require_a_game([*usual, *signs(200, critic_loss=0.005)], 50)


def test_values_that_are_not_finite_end_the_run() -> None:
    trainer, state = start(50, learning_rate=1e30, last_learning_rate=1e30)
    with pytest.raises(DivergedError, match="gives values that are not finite") as error:
        run(trainer, state, steps=60)
    assert error.value.step < 60
    _, state = start(1)
    next(state.critic.parameters()).data.fill_(math.nan)
    with pytest.raises(DivergedError, match="weights that are not finite"):
        state.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"burn_in": 1.5}, "burn_in = 1.5"), ({"gamma": -1.0}, "gamma = -1"), ({"ema_decays": [0.9, 0.9]}, "each once")],
)
def test_an_impossible_recipe_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(GanRecipe, {**RECIPE, **change}, "models.gan.recipe")
