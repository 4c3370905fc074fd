"""The loss of a consistency function by its fixed points: linear models of Gaussian data, and a teacher's DDIM."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from ddpm.config import ConfigError, parse
from ddpm.diffusion.blocks import ResnetBlock
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.sampling.predictor import PredictorConfig, make_predictor
from ddpm.sampling.samplers import SamplerConfig, SamplerName, run_sampler
from ddpm.sampling.timesteps import spaced_timesteps
from ddpm.training.batches import Batch
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.tuning.tuner import StopBatches, TuneConfig, Tuner

CPU = torch.device("cpu")
SCHEDULE = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02))
S = 0.5
"""Standard deviation of the Gaussian data."""
TUNE = {
    "objective": "tuning", "evaluations": 2, "epochs": 2, "points": 8, "teacher_steps": 1, "batch_images": None,
    "learning_rate": 1e-3,
    "matching_epochs": 1, "matching_learning_rate": 1e-4, "fake_score_steps": 2, "fake_score_learning_rate": 1e-3,
    "critic_weight": 0.0,
    "target_decay": 0.0, "ema_decay": 0.9, "seed": 0,
}  # fmt: skip
NETWORK = {
    "channels": 8, "multipliers": [1, 2], "attention": [], "blocks": 1, "dropout": 0.5, "patch": 1,
    "groups": 2, "conditional": False, "initial": "xavier",
}  # fmt: skip
RECIPE = {
    "target": "x0", "weighting": "min_snr", "weighting_limits": [0.0, 5.0], "timesteps": "uniform",
    "timesteps_mean": 0.0, "timesteps_std": 1.5, "loss": "mean", "batch_images": 4,
    "drop_last": True, "optimizer": "adamw", "learning_rate": 2e-3, "rate_schedule": "report", "warmup_steps": 5000,
    "weight_decay": 0.0, "adam_beta2": 0.99, "ema_decays": [0.5], "label_dropout": 0.25,
}  # fmt: skip
COLOURS = np.random.default_rng(0).integers(0, 256, (24, 1, 1, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)


def tuner(times: list[int] | None = None, *, clip: bool = True, **changes: Any) -> Tuner:
    """Of an untrained network."""
    tune = parse(TuneConfig, {**TUNE, **changes}, "tune")
    recipe = tune.recipe(parse(Recipe, RECIPE, "recipe"), len(COLOURS))
    times = times or spaced_timesteps(SCHEDULE, tune.points * tune.steps_between, "logsnr_trailing")
    batches = StopBatches(
        times[:: tune.steps_between], COLOURS, None, 0, SCHEDULE, recipe, flip=False, seed=0, device=CPU
    )
    shared = {"flip": False, "clip_norm": 1.0, "micro_batch_images": None, "precision": "float32"}
    torch.manual_seed(0)
    network = UNet(parse(UNetConfig, NETWORK, "network"), COLOURS.shape[1])
    return Tuner(tune, times, network, batches, SCHEDULE, parse(TrainConfig, shared, "train"), clip=clip)


class Linear(nn.Module):
    """f(x, t) = a_t x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(SCHEDULE.steps))
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        self.asked.append((xt, t))
        return self.a[t].view(-1, 1, 1, 1) * xt


def state_of(network: nn.Module) -> Any:
    return SimpleNamespace(network=network, model=network, averages=[network])


def gaussian_batch(stops: list[int]) -> Batch:
    """For each stop the same image and noise, with the moments of the law itself: no chance is left."""
    x0, eps = torch.linalg.qr(torch.randn(768, 2, generator=torch.Generator().manual_seed(0)))[0].T * 768**0.5
    alike = [values.view(1, 3, 16, 16).expand(len(stops), -1, -1, -1) for values in (S * x0, eps)]
    return Batch(alike[0], torch.tensor(stops), alike[1], None)


@pytest.mark.parametrize("target_decay", [0.0, 0.9])
@pytest.mark.parametrize(("points", "std"), [(4, 0.2332), (8, 0.3543), (16, 0.4256)])
def test_few_points_lose_the_contrast_that_theory_says(points: int, std: float, target_decay: float) -> None:
    """A linear model trained on Gaussian data; the numbers are the product in `consistency` along the points."""
    stops = spaced_timesteps(SCHEDULE, points, "logsnr")
    trainer, linear, batch = tuner(stops, target_decay=target_decay), Linear(), gaussian_batch(stops)
    for index in reversed(range(points)):  # each on top of the ones below
        alone = Batch(batch.x0[:1], batch.t[index : index + 1], batch.eps[:1], None)

        def loss(slope: float, alone: Batch = alone) -> float:
            linear.a.data[alone.t] = slope
            return trainer.losses(state_of(linear), alone).item()

        linear.a.data[alone.t] = minimize_scalar(loss, bounds=(0, 2), method="bounded", options={"xatol": 1e-6}).x
    last = SCHEDULE.at(SCHEDULE.steps - 1)
    assert linear.a[-1].item() * (last * S**2 + 1 - last) ** 0.5 == pytest.approx(std, abs=1e-3)


def ddim_from(teacher: Tuner, stops: list[int]) -> Any:
    """(x_t, t) to what the teacher's DDIM makes of it at the stops from t on."""
    predict = make_predictor(teacher.estimates(teacher.teacher), PredictorConfig(clip=teacher.clip))
    config = SamplerConfig(sampler="ddim", steps=len(stops), spacing="logsnr_trailing")

    def from_each(xt: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return torch.cat(
            [
                run_sampler(config, predict, SCHEDULE, x, x.clone, start=int(s))
                for x, s in zip(xt.split(1), t, strict=True)
            ]
        )

    return from_each


@pytest.mark.parametrize("clip", [False, True])
def test_the_teachers_ddim_is_the_fixed_point_of_distillation(clip: bool) -> None:
    """Image for image, in as many steps as there are stops; in more it is another image."""
    stops = spaced_timesteps(SCHEDULE, 8, "logsnr_trailing")
    trainer = tuner(stops, objective="distillation", clip=clip)
    trainer.teacher = lambda xt, t, label: 1.5 * torch.sin(3 * xt) + t.view(-1, 1, 1, 1) / 2000
    batch = gaussian_batch(stops)
    assert trainer.losses(state_of(ddim_from(trainer, stops)), batch).max() < 1e-5
    finer = ddim_from(trainer, spaced_timesteps(SCHEDULE, 16, "logsnr_trailing"))
    assert trainer.losses(state_of(finer), batch).mean() > 0.1


def test_several_steps_of_the_teacher_are_a_solver_begun_anew_at_each_stop() -> None:
    """DPM-Solver++(2M), of which DDIM's first step is a part; what it draws is again the fixed point."""
    trainer = tuner(objective="distillation", points=2, teacher_steps=4)
    trainer.teacher = lambda xt, t, label: 1.5 * torch.sin(3 * xt) + t.view(-1, 1, 1, 1) / 2000
    times = spaced_timesteps(SCHEDULE, 8, "logsnr_trailing")
    middle, predict = times[4], make_predictor(trainer.estimates(trainer.teacher), PredictorConfig())

    def drawn(sampler: SamplerName, anew: bool = True) -> Any:
        config = SamplerConfig(sampler=sampler, steps=8, spacing="logsnr_trailing")

        def from_each(xt: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
            passed: dict[int, Tensor] = {}
            x0 = []
            for x, start in zip(xt.split(1), t.tolist(), strict=True):
                passed[middle] = x
                whole = run_sampler(
                    config, predict, SCHEDULE, x, x.clone, lambda t, x, _: passed.update({t: x}), start=start
                )
                again = run_sampler(config, predict, SCHEDULE, passed[middle], x.clone, start=middle)
                x0.append(again if anew else whole)
            return torch.cat(x0)

        return from_each

    batch = gaussian_batch([times[0], middle])
    assert trainer.losses(state_of(drawn("dpmpp_2m")), batch).max() < 1e-5
    for other in (drawn("dpmpp_2m", anew=False), drawn("ddim")):
        assert trainer.losses(state_of(other), batch).max() > 0.01


def test_both_times_have_the_same_noise_and_the_last_target_is_the_image() -> None:
    trainer, linear = tuner(), Linear()
    stops = spaced_timesteps(SCHEDULE, 8, "logsnr_trailing")
    batch = gaussian_batch(stops)
    losses = trainer.losses(state_of(linear), batch)
    (xs, s), (xt, t) = linear.asked
    assert t.tolist() == stops
    assert s.tolist()[:-1] == stops[1:]
    for x, at in ((xs[:-1], s[:-1]), (xt, t)):
        signal, noise = SCHEDULE.signal_noise(at)
        assert torch.allclose(x, signal * batch.x0[: len(x)] + noise * batch.eps[: len(x)], atol=1e-5)
    # f = 0 is right everywhere but at the last stop, where it is as far from the image as that is from 0.
    assert losses[:-1].max() == 0
    sigma = (1 / SCHEDULE.at(stops[-1]) - 1) ** 0.5
    assert float(losses[-1]) == pytest.approx(S / sigma, rel=2e-3)


def test_no_gradient_reaches_the_target() -> None:
    trainer, linear = tuner(), Linear()
    linear.a.data.fill_(0.5)
    stops = spaced_timesteps(SCHEDULE, 8, "logsnr_trailing")
    batch = gaussian_batch(stops)
    trainer.losses(state_of(linear), Batch(batch.x0[:1], batch.t[:1], batch.eps[:1], None)).sum().backward()
    assert linear.a.grad.nonzero().flatten().tolist() == [999]


def test_the_target_comes_from_the_average_where_there_is_one() -> None:
    """And in distillation the path from the teacher."""
    trainer = tuner(objective="distillation", target_decay=0.5)
    live, average, teacher = Linear(), Linear(), Linear()
    trainer.teacher = teacher
    stops = spaced_timesteps(SCHEDULE, 8, "logsnr_trailing")
    trainer.losses(SimpleNamespace(network=live, model=None, averages=[average]), gaussian_batch(stops))
    assert [len(network.asked) for network in (live, average, teacher)] == [1, 1, 1]
    assert torch.equal(teacher.asked[0][0], live.asked[0][0])
    assert average.asked[0][1].tolist() == [*stops[1:], 0]


def test_both_times_have_the_same_dropout() -> None:
    trainer = tuner()
    network = trainer.teacher.train()
    dropped: list[Tensor] = []
    block = next(module for module in network.modules() if isinstance(module, ResnetBlock))
    block.conv2.register_forward_pre_hook(lambda _, inputs: dropped.append(inputs[0] == 0))
    torch.manual_seed(7)  # as a step of the trainer begins
    trainer.losses(state_of(network), trainer.batches.micro_batch(0, range(4)))
    assert torch.equal(*dropped)
    assert 0.4 < dropped[0].float().mean() < 0.6


def test_stops_are_drawn_equally_often_and_nothing_else_is() -> None:
    trainer = tuner()
    drawn = torch.cat([trainer.batches.micro_batch(step, range(4)).t for step in range(200)])
    stops, counts = drawn.unique(return_counts=True)
    assert stops.flip(0).tolist() == spaced_timesteps(SCHEDULE, 8, "logsnr_trailing")
    assert 70 < counts.min() <= counts.max() < 130


def test_the_rest_of_the_recipe_is_that_of_the_training() -> None:
    trained = parse(Recipe, {**RECIPE, "optimizer": "muon"}, "recipe")
    recipe = parse(TuneConfig, {**TUNE, "epochs": 50, "target_decay": 0.5}, "tune").recipe(trained, 24)
    assert (recipe.optimizer, recipe.batch_images, recipe.label_dropout) == ("muon", 4, 0.25)
    assert (recipe.loss, recipe.rate_schedule, recipe.drop_last) == ("mean", "cosine", False)
    assert (recipe.learning_rate, recipe.warmup_steps, recipe.ema_decays) == (1e-3, 30, (0.5, 0.9))
    assert parse(TuneConfig, {**TUNE, "batch_images": 2}, "tune").recipe(trained, 24).batch_images == 2


def test_odd_points_have_no_middle() -> None:
    with pytest.raises(ConfigError, match="points = 9: must be a multiple of evaluations = 2"):
        parse(TuneConfig, {**TUNE, "points": 9}, "tune")


@pytest.mark.parametrize(("steps", "expected"), [(4, [999, 700, 300, 9]), (2, [999, 300]), (1, [999])])
def test_tuned_weights_are_asked_at_times_that_they_know(steps: int, expected: list[int]) -> None:
    """Those aren't always where so many steps would stop by themselves."""
    asked: list[int] = []
    config = SamplerConfig(sampler="consistency", steps=steps, spacing="logsnr_trailing")
    x, stops = torch.zeros(1, 3, 8, 8), [999, 700, 300, 9]
    run_sampler(config, lambda xt, t: xt, SCHEDULE, x, x.clone, lambda t, xt, x0: asked.append(t), stops=stops)
    assert asked == expected
