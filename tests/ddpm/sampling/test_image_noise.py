"""Samples depend on (seed, i) alone."""

import pytest
import torch

from ddpm.config import parse
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.sampling.predictor import PredictorConfig, make_predictor
from ddpm.sampling.samplers import ImageNoise, SamplerConfig, run_sampler

CPU = torch.device("cpu")
SCHEDULE = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02))
NETWORK = {
    "channels": 32, "multipliers": [1, 2], "attention": [8], "blocks": 1, "dropout": 0.1, "patch": 1,
    "groups": 4, "conditional": False, "initial": "zero",
}  # fmt: skip
SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def network() -> UNet:
    generator = torch.Generator().manual_seed(0)
    network = UNet(parse(UNetConfig, NETWORK, "network"), SHAPE[1]).eval()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return network


def test_noise_of_an_image_does_not_depend_on_its_batch() -> None:
    whole = ImageNoise(3, "sample", range(8), SHAPE, CPU)
    parts = [ImageNoise(3, "sample", ids, SHAPE, CPU) for ids in ([0, 1, 2], [3], [4, 5, 6, 7])]
    for _ in range(3):
        assert torch.equal(whole(), torch.cat([part() for part in parts]))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_images_do_not_depend_on_their_batch(network: UNet, sampler: str) -> None:
    """To 1e-4: a convolution may sum in another order for another batch size."""
    predict = make_predictor(Denoiser(network, SCHEDULE, "v"), PredictorConfig())
    config = SamplerConfig(sampler=sampler, steps=20)

    def draw(ids: list[int]) -> torch.Tensor:
        noise = ImageNoise(0, "sample", ids, SHAPE, CPU)
        return run_sampler(config, predict, SCHEDULE, noise(), noise)

    whole = draw([0, 1, 2, 3])
    assert torch.allclose(whole, torch.cat([draw([i]) for i in range(4)]), atol=1e-4)
    assert whole.abs().max() <= 1
    assert not torch.allclose(whole[0], whole[1], atol=0.1)
