"""The measurements of `benchmarks.gpu`, each in a process of its own: a call as JSON on the command line, JSON back."""

import functools
import json
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ddpm.devices.precision import Precision, autocast_dtype, placed, set_float32_products
from ddpm.diffusion.blocks import GroupNorm
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.rng import normal, numpy_stream
from ddpm.sampling.predictor import PredictorConfig, make_predictor
from ddpm.sampling.samplers import ImageNoise, SamplerConfig, run_sampler
from ddpm.training.batches import Batches
from ddpm.training.initial import initial_network
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import Trainer, TrainState
from stages.kit.device import setup
from stages.kit.params import Params, read_params

SIDE = {"cuda": 8192, "cpu": 1024}
"""Rows and columns of the matrices whose product is the peak."""
AT_ONCE = 5
"""Steps, or evaluations, between two looks at the clock, for which the host waits for the device."""


def peaks(device: str) -> dict[str, Any]:
    """The device's name, and operations per second of the fastest of ten matrix products in each number format."""
    place = setup(params_for(device))
    found: dict[str, Any] = {"name": torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"}
    for name, dtype in {"bfloat16": torch.bfloat16, "tf32": torch.float32, "float32": torch.float32}.items():
        set_float32_products("tf32" if name == "tf32" else "float32")
        a, b = torch.randn(2, SIDE[place.type], SIDE[place.type], device=place).to(dtype)
        seconds = min(seconds_of(functools.partial(torch.mm, a, b), place) for _ in range(10))
        found[name] = 2 * len(a) ** 3 / seconds
    return found


def train(
    device: str, model: str, precision: Precision, fast_norms: bool, compiled: bool, seconds: float
) -> dict[str, Any]:
    """Images per second of whole steps, operations an image, memory in GB, and how often five steps make it wait."""
    params = params_for(device)
    place, size = setup(params), params.mapping("extract")["size"]
    recipe = params.section(Recipe, "models", model, "recipe")
    config = replace(params.section(TrainConfig, "train"), precision=precision)
    schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"))
    images = np.random.default_rng(0).integers(0, 256, (1000, size, size, 3), np.uint8)
    batches = Batches(images, None, 0, schedule, recipe, flip=True, seed=0, device=place)
    trainer = Trainer(batches, schedule, config, seed=0, epochs=10_000)
    network = initial_network(network_of(params, model, fast_norms))
    state = TrainState(network, recipe, place, compiled=compiled)
    steps = trainer.fit(state)
    for _ in range(3):
        next(steps)
    state.read_losses()
    done, started = 0, time.perf_counter()
    while not done or time.perf_counter() - started < seconds:
        for _ in range(AT_ONCE):
            next(steps)
        state.read_losses()
        done += AT_ONCE
    rate = done * recipe.batch_images / (time.perf_counter() - started)
    memory = torch.cuda.max_memory_reserved(place) / 1e9 if place.type == "cuda" else None
    return {
        "rate": rate,
        "batch": recipe.batch_images,
        "number_format": str(trainer.precision).removeprefix("torch."),
        "operations": operations(params, model),
        "memory": memory,
        "waits": waits(lambda: next(steps)) if place.type == "cuda" else None,
    }


def sample(
    device: str, model: str, precision: Precision, sampler: dict, noise: str, images: int, seconds: float
) -> dict:
    """Seconds for `images` by `sampler`; what takes longer than `seconds` is stopped, and the rest of it reckoned."""
    params = params_for(device)
    place, size = setup(params), params.mapping("extract")["size"]
    network = placed(network_of(params, model), place).eval()
    set_float32_products(precision)
    schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"))
    denoiser = Denoiser(network, schedule, "eps", precision=autocast_dtype(precision, place))
    predict = make_predictor(denoiser, PredictorConfig())
    shape = (3, size, size)
    drawn = noise_of(noise, images, shape, place)
    xt, config = drawn(), SamplerConfig(**sampler)
    with torch.inference_mode():
        for _ in range(3):
            predict(xt, config.steps - 1)
    synchronize(place)
    done, started = 0, time.perf_counter()

    def on_step(t: int, xt: Tensor, x0: Tensor) -> None:
        nonlocal done
        done += 1
        if done % AT_ONCE == 0 and done < config.evaluations:
            synchronize(place)
            if time.perf_counter() - started > seconds:
                raise TimeoutError

    with suppress(TimeoutError):
        run_sampler(config, predict, schedule, xt, drawn, on_step)
    synchronize(place)
    taken = time.perf_counter() - started
    return {"seconds": taken / done * config.evaluations, "measured": done, "evaluations": config.evaluations}


def noise_of(kind: str, count: int, shape: tuple[int, int, int], device: torch.device) -> Callable[[], Tensor]:
    """Standard normal noise `[count, *shape]`: made `ahead`, as samplers have it, `in the step` or `on the device`."""
    if kind == "ahead":
        return ImageNoise(0, "sample", range(count), shape, device)
    if kind == "on the device":
        return lambda: torch.randn(count, *shape, device=device)
    generators = [numpy_stream(0, "sample", i) for i in range(count)]
    return lambda: torch.stack([normal(generator, shape) for generator in generators]).to(device)


def params_for(device: str) -> Params:
    """`params.yaml` with this device; on the CPU, one thread is never in another's way."""
    return read_params({"runtime": {"device": device, "threads": 1}})


def network_of(params: Params, model: str, fast_norms: bool = True) -> UNet:
    """The network of a model; without `fast_norms`, autocast computes its norms in float32 on CUDA."""
    network = UNet(params.section(UNetConfig, "models", model, "network"), params.mapping("extract")["size"])
    for module in network.modules():
        if isinstance(module, GroupNorm) and not fast_norms:
            module.__class__ = nn.GroupNorm  # type: ignore[assignment]
    return network


def operations(params: Params, model: str) -> int:
    """Floating-point operations an image, forward and backward, counted on tensors without numbers."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        network = network_of(params, model)
        size = params.mapping("extract")["size"]
        network(torch.zeros(1, 3, size, size), torch.zeros(1, dtype=torch.int64)).sum().backward()
    return counter.get_total_flops()


def waits(step: Callable[[], object]) -> int:
    """How often torch makes the host wait for the device in five steps."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(AT_ONCE):
            step()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in said)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    name, values = json.loads(sys.argv[1])
    measures: dict[str, Callable[..., dict[str, Any]]] = {"peaks": peaks, "train": train, "sample": sample}
    print(json.dumps(measures[name](**values)))
