"""The way into every stage, `python -m stages.NAME`: what must be settled before torch is loaded, then the work."""

import gc
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddpm.config import ConfigError
from stages.kit.enough import by_dvc
from stages.kit.errors import StageError, without_credentials
from stages.kit.launch import first_process, in_group, launch
from stages.kit.params import ModelEntry, Params, read_params
from stages.kit.runtime import RuntimeConfig, set_arithmetic

ROOT = Path(__file__).parents[2]


def check(stage: str) -> None:
    """End this process where `tools.check` finds what a stage of `dvc repro` after this one would refuse.

    In a process of its own, so that nothing it imports becomes part of what a state of a training belongs to. And not
    as a dependency: the answer changes no output, and another value of `rank.best` must train no model again.
    """
    images = Path("data", "images")
    there = stage not in ("fetch", "extract") and (images / "val.npy").exists()
    folder = ["--images", str(images)] if there else []
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"} | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-m", "tools.check", *folder], env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def takes_long(stage: str, entry: ModelEntry, params: Params) -> bool:
    """Whether `stage` trains a model with this `entry`, or gets images from elsewhere: then it asks `check` first."""
    diffusion, source = entry.kind == "diffusion", params.source().kind
    long = {
        "fetch": source == "lsun",  # a download
        "extract": source != "generate",
        "autoencode": entry.space == "latents",
        "train": diffusion,
        "tune": diffusion and params.mapping("tune").get("objective") != "none",
        "gan": entry.kind == "gan",
    }
    return long.get(stage, False)


def start(stage: str, *, shared: bool = False) -> None:
    """Run `main` of `stages.<stage>.stage` with the command line; a `shared` stage may run as several processes."""
    try:
        command, main = loaded(stage, shared)
    except KeyboardInterrupt:
        sys.exit(f"{stage}: interrupted before it began" if first_process() else 1)
    command.run(f"stages.{stage}", main)


def loaded(stage: str, shared: bool) -> tuple[Any, Callable[..., str]]:
    """The module `command` and `main` of the stage, with torch, after all checks that need no torch."""
    if not {"-h", "--help"} & set(sys.argv):
        try:
            params = read_params()
            entry = params.model()  # refused before anything is downloaded
            set_arithmetic(params.section(RuntimeConfig, "runtime"))
            if takes_long(stage, entry, params) and by_dvc() and not in_group():
                check(stage)
            if shared:
                launch(f"stages.{stage}", sys.argv[1:])
        except (StageError, ConfigError, OSError) as error:
            sys.exit(without_credentials(f"{stage}: error: {error}"))
    # Only now, because this loads torch. What is loaded lives until the process ends: to look for garbage among it
    # would take a third of the time of loading, and a second at the end.
    gc.disable()
    try:
        command = importlib.import_module("stages.kit.command")
        main = importlib.import_module(f"stages.{stage}.stage").main
    except (ImportError, MemoryError) as error:
        if isinstance(error, ImportError) and "failed to map" not in str(error):
            raise
        sys.exit(f"{stage}: error: out of memory before it began: torch alone takes 3 GB of address space (ulimit -v)")
    gc.freeze()
    gc.enable()
    return command, main
