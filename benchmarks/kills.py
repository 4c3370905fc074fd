"""Training killed at random moments and started again, against training that isn't: `python -m benchmarks.kills`.

All of it happens in a clone of the repository as it stands, with the smoke profile and dropout. A round starts from a
copy of the clone that has data, but no weights, no working state and no run of `train` in DVC's run cache. It starts a
command, waits for a moment drawn uniformly over the life of an uninterrupted trainer, from the start of Python to the
end of the last output, and sends SIGKILL: to the trainer, or in half of the cases to DVC with its workers and then to
the trainer, as a power cut would. So it goes on, with the same command, up to five kills, and then to the end. A kill
that comes when training has ended counts as none, and ends the round. A life is measured in CPU time, which other work
on the machine doesn't stretch.

What a round leaves is compared with what an uninterrupted `dvc repro` leaves, by sha256: `dvc.lock`, `reports/` and
every output in `dvc.yaml`, checked out where DVC worked in a copy of its own. A mode runs the whole graph in its rounds
up to the first that was killed, then `train` alone: what follows reads nothing of training but the compared files.
"""

import argparse
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML
from tqdm import tqdm

from benchmarks._clone import Clone
from stages.kit.files import digest
from stages.kit.progress import progress

PARAMETERS = [
    "data=smoke",
    "model=smoke",
    "epochs=6",  # with the start of Python and torch 7 seconds
    "models.smoke.network.dropout=0.1",  # one more thing that is drawn
    "interpolate.steps=5",
    "runtime.save_every_seconds=0.5",
]
KILLS_A_ROUND = 5
PATIENCE = 180
"""Seconds within which the trainer must have started."""
PLACES = ("before its first save", "after a save", "while writing outputs")
"""Where a kill hits a trainer."""


@dataclass(frozen=True)
class Mode:
    """A way to run the pipeline; `apart` from the workspace, which stays as it is."""

    command: str
    apart: bool = False
    queued: bool = False


REPRO = Mode("repro")
MODES = (
    REPRO,
    Mode("exp run"),
    Mode("exp run --temp", apart=True),
    Mode("exp run --queue", apart=True, queued=True),
)


@dataclass(frozen=True)
class Whole:
    """The uninterrupted run: its trainer's seconds of CPU time, and the digests after training and at the end."""

    seconds: float
    trained: dict[str, str]
    finished: dict[str, str]


class Blow(NamedTuple):
    """A kill to come: after so many seconds of the trainer's CPU time, of DVC too or not."""

    moment: float
    on_dvc: bool


class Hit(NamedTuple):
    """A kill that hit a trainer."""

    place: str
    on_dvc: bool


@dataclass
class Tally:
    """What became of one mode's rounds."""

    hits: list[Hit] = field(default_factory=list)
    rounds: int = 0
    identical: int = 0


def outputs(clone: Clone, stage: str | None = None) -> list[str]:
    """The paths of what a stage writes; without `stage`, of what all write."""
    stages = YAML(typ="safe").load(clone.folder / "dvc.yaml")["stages"]
    chosen = [stages[stage]] if stage else stages.values()
    listed = [out for each in chosen for kind in ("outs", "metrics", "plots") for out in each.get(kind, [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def prepared(folder: Path, threads: int) -> Clone:
    """A clone that has all that training needs, and nothing of what the committed run wrote."""
    folder.mkdir()
    clone = Clone(folder)
    apply_overrides(folder / "params.yaml", [*PARAMETERS, f"runtime.threads={threads}"])
    clone.git("rm", "-rq", "dvc.lock", "reports")
    clone.dvc("repro", "extract", "weights")
    clone.commit("data")
    return clone


def start(clone: Clone, mode: Mode, stages: list[str]) -> subprocess.Popen[str]:
    """Run these stages, or all; for a queued mode, the process ends when the work has begun."""
    command = [*mode.command.split(), *stages]
    if mode.queued:
        clone.dvc("queue", "remove", "--failed")
        clone.dvc(*command)
        command = ["queue", "start"]
    with log(clone).open("a") as file:  # no pipe: it would be open until the queue's worker ends
        return clone.start(*command, stdout=file, stderr=file)


def log(clone: Clone) -> Path:
    """What `dvc` wrote."""
    return clone.folder / ".cache" / "log" / "dvc.txt"


def processes(folder: Path) -> list[psutil.Process]:
    """Those that work in `folder` or below it."""
    found = psutil.process_iter(["cwd", "cmdline"])
    return [process for process in found if Path(process.info["cwd"] or "/").is_relative_to(folder)]


def process_of(clone: Clone, run: subprocess.Popen[str], stage: str = "train") -> psutil.Process:
    """The process of a stage, as soon as there is one."""
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE and not run.poll():
        module = f"stages.{stage}"
        found = [process for process in processes(clone.folder) if module in (process.info["cmdline"] or [])]
        if found:
            return min(found, key=lambda process: process.create_time())  # the others are its workers
        time.sleep(0.05)
    sys.exit(f"kills: error: {stage} did not start:\n{log(clone).read_text()}")


def watch(trainer: psutil.Process, until: float = math.inf) -> float:
    """Wait for the process to use so many seconds of CPU time, or to end; the seconds that it has used."""
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        while trainer.is_running() and seconds < until:
            times = trainer.cpu_times()
            seconds = times.user + times.system
            time.sleep(0.01)
    return seconds


def place(clone: Clone, trainer: psutil.Process) -> str:
    """Where the trainer is; one of `PLACES`."""
    # DVC has removed the outputs of earlier runs.
    if any((Path(trainer.cwd()) / path).exists() for path in outputs(clone, "train")):
        return PLACES[2]
    states = (clone.folder / ".cache" / "train").glob("*/state.pt")
    return PLACES[1] if any(state.stat().st_mtime > trainer.create_time() for state in states) else PLACES[0]


def kill(clone: Clone, trainer: psutil.Process, with_dvc: bool) -> str | None:
    """Kill the trainer, after DVC if asked to; the place where it was, or None if it had ended by itself."""
    with suppress(psutil.NoSuchProcess):
        where = place(clone, trainer)
        for process in processes(clone.folder) if with_dvc else []:
            if process != trainer:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        trainer.kill()
        return where
    return None


def settle(clone: Clone, run: subprocess.Popen[str]) -> None:
    """Wait for the end of all that works in the clone, a queue's worker too, which goes when it finds no more work."""
    run.wait()
    while left := processes(clone.folder):
        psutil.wait_procs(left)


def experiments(clone: Clone) -> list[str]:
    """The Git refs of DVC's experiments; a run that fails leaves none."""
    return clone.git("for-each-ref", "--format=%(refname)", "refs/exps/??/*/*").split()


def digests(clone: Clone, mode: Mode) -> dict[str, str]:
    """sha256 of all that a run leaves, by path."""
    if mode.apart:  # `dvc exp apply` would fail where stages have not run
        [experiment] = experiments(clone)
        clone.git("checkout", experiment, "--", ".")
        clone.dvc("checkout", "--allow-missing")
    return digests_of(clone, ["dvc.lock", "reports", *outputs(clone)])


def digests_of(clone: Clone, names: list[str]) -> dict[str, str]:
    """sha256 of each of the files, and of those in the folders, by path."""
    found: dict[str, str] = {}
    for path in (clone.folder / name for name in names):
        files = path.rglob("*") if path.is_dir() else [path]
        found |= {str(file.relative_to(clone.folder)): digest(file) for file in files if file.is_file()}
    return found


def uninterrupted(clone: Clone) -> Whole:
    """Run the whole graph in the clone."""
    run = start(clone, REPRO, ["train"])
    trainer = process_of(clone, run)
    seconds = watch(trainer)
    settle(clone, run)
    trained = digests(clone, REPRO)
    clone.dvc("repro")
    return Whole(seconds, trained, digests(clone, REPRO))


def killed(clone: Clone, mode: Mode, stages: list[str], blows: list[Blow]) -> Iterator[Hit]:
    """Run these stages, struck by one blow after the other, then to the end; the blows that hit a trainer."""
    for blow in [*blows, None]:
        run = start(clone, mode, stages)
        trainer = process_of(clone, run)
        where = None
        if blow:
            watch(trainer, blow.moment)
            where = kill(clone, trainer, blow.on_dvc)
        settle(clone, run)
        if run.returncode == 0 and (mode == REPRO or experiments(clone)):
            return
        if not where or not blow:
            sys.exit(f"kills: error: dvc {mode.command} failed, and not by a kill:\n{log(clone).read_text()}")
        yield Hit(where, blow.on_dvc)


def survived(base: Clone, mode: Mode, whole: Whole, kills: int, draw: random.Random, bar: tqdm) -> Tally:
    """Rounds of one mode, until there have been as many kills."""
    tally = Tally()
    while len(tally.hits) < kills:
        clone = base.copy(base.folder.with_name("round"))
        stages, expected = (["train"], whole.trained) if tally.hits else ([], whole.finished)
        count = min(KILLS_A_ROUND, kills - len(tally.hits))
        blows = [Blow(draw.uniform(0, whole.seconds), draw.random() < 0.5) for _ in range(count)]
        for hit in killed(clone, mode, stages, blows):
            tally.hits.append(hit)
            bar.update()
        found = digests(clone, mode)
        differing = sorted(path for path in expected | found if expected.get(path) != found.get(path))
        if differing:
            bar.write(f"dvc {mode.command}, round {tally.rounds + 1} differs: {', '.join(differing)}", file=sys.stderr)
        tally.rounds += 1
        tally.identical += not differing
        shutil.rmtree(clone.folder)
    return tally


def table(tallies: dict[Mode, Tally]) -> str:
    """In Markdown."""
    head = ["run mode", "kills", *PLACES, "of DVC too", "completed runs", "identical"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for mode, tally in tallies.items():
        places = [sum(hit.place == place for hit in tally.hits) for place in PLACES]
        on_dvc = sum(hit.on_dvc for hit in tally.hits)
        rows.append(
            [f"`dvc {mode.command}`", *map(str, [len(tally.hits), *places, on_dvc, tally.rounds, tally.identical])]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills")
    parser.add_argument("--kills", type=int, default=100, help="of all run modes together (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="runtime.threads; 1 where others work (%(default)s)")
    options = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = (
        "PASSIVE"  # beside other work, threads that wait by spinning take minutes for seconds
    )
    draw, tallies = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as scratch, progress(options.kills, "kills", label="prepare") as bar:
        folder = Path(scratch).resolve()
        try:
            base = prepared(folder / "base", options.threads)
            whole = uninterrupted(base.copy(folder / "whole"))
            for index, mode in enumerate(MODES):
                bar.set_description(mode.command)
                share = len(range(index, options.kills, len(MODES)))
                tallies[mode] = survived(base, mode, whole, share, draw, bar)
        finally:
            for process in processes(folder):
                process.kill()
    print(f"An uninterrupted trainer takes {whole.seconds:.1f} s of CPU time.\n\n{table(tallies)}")
    if any(tally.identical < tally.rounds for tally in tallies.values()):
        sys.exit("kills: error: a killed run left other bytes than the uninterrupted one")


if __name__ == "__main__":
    main()
