"""The device that a stage computes on, and the line that says so."""

import os
import sys

import torch

from ddpm.config import ConfigError
from stages.kit.launch import first_process, process_count
from stages.kit.params import Params
from stages.kit.runtime import RuntimeConfig


def setup(params: Params) -> torch.device:
    """The device that `runtime.device` asks for (`auto`: CUDA where there is one), and `runtime.threads` threads.

    Of several processes on a machine each gets a CUDA device of its own.
    """
    runtime = params.section(RuntimeConfig, "runtime")
    torch.set_num_threads(runtime.threads)
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        device = torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"params.yaml: runtime.device = {runtime.device!r}: {reason}; try auto or cpu") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def announce(stage: str, device: torch.device, precision: torch.dtype) -> None:
    """Say on stderr, in the first process, what `stage` computes with."""
    if not first_process():
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    instructions = f" ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else ""
    processes, threads = process_count(), torch.get_num_threads()
    said = [counted(processes, "process", "processes"), counted(threads, "thread", "threads")]
    each = " each" if processes > 1 else ""
    number_format = str(precision).removeprefix("torch.")
    print(f"{stage}: {name}{instructions}, {number_format}, {', '.join(said)}{each}", file=sys.stderr)


def counted(number: int, one: str, many: str) -> str:
    """The number with the noun that fits."""
    return f"{number} {one if number == 1 else many}"
