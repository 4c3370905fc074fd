"""The losses of a GAN, held to games whose outcome is known in closed form."""

import cmath

import pytest
import torch
from torch import Tensor, nn

from ddpm.gan.pairing import critic_loss, generator_loss, squared_gradient


def dirac_field(state: Tensor, gamma: float) -> Tensor:
    """Where gradient descent moves theta and psi: real images at 0, generated ones at theta, and D(x) = psi x."""
    theta, psi = state
    images = torch.zeros(1, 1, requires_grad=True), theta[None, None]
    scores = [psi * each[:, 0] for each in images]
    penalty = sum(map(squared_gradient, scores, images))
    critic = (critic_loss(*scores) + gamma / 2 * penalty).sum()
    generator = generator_loss(*scores).sum()
    by_theta = torch.autograd.grad(generator, theta, create_graph=True)[0]
    return -torch.stack([by_theta, torch.autograd.grad(critic, psi, create_graph=True)[0]])


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0])
def test_penalties_make_the_dirac_gan_converge_as_fast_as_theory_says(gamma: float) -> None:
    """Eigenvalues -gamma +- sqrt(gamma^2 - 1/4): without penalties it turns in circles, +- i / 2."""
    jacobian = torch.autograd.functional.jacobian(lambda state: dirac_field(state, gamma), torch.zeros(2))
    found = sorted(torch.linalg.eigvals(jacobian.double()).tolist(), key=lambda value: (value.real, value.imag))
    root = cmath.sqrt(gamma**2 - 0.25)
    expected = sorted([-gamma - root, -gamma + root], key=lambda value: (value.real, value.imag))
    assert found == pytest.approx(expected, abs=1e-3)


def test_the_squared_gradient_of_a_linear_and_of_a_quadratic_critic() -> None:
    x = torch.randn(7, 3, 4, 4, requires_grad=True)
    weight = torch.randn(3, 4, 4, requires_grad=True)
    found = squared_gradient((x * weight).flatten(1).sum(1), x)
    assert torch.allclose(found, weight.square().sum().expand(7), rtol=1e-5)
    (by_weight,) = torch.autograd.grad(found.mean(), weight)  # so that the penalty trains the critic
    assert torch.allclose(by_weight, 2 * weight, rtol=1e-5)
    matrix, flat = torch.randn(48, 48), x.flatten(1)
    symmetric = matrix + matrix.T
    found = squared_gradient(0.5 * (flat @ symmetric * flat).sum(1), x)
    assert torch.allclose(found, (flat @ symmetric).square().sum(1), rtol=1e-4)


def test_only_differences_of_scores_count() -> None:
    real, fake = torch.randn(2, 9)
    for loss in (critic_loss, generator_loss):
        assert torch.allclose(loss(real + 3, fake + 3), loss(real, fake), atol=1e-6)
        assert torch.allclose(loss(fake, fake), torch.tensor(2.0).log())
    assert torch.equal(critic_loss(real, fake), generator_loss(fake, real))
    assert (critic_loss(real, fake) < critic_loss(fake, real))[real > fake].all()


def test_the_best_critic_of_five_atoms() -> None:
    """It is log(p / q), and its loss is log 2 less the Jensen-Shannon divergence of the pairs in both orders."""
    torch.manual_seed(0)
    p, q = (torch.softmax(torch.randn(5, dtype=torch.float64), 0) for _ in range(2))
    scores = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scores], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    pairs = p[:, None] * q

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (pairs * critic_loss(scores[:, None], scores[None])).sum()
        value.backward()
        return value

    optimizer.step(loss)
    best = torch.log(p / q)
    assert torch.allclose(scores - scores.mean(), best - best.mean(), atol=1e-4)
    middle = (pairs + pairs.T) / 2
    divergence = sum((each * (each / middle).log()).sum() / 2 for each in (pairs, pairs.T))
    assert loss().item() == pytest.approx((torch.tensor(2.0).log() - divergence).item(), abs=1e-7)


@pytest.mark.slow
def test_gaussians_in_a_grid_are_all_covered() -> None:
    """25 clusters of which each gets its part of the samples; how narrow they become is no matter here."""
    torch.manual_seed(0)
    centres = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)) - 2
    width, count = 96, 200
    generator, critic = (
        nn.Sequential(nn.Linear(i, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2),
                      nn.Linear(width, o))
        for i, o in ((16, 2), (2, 1))
    )  # fmt: skip
    optimizers = [torch.optim.Adam(each.parameters(), 1e-3, (0.0, 0.99), fused=True) for each in (critic, generator)]
    for _ in range(1000):
        real = (centres[torch.randint(25, (count,))] + 0.05 * torch.randn(count, 2)).requires_grad_()
        fake = generator(torch.randn(count, 16))
        shown = fake.detach().requires_grad_()
        scores = [critic(each)[:, 0] for each in (real, shown)]
        penalty = sum(map(squared_gradient, scores, (real, shown)))
        ((critic_loss(*scores) + 0.5 * penalty).mean()).backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
        generator_loss(critic(real)[:, 0], critic(fake)[:, 0]).mean().backward()
        optimizers[1].step()
        optimizers[1].zero_grad()
        critic.zero_grad()
    with torch.no_grad():
        nearest = torch.cdist(generator(torch.randn(5000, 16)), centres).argmin(1)
    shares = torch.bincount(nearest, minlength=25) / 5000
    assert shares.min() > 0.02
    assert shares.max() < 0.08
