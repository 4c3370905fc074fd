"""First light on a GPU: how fast the report's two models train and draw there, as tables in Markdown.

Run `python -m benchmarks.gpu > table.md`: at most nine minutes, no network, one GPU. It needs no data, no weights and
no `make repro`: images are noise, weights are random, and neither changes the time. Rows come in the order of what one
wants to know first, and what no longer fits into `--minutes` is left out and named. `--small` is for a machine without
a GPU: it takes `models.smoke` and little of everything and compiles nothing, to try the command itself.

`models.paper` and `models.report` train with their batch of 80: images per second, the share of what `torch.mm` reaches
in the same run and number format, the most memory that torch has reserved, how often the host waits for the device in
five steps, and the hours that 150 epochs of LSUN would take. Rows differ in the number format, in norms (in the type of
autocast, or in float32 as autocast alone has them) and in `runtime.compile`. Samples are drawn by the report's 1,000
ancestral steps and by the default sampler, with noise made ahead, in the step, or on the device (other images). At the
end the stage `train` runs three times with one seed: twice whole, and once killed after a save and started again.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from dvc.utils.hydra import apply_overrides
from safetensors.torch import load_file

from benchmarks._clone import Clone, variables
from stages.kit.params import read_params

LSUN_IMAGES, EPOCHS = 126_227, 150
REPORT_MINUTES = 8
"""What 64 samples took the report."""
ANCESTRAL = {"sampler": "ancestral", "steps": 1000}
NOISES = ("ahead", "in the step", "on the device")


class Session:
    """Measurements in processes of their own until the `minutes` are over."""

    def __init__(self, minutes: float, device: str):
        self.end, self.device = time.monotonic() + 60 * minutes, device

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def measure(self, name: str, **values: Any) -> dict[str, Any]:
        """What the function of `benchmarks._gpu` returns, or `error` with the reason why there is nothing."""
        print(f"gpu: {name} {values}, {self.left:.0f} s left", file=sys.stderr)
        command = [sys.executable, "-m", "benchmarks._gpu", json.dumps([name, {"device": self.device, **values}])]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
            run = subprocess.Popen(command, stdout=out, stderr=said, start_new_session=True)
            try:
                run.wait(timeout=max(self.left, 0.1))
            except subprocess.TimeoutExpired:
                return {"error": "no time left"}
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)  # torch.compile has workers
                run.wait()
            for file in (out, said):
                file.seek(0)
            if run.returncode:
                return {"error": said.read().strip().splitlines()[-1][:120]}
            return json.loads(out.read().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9, help="after which it ends (%(default)s)")
    parser.add_argument("--device", default="cuda", help="as runtime.device (%(default)s)")
    parser.add_argument("--small", action="store_true", help="models.smoke and little of everything")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("gpu: error: torch finds no GPU here; `--small --device cpu` tries the command on a CPU")
    session = Session(options.minutes, options.device)
    peaks = session.measure("peaks")
    if "error" in peaks:
        sys.exit(f"gpu: error: {peaks['error']}")
    print(f"{peaks['name']}, torch {torch.__version__}. `torch.mm`: {rates(peaks)}.\n", flush=True)
    paper, report = ("smoke", "smoke") if options.small else ("paper", "report")
    seconds = 1 if options.small else 8
    rows = [train_row(session, peaks, paper, "auto", seconds)]
    rows.append(train_row(session, peaks, report, "tf32_convolutions", seconds))
    drawn = [sample_row(session, paper, sampler, "ahead", options.small) for sampler in (ANCESTRAL, default_sampler())]
    repeated = repetition(session, paper, rows[0][0], 5 if options.small else 15)
    drawn += [sample_row(session, paper, {**ANCESTRAL, "steps": 100}, noise, options.small) for noise in NOISES]
    rows.append(train_row(session, peaks, paper, "auto", seconds, fast_norms=False))
    rows.append(train_row(session, peaks, report, "auto", seconds))
    if not options.small:  # each is a minute of compiling
        rows.append(train_row(session, peaks, paper, "auto", seconds, compiled=True))
        rows.append(train_row(session, peaks, paper, "auto", seconds, fast_norms=False, compiled=True))
        rows.append(train_row(session, peaks, report, "tf32_convolutions", seconds, compiled=True))
    print(
        f"| training | precision | norms | compiled | batch | images/s | of `torch.mm` | memory, GB | waits in 5 steps "
        f"| hours for {EPOCHS} epochs of LSUN |\n|---|---|---|---|---:|---:|---:|---:|---:|---:|"
    )
    print(*(line for _, line in rows), sep="\n")
    print("\n| drawing | images | sampler | evaluations | of them run | noise | seconds |")
    print("|---|---:|---|---:|---:|---|---:|")
    print(*drawn, sep="\n")
    print(f"\nThe report's 64 samples took {REPORT_MINUTES} minutes.\n\n{repeated}")


def rates(peaks: dict[str, Any]) -> str:
    names = ("bfloat16", "tf32", "float32")
    return ", ".join(f"{peaks[name] / 1e12:.3g} TFLOP/s in {name}" for name in names)


def default_sampler() -> dict[str, Any]:
    """That of the default model."""
    sampling = read_params().mapping("models", "tiny", "sampling")
    return {key: sampling[key] for key in ("sampler", "steps", "spacing")}


def train_row(
    session: Session, peaks: dict[str, Any], model: str, precision: str, seconds: float, *, fast_norms: bool = True,
    compiled: bool = False,
) -> tuple[float, str]:  # fmt: skip
    """Images per second, 0 if there are none, and the line of the table."""
    values = {"model": model, "precision": precision, "fast_norms": fast_norms, "compiled": compiled}
    found = session.measure("train", **values, seconds=seconds)
    norms, how = "fast" if fast_norms else "float32", "yes" if compiled else "no"
    if "error" in found:
        return 0, f"| {model} | {precision} | {norms} | {how} | {found['error']} | | | | | |"
    peak = "tf32" if precision == "tf32_convolutions" else found["number_format"]
    share = found["rate"] * found["operations"] / peaks[peak]
    hours = EPOCHS * LSUN_IMAGES / found["rate"] / 3600
    named = precision if precision != "auto" else found["number_format"]
    memory, waits = ("" if found[key] is None else f"{found[key]:.3g}" for key in ("memory", "waits"))
    line = f"| {model} | {named} | {norms} | {how} | {found['batch']} | {found['rate']:.1f} "
    return found["rate"], f"{line}| {100 * share:.0f} % of {peak} | {memory} | {waits} | {hours:.1f} |"


def sample_row(session: Session, model: str, sampler: dict[str, Any], noise: str, small: bool) -> str:
    """The line of the table."""
    images, seconds = (4, 2) if small else (64, 60)
    values = {"model": model, "precision": "auto", "sampler": sampler, "noise": noise}
    found = session.measure("sample", **values, images=images, seconds=seconds)
    name = f"{sampler['sampler']}, {sampler['steps']:,} steps"
    if "error" in found:
        return f"| {model} | {images} | {name} | | | {noise} | {found['error']} |"
    return (
        f"| {model} | {images} | {name} | {found['evaluations']:,} | {found['measured']:,} | {noise} "
        f"| {found['seconds']:.2f} |"
    )


def repetition(session: Session, model: str, rate: float, seconds: float) -> str:
    """In words: how much the weights of a second run with the same seed differ, and of one killed and continued.

    Each run takes about so many `seconds`.
    """
    if not rate or session.left < 60:
        return "The stage `train` was not run."
    epochs = max(12, min(400, int(seconds * rate / 96)))  # of the 96 images of data=smoke
    try:
        with tempfile.TemporaryDirectory() as scratch:
            clone = Clone(Path(scratch).resolve())
            changed = ["data=smoke", f"model={model}", f"epochs={epochs}", f"runtime.device={session.device}"]
            changed += ["runtime.threads=1", "runtime.save_every_seconds=1"]
            apply_overrides(clone.folder / "params.yaml", changed)
            clone.dvc("repro", "extract")
            first, again = trained(session, clone, "first"), trained(session, clone, "again")
            killed = trained(session, clone, "killed", kill=True)
            continued = trained(session, clone, "killed")
            return (
                f"The stage `train`, {epochs} epochs of 96 images with one seed. A second run: "
                f"{difference(clone, 'first', 'again')}. Killed after a save and started again "
                f"({killed or 'it had ended before'}; {continued}): {difference(clone, 'first', 'killed')}. "
                f"Both whole runs: {first}, {again}."
            )
    except (subprocess.SubprocessError, AssertionError, OSError) as error:
        return f"The stage `train` was not measured: {' '.join(str(error).split())[-300:]}"


def trained(session: Session, clone: Clone, name: str, *, kill: bool = False) -> str:
    """Run the stage, with its state apart from that of other names; where it began, or that it was killed."""
    print(f"gpu: stage train, {name}{', to be killed' if kill else ''}, {session.left:.0f} s left", file=sys.stderr)
    root = clone.folder / "runs" / name
    paths = {"--images": "data/images", "--model": root / "model", "--details": root / "train.json"}
    words = [str(word) for pair in ({**paths, "--losses": root / "loss.csv"}).items() for word in pair]
    root.mkdir(parents=True, exist_ok=True)
    with (root / "stderr").open("w+") as said:
        run = subprocess.Popen(
            [sys.executable, "-m", "stages.train", *words],
            cwd=clone.folder, env={**variables(), "DVC_ROOT": str(root)}, stdout=said, stderr=said,
        )  # fmt: skip
        try:
            while kill and run.poll() is None and session.left > 0 and not list(root.glob(".cache/train/*/state.pt")):
                time.sleep(0.05)
            if kill:
                run.kill()
            run.wait(timeout=max(session.left, 0.1))
        finally:
            run.kill()
        text = (root / "stderr").read_text()
        assert kill or not run.returncode, text
    if kill:
        return "SIGKILL" if run.returncode < 0 else ""
    return next((line for line in text.splitlines() if "continues" in line), "from step 0")


def difference(clone: Clone, one: str, other: str) -> str:
    """Of the last weights of two runs."""
    a, b = (load_file(clone.folder / "runs" / name / "model" / "raw.safetensors") for name in (one, other))
    largest = max(float((a[key] - b[key]).abs().max()) for key in a)
    return f"weights differ by at most {largest:.2g}" if largest else "the same bytes"


if __name__ == "__main__":
    main()
