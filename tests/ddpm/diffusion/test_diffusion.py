"""Schedule, forward process, posterior and denoiser against diffusers and closed forms."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from ddpm.config import ConfigError, parse
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import posterior, q_sample, q_step, simple_loss
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.sampling.samplers import SamplerConfig, ancestral

LINEAR = {"steps": 1000, "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCHEDULE = NoiseSchedule(DiffusionConfig(**LINEAR))
ORACLE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
SHAPE = (2, 3, 4, 4)


def noises(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


def at(t: int) -> torch.Tensor:
    return torch.full((SHAPE[0],), t)


def test_linear_schedule_at_published_values() -> None:
    """alpha_bar_T = 4.04e-5 is Ho et al.'s."""
    assert SCHEDULE.beta[[0, -1]].tolist() == [1e-4, 0.02]
    assert SCHEDULE.at(999) == pytest.approx(4.0358e-5, rel=1e-4)
    assert SCHEDULE.at(-1) == 1


@given(st.integers(50, 4000), st.sampled_from(["linear", "cosine"]))
def test_every_length_of_schedule_ends_in_noise(steps: int, law: str) -> None:
    schedule = NoiseSchedule(DiffusionConfig(**{**LINEAR, "steps": steps, "schedule": law}))
    assert (schedule.alpha_bar.diff() < 0).all()
    assert schedule.at(steps - 1) < 1e-4


def test_the_cosine_schedule_is_diffusers() -> None:
    found = NoiseSchedule(DiffusionConfig(**{**LINEAR, "schedule": "cosine"}))
    oracle = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    assert torch.allclose(found.beta.float(), oracle.betas, rtol=1e-4)


@pytest.mark.parametrize("law", ["linear", "cosine"])
def test_means_of_a_larger_image_are_as_noisy_as_pixels(law: str) -> None:
    """The mean of 2 x 2 pixels keeps a signal that they share and has half the noise: the ratio of 24 px."""
    config = DiffusionConfig(**{**LINEAR, "schedule": law})
    small, large = NoiseSchedule(config), NoiseSchedule(config, log_snr_shift=2 * math.log(24 / 48))
    ratio = (large.alpha_bar / (1 - large.alpha_bar)).numpy() * 4
    assert ratio == pytest.approx((small.alpha_bar / (1 - small.alpha_bar)).numpy(), rel=1e-9)
    assert torch.allclose(torch.cumprod(1 - large.beta, 0), large.alpha_bar, rtol=1e-9)
    eps = torch.randn(400, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    noisy = q_sample(large, torch.ones_like(eps), torch.full((400,), 500), eps)
    means = torch.nn.functional.avg_pool2d(noisy, 2)
    assert float(means.mean() / means.std()) ** 2 == pytest.approx(
        float(small.alpha_bar[500] / (1 - small.alpha_bar[500])), rel=0.05
    )


def test_single_steps_add_up_to_the_closed_form() -> None:
    """Equation (1) applied t + 1 times has the mean and the variance of equation (2)."""
    mean, variance = torch.ones(SHAPE, dtype=torch.float64), 0.0
    zero = torch.zeros(SHAPE, dtype=torch.float64)
    for t in range(400):
        mean = q_step(SCHEDULE, mean, t, zero)
        variance = (1 - float(SCHEDULE.beta[t])) * variance + float(
            q_step(SCHEDULE, zero, t, zero + 1)[0, 0, 0, 0]
        ) ** 2
    assert torch.allclose(mean, torch.full_like(mean, SCHEDULE.at(399) ** 0.5))
    assert variance == pytest.approx(1 - SCHEDULE.at(399))


def test_q_sample_is_diffusers_at_every_t() -> None:
    """Equation (2)."""
    oracle = DDPMScheduler(**ORACLE)
    x0, eps = noises(2)
    for t in range(1000):
        assert torch.allclose(q_sample(SCHEDULE, x0, at(t), eps), oracle.add_noise(x0, eps, at(t)), atol=1e-5)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_step_is_diffusers_at_every_t(variance: str) -> None:
    """Equation (13), the mean from eps, and either variance."""
    oracle = DDPMScheduler(**ORACLE, variance_type=f"fixed_{variance}")
    xt, eps = (tensor.double() for tensor in noises(2))

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        return Denoiser(lambda *_: eps, SCHEDULE, "eps")(x, at(t))

    config = SamplerConfig(sampler="ancestral", steps=2, variance=variance)
    for t in range(1, 1000):
        seen: list[torch.Tensor] = []
        generator = torch.Generator().manual_seed(t)
        noise = partial(torch.randn, SHAPE, generator=generator, dtype=torch.float64)
        # Two evaluations, at t and at t - 1: what the second is given is the result of the step from t.
        ancestral(predict, xt, SCHEDULE, [t, t - 1], noise, config, lambda _, x, x0, seen=seen: seen.append(x))
        expected = oracle.step(eps, t, xt, generator=torch.Generator().manual_seed(t)).prev_sample
        assert torch.allclose(seen[1], expected, atol=2e-4, rtol=1e-4), t


def test_posterior_is_bayes_rule() -> None:
    """Equation (4): q(x_{t-1} | x_t, x_0) from the two Gaussians (5) and (6), multiplied."""
    x0, xt = (tensor.double() for tensor in noises(2))
    for t in (1, 10, 500, 999):
        beta, before = float(SCHEDULE.beta[t]), SCHEDULE.at(t - 1)
        precision = (1 - beta) / beta + 1 / (1 - before)
        expected = ((1 - beta) ** 0.5 / beta * xt + before**0.5 / (1 - before) * x0) / precision
        mean, variance = posterior(SCHEDULE, x0, xt, t, t - 1)
        assert torch.allclose(mean, expected)
        assert variance == pytest.approx(1 / precision)
    assert torch.allclose(posterior(SCHEDULE, x0, xt, 0, -1)[0], x0)


def test_bound_term_is_the_simple_loss_with_a_weight() -> None:
    """The KL of a step is a weight times |eps - eps_hat|^2, equation (14)."""
    x0, eps, guess = (tensor.double() for tensor in noises(3))
    for t in (1, 100, 999):
        beta, bar = float(SCHEDULE.beta[t]), SCHEDULE.at(t)
        xt = bar**0.5 * x0 + (1 - bar) ** 0.5 * eps
        x0_hat = (xt - (1 - bar) ** 0.5 * guess) / bar**0.5
        mean, variance = posterior(SCHEDULE, x0, xt, t, t - 1)
        from_eps = (xt - beta / (1 - bar) ** 0.5 * guess) / (1 - beta) ** 0.5  # equation (13)
        assert torch.allclose(posterior(SCHEDULE, x0_hat, xt, t, t - 1)[0], from_eps, atol=1e-6)
        kl = (mean - from_eps).square().mean(dim=(1, 2, 3)) / (2 * variance)
        weight = beta**2 / (2 * variance * (1 - beta) * (1 - bar))
        assert torch.allclose(kl, weight * simple_loss(guess, eps).double(), rtol=1e-5)


def perfect(target: str, x0: torch.Tensor, eps: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The network that knows x_0 and eps."""

    def network(xt: torch.Tensor, t: torch.Tensor, label: object) -> torch.Tensor:
        signal, noise = SCHEDULE.at(int(t[0])) ** 0.5, (1 - SCHEDULE.at(int(t[0]))) ** 0.5
        return {"eps": eps, "x0": x0, "v": signal * eps - noise * x0}[target]

    return network


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_a_perfect_network_gives_back_x0_and_eps(target: str) -> None:
    x0, eps = noises(2)
    for t in (0, 1, 500, 900):
        xt = q_sample(SCHEDULE, x0, at(t), eps)
        found = Denoiser(perfect(target, x0, eps), SCHEDULE, target)(xt, at(t))
        assert torch.allclose(found, x0, atol=1e-3)
        assert torch.allclose(SCHEDULE.noise_of(xt, x0, t), eps, atol=1e-3)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_network_computes_in_its_precision_and_the_rest_in_float32(precision: torch.dtype) -> None:
    convolution, seen = torch.nn.Conv2d(3, 3, 1), []

    def network(xt: torch.Tensor, t: torch.Tensor, label: object) -> torch.Tensor:
        seen.append(convolution(xt))
        return seen[-1]

    found = Denoiser(network, SCHEDULE, "x0", precision=precision)(noises(1)[0], at(3))
    assert (seen[0].dtype, found.dtype) == (precision, torch.float32)


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_every_target_is_weighed_for_the_error_of_x0(target: str) -> None:
    """By SNR and by SNR + 1, within limits; `simple` weighs each target's own error."""
    x0, eps, wrong = noises(3)
    for t in range(0, 1000, 37):
        xt = q_sample(SCHEDULE, x0, at(t), eps)
        network = perfect(target, x0, eps + 0.1 * wrong)
        error = simple_loss(Denoiser(network, SCHEDULE, target)(xt, at(t)), x0).double()
        snr = SCHEDULE.at(t) / (1 - SCHEDULE.at(t))
        for weighting, value in (("min_snr", snr), ("snr_plus_one", snr + 1)):
            losses = Denoiser(network, SCHEDULE, target, weighting, (0.1, 7.0)).losses(x0, at(t), eps).double()
            wanted = min(max(value, 0.1), 7) * error
            assert torch.allclose(losses, wanted, rtol=2e-2, atol=1e-9), (weighting, t)
        output = perfect(target, x0, eps)(xt, at(t), None)
        assert torch.allclose(
            Denoiser(network, SCHEDULE, target).losses(x0, at(t), eps), simple_loss(network(xt, at(t), None), output)
        )


def test_min_snr_is_the_papers_at_every_t() -> None:
    """Hang et al. section 3.4: min(SNR, gamma) for x_0, that over SNR for eps, over SNR + 1 for v."""
    t = torch.arange(1000)
    snr = SCHEDULE.alpha_bar / (1 - SCHEDULE.alpha_bar)
    for target, weight in (("x0", 1), ("eps", snr), ("v", snr + 1)):
        expected = (snr.clamp(max=5) / weight).float()
        denoiser = Denoiser(lambda *_: t, SCHEDULE, target, "min_snr")
        assert torch.allclose(denoiser.loss_weight(t), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, "no such parameter"),
        ({"steps": "many"}, "valid integer"),
        ({"steps": 10}, "must hold after scaling"),
        ({"schedule": "cubic"}, "'linear' or 'cosine'"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_key_and_value(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse(DiffusionConfig, {**LINEAR, **change}, "params.yaml: diffusion")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("params.yaml: diffusion")
