"""Every sampler against diffusers, against the exact law of Gaussian data, and against the order it claims."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import get_args
from unittest.mock import patch

import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from support import REPOSITORY

from ddpm.config import ConfigError, parse
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.sampling.multistep import dpmpp_step
from ddpm.sampling.samplers import SAMPLERS, SamplerConfig, SamplerName, ancestral, ddim, dpmpp, run_sampler
from ddpm.sampling.timesteps import SPACINGS, spaced_timesteps

SCHEDULE = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02))
FINE = NoiseSchedule(DiffusionConfig(steps=100_000, schedule="linear", beta_start=1e-4, beta_end=0.02))
SHAPE = (2, 3, 4, 4)
M, S = 0.4, 0.3
"""Mean and standard deviation of the Gaussian data."""


def config(sampler: str, steps: int, **changes: object) -> SamplerConfig:
    return SamplerConfig(sampler=sampler, steps=steps, **changes)


def noises(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


def gaussian(x: torch.Tensor, t: int, schedule: NoiseSchedule = SCHEDULE) -> torch.Tensor:
    """The optimal predictor where x_0 is normal."""
    bar = schedule.at(t)
    return M + bar**0.5 * S**2 / (bar * S**2 + 1 - bar) * (x - bar**0.5 * M)


def eps_of(x: torch.Tensor, t: int) -> torch.Tensor:
    """A network, of sorts: the optimal one for Gaussian data, and something that is not linear."""
    return SCHEDULE.noise_of(x, gaussian(x, t), t) + 0.2 * (1 - SCHEDULE.at(t)) ** 0.5 * torch.sin(3 * x)


def fake(x: torch.Tensor, t: int) -> torch.Tensor:
    return Denoiser(lambda *_: eps_of(x, t), SCHEDULE, "eps")(x, torch.full((len(x),), t))


ORACLE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
MULTISTEP = {**ORACLE, "timestep_spacing": "trailing", "final_sigmas_type": "zero", "lower_order_final": True}
DIFFUSERS: dict[str, Callable] = {
    "dpmpp_2m": lambda: DPMSolverMultistepScheduler(**MULTISTEP, solver_order=2),
    "dpmpp_3m_compat": lambda: DPMSolverMultistepScheduler(**MULTISTEP, solver_order=3),
    "dpmpp_2m_sde": lambda: DPMSolverMultistepScheduler(**MULTISTEP, solver_order=2, algorithm_type="sde-dpmsolver++"),
    "unipc": lambda: UniPCMultistepScheduler(**MULTISTEP, solver_order=3),
    "heun": lambda: HeunDiscreteScheduler(**ORACLE, timestep_spacing="trailing"),
}


# Without the stochastic solver of order 3: a wrong sign in diffusers 0.42 leaves a term that no small step removes.
@pytest.mark.parametrize("name", DIFFUSERS)
def test_trajectory_is_diffusers(name: str) -> None:
    oracle, steps = DIFFUSERS[name](), 10  # of fewer than 15 diffusers takes the last two in lower orders, as we do
    oracle.set_timesteps(steps)
    start, other = noises(2)
    expected = start
    if name == "heun":  # which works on x / sqrt(alpha_bar)
        expected = start / SCHEDULE.at(999) ** 0.5
    for t in oracle.timesteps.tolist():
        xt = oracle.scale_model_input(expected, t)
        noise = {"variance_noise": other} if name.endswith("sde") else {}
        expected = oracle.step(eps_of(xt, int(t)), t, expected, **noise, return_dict=False)[0]
    found = run_sampler(config(name, steps), fake, SCHEDULE, start, lambda: other)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_trajectory_is_diffusers(eta: float) -> None:
    oracle = DDIMScheduler(**ORACLE, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")
    oracle.set_timesteps(50)
    assert spaced_timesteps(SCHEDULE, 50, "trailing") == oracle.timesteps.tolist()
    start, other = noises(2)
    expected = start
    for t in oracle.timesteps.tolist():
        expected = oracle.step(eps_of(expected, t), t, expected, eta=eta, variance_noise=other).prev_sample
    found = run_sampler(config("ddim", 50, eta=eta), fake, SCHEDULE, start, lambda: other)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_strides_are_diffusers(variance: str) -> None:
    """Either variance is that of the whole stride, not of one step.

    But for the last stride, in which diffusers adds noise to the image if the stride starts above t = 0. We return the
    estimate itself.
    """
    oracle = DDPMScheduler(**ORACLE, clip_sample=False, timestep_spacing="trailing", variance_type=f"fixed_{variance}")
    oracle.set_timesteps(50)
    start, _ = noises(2)
    generator, again = (torch.Generator().manual_seed(1) for _ in range(2))
    expected = start
    for t in oracle.timesteps.tolist()[:-1]:
        expected = oracle.step(eps_of(expected, t), t, expected, generator=generator).prev_sample
    how, seen = config("ancestral", 50, variance=variance), []
    noise = partial(torch.randn, SHAPE, generator=again)
    found = run_sampler(how, fake, SCHEDULE, start, noise, lambda t, xt, x0: seen.append((xt, x0)))
    assert torch.allclose(seen[-1][0], expected, atol=1e-4, rtol=1e-4)
    assert torch.allclose(found, seen[-1][1], atol=1e-5)


def consistent(x: torch.Tensor, t: int) -> torch.Tensor:
    """The exact consistency function where x_0 is normal: the flow from t to the image, in one evaluation."""
    bar = SCHEDULE.at(t)
    return M + S * (x - bar**0.5 * M) / (bar * S**2 + 1 - bar) ** 0.5


def law(how: SamplerConfig) -> tuple[float, float]:
    """Mean and standard deviation of what a sampler makes of Gaussian data, exactly.

    Each step is affine in x and in its noise, so is the whole: one image starts from 0 without noise, the next from 1,
    and of the others each has 1 as the noise of one step.
    """
    count = how.steps + 2
    draws = iter(range(2, count))
    start = torch.zeros(count, 1, 1, 1, dtype=torch.float64)
    start[1] = 1

    def noise() -> torch.Tensor:
        return torch.eye(count, dtype=torch.float64)[next(draws)].view(count, 1, 1, 1)

    estimate = consistent if how.sampler == "consistency" else gaussian
    drawn = run_sampler(how, estimate, SCHEDULE, start, noise).flatten()
    return float(drawn[0]), float((drawn[1:] - drawn[0]).norm())


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_thousand_steps_bring_noise_to_the_law_of_gaussian_data(name: str, eta: float) -> None:
    mean, std = law(config(name, 1000, eta=eta))
    assert mean == pytest.approx(M, abs=1e-3)
    assert std == pytest.approx(S, rel=2e-2)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("ancestral", "ddim")])
def test_twenty_steps_do_for_what_is_better_than_ddim(name: str) -> None:
    mean, std = law(config(name, 20, spacing="logsnr"))
    assert mean == pytest.approx(M, abs=1e-2)
    assert std == pytest.approx(S, rel=5e-2)
    assert law(config("ddim", 20, spacing="logsnr"))[1] < 0.9 * S


MODELS = YAML(typ="safe").load(REPOSITORY / "params.yaml")["models"]
OWN = {name: model["sampling"] for name, model in MODELS.items() if model["kind"] == "diffusion"}
VARIANCE = {"smoke": 0.378}
"""Of samples in units of the data's, where it isn't 1: ten steps of DDIM are enough to prove the pipeline."""


@pytest.mark.parametrize("name", OWN)
def test_every_models_own_sampler_keeps_the_law_of_gaussian_data(name: str) -> None:
    """With the sampler, steps, spacing and variance of params.yaml: the mean to 0.01, the variance to 10 %."""
    own = {key: OWN[name][key] for key in ("sampler", "steps", "spacing", "variance")}
    mean, std = law(SamplerConfig(**own))
    assert mean == pytest.approx(M, abs=0.01 if name not in VARIANCE else 0.05)
    assert (std / S) ** 2 == pytest.approx(VARIANCE.get(name, 1.0), rel=0.1)


@pytest.mark.parametrize(
    ("name", "order"),
    [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("dpmpp_3m", 3), ("dpmpp_3m_compat", 2), ("unipc", 3)],
)
def test_the_error_falls_with_the_order(name: str, order: float) -> None:
    """From 64 to 128 steps of equal log SNR, down to t = 0, where the flow of Gaussian data is known.

    T is 100,000, because strides of whole t are too unequal at 1,000 for an error of 1e-6.
    """
    start = torch.full((1, 1, 1, 1), 1.5, dtype=torch.float64)
    first, last = FINE.at(FINE.steps - 1), FINE.at(0)

    def exact(bar: float) -> float:
        scale = ((bar * S**2 + 1 - bar) / (first * S**2 + 1 - first)) ** 0.5
        return bar**0.5 * M + scale * (1.5 - first**0.5 * M)

    errors = []
    for steps in (64, 128):
        seen: list[torch.Tensor] = []
        timesteps = spaced_timesteps(FINE, steps, "logsnr")
        SAMPLERS[name](partial(gaussian, schedule=FINE), start, FINE, timesteps, lambda: start, config(name, steps),
                       lambda t, xt, x0, seen=seen: seen.append(xt))  # fmt: skip
        errors.append(abs(float(seen[-1]) - exact(last)))
    assert math.log2(errors[0] / errors[1]) > order - 0.1, errors
    if name.endswith("compat"):
        assert math.log2(errors[0] / errors[1]) < 2.5, errors


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_consistency_function_draws_the_law_itself_wherever_it_stops(steps: int, spacing: str) -> None:
    """But for what is left of the mean at T - 1."""
    how = config("consistency", steps, spacing=spacing)
    mean, std = law(how)
    assert mean == pytest.approx(M, abs=2e-3)
    assert std == pytest.approx(S, rel=1e-4)
    assert how.deterministic == (steps == 1)


def test_consistency_steps_are_diffusers() -> None:
    """Which work on x / sqrt(alpha_bar), and on a network whose skip gives back the image without noise."""
    stops, noise = [999, 462, 73], noises(3)
    sigmas = [(1 / SCHEDULE.at(t) - 1) ** 0.5 for t in stops]
    oracle = CMStochasticIterativeScheduler(sigma_min=0.0, sigma_max=sigmas[0], clip_denoised=False)
    oracle.set_timesteps(3)
    oracle.sigmas = torch.tensor([*sigmas, 0.0])
    drawn = iter(noise[1:])
    found = SAMPLERS["consistency"](fake, noise[0], SCHEDULE, stops, lambda: next(drawn), config("consistency", 3))
    expected = noise[0] / SCHEDULE.at(999) ** 0.5
    for index, (t, sigma) in enumerate(zip(stops, sigmas, strict=True)):
        skip, out = oracle.get_scalings_for_boundary_condition(sigma)
        estimate = fake(expected * SCHEDULE.at(t) ** 0.5, t)
        with patch(f"{type(oracle).__module__}.randn_tensor", lambda *_, i=index, **__: noise[min(i + 1, 2)]):
            expected = oracle.step((estimate - skip * expected) / out, oracle.timesteps[index], expected).prev_sample
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_fewer_stops_are_some_of_the_stops_of_a_multiple(schedule: str) -> None:
    table = NoiseSchedule(DiffusionConfig(steps=1000, schedule=schedule, beta_start=1e-4, beta_end=0.02))
    stops = spaced_timesteps(table, 24, "logsnr_trailing")
    for divisor in (1, 2, 3, 4, 6, 8, 12):
        assert spaced_timesteps(table, divisor, "logsnr_trailing") == stops[:: 24 // divisor]


@pytest.mark.parametrize("stochastic", [False, True])
def test_the_third_order_is_exact_where_the_estimate_is_a_parabola(stochastic: bool) -> None:
    """The flow, and the process with noise, from t to s: an integral over x0_hat, here by quadrature."""
    t, s, earlier = 400, 330, (480, 590)
    rate = 2 if stochastic else 1
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def parabola(lam: torch.Tensor) -> torch.Tensor:
        return 0.3 - 0.4 * lam + 0.5 * lam**2

    estimates = [(lam, parabola(lam * one)) for lam in map(SCHEDULE.half_log_snr, (t, *earlier))]
    mean, sigma = dpmpp_step(SCHEDULE, one, estimates, t, s, stochastic=stochastic)
    end, h = SCHEDULE.half_log_snr(s), SCHEDULE.half_log_snr(s) - SCHEDULE.half_log_snr(t)
    lam = torch.linspace(end - h, end, 20_001, dtype=torch.float64)
    integral = torch.trapezoid(rate * torch.exp(rate * (lam - end)) * parabola(lam), lam)
    kept = ((1 - SCHEDULE.at(s)) / (1 - SCHEDULE.at(t))) ** 0.5 * math.exp(-(rate - 1) * h)
    assert float(mean) == pytest.approx(kept + SCHEDULE.at(s) ** 0.5 * float(integral), rel=1e-7)
    assert sigma == pytest.approx(((1 - SCHEDULE.at(s)) * (1 - math.exp(-2 * (rate - 1) * h))) ** 0.5)


def test_ddim_and_the_first_order_solver_are_ancestral() -> None:
    start, other = noises(2)
    steps = spaced_timesteps(SCHEDULE, 30, "trailing")
    arguments = fake, start, SCHEDULE, steps, lambda: other
    expected = ancestral(*arguments, config("ancestral", 30))
    assert torch.allclose(ddim(*arguments, config("ddim", 30, eta=1.0)), expected, atol=1e-5)
    assert torch.allclose(dpmpp(*arguments, config("dpmpp_2m", 30), order=1, stochastic=True), expected, atol=1e-5)


@pytest.mark.parametrize("first", [450, 399])
def test_a_start_in_the_middle_goes_on_from_there(first: int) -> None:
    """Also from one of the sampler's own steps, which isn't taken twice."""
    seen: list[int] = []
    start = noises(1)[0]
    run_sampler(config("ddim", 10), fake, SCHEDULE, start, lambda: start, lambda t, xt, x0: seen.append(t), start=first)
    assert seen == [*([450] if first == 450 else []), 399, 299, 199, 99]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_network_is_asked_as_often_as_is_said(name: str) -> None:
    how, start, asked = config(name, 6), noises(1)[0], []

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        asked.append(t)
        return gaussian(x, t)

    run_sampler(how, predict, SCHEDULE, start, lambda: start)
    assert len(asked) == how.evaluations


@given(st.data(), st.integers(1, 1000), st.sampled_from(sorted(SPACINGS)))
def test_timesteps_fall_from_the_last(data: st.DataObject, total: int, spacing: str) -> None:
    schedule = NoiseSchedule(DiffusionConfig(steps=total, schedule="cosine", beta_start=0.0, beta_end=0.0))
    steps = data.draw(st.integers(1, total))
    found = spaced_timesteps(schedule, steps, spacing)
    assert len(found) == steps
    assert found[0] == total - 1
    assert all(a > b for a, b in itertools.pairwise(found))
    assert found[-1] >= 0


def test_strides_are_equal_in_what_they_say() -> None:
    assert spaced_timesteps(SCHEDULE, 5, "trailing") == [999, 799, 599, 399, 199]
    assert spaced_timesteps(SCHEDULE, 5, "leading") == [999, 600, 400, 200, 0]
    assert spaced_timesteps(SCHEDULE, 5, "linspace") == [999, 749, 500, 250, 0]
    lambdas = torch.tensor([SCHEDULE.half_log_snr(t) for t in spaced_timesteps(SCHEDULE, 8, "logsnr")])
    assert lambdas.diff().std() < 0.05 * lambdas.diff().mean()


def test_an_unknown_sampler_is_one_line_with_those_there_are() -> None:
    assert set(get_args(SamplerName)) == set(SAMPLERS)
    values = {"sampler": "euler", "steps": 5}
    with pytest.raises(ConfigError, match=r"sampler = \"euler\": .*'ancestral', 'ddim', .* or 'consistency'"):
        parse(SamplerConfig, values, "params.yaml: sample")
