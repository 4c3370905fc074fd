"""Many samples and images, and kills on the way, against the same undisturbed: `python -m benchmarks.soak`.

It needs the committed weights (`make repro`) and works in a clone of the repository as it stands: draws as many
training images as LSUN's church_outdoor has (once; they are kept in `.cache/benchmarks`), then runs `extract`,
`sample`, `rank` and `evaluate` as `dvc repro --single-item` does. The other stages are left out: their work doesn't
grow with these numbers, and `benchmarks.kills` kills `train`.

Each stage runs undisturbed first. Those of `--killed` run once more from nothing, with SIGKILL at random moments: to
the stage's process, or in half of the cases to DVC too. The same command starts it again. Then its outputs are compared
by sha256. As they are the same, the next stage has the same inputs in both runs: both chains are compared whole.

Memory is the most that the processes of a stage had resident (the kernel's VmHWM, workers included), and that without
the pages of mapped files, seen every 0.1 s, which the system can take back.
"""

import argparse
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from dvc.utils.hydra import apply_overrides

from benchmarks._clone import REPOSITORY, Clone
from benchmarks.kills import digests_of, log, outputs, process_of, processes, settle

CACHE = REPOSITORY / ".cache/benchmarks"
STAGES = ("extract", "sample", "rank", "evaluate")
HEAD = ("stage", "seconds", "memory, MB", "without mapped files, MB", "kills", "seconds with kills", "identical")


@dataclass
class Seen:
    """What a stage took: seconds, and bytes of all its processes together at most."""

    seconds: float = 0.0
    resident: int = 0
    own: int = 0


def prepared(folder: Path, options: argparse.Namespace) -> Clone:
    """A clone with weights and LMDBs, and nothing that the stages to come have written."""
    clone = Clone(folder)
    sizes = [f"sources.demo.train_images={options.images}", f"sample.count={options.samples}"]
    sizes += [f"rank.samples={options.ranked}", f"runtime.threads={options.threads}"]
    sizes += [f"sample.steps={options.steps}"] if options.steps else []
    apply_overrides(folder / "params.yaml", sizes)
    clone.git("rm", "-rq", "dvc.lock", "reports")
    for name in ("model", "tuned", "gan", "latents", "weights"):
        shutil.copytree(REPOSITORY / "data" / name, folder / "data" / name)
    kept = CACHE / f"soak_{options.images}_{clone.git('rev-parse', '--short', 'HEAD:ddpm/drawing').strip()}"
    if not kept.exists():
        clone.dvc("repro", "--single-item", "fetch")
        unfinished = kept.with_name(f"{kept.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(folder / "data/lmdb", unfinished / "lmdb")
        shutil.copy(folder / "data/factors.csv", unfinished)
        unfinished.rename(kept)
    shutil.copytree(kept, folder / "data", dirs_exist_ok=True)
    return clone


def watched(clone: Clone, stage: str, kill_after: float | None, with_dvc: bool = False) -> tuple[Seen, bool]:
    """Run a stage, or kill it after so many seconds; what it took, and whether it was killed.

    Raises:
        SystemExit: it failed by itself.
    """
    seen, killed = Seen(), False
    log(clone).parent.mkdir(parents=True, exist_ok=True)
    with log(clone).open("a") as file:
        run = clone.start("repro", "--single-item", "--force", stage, stdout=file, stderr=file)
    process = process_of(clone, run, stage)
    started = time.monotonic()
    while run.poll() is None and not killed:
        own = [each for each in processes(clone.folder) if f"stages.{stage}" in (each.info["cmdline"] or [])]
        sizes = [memory(each.pid) for each in own]
        seen.resident = max(seen.resident, sum(resident for resident, _ in sizes))
        seen.own = max(seen.own, sum(private for _, private in sizes))
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            seen.seconds = time.monotonic() - started
            if kill_after is not None and seen.seconds > kill_after:
                for each in processes(clone.folder) if with_dvc else []:
                    if each not in own:
                        with suppress(psutil.NoSuchProcess):
                            each.kill()
                process.kill()
                killed = True
        time.sleep(0.1)
    settle(clone, run)
    if run.returncode and not killed:
        sys.exit(f"soak: error: {stage} failed, and not by a kill:\n{log(clone).read_text()[-3000:]}")
    return seen, killed and run.returncode != 0


def memory(pid: int) -> tuple[int, int]:
    """Of a process, the most bytes that were resident so far, and how many are now without pages of files."""
    fields = {}
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
    most, anonymous, shared = (
        1024 * int(fields.get(name, "0 kB").split()[0]) for name in ("VmHWM", "RssAnon", "RssShmem")
    )
    return most, anonymous + shared


def soaked(clone: Clone, stage: str, kills: int, draw: random.Random) -> tuple[list[str], bool]:
    """The stage's row of the table, and whether both runs wrote the same; without kills it runs once alone."""
    whole, _ = watched(clone, stage, None)
    sizes = [f"{size / 1e6:,.0f}" for size in (whole.resident, whole.own)]
    if not kills:
        return [stage, f"{whole.seconds:,.0f}", *sizes, "", "", ""], True
    expected = digests_of(clone, outputs(clone, stage))
    for path in expected:
        (clone.folder / path).unlink()
    shutil.rmtree(clone.folder / ".cache" / stage, ignore_errors=True)
    hits, seconds = 0, 0.0
    for number in range(kills + 1):
        # So that together they end before the stage would.
        moment = draw.uniform(0, whole.seconds / kills) if number < kills else None
        part, killed = watched(clone, stage, moment, draw.random() < 0.5)
        hits, seconds = hits + killed, seconds + part.seconds
        if not killed:
            break
    same = digests_of(clone, outputs(clone, stage)) == expected
    return [stage, f"{whole.seconds:,.0f}", *sizes, str(hits), f"{seconds:,.0f}", "yes" if same else "NO"], same


def main() -> None:
    """Print a line of the table after each stage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--images", type=int, default=126_227, help="for training (%(default)s)")
    parser.add_argument("--samples", type=int, default=50_000, help="that are drawn and evaluated (%(default)s)")
    parser.add_argument("--ranked", type=int, default=50_000, help="of the samples (%(default)s)")
    parser.add_argument("--steps", type=int, help="of the sampler, as sample.steps (the model's own)")
    parser.add_argument("--kills", type=int, default=10, help="of all stages together (%(default)s)")
    parser.add_argument("--killed", nargs="+", choices=STAGES, default=STAGES, help="stages (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="runtime.threads; 1 where others work (%(default)s)")
    options = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as in benchmarks.kills
    draw, differing = random.Random(options.seed), []
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        try:
            clone = prepared(folder, options)
            for line in (HEAD, ("---", *["---:"] * (len(HEAD) - 1))):
                print(f"| {' | '.join(line)} |", flush=True)
            kills = Counter(itertools.islice(itertools.cycle(options.killed), options.kills))
            for stage in STAGES:
                row, same = soaked(clone, stage, kills[stage], draw)
                print(f"| {' | '.join(row)} |", flush=True)
                differing += [] if same else [stage]
        finally:
            for process in processes(folder):
                process.kill()
    if differing:
        sys.exit(f"soak: error: other bytes after kills: {', '.join(differing)}")


if __name__ == "__main__":
    main()
