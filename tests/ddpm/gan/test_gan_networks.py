"""Generator and critic of a GAN."""

import pytest
import torch
from ruamel.yaml import YAML
from support import REPOSITORY
from torch import Tensor, nn

from ddpm.config import parse
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.gan.networks import Critic, GanConfig, Generator, downsampled, upsampled

SMALL = {"latent_channels": 8, "channels": [12, 8, 4], "blocks": 1, "conditional": False}


def config(**changes: object) -> GanConfig:
    return parse(GanConfig, {**SMALL, **changes}, "network")


def awake(network: nn.Module) -> nn.Module:
    """With noise where the initial weights are zero, so that every layer counts."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("size", [12, 16, 48])
@pytest.mark.parametrize("conditional", [False, True])
def test_any_size_that_can_be_halved(size: int, conditional: bool) -> None:
    shape = config(conditional=conditional)
    label = torch.arange(3) if conditional else None
    images = Generator(shape, size, 3)(torch.randn(3, 8), label)
    assert images.shape == (3, 3, size, size)
    assert Critic(shape, size, 3)(images, label).shape == (3,)


def test_a_size_that_can_not_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="images of 50 px can't be halved through 3 levels: use a multiple of 4"):
        Generator(config(), 50)


def test_the_default_is_as_large_as_the_default_u_net() -> None:
    models = YAML(typ="safe").load(REPOSITORY / "params.yaml")["models"]
    gan = parse(GanConfig, models["gan"]["network"], "network")
    networks = Generator(gan, 48), Critic(gan, 48), UNet(parse(UNetConfig, models["tiny"]["network"], "network"), 48, 0)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts == pytest.approx([counts[2]] * 3, rel=0.05)


def jacobian_of_scores(critic: nn.Module) -> Tensor:
    """The gradient of each score by each image, `[B, B, 3, 16, 16]`."""
    found: Tensor = torch.autograd.functional.jacobian(critic, torch.randn(3, 3, 16, 16))
    return found


def test_the_score_of_an_image_depends_on_that_image_alone() -> None:
    """As the gradient penalty needs it: with a norm over the batch it would penalise something else."""
    critic = awake(Critic(config(), 16))
    assert independent(jacobian_of_scores(critic))
    assert not independent(jacobian_of_scores(nn.Sequential(nn.BatchNorm2d(3), critic)))


def independent(jacobian: Tensor) -> bool:
    others = ~torch.eye(3, dtype=torch.bool)
    assert jacobian[~others].flatten(1).any(dim=1).all()
    return not jacobian[others].any()


def test_blocks_start_as_the_identity_and_all_of_the_network_learns() -> None:
    """Zero is the end of a branch; after one step there is no weight left that no gradient reaches."""
    torch.manual_seed(0)
    generator, critic = Generator(config(), 16), Critic(config(), 16)
    for block in [*generator.levels, *critic.levels]:
        x = torch.randn(2, block[-1].conv1.in_channels, 8, 8)
        assert torch.equal(block[-1](x), x)
    critic(generator(torch.randn(4, 8))).sum().backward()
    for network in (generator, critic):
        assert all(p.grad is not None for p in network.parameters())
        assert all((p.grad != 0).any() for name, p in network.named_parameters() if "conv1" not in name)


def test_values_keep_their_size_on_the_way_at_first() -> None:
    torch.manual_seed(0)
    shape = config(channels=[64, 64, 32], latent_channels=64)
    with torch.no_grad():
        images = Generator(shape, 48)(torch.randn(64, 64))
        assert 0.2 < images.std() < 2
        assert 0.1 < Critic(shape, 48)(torch.randn(64, 3, 48, 48)).std() < 4


def test_labels_change_images_and_scores() -> None:
    generator, critic = (
        awake(Generator(config(conditional=True), 16, 3)),
        awake(Critic(config(conditional=True), 16, 3)),
    )
    z, label = torch.randn(1, 8).expand(3, 8), torch.arange(3)
    images = generator(z, label)
    assert not torch.equal(images[0], images[1])
    scores = critic(images[:1].expand(3, -1, -1, -1), label)
    assert len(set(scores.tolist())) == 3


def test_resampling_passes_low_frequencies_and_no_checkerboard() -> None:
    """Constants stay; the finest pattern is filtered out; up and down are adjoint but for the borders."""
    board = (-1.0) ** torch.arange(16)
    board = (board[:, None] * board)[None, None]
    assert torch.allclose(downsampled(torch.ones(1, 1, 16, 16)), torch.ones(1, 1, 8, 8))
    assert torch.allclose(upsampled(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 16, 16))
    assert downsampled(board)[..., 1:-1, 1:-1].abs().max() < 1e-6
    impulse = torch.zeros(1, 1, 16, 16)
    impulse[..., 7, 7] = 1
    assert torch.allclose(downsampled(impulse)[0, 0, 2:6, 3], torch.tensor([0.0, 9, 3, 0]) / 64)
