"""What CUDA would be asked to do, seen without a GPU: torch's fake tensors have a device and a type, but no numbers.

autograd goes backward only on a GPU that is there, so the backward pass of a training step is left out.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models import NETWORK
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ddpm.config import parse
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.sampling.predictor import PredictorConfig, make_predictor

CUDA = torch.device("cuda:0")
LINEAR = DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02)
BATCH = (4, 3, 48, 48)


class Asked(TorchDispatchMode):
    """Notes the types of what group norms get, and what makes the host wait: numbers and copies between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.normed: list[torch.dtype] = []
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.native_group_norm.default:
            self.normed.append(args[0].dtype)
        devices = {each.device.type for each in (*args, out) if isinstance(each, Tensor)}
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default) or (
            "copy" in str(func) and len(devices) > 1
        ):
            self.waits.append(str(func))
        return out


@pytest.fixture
def schedule() -> NoiseSchedule:
    return NoiseSchedule(LINEAR)


@pytest.fixture
def network(schedule: NoiseSchedule) -> Iterator[UNet]:
    """A conditional network on the GPU that isn't there; all is fake until the test ends."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(CUDA):  # the tables of a schedule are real
        yield UNet(parse(UNetConfig, NETWORK, "network"), 48, 3)


def test_group_norms_compute_in_the_type_of_autocast(network: UNet) -> None:
    """torch.autocast itself is off where there is no CUDA; what it switches can be switched all the same."""
    x, t = torch.randn(BATCH), torch.zeros(4, dtype=torch.int64)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        with Asked() as asked:
            network(x, t)
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert asked.normed
    assert set(asked.normed) == {torch.bfloat16}


def test_the_host_waits_for_no_loss(network: UNet, schedule: NoiseSchedule) -> None:
    denoiser = Denoiser(network, schedule, "v", "min_snr")
    x0, eps, t = torch.randn(BATCH), torch.randn(BATCH), torch.zeros(4, dtype=torch.int64)
    denoiser.losses(x0, t, eps)  # copies the tables of the schedule, once
    with Asked() as asked:
        denoiser.losses(x0, t, eps, torch.zeros(4, dtype=torch.int64))
    assert asked.waits == []


@pytest.mark.parametrize("threshold", [None, 0.995])
def test_the_host_waits_for_no_estimate(network: UNet, schedule: NoiseSchedule, threshold: float | None) -> None:
    """What samplers do with one, they do with numbers of the CPU's tables."""
    config = PredictorConfig(guidance=2.0, threshold=threshold)
    predict = make_predictor(Denoiser(network, schedule, "v"), config, torch.zeros(4, dtype=torch.int64))
    x = torch.randn(BATCH)
    predict(x, 999)
    with Asked() as asked:
        predict(x, 500)
    assert asked.waits == []


def test_a_wait_would_be_seen(network: UNet) -> None:
    with Asked() as asked:
        torch.zeros(4, device="cpu").to(CUDA)
        torch.zeros(4).cpu()
    assert len(asked.waits) == 2
