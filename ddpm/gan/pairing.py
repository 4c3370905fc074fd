"""The losses of a GAN whose critic compares pairs (Huang et al. 2024, arXiv:2501.05441, equations 7 and 8).

The critic D scores a real image x and a generated one y, and learns that x is the real one of the two. Generator and
critic have losses of opposite wishes; the penalties of both kinds of images keep their game from going in circles. A
constant added to D changes nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x) - D(y)) of each pair, from the scores `[B]` of both."""
    return F.softplus(fake - real)


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(y) - D(x)) of each pair: the non-saturating form, as that paper's code has it."""
    return F.softplus(real - fake)


def squared_gradient(scores: Tensor, images: Tensor) -> Tensor:
    """Squared norm of the gradient of each image's score, `[B]`, itself differentiable in the critic's weights.

    R1 is gamma / 2 times its mean over real images (Mescheder et al. 2018, arXiv:1801.04406), R2 over generated ones.

    Args:
        scores: D of each image, `[B]`, each a function of that image alone.
        images: `[B, ...]`, which require gradients.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)
