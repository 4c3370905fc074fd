"""Processes that run the stage `train`, `tune`, `gan` or `autoencode` of a small network on a few drawn churches."""

import os
import resource
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

SMALL = {
    "model": "smoke",
    "epochs": 6,  # of 6 steps
    "models.smoke.network.channels": 8,
    "models.smoke.network.patch": 4,
    "models.smoke.network.attention": [],
    "models.smoke.network.dropout": 0.1,
    "models.smoke.recipe.batch_images": 8,
    "models.smoke.recipe.rate_schedule": "constant",
    "train.precision": "float32",
    "runtime.device": "cpu",
    "runtime.threads": 1,
    "runtime.save_every_seconds": 0,
}


SMALL_GAN = {
    "model": "gan",
    "epochs": 6,  # of 6 steps
    "models.gan.network.latent_channels": 8,
    "models.gan.network.channels": [16, 8, 4, 4, 4],
    "models.gan.recipe.batch_images": 8,
    **{name: value for name, value in SMALL.items() if name.startswith(("train", "runtime"))},
}


def arguments(out: Path, stage: str = "train") -> list[str]:
    """Those of `python -m stages.STAGE` in the folder of the images; `tune` takes the weights in `trained`."""
    given = ["trained/model"] if stage == "tune" else []
    weights = {"train": "model", "tune": "tuned", "gan": "gan", "autoencode": "latents"}[stage]
    written = {weights: weights, "details": f"{stage}.json", "losses": "loss.csv"}
    options = [word for name, file in written.items() for word in (f"--{name}", str(out / file))]
    return [*given, "--images", ".", *options]


def outputs(out: Path) -> dict[str, bytes]:
    """The content of every file."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def _main(
    stage: str, folder: Path, out: Path, environment: dict[str, str], stderr: Path, before: Callable[[], None]
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    with stderr.open("ab") as file:
        os.dup2(file.fileno(), 2)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ddpm", "stages")]:
        del sys.modules[name]  # what the fork server has loaded beyond `python -m stages.STAGE` counts as its code
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    before()
    sys.argv = [stage, *arguments(out, stage)]
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)


def nothing() -> None:
    """Do nothing."""


def allow_little_memory() -> None:
    """Let this process take 600 MiB more than it has."""
    limit = psutil.Process().memory_info().vms + (600 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class Trainers:
    """Starts `python -m stages.STAGE` in `folder`, forked from a process that has imported torch."""

    def __init__(self, processes: ForkServerContext, folder: Path, stage: str = "train"):
        self.processes, self.folder, self.stage = processes, folder, stage

    def start(
        self, out: str = "out", *, root: str = ".", before: Callable[[], None] = nothing, **environment: str
    ) -> BaseProcess:
        """Start one that writes into `out`, keeps its state below `root` and appends to `<out>.err`."""
        environment["DVC_ROOT"] = str(self.folder / root)
        process = self.processes.Process(
            target=_main,
            args=(self.stage, self.folder, self.folder / out, environment, self.folder / f"{out}.err", before),
        )
        process.start()
        return process

    def run(self, out: str = "out", **options: Any) -> tuple[int | None, str]:
        """Run one to its end: exit code, and what it wrote to stderr."""
        (self.folder / f"{out}.err").unlink(missing_ok=True)
        process = self.start(out, **options)
        process.join()
        return process.exitcode, (self.folder / f"{out}.err").read_text()

    def start_two(self, out: str = "out", **options: Any) -> list[BaseProcess]:
        """Start two that train together, as torchrun would start them."""
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused.getsockname()[1]), "WORLD_SIZE": "2"}
        return [self.start(out, RANK=rank, LOCAL_RANK=rank, **where, **options) for rank in ("0", "1")]

    def run_two(self, out: str = "out", **options: Any) -> tuple[list[int | None], str]:
        """Run two to their end: exit codes, and what they wrote to stderr."""
        (self.folder / f"{out}.err").unlink(missing_ok=True)
        ranks = self.start_two(out, **options)
        for process in ranks:
            process.join()
        return [process.exitcode for process in ranks], (self.folder / f"{out}.err").read_text()

    def wait_for_state(self, root: str = ".", since: float = 0.0) -> None:
        """Wait until one has saved its state after the moment `since`."""
        for _ in range(6000):
            files = (self.folder / root / ".cache" / self.stage).glob("*/state.pt")
            if any(file.stat().st_mtime > since for file in files):
                return
            time.sleep(0.01)
        said = {path.name: path.read_text() for path in self.folder.glob("*.err")}
        raise TimeoutError(f"no state was saved in a minute: {said}")

    def wait_for_line(self, out: str, words: str) -> str:
        """Wait until one that writes into `out` has said a line with `words`; return it."""
        file = self.folder / f"{out}.err"
        for _ in range(6000):
            lines = file.read_text().splitlines() if file.exists() else []
            for line in lines:
                if words in line:
                    return line
            time.sleep(0.01)
        raise TimeoutError(f"nothing of {words!r} was said in a minute: {lines}")

    def killed(self, **options: Any) -> Path:
        """Kill one that has saved a state; return that state's folder."""
        started = time.time()
        process = self.start("killed", **options)
        self.wait_for_state(since=started)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it had ended before"
        return max(
            (self.folder / ".cache" / self.stage).glob("*/state.pt"), key=lambda file: file.stat().st_mtime
        ).parent
