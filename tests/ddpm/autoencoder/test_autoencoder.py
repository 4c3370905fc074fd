"""The autoencoder against diffusers' and closed forms; a codec that changes nothing changes no byte."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from ddpm.autoencoder.network import LATENT_STD, Autoencoder, AutoencoderConfig, Codec, Posterior, channel_statistics
from ddpm.config import ConfigError, parse
from ddpm.images import to_model_range, to_uint8
from tools.diffusers_names import autoencoder_arguments

SMALL = {"channels": 16, "multipliers": [1, 2, 2], "blocks": 1, "patch": 1, "groups": 4, "latent_channels": 4}


def autoencoder(**changes: object) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(parse(AutoencoderConfig, {**SMALL, **changes}, "network"))


def theirs_of(ours: Autoencoder) -> AutoencoderKL:
    theirs = AutoencoderKL(**autoencoder_arguments(ours.config, 16), use_quant_conv=False, use_post_quant_conv=False)
    theirs.load_state_dict(ours.state_dict())  # strict: the same names and shapes
    return theirs


@pytest.mark.parametrize("changes", [{}, {"blocks": 2}, {"multipliers": [1, 2], "patch": 2, "groups": 2}])
def test_weights_and_outputs_are_those_of_diffusers(changes: dict) -> None:
    """Moments, reconstruction and the gradients of both, with the same weights; blocks of pixels are unshuffled."""
    ours = autoencoder(**changes)
    theirs, patch = theirs_of(ours), ours.config.patch
    images, eps = torch.randn(2, 3, 16, 16), torch.randn(2, *ours.config.latent_shape(16))
    posterior = theirs.encode(F.pixel_unshuffle(images, patch)).latent_dist
    expected = F.pixel_shuffle(theirs.decode(posterior.mean + posterior.std * eps).sample, patch)
    found, law = ours(images, eps)
    assert torch.allclose(law.mean, posterior.mean, atol=1e-5)
    assert torch.allclose(law.log_variance, posterior.logvar, atol=1e-5)
    assert torch.allclose(found, expected, atol=1e-5)
    (found.square().sum() + law.kl().sum()).backward()
    (expected.square().sum() + posterior.kl().sum()).backward()
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, named[name].grad, rtol=1e-3, atol=1e-3), name


def test_the_divergence_of_a_normal_law_is_torchs_and_that_of_diffusers() -> None:
    mean, log_variance = 2 * torch.randn(3, 4, 5, 5), 4 * torch.randn(3, 4, 5, 5)
    found = Posterior(mean, log_variance).kl()
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    theirs = DiagonalGaussianDistribution(torch.cat([mean, log_variance], 1)).kl()
    assert torch.allclose(found.sum((1, 2, 3)), theirs, rtol=1e-4)


def test_latents_are_drawn_from_the_posterior() -> None:
    law = Posterior(torch.full((1, 1, 200, 200), 3.0), torch.full((1, 1, 200, 200), 0.04).log())
    drawn = law.draw(torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0)))
    assert float(drawn.mean()) == pytest.approx(3, abs=0.01)
    assert float(drawn.std()) == pytest.approx(0.2, rel=0.02)


def test_a_factor_that_does_not_divide_the_image_is_refused() -> None:
    config = autoencoder(multipliers=[1, 2], patch=2).config
    assert (config.factor, config.latent_shape(48)) == (4, (4, 12, 12))
    with pytest.raises(ValueError, match="images of 50 px have no latents: use a multiple of 4"):
        config.latent_shape(50)
    with pytest.raises(ConfigError, match="channels = 30: must be a multiple of groups = 4"):
        autoencoder(channels=30)


@pytest.mark.parametrize("constant", [-1.0, 0.0, 1.0])
def test_a_constant_image_has_numbers_as_latents(constant: float) -> None:
    """A group norm divides by the deviation, which is 0 there."""
    image, law = autoencoder()(torch.full((1, 3, 16, 16), constant), torch.zeros(1, 4, 4, 4))
    assert torch.stack([image.isfinite().all(), law.mean.isfinite().all(), law.log_variance.isfinite().all()]).all()


def test_a_shift_by_a_whole_position_shifts_the_latents() -> None:
    """Within the borders; norms see the whole map, so the image is constant but for one spot."""
    model = autoencoder()
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e6  # nearly no norm, so that only convolutions are left
    image = torch.zeros(1, 3, 96, 96)
    image[:, :, 44:52, 44:52] = 50.0
    moved = image.roll((4, 4), (2, 3))
    a, b = (model.encode(each).mean[:, :, 6:18, 6:18] for each in (image, moved))
    background = a[:, :, :1, :1]
    assert float((a - background).abs().max()) > 0
    assert torch.allclose(a[:, :, :-1, :-1], b[:, :, 1:, 1:], atol=1e-3 * float((a - background).abs().max()) + 1e-7)


class Identity(nn.Module):
    """An autoencoder whose latents are the pixels."""

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(images, torch.full_like(images, -30.0))

    def decode(self, z: Tensor) -> Tensor:
        return z


def test_statistics_are_those_of_each_channel_over_all_images_and_both_orientations() -> None:
    """And normalised by them, latents have the mean 0 and the one deviation that the noise schedule is made for."""
    generator = np.random.default_rng(0)
    scales = np.array([0.1, 1.0, 30.0], np.float32)[:, None, None]
    latents = torch.from_numpy(generator.normal(5 * scales, scales, (50, 2, 3, 4, 4)).astype(np.float32))
    latents[:, 1] *= 2  # the mirror images have other latents
    mean, std = channel_statistics(latents)
    assert torch.allclose(mean.double(), latents.double().mean((0, 1, 3, 4)), rtol=1e-6)
    normalised = Codec(Identity(), mean, std).encode(latents.flatten(0, 1))
    assert torch.allclose(normalised.mean((0, 2, 3)), torch.zeros(3), atol=1e-3)
    assert torch.allclose(normalised.std((0, 2, 3)), torch.full((3,), LATENT_STD), rtol=1e-3)


def test_decoding_undoes_the_normalisation() -> None:
    """Whatever the statistics; and with those that change nothing the identity gives the pixels bit for bit."""
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    pixels = to_model_range(images)
    for mean, std in (([0.0] * 3, [0.5] * 3), ([3.0, -2.0, 0.5], [0.1, 4.0, 1.0])):
        codec = Codec(Identity(), torch.tensor(mean), torch.tensor(std))
        assert torch.allclose(codec.decode(codec.encode(pixels)), pixels, atol=1e-5)
        assert np.array_equal(to_uint8(codec.decode(codec.encode(pixels))), images)
    plain = Codec(Identity(), torch.zeros(3), torch.full((3,), LATENT_STD))
    assert torch.equal(plain.encode(pixels), pixels)
    assert torch.equal(plain.decode(pixels), pixels)
