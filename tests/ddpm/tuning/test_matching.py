"""Distribution matching by Gaussian data, whose scores are linear, and by what its steps do to which weights."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpm.config import parse
from ddpm.diffusion.process import q_sample
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.sampling.timesteps import spaced_timesteps
from ddpm.training.diverged import DivergedError
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.tuning.matching import Draw, Matcher, MatchState
from ddpm.tuning.tuner import StopBatches, TuneConfig, Tuner

CPU = torch.device("cpu")
SCHEDULE = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02))
S = 0.5
"""Standard deviation of the Gaussian data."""
TUNE = {
    "objective": "matching", "evaluations": 2, "epochs": 1, "points": 4, "teacher_steps": 1, "matching_epochs": 30,
    "batch_images": 8, "learning_rate": 1e-9, "matching_learning_rate": 1e-2, "fake_score_steps": 4,
    "fake_score_learning_rate": 0.02, "critic_weight": 0.0, "target_decay": 0.9, "ema_decay": 0.9, "seed": 0,
}  # fmt: skip
RECIPE = {
    "target": "x0", "weighting": "simple", "weighting_limits": [0.0, 5.0], "timesteps": "uniform",
    "timesteps_mean": 0.0, "timesteps_std": 1.5, "loss": "mean", "batch_images": 8,
    "drop_last": False, "optimizer": "adamw", "learning_rate": 2e-3, "rate_schedule": "constant", "warmup_steps": 5,
    "weight_decay": 0.0, "adam_beta2": 0.9, "ema_decays": [0.5], "label_dropout": 0.25,
}  # fmt: skip
IMAGES = np.zeros((80, 8, 8, 3), np.uint8)
TIMES = spaced_timesteps(SCHEDULE, 4, "logsnr_trailing")
FIRST, MIDDLE = TIMES[0], TIMES[2]


class Linear(nn.Module):
    """f(x, t) = a_t x: for data of standard deviation `std` the best estimate of x_0."""

    def __init__(self, std: float):
        super().__init__()
        signal, noise = (part.flatten() for part in SCHEDULE.signal_noise(torch.arange(SCHEDULE.steps)))
        self.a = nn.Parameter(signal * std**2 / (signal**2 * std**2 + noise**2))

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.a[t].view(-1, 1, 1, 1) * xt


def matcher(**changes: Any) -> Matcher:
    """Its teacher knows Gaussian data."""
    tune, trained = parse(TuneConfig, {**TUNE, **changes}, "tune"), parse(Recipe, RECIPE, "recipe")

    def batches(times: list[int], recipe: Recipe) -> StopBatches:
        return StopBatches(times, IMAGES, None, 0, SCHEDULE, recipe, flip=False, seed=0, device=CPU)

    shared = {"flip": False, "clip_norm": 1.0, "micro_batch_images": None, "precision": "float32"}
    config = parse(TrainConfig, shared, "train")
    recipe = tune.recipe(trained, len(IMAGES))
    teacher: Any = Linear(S)
    tuner = Tuner(tune, TIMES, teacher, batches(TIMES, recipe), SCHEDULE, config, clip=False)
    renoising = batches(spaced_timesteps(SCHEDULE, 64, "logsnr_trailing"), tune.fake_score_recipe(trained, len(IMAGES)))
    return Matcher(tuner, renoising, tune.matching_recipe(trained, len(IMAGES)))


def state_of(trainer: Matcher, network: nn.Module) -> MatchState:
    return MatchState(network, trainer.recipe, CPU, fake_recipe=trainer.fake_trainer.recipe, critic=False)


def drawing(std: float) -> Linear:
    """Weights that draw Gaussian images of that standard deviation, in one evaluation as in two."""
    network = Linear(S)
    for stop, before in ((FIRST, 1.0), (MIDDLE, std)):
        signal, noise = (float(part) for part in SCHEDULE.signal_noise(torch.tensor([stop])))
        network.a.data[stop] = std / ((signal * before) ** 2 + noise**2) ** 0.5
    return network


def drawn_std(trainer: Matcher, state: MatchState) -> float:
    """Of images that are drawn in all evaluations."""
    draws = [trainer.batches.micro_batch(step, range(8)) for step in range(10_000, 10_100)]
    return float(torch.cat([trainer.drawn(state, draw) for draw in draws]).std())


@pytest.mark.parametrize(("evaluations", "std"), [(1, 0.3), (2, 0.3), (2, 0.8)])
def test_matched_weights_draw_as_much_contrast_as_there_is(evaluations: int, std: float) -> None:
    """Whatever they drew before; the fake score, a linear model too, learns on the way what they draw."""
    trainer = matcher(evaluations=evaluations)
    state = state_of(trainer, drawing(std))
    assert drawn_std(trainer, state) == pytest.approx(std, rel=0.02)
    for _ in trainer.fit(state):
        pass
    assert drawn_std(trainer, state) == pytest.approx(S, rel=0.04)
    matched = MIDDLE if evaluations == 2 else FIRST
    change = (state.model.a - drawing(std).a).detach().abs()
    assert change[matched] > 0.05
    change[TIMES] = 0
    assert change.max() == 0


def test_the_gradient_is_the_difference_of_the_estimates_and_the_loss_their_distance() -> None:
    trainer = matcher()
    state = state_of(trainer, drawing(0.3))
    state.fake.model.load_state_dict(Linear(0.3).state_dict())
    draw = trainer.batches.micro_batch(0, range(8))
    x0 = trainer.drawn(state, draw).detach().requires_grad_()
    trainer.drawn = lambda state, draw: x0  # type: ignore[method-assign]
    losses = trainer.losses(state, draw)
    (gradient,) = torch.autograd.grad(losses.sum(), x0)
    xt = q_sample(SCHEDULE, x0.detach(), draw.t, draw.eps)
    real, fake = Linear(S)(xt, draw.t).detach(), Linear(0.3)(xt, draw.t).detach()
    for index in range(8):
        away = (fake - real)[index]
        expected = away / (x0 - real)[index].abs().mean() / away.numel()
        assert torch.allclose(gradient[index], expected, rtol=1e-4, atol=1e-9)
        assert losses[index].item() == pytest.approx(away.square().mean().sqrt().item(), abs=1e-3)


def test_an_evaluation_learns_from_what_those_before_it_draw() -> None:
    trainer = matcher(evaluations=4)
    network = drawing(0.3)
    asked: list[tuple[Tensor, Tensor]] = []
    network.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[:2]))
    draw = trainer.batches.micro_batch(0, range(8))
    trainer.drawn(state_of(trainer, network), draw)
    assert [t.tolist() for _, t in asked] == [[stop] * 8 for stop in TIMES]
    assert torch.equal(asked[0][0], draw.noise[:, 0])
    for index in range(3):
        (xt, t), (xs, s) = asked[index : index + 2]
        once = drawing(0.3)(xt, t).detach()
        assert torch.equal(xs, q_sample(SCHEDULE, once, s, draw.noise[:, index + 1]))


def test_draws_are_standard_normal_and_the_same_however_a_batch_is_split() -> None:
    batches = matcher().batches
    whole = batches.micro_batch(3, range(8))
    parts = [batches.micro_batch(3, places) for places in (range(3), range(3, 8))]
    for name, values in zip(Draw._fields, whole, strict=True):
        halves = [getattr(part, name) for part in parts]
        assert values is None if halves[0] is None else torch.equal(values, torch.cat(halves)), name
    draws = [batches.micro_batch(step, range(8)) for step in range(50)]
    noise = [torch.cat(each) for each in zip(*((*draw.noise.unbind(1), draw.eps) for draw in draws), strict=True)]
    for one in noise:
        assert float(one.std()) == pytest.approx(1, abs=0.02)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(float((noise[one] * noise[other]).mean())) < 0.02


def test_each_part_has_its_course_of_the_rate() -> None:
    trainer = matcher(learning_rate=0.5)
    assert trainer.total_steps == 10 + 300
    assert trainer.epochs == 31
    rates = [trainer.learning_rate(step) for step in range(trainer.total_steps)]
    assert max(rates[:10]) == pytest.approx(0.5)
    assert rates[9] < 0.05
    assert max(rates[10:]) == pytest.approx(1e-2)
    assert rates[10] < rates[15] > rates[-1]


def test_a_fake_score_that_diverges_is_named() -> None:
    state = state_of(matcher(), drawing(0.3))
    state.fake.unread.append(torch.tensor(math.nan))
    with pytest.raises(DivergedError, match=r"^fake score: the loss of step"):
        state.read_losses()


def test_a_fake_score_that_is_spoilt_is_named_at_a_step_of_the_run() -> None:
    """It counts five steps of its own to one of them."""
    trainer = matcher(epochs=1)
    state = state_of(trainer, Linear(S))
    state.step, state.fake.step = 3, 15
    state.fake.model.a.data[0] = math.nan
    with pytest.raises(DivergedError, match="fake score: ") as caught:
        state.state_dict()
    assert caught.value.step == 3


def test_the_fake_score_takes_its_steps_between() -> None:
    """Without dropout in either network: images are drawn outside of the steps that seed it."""
    trainer = matcher(fake_score_steps=3)
    state = state_of(trainer, drawing(0.3))
    for _ in zip(range(14), trainer.fit(state), strict=False):
        pass
    assert (state.step, state.fake.step) == (14, 4 * 3)
    assert not state.model.training
    assert not state.fake.model.training
    saved = copy.deepcopy(state.state_dict())
    other = state_of(trainer, drawing(0.8))
    other.load_state_dict(saved)
    assert torch.equal(other.fake.model.a, state.fake.model.a)
    assert len(other.fake.losses) == 12
