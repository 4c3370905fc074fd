"""KID of ours and of three public programs after the same minutes of training on this machine's CPU.

Run `python -m benchmarks.equal_minutes --zoubohao PATH --diffusers PATH [NAME ...]` after `dvc repro`, with the
packages of the peers installed too (see `benchmarks/peers.py`); a peer without a path is left out. All train on
`data/images/train.npy` in turn, each alone. Ours is `models.tiny`. A peer keeps the optimiser, the rate, the batch, the
noise schedule, the target, the averaging and the precision of its own script, and the shape of its own network, made
narrower to 4.5 to 5.2 million parameters; two of them can't be narrower, as a norm of 32 groups needs 32 channels:

- zoubohao: 32 channels instead of 128, multipliers 1-2-3-4;
- lucidrains: 22 channels instead of the 64 in its README, multipliers 1-2-4-8;
- diffusers: 32 channels instead of 128, multipliers 1-1-2-2-4, a level less than in its script (1-1-2-2-4-4), because
  48 pixels can't be halved five times.

A schedule of the learning rate is made as long as the minutes, from the pace of a few steps before, because it is the
user who says how long to train; `--own-epochs` leaves the peers' at the 200 and 100 epochs of their scripts. The clock
starts when the first step is done, and stops everyone. Names that end in `_bfloat16` are the same peers with what they
have for mixed precision (zoubohao has nothing: an autocast is set from outside); ours has it by default, unless it is
`ours_float32`. Names that end in `_our_rate` are peers that train at our rate, warm-up, batch and averages, as far as
they can be told to: `OUR_RATE`.

Samples are drawn by each program's own sampler, in 100 evaluations, or 1,000 for zoubohao, which knows no fewer. Prints
one table row a program and writes 64 of its samples to `benchmarks/grids/equal_minutes_NAME.png`.
"""

import argparse
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._isolated import isolated
from benchmarks.peers import ROOT, Clock, Program, Trained, diffusers, lucidrains, ours, workplace, zoubohao
from ddpm.evaluation.metrics import kid
from ddpm.evaluation.perceptual import load_lpips, pooled_features
from ddpm.images import tile_grid, to_model_range
from stages.kit.progress import progress
from stages.shared.files.formats import read_safetensors, write_png

WARM_UP, TIMED = 2, 8
"""Steps before the pace is measured, and those it is measured over."""
CHUNK = 64
"""Images that are drawn at once."""
HELP = "ours, zoubohao, lucidrains, diffusers (all of these), ours_float32, PEER_bfloat16, PEER_our_rate"

ZOUBOHAO: Mapping[str, Any] = {"channel": 32}
LUCIDRAINS: Mapping[str, Any] = {"dim": 22, "dim_mults": (1, 2, 4, 8)}
DIFFUSERS: Mapping[str, Any] = {
    "block_out_channels": (32, 32, 64, 64, 128),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
}
RATE, WARM_UP_STEPS, BATCH, EMA_DECAY = 0.0012, 100, 16, 0.999
"""As `models.tiny` has them, but for the rate: that of its last recipe with AdamW. All peers have Adam or AdamW."""
OUR_RATE: Mapping[str, Mapping[str, Any]] = {
    # zoubohao's rate rises from `lr` to `multiplier` times that in a tenth of its epochs, and it averages no weights.
    "zoubohao": {"settings": {**ZOUBOHAO, "lr": RATE / 2, "multiplier": 2.0, "batch_size": BATCH}},
    "lucidrains": {"recipe": {"train_lr": RATE, "ema_decay": EMA_DECAY, "ema_update_every": 1}},
    "diffusers": {"recipe": {"learning_rate": RATE, "lr_warmup_steps": WARM_UP_STEPS, "ema_max_decay": EMA_DECAY}},
}


@dataclass(frozen=True)
class Run:
    """What came of one program: minutes of training, images/s and images in them, samples, uint8 `[N, H, W, 3]`."""

    parameters: int
    minutes: float
    rate: float
    images: int
    drawn: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=HELP)
    parser.add_argument("--zoubohao", type=Path, metavar="PATH", help="a checkout of its repository")
    parser.add_argument("--diffusers", type=Path, metavar="PATH", help="its train_unconditional.py")
    parser.add_argument("--minutes", type=float, default=10, help="of training for each (10)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU, for each (2)")
    parser.add_argument("--samples", type=int, default=128, help="that are drawn of each (128)")
    parser.add_argument("--own-epochs", action="store_true", help="leave the peers' rate schedules at their own length")
    arguments = parser.parse_args()
    programs = available(arguments.zoubohao, arguments.diffusers)
    names = arguments.names or [name for name in programs if "_" not in name]
    missing = [name for name in names if name not in programs]
    if missing:
        parser.error(f"{missing[0]}: no such program, or no path to it; there are {', '.join(programs)}")
    tensors, metadata = read_safetensors(ROOT / "data/weights/lpips.safetensors")
    lpips = load_lpips(tensors, metadata["net"])
    reference = pooled_features(lpips, to_model_range(np.load(ROOT / "data/images/val.npy")))
    print(
        "| program | parameters | minutes | images/s | images seen | KID | 95 % interval | n |\n"
        "|---|---:|---:|---:|---:|---:|---|---:|",
        flush=True,
    )
    with workplace() as folder, progress(len(names), "program") as bar:
        for name in names:
            bar.set_description(name)
            fitted = name == "ours" or not arguments.own_epochs
            run = one(programs[name], folder, arguments.threads, 60 * arguments.minutes, fitted, arguments.samples)
            write_png(ROOT / f"benchmarks/grids/equal_minutes_{name}.png", tile_grid(run.drawn[:64], columns=8))
            found = kid(pooled_features(lpips, to_model_range(run.drawn)), reference)
            print(
                f"| {name} | {run.parameters:,} | {run.minutes:.1f} | {run.rate:.0f} | {run.images:,} "
                f"| {found.value:.3f} | {found.low:.3f} to {found.high:.3f} | {found.n} |",
                flush=True,
            )
            bar.update()


def available(zoubohao_path: Path | None, diffusers_path: Path | None) -> dict[str, Program]:
    """The programs by name."""
    peers: dict[str, functools.partial[Trained]] = {"lucidrains": functools.partial(lucidrains, network=LUCIDRAINS)}
    if zoubohao_path:
        peers["zoubohao"] = functools.partial(zoubohao, source=zoubohao_path, settings=ZOUBOHAO)
    if diffusers_path:
        peers["diffusers"] = functools.partial(diffusers, script=diffusers_path, network=DIFFUSERS)
    programs: dict[str, Program] = {"ours": ours, "ours_float32": functools.partial(ours, precision="float32")}
    for name, peer in peers.items():
        programs[name] = peer
        programs[f"{name}_bfloat16"] = functools.partial(peer, bfloat16=True)
        programs[f"{name}_our_rate"] = functools.partial(peer, **OUR_RATE[name])
    return programs


def one(program: Program, folder: Path, threads: int, seconds: float, fitted: bool, samples: int) -> Run:
    """Measure the pace, then train and draw, each in a process of its own."""
    total_steps = max(1, round(seconds / isolated(threads, pace, program, folder))) if fitted else None
    return isolated(threads, train_and_draw, program, folder, seconds, total_steps, samples)


def pace(program: Program, folder: Path) -> float:
    """Seconds a step."""
    clock = Clock(steps=WARM_UP + TIMED)
    program(folder, clock)
    return clock.seconds_per_step(WARM_UP)


def train_and_draw(program: Program, folder: Path, seconds: float, total_steps: int | None, samples: int) -> Run:
    """Train for the time given, then draw so many samples."""
    clock = Clock(seconds=seconds)
    trained = program(folder, clock, total_steps=total_steps)
    drawn = [trained.sample(min(CHUNK, samples - first)) for first in range(0, samples, CHUNK)]
    rate, minutes = trained.batch / clock.seconds_per_step(1), (clock.times[-1] - clock.times[0]) / 60
    return Run(trained.parameters, minutes, rate, len(clock.times) * trained.batch, np.concatenate(drawn))


if __name__ == "__main__":
    main()
