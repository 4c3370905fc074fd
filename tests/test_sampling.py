"""Samples depend on (seed, i) alone, and the paths between two noises are what they claim."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.config import ConfigError, parse
from ddpm.interpolation import PATHS, lerp, slerp
from ddpm.predictor import make_predictor
from ddpm.samplers import ImageNoise, SamplerConfig, run_sampler
from ddpm.schedule import DiffusionConfig, NoiseSchedule
from ddpm.unet import UNet, UNetConfig
from stages.interpolate import InterpolateConfig

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
    predict = make_predictor(network, SCHEDULE, "v", clip=True, precision=torch.float32)
    config = SamplerConfig(sampler=sampler, steps=20, clip=True, variance="small", eta=0.0)

    def draw(ids: list[int]) -> torch.Tensor:
        noise = ImageNoise(0, "sample", ids, SHAPE, CPU)
        return run_sampler(config, predict, SCHEDULE, noise(), noise)

    whole = draw([0, 1, 2, 3])
    assert torch.allclose(whole, torch.cat([draw([i]) for i in range(4)]), atol=1e-4)
    assert whole.abs().max() <= 1
    assert not torch.allclose(whole[0], whole[1], atol=0.1)


def ends(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    noise = ImageNoise(seed, "test", [0, 1], (3, 48, 48), CPU)()
    return noise[0], noise[1]


@pytest.mark.parametrize("path", PATHS)
@given(seed=st.integers(0, 2**32), frames=st.integers(2, 9))
def test_paths_start_and_end_at_their_ends(path: str, seed: int, frames: int) -> None:
    a, b = ends(seed)
    found = PATHS[path](a, b, torch.linspace(0, 1, frames))
    assert found.shape == (frames, *a.shape)
    assert torch.allclose(found[0], a, atol=1e-6)
    assert torch.allclose(found[-1], b, atol=1e-6)


@given(seed=st.integers(0, 2**32))
def test_lerp_leaves_the_shell_of_noise_and_slerp_stays_on_it(seed: int) -> None:
    """Noise of 48 x 48 x 3 numbers has norm 83.1 +- 0.7; the middle of a straight line has 83.1 / sqrt(2) = 58.8."""
    a, b = ends(seed)
    middle = torch.tensor([0.5])
    assert float(lerp(a, b, middle).norm()) == pytest.approx(math.sqrt(a.numel() / 2), abs=3)
    assert float(slerp(a, b, middle).norm()) == pytest.approx(math.sqrt(a.numel()), abs=3)


def test_slerp_between_parallel_noises_is_the_line() -> None:
    a, _ = ends(0)
    w = torch.linspace(0, 1, 5)
    assert torch.allclose(slerp(a, 2 * a, w), lerp(a, 2 * a, w))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 4}, "frames = 4: must be odd"),
        ({"paths": ["lerp", "lerp"]}, "lerp, lerp: each once"),
        ({"samplers": []}, "at least 1 item"),
    ],
)
def test_an_interpolation_without_a_middle_or_of_nothing_new_is_refused(change: dict, message: str) -> None:
    values = {"pairs": 1, "frames": 5, "seed": 0, "paths": ["lerp"], "samplers": ["ddim"], "steps": None}
    parse(InterpolateConfig, values, "interpolate")
    with pytest.raises(ConfigError, match=message):
        parse(InterpolateConfig, {**values, **change}, "interpolate")
