"""The forward process, its posterior, the training target and the loss: closed forms only, no network, no loop.

The report's equations, with the place of each. Ho et al.'s own numbers stand in brackets.

    (1)  q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)                              `q_step` [2]
    (2)  q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)                          `q_sample` [4]
    (3)  alpha_t = 1 - beta_t, alpha_bar_t = prod alpha_s                                      `NoiseSchedule` [4]
    (4)  beta_t linear from beta_1 to beta_T                                                   `DiffusionConfig.betas`
    (5)  x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps                               `q_sample` [9]
    (6)  p(x_{0:T}) = p(x_T) prod p(x_{t-1} | x_t), p(x_T) = N(0, I)                           `samplers.ancestral` [1]
    (7)  p(x_{t-1} | x_t) = N(mu(x_t, t), sigma_t^2 I)                                         `samplers.ancestral` [1]
    (8)  -log p(x_0) <= sum over t of KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) + ends     `simple_loss` [5]
    (9)  that KL = |mu_tilde - mu|^2 / (2 sigma_t^2) + const, proportional to |eps - eps_hat|^2  `simple_loss` [8]
    (10) q(x_{t-1} | x_t, x_0) = N(mu_tilde, beta_tilde_t I)                                   `posterior` [6]
    (11) mu_tilde = (sqrt(alpha_bar_{t-1}) beta_t x_0 + sqrt(alpha_t) (1 - alpha_bar_{t-1}) x_t) / (1 - alpha_bar_t)
                                                                                               `posterior` [7]
    (12) beta_tilde_t = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t                       `posterior` [7]
    (13) mu = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps_hat) / sqrt(alpha_t)                   `to_x0_eps` in (11) [11]
    (14) L_simple = E |eps - eps_hat(x_t, t)|^2                                                `simple_loss` [14]
"""

from typing import Literal

import torch
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule

Target = Literal["eps", "v", "x0"]

Weighting = Literal["simple", "min_snr", "snr_plus_one"]

MIN_SNR_LIMIT = 5.0
"""gamma of Hang et al. 2023."""

SNR_PLUS_ONE_LIMIT = 100.0
"""Reached at a noise level of 0.1: without it, steps of almost no noise would rule."""


def q_step(schedule: NoiseSchedule, previous: Tensor, t: int, eps: Tensor) -> Tensor:
    """One step of the forward process, equation (1): x_t from x_{t-1} and standard normal `eps`."""
    beta = float(schedule.beta[t])
    return (1 - beta) ** 0.5 * previous + beta**0.5 * eps


def q_sample(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """All steps up to t at once, equations (2) and (5): x_t `[B, C, H, W]` float32 from x_0 and t `[B]`."""
    signal, noise = schedule.signal_noise(t)
    return signal * x0 + noise * eps


def training_target(target: Target, schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """What the network shall put out for x_t: `eps`, `x0`, or `v` (Salimans & Ho 2022, section 4)."""
    if target == "eps":
        return eps
    if target == "x0":
        return x0
    signal, noise = schedule.signal_noise(t)
    return signal * eps - noise * x0


def to_x0_eps(target: Target, schedule: NoiseSchedule, xt: Tensor, t: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """The network's `output` at x_t as estimates of (x_0, eps); with (11), x_0 from eps gives equation (13)."""
    signal, noise = schedule.signal_noise(t)
    if target == "eps":
        return (xt - noise * output) / signal, output
    if target == "x0":
        return output, (xt - signal * output) / noise
    return signal * xt - noise * output, noise * xt + signal * output


def posterior(schedule: NoiseSchedule, x0: Tensor, xt: Tensor, t: int, s: int) -> tuple[Tensor, float]:
    """Mean and variance of q(x_s | x_t, x_0), s < t; equations (10) to (12) at s = t - 1, x_0 itself at s = -1.

    A stride from t to s is one step of variance 1 - alpha_bar_t / alpha_bar_s.
    """
    bar_t, bar_s = schedule.at(t), schedule.at(s)
    alpha = bar_t / bar_s
    mean = (bar_s**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - bar_s) * xt) / (1 - bar_t)
    return mean, (1 - bar_s) / (1 - bar_t) * (1 - alpha)


def simple_loss(output: Tensor, target: Tensor) -> Tensor:
    """Equation (14) per image, `[B]`: the squared error averaged over pixels and channels, in float32.

    It is the KL of equation (9) without its factor beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)), so its mean
    over t is a reweighted form of the bound (8) (Ho et al. section 3.4).
    """
    return (output.float() - target.float()).square().mean(dim=(1, 2, 3))


def loss_weight(weighting: Weighting, target: Target, schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """What `simple_loss` of each image is multiplied with, `[B]`.

    `simple` is 1 (Ho et al. section 3.4). The others are given for the error of x_0: min(SNR, 5) (Hang et al. 2023,
    arXiv:2303.09556) and SNR + 1, limited (Salimans & Ho 2022, section 4), whatever the target:
    (x_0 - x0_hat)^2 = (eps - eps_hat)^2 / SNR = (v - v_hat)^2 / (SNR + 1).
    """
    if weighting == "simple":
        return torch.ones(len(t), device=t.device)
    snr = schedule.snr(t)
    of_x0 = snr.clamp(max=MIN_SNR_LIMIT) if weighting == "min_snr" else (snr + 1).clamp(max=SNR_PLUS_ONE_LIMIT)
    return of_x0 / {"x0": torch.ones_like(snr), "eps": snr, "v": snr + 1}[target]
