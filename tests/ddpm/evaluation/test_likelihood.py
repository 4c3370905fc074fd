"""The bound against torch's own divergences, against Gaussian data whose entropy is known, and the decoder's levels."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ddpm.config import ConfigError
from ddpm.diffusion.process import posterior
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.evaluation.likelihood import VariationalBound, decoder_nats, measure, noise_levels
from ddpm.rng import normal, numpy_stream
from ddpm.sampling.samplers import ImageNoise

CPU = torch.device("cpu")
SHAPE = (3, 4, 4)


def schedule(steps: int = 1000, kind: str = "cosine") -> NoiseSchedule:
    return NoiseSchedule(DiffusionConfig(steps=steps, schedule=kind, beta_start=1e-4, beta_end=0.02))


def levels(count: int, std: float) -> Tensor:
    """Images of normal pixels, rounded to the 256 levels, `[count, 3, 4, 4]`."""
    pixels = normal(numpy_stream(0, "test levels"), (count, *SHAPE)) * std
    return ((pixels * 127.5 + 127.5).round().clamp(0, 255)) / 127.5 - 1


def test_levels_have_probabilities_that_add_up_to_one():
    every = (torch.arange(256) / 127.5 - 1).view(256, 1, 1, 1)
    for mean in (-1.5, -1, -0.3, 0.99, 1):
        for std in (0.003, 0.01, 0.5):
            nats = decoder_nats(every, torch.full_like(every, mean), std)
            assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-7)


def test_a_far_level_is_improbable_and_not_impossible():
    far = decoder_nats(torch.ones(1, 1, 1, 1), -torch.ones(1, 1, 1, 1), 0.01)
    assert far.item() == pytest.approx(((2 - 1 / 255) / 0.01) ** 2 / 2, rel=0.001)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_decoders_law_is_that_of_ho_et_als_code(variance):
    """Their variance at t = 0 is posterior_variance[1] = 5.453e-5 for both; L_0 of a perfect estimate follows by hand.

    1 / 255 is 0.5311 of its standard deviation, a level between the ends so has the probability 0.4046.
    """
    bound = VariationalBound(schedule(kind="linear"), variance)
    assert bound.decoder_std**2 == pytest.approx(5.4532e-5, rel=1e-4)
    x0 = torch.full((1, *SHAPE), 1 / 255)
    found = bound.terms(lambda xt, t: x0, x0, torch.tensor([0]), torch.zeros_like(x0))
    assert found.nats.item() / x0.numel() == pytest.approx(-math.log(0.4046), rel=1e-3)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_terms_are_the_divergences_of_the_two_laws(variance, kind):
    x0, eps = levels(6, 0.5), normal(numpy_stream(0, "test eps"), (6, *SHAPE))
    table = schedule(50, kind)
    t = torch.tensor([1, 2, 7, 25, 48, 49])
    seen = []

    def denoise(xt: Tensor, t: Tensor) -> Tensor:
        seen.append(xt)
        return 0.9 * xt.clamp(-1, 1)

    found = VariationalBound(table, variance).terms(denoise, x0, t, eps)
    xt = seen[0]
    for i, step in enumerate(t.tolist()):
        mean, tilde = posterior(table, x0[i].double(), xt[i].double(), step, step - 1)
        estimate = 0.9 * xt[i].clamp(-1, 1)
        mine, _ = posterior(table, estimate.double(), xt[i].double(), step, step - 1)
        sigma2 = tilde if variance == "small" else float(table.beta[step])
        expected = kl_divergence(Normal(mean, tilde**0.5), Normal(mine, sigma2**0.5)).sum()
        assert found.nats[i].item() == pytest.approx(expected.item(), rel=1e-4)
        signal, noise = table.at(step) ** 0.5, (1 - table.at(step)) ** 0.5
        assert found.x0_error[i].item() == pytest.approx((estimate - x0[i]).square().mean().item(), rel=1e-5)
        eps_hat = (xt[i] - signal * estimate) / noise
        assert found.eps_error[i].item() == pytest.approx((eps_hat - eps[i]).square().mean().item(), rel=1e-3)


def test_the_end_at_noise_is_a_divergence_too():
    x0, table = levels(3, 0.5), schedule(20)
    bar = table.at(19)
    law = Normal(bar**0.5 * x0.double(), (1 - bar) ** 0.5)
    expected = kl_divergence(law, Normal(torch.zeros(()).double(), 1.0)).sum((1, 2, 3))
    assert torch.allclose(VariationalBound(table, "small").prior(x0), expected)


@pytest.mark.parametrize(("steps", "count"), [(1000, 20), (1000, 1), (7, 20), (2, 3)])
def test_strata_have_every_step_once(steps, count):
    parts = noise_levels(schedule(steps), count)
    assert [t for part in parts for t in part] == list(range(steps))
    assert parts[0] == range(1)
    assert len(parts) <= count + 1


def best(table: NoiseSchedule, std: float):
    """The denoiser of normal data: the mean of x_0 given x_t."""

    def denoise(xt: Tensor, t: Tensor) -> Tensor:
        bar = table.alpha_bar[t].view(-1, 1, 1, 1)
        return (bar.sqrt() * std**2 / (bar * std**2 + 1 - bar) * xt).float()

    return denoise


def test_bound_of_normal_data_is_their_entropy():
    """With the best denoiser and many steps, whose own variance is near the best; the levels are 2 / 255 apart."""
    std, table, x0 = 0.25, schedule(kind="linear"), levels(256, 0.25)
    bound = VariationalBound(table, "large")
    bound.decoder_std = float(table.beta[0]) ** 0.5  # the best for these data; Ho et al.'s costs them 0.08 nats more
    generators = [numpy_stream(0, "test t", i) for i in range(256)]
    noise = ImageNoise(0, "test noise", range(256), SHAPE, CPU)
    found = measure(bound, best(table, std), x0, noise_levels(table, 20), 3, generators, noise)
    nats = (bound.prior(x0) + found.nats.sum(1)) / x0[0].numel()
    entropy = math.log(std * math.sqrt(2 * math.pi * math.e)) + math.log(255 / 2)
    error = float(nats.std() / 16)
    assert error < 0.02
    assert -3 * error < float(nats.mean()) - entropy < 0.05 + 3 * error


def test_estimate_is_unbiased():
    """The mean of many estimates from random t is the sum over all t."""
    table, x0 = schedule(20), levels(200, 0.25)
    bound, denoise = VariationalBound(table, "large"), best(table, 0.4)

    def total(parts: list[range], draws: int) -> Tensor:
        noise = ImageNoise(0, "test noise", range(200), SHAPE, CPU)
        generators = [numpy_stream(0, "test t", i) for i in range(200)]
        return measure(bound, denoise, x0, parts, draws, generators, noise).nats.sum(1)

    difference = total(noise_levels(table, 4), 2) - total([range(t, t + 1) for t in range(20)], 1)
    assert abs(float(difference.mean())) < 3 * float(difference.std()) / 200**0.5
    assert float(difference.std()) < float(total(noise_levels(table, 4), 2).mean())


def test_one_step_has_no_bound():
    with pytest.raises(ConfigError, match=r"diffusion.steps = 1: .* at least 2"):
        VariationalBound(schedule(1), "small")
