"""The forward process, its posterior and the loss: closed forms only, no network, no loop.

The report's equations (1) to (14), number for number, with the place of each; Ho et al.'s numbers for the same stand in
brackets. alpha_t = 1 - beta_t belongs to one step, also where the report writes a_t, and alpha_bar_t is the product of
alpha up to t. The 1 - a in the report's (10) is 1 - a_t.

    (1)  x_t = sqrt(alpha_t) x_{t-1} + sqrt(1 - alpha_t) eps                              `q_step` [2]
    (2)  x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps                          `q_sample` [4]
    (3)  q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)                     `q_sample` [4]
    (4)  q(x_{t-1} | x_t, x_0) = q(x_t | x_{t-1}, x_0) q(x_{t-1} | x_0) / q(x_t | x_0)    `posterior` [6]
    (5)  q(x_t | x_{t-1}, x_0) = N(sqrt(alpha_t) x_{t-1}, 1 - alpha_t)                    `q_step` [2]
    (6)  q(x_{t-1} | x_0) = N(sqrt(alpha_bar_{t-1}) x_0, 1 - alpha_bar_{t-1})             `q_sample` [4]
    (7)  q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, 1 - alpha_bar_t)                         `q_sample` [4]
    (8)  N(mu, sigma^2) is proportional to exp(-(x - mu)^2 / (2 sigma^2))                 `posterior`
    (9)  (4) with the densities (5) to (7): the exponent is a sum of three squares        `posterior`
    (10) the same as a quadratic in x_{t-1}; its two coefficients give sigma^2 and mu     `posterior` [7]
    (11) mu_t = (sqrt(alpha_t) (1 - alpha_bar_{t-1}) x_t + sqrt(alpha_bar_{t-1}) (1 - alpha_t) x_0) / (1 - alpha_bar_t)
                                                                                          `posterior` [7]
    (12) mu_t = (x_t - (1 - alpha_t) / sqrt(1 - alpha_bar_t) eps_t) / sqrt(alpha_t)       (11) with x_0 from (2)
    (13) mu_theta: (12) with the predicted noise eps_theta(x_t, t)                        `samplers.ancestral` [11]
    (14) L_t = E |eps_t - eps_theta(x_t, t)|^2 over t, x_0 and eps_t                      `simple_loss` [14]
"""

from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule


def q_step(schedule: NoiseSchedule, previous: Tensor, t: int, eps: Tensor) -> Tensor:
    """One step of the forward process, a draw from (5) by equation (1).

    Returns:
        x_t, from x_{t-1} (`previous`) and standard normal `eps`, all of one shape, at t from 0 to T - 1.
    """
    beta = float(schedule.beta[t])
    return (1 - beta) ** 0.5 * previous + beta**0.5 * eps


def q_sample(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """All steps up to t at once, a draw from (3) by equation (2): x_t `[B, C, H, W]` float32 from x_0 and t `[B]`."""
    signal, noise = schedule.signal_noise(t)
    return signal * x0 + noise * eps


def posterior(schedule: NoiseSchedule, x0: Tensor, xt: Tensor, t: int, s: int) -> tuple[Tensor, float]:
    """Mean and variance of q(x_s | x_t, x_0), s < t: equation (4) at s = t - 1, and x_0 itself at s = -1.

    The mean has the shape of `x0` and `xt`; the variance is that of each pixel, one over the coefficient of x_s^2 in
    (10). The mean is (11). A stride from t to s is one step with alpha = alpha_bar_t / alpha_bar_s.
    """
    bar_t, bar_s = schedule.at(t), schedule.at(s)
    alpha = bar_t / bar_s
    mean = (bar_s**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - bar_s) * xt) / (1 - bar_t)
    return mean, (1 - bar_s) / (1 - bar_t) * (1 - alpha)


def simple_loss(output: Tensor, target: Tensor) -> Tensor:
    """Equation (14) per image, `[B]`: the squared error averaged over pixels and channels, in float32.

    By (12) and (13), |mu_t - mu_theta|^2 is this times beta_t^2 / (alpha_t (1 - alpha_bar_t)), so that its mean over t
    is a reweighted form of the variational bound (Ho et al. section 3.4).
    """
    return (output.float() - target.float()).square().mean(dim=(1, 2, 3))
