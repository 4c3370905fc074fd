"""The report's equations (1) to (14), each by numbers: what the code computes is what the report writes."""

import re

import numpy as np
import pytest
import torch
from support import REPOSITORY

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import posterior, q_sample, q_step
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.sampling.samplers import SamplerConfig, ancestral

SCHEDULE = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02))
STEPS = (1, 10, 300, 999)
REPORT = REPOSITORY.parent / "shared" / "report.md"


def alphas(t: int) -> tuple[float, float, float]:
    """alpha_t, alpha_bar_t, alpha_bar_{t-1}."""
    return 1 - float(SCHEDULE.beta[t]), SCHEDULE.at(t), SCHEDULE.at(t - 1)


def normal(x: np.ndarray, mean: float, variance: float) -> np.ndarray:
    """Equation (8), with the factor that makes it a density."""
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def images(*values: float) -> list[torch.Tensor]:
    return [torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in values]


@pytest.mark.parametrize("t", STEPS)
def test_1_2_3_a_step_and_all_steps_at_once(t: int) -> None:
    """(1) and (2) as they stand, with fixed noise; (1) after (2) has the law (3) of one step more."""
    alpha, bar, before = alphas(t)
    x, eps = images(0.7, -1.3)
    assert float(q_step(SCHEDULE, x, t, eps)) == pytest.approx(alpha**0.5 * 0.7 - (1 - alpha) ** 0.5 * 1.3)
    assert float(q_sample(SCHEDULE, x, torch.tensor([t]), eps)) == pytest.approx(
        bar**0.5 * 0.7 - (1 - bar) ** 0.5 * 1.3, rel=1e-5
    )
    assert (alpha * before, alpha * (1 - before) + 1 - alpha) == pytest.approx((bar, 1 - bar), rel=1e-9)


@pytest.mark.parametrize("t", STEPS)
def test_4_to_7_bayes_rule_of_three_normal_laws(t: int) -> None:
    """(4): on a grid of x_{t-1}, the product of the densities (5) and (6) over (7) is that of `posterior`."""
    alpha, bar, before = alphas(t)
    x0, xt = 0.4, bar**0.5 * 0.4 - (1 - bar) ** 0.5 * 1.1
    mean, variance = posterior(SCHEDULE, *images(x0, xt), t, t - 1)
    grid = float(mean) + np.linspace(-3, 3, 41) * variance**0.5
    likelihood = np.array([normal(np.array(xt), alpha**0.5 * x, 1 - alpha) for x in grid])  # (5)
    prior = normal(grid, before**0.5 * x0, 1 - before)  # (6)
    evidence = normal(np.array(xt), bar**0.5 * x0, 1 - bar)  # (7)
    assert likelihood * prior / evidence == pytest.approx(normal(grid, float(mean), variance), rel=1e-6)


@pytest.mark.parametrize("t", STEPS)
def test_8_9_10_completing_the_square(t: int) -> None:
    """The exponents of (9) and (10) differ by a constant, and (8) with mean and variance of `posterior` by another."""
    a, bar, before = alphas(t)
    x0, xt = 0.4, bar**0.5 * 0.4 - (1 - bar) ** 0.5 * 1.1
    mean, variance = posterior(SCHEDULE, *images(x0, xt), t, t - 1)
    x = float(mean) + np.linspace(-3, 3, 41) * variance**0.5
    nine = (xt - a**0.5 * x) ** 2 / (1 - a) + (x - before**0.5 * x0) ** 2 / (1 - before)
    nine -= (xt - bar**0.5 * x0) ** 2 / (1 - bar)
    ten = (a / (1 - a) + 1 / (1 - before)) * x**2
    ten -= (2 * a**0.5 / (1 - a) * xt + 2 * before**0.5 / (1 - before) * x0) * x
    eight = (x - float(mean)) ** 2 / variance
    assert nine - nine[0] == pytest.approx(ten - ten[0], rel=1e-6, abs=1e-6)
    assert eight - eight[0] == pytest.approx(ten - ten[0], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("t", STEPS)
def test_11_12_the_mean_in_x0_and_in_the_noise(t: int) -> None:
    """(11) as it stands; it is (12) where x_t comes from x_0 and eps by (2)."""
    alpha, bar, before = alphas(t)
    x0, eps = 0.4, -1.1
    xt = bar**0.5 * x0 + (1 - bar) ** 0.5 * eps
    mean = float(posterior(SCHEDULE, *images(x0, xt), t, t - 1)[0])
    eleven = (alpha**0.5 * (1 - before) * xt + before**0.5 * (1 - alpha) * x0) / (1 - bar)
    twelve = (xt - (1 - alpha) / (1 - bar) ** 0.5 * eps) / alpha**0.5
    assert mean == pytest.approx(eleven, rel=1e-9)
    assert mean == pytest.approx(twelve, rel=1e-9)


@pytest.mark.parametrize("t", STEPS)
def test_13_the_network_s_mean_is_12_with_the_predicted_noise(t: int) -> None:
    """What ancestral sampling hands on, less the noise of the step."""
    alpha, bar, _ = alphas(t)
    xt, predicted = images(-0.6, 0.9)
    denoiser = Denoiser(lambda *_: predicted, SCHEDULE, "eps")
    seen: list[torch.Tensor] = []
    ancestral(
        lambda x, step: denoiser(x, torch.tensor([step])), xt, SCHEDULE, [t, t - 1],
        lambda: torch.zeros(1, 1, 1, 1), SamplerConfig(sampler="ancestral", steps=2),
        lambda _, x, x0: seen.append(x),
    )  # fmt: skip
    thirteen = (-0.6 - (1 - alpha) / (1 - bar) ** 0.5 * 0.9) / alpha**0.5
    assert float(seen[1]) == pytest.approx(thirteen, rel=1e-4)


def test_14_the_loss_is_the_squared_error_of_the_noise() -> None:
    """As the report's code computes it: a mean over pixels where the report writes the norm."""
    generator = torch.Generator().manual_seed(0)
    x0, eps, predicted = torch.randn(3, 4, 3, 8, 8, generator=generator)
    losses = Denoiser(lambda *_: predicted, SCHEDULE, "eps").losses(x0, torch.tensor([0, 9, 500, 999]), eps)
    assert torch.allclose(losses, (eps - predicted).square().flatten(1).sum(1) / (3 * 8 * 8))


@pytest.mark.skipif(not REPORT.exists(), reason="the report's text is not here")
def test_the_report_numbers_them_so() -> None:
    """What stands before each number in the report, by a piece of its formula."""
    pieces = {
        1: r"x_t = \sqrt{\alpha_t}x_{t-1}", 2: r"x_t = \sqrt{\bar{\alpha}_t}x_0", 3: r"q(x_t|x_0) = \mathcal{N}",
        4: r"q(x_{t-1}|x_t, x_0) = q(x_t|x_{t-1}, x_0) \frac", 5: r"q(x_t|x_{t-1}, x_0) \rightarrow",
        6: r"q(x_{t-1}|x_0) \rightarrow", 7: r"q(x_t|x_0) \rightarrow", 8: r"\mathcal{N}(\mu, \sigma^2) \propto",
        9: r"\propto \exp", 10: r"= \exp", 11: r"\mu_t = \frac{\sqrt{a_t}(1-\bar{a}_{t-1})}",
        12: r"\mu_t = \frac{1}{\sqrt{a_t}}", 13: r"\mu_\theta = \frac{1}{\sqrt{a_t}}", 14: r"L_t = \mathbb{E}",
    }  # fmt: skip
    found = dict(re.findall(r"\$\$(.*?) \\quad \((\d+)\)\$\$", REPORT.read_text(encoding="utf-8")))
    numbered = {int(number): formula for formula, number in found.items()}
    assert sorted(numbered) == list(range(1, 15))
    assert [number for number, piece in pieces.items() if not numbered[number].startswith(piece)] == []
