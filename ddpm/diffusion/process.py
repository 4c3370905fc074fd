"""The forward process, its posterior and the loss: closed forms only, no network, no loop.

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
    (13) mu = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps_hat) / sqrt(alpha_t)                   `Denoiser` in (11) [11]
    (14) L_simple = E |eps - eps_hat(x_t, t)|^2                                                `simple_loss` [14]
"""

from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule


def q_step(schedule: NoiseSchedule, previous: Tensor, t: int, eps: Tensor) -> Tensor:
    """One step of the forward process, equation (1): x_t from x_{t-1} and standard normal `eps`."""
    beta = float(schedule.beta[t])
    return (1 - beta) ** 0.5 * previous + beta**0.5 * eps


def q_sample(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """All steps up to t at once, equations (2) and (5): x_t `[B, C, H, W]` float32 from x_0 and t `[B]`."""
    signal, noise = schedule.signal_noise(t)
    return signal * x0 + noise * eps


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
