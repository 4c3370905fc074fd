"""Where things are, what makes a run quick, and how a thing that takes long is made once for all workers."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[1]
PHOTOS = REPOSITORY.parent / "shared" / "data"
"""LMDBs of real photographs, which not every machine has."""
STAGES = list(YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"])
LITTLE = (
    "data=demo",
    "model=tiny",
    "epochs=2",
    "models.tiny.network.channels=16",
    "models.tiny.network.groups=1",
    "models.tiny.network.patch=4",
    "sources.demo.train_images=96",
    "sources.demo.val_images=32",
    "interpolate.pairs=2",
    "interpolate.frames=3",
    "interpolate.steps=2",
    "likelihood.images=16",
    "likelihood.bins=4",
    "rank.batches=2",
    "sample.count=64",
    "runtime.threads=1",
)
"""What makes the default profile quick."""


def little_options(*changes: str) -> list[str]:
    """Those of `dvc exp run` for the default profile on little data, but for `changes` such as `"epochs=1"`."""
    values = dict(change.split("=", 1) for change in [*LITTLE, *changes])
    return [word for key, value in values.items() for word in ("-S", f"{key}={value}")]


WriteParams = Callable[[dict[str, Any]], None]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` as `make` fills it, in the worker that asks first; all workers of a test run share it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / f"{name}.done"
        if not done.exists():
            shutil.rmtree(folder / name, ignore_errors=True)  # what a worker left that failed
            (folder / name).mkdir()
            make(folder / name)
            done.touch()
    return folder / name
