"""The device that a stage computes on, and the line that says so."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import torch

from ddpm.config import ConfigError
from stages.kit.launch import first_process, in_group, process_count
from stages.kit.params import Params
from stages.kit.runtime import RuntimeConfig

DRIVER = Path("/proc/driver/nvidia/version")
PCI = Path("/sys/bus/pci/devices")
NVIDIA, DISPLAY = "0x10de", "0x03"
"""The vendor, and what the classes of display controllers begin with, data centre cards included."""
REMEDIES = {
    "no kernel image": "this build of torch has no kernels for the card, which may be too old",
    "No CUDA GPUs": "see CUDA_VISIBLE_DEVICES; start a container with its GPUs, as by `docker run --gpus all`",
    "no NVIDIA driver": "start a container with its GPUs, as by `docker run --gpus all`",
    "not compiled with CUDA": "install the packages of requirements.lock",
}
"""What helps, by words of torch's error. Of a driver that is too old, torch says itself what to do."""


def setup(params: Params) -> torch.device:
    """The device that `runtime.device` asks for, and `runtime.threads` threads.

    `auto` is CUDA where it works. Where there is an NVIDIA card on which it doesn't, a line on stderr says why. Of
    several processes on a machine each gets a CUDA device of its own.

    Raises:
        ConfigError: torch can't compute on the device that was asked for.
    """
    runtime = params.section(RuntimeConfig, "runtime")
    torch.set_num_threads(runtime.threads)
    own = f"cuda:{os.environ.get('LOCAL_RANK', 0) if in_group() else 0}"
    name = own if runtime.device == "cuda" else runtime.device
    if name == "auto":
        name = own if torch.cuda.is_available() or has_card() else "cpu"
    reason = unusable(name)
    auto = runtime.device == "auto"
    if reason and auto and process_count() == 1:  # of several, all have to compute alike
        print(f"runtime.device = auto: computes on the CPU: there is an NVIDIA card, but {reason}", file=sys.stderr)
        name, reason = "cpu", None
    if reason:
        others = "cpu" if auto else "auto or cpu"
        raise ConfigError(f"params.yaml: runtime.device = {runtime.device!r}: {reason}; try {others}")
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def unusable(name: str) -> str | None:
    """Why torch can't compute on the device `name`, in a line, and what helps; None where it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns in many lines of what the error says
            torch.ones(2, device=name).add(1).sum().item()  # starts kernels, which an old card may lack
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = next((remedy for said, remedy in REMEDIES.items() if said in reason), None)
        return f"{reason} ({remedy})" if remedy else reason
    return None


def has_card() -> bool:
    """Whether this machine has an NVIDIA card, also one whose driver is missing or hidden from a container."""
    if DRIVER.exists():
        return True
    for device in PCI.glob("*"):
        if _read(device / "vendor") == NVIDIA and _read(device / "class").startswith(DISPLAY):
            return True
    try:  # under WSL the card is no PCI device
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""


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
