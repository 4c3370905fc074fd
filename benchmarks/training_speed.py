"""Training images per second of ours and of three public programs, on two threads of this machine's CPU.

Run `python -m benchmarks.training_speed --zoubohao PATH --diffusers PATH` after `dvc repro`, with the packages of the
peers installed too (see `benchmarks/peers.py`); a peer without a path is left out. All train one network, as each can
express it, with batches of 16: 48 x 48 pixels, 64 channels, multipliers 1-2-2-2, two blocks, attention at 12 x 12, no
dropout. lucidrains differs most: the wider channels begin a level later, the first convolution has 7 x 7 weights, and
the other levels have linear attention, which can't be left out. Ours has a second row, with norms of 4 groups instead
of Ho et al.'s 32: only these are fast in the memory layout that the convolutions want. Two more rows are our default
model at its own batch.

Every measurement is a process of its own, the rows take turns, and a rate is the median of the rounds. Each loop runs
with all that it does in a step: loading, loss, gradients, clipping, optimiser, averages. Memory is the most that the
process had at once, without its loading workers (zoubohao has four, lucidrains two). Operations are counted by torch in
one step of the same loop (convolutions, matrix products and attention, forward and backward; a multiplication and an
addition are two) and put beside what `torch.mm` reaches in the same rounds.

With `--sizes` the table is of ours alone, in bfloat16: that network, and the default model at other widths and batches.
Its last columns are the part of a step that is spent in convolutions, by torch's profiler, and how fast these are.
"""

import argparse
import functools
import resource
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from benchmarks._isolated import isolated
from benchmarks.peers import Clock, Program, diffusers, lucidrains, ours, workplace, zoubohao
from stages.kit.progress import progress

THREADS = 2
BATCH = 16
WARM_UP = 3
"""Steps before those that are timed."""
PROFILED = 8
"""Steps that the profiler sees, after these."""
SIDE = 2048
"""Rows and columns of the matrices whose product is the peak."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

OURS: Mapping[str, Any] = {
    "channels": 64,
    "multipliers": [1, 2, 2, 2],
    "attention": [12],
    "blocks": 2,
    "dropout": 0.0,
    "patch": 1,
}
ZOUBOHAO: Mapping[str, Any] = {
    "channel": 64,
    "channel_mult": [1, 2, 2, 2],
    "attn": [2],
    "num_res_blocks": 2,
    "dropout": 0.0,
    "batch_size": BATCH,
}
LUCIDRAINS: Mapping[str, Any] = {
    "dim": 64,
    "dim_mults": (1, 2, 2, 2),
    "full_attn": (False, False, True, False),
}
DIFFUSERS: Mapping[str, Any] = {
    "block_out_channels": (64, 128, 128, 128),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": None,  # one head, as in Ho et al.
}


@dataclass(frozen=True)
class Row:
    """A line of the table; a `peer` is compared with, and `alike` says that its network may be."""

    name: str
    precision: str
    program: Program
    peer: bool
    alike: bool = True


@dataclass(frozen=True)
class Measured:
    """What one process found: images/s, the most memory in MB, and what it trained."""

    rate: float
    memory: float
    batch: int
    parameters: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoubohao", type=Path, metavar="PATH", help="a checkout of its repository")
    parser.add_argument("--diffusers", type=Path, metavar="PATH", help="its train_unconditional.py")
    parser.add_argument("--steps", type=int, default=20, help="that are timed, after three others (20)")
    parser.add_argument("--rounds", type=int, default=3, help="in which all rows take their turn (3)")
    parser.add_argument("--sizes", action="store_true", help="ours alone, at other widths and batches")
    arguments = parser.parse_args()
    table = sizes() if arguments.sizes else rows(arguments.zoubohao, arguments.diffusers)
    found: dict[Row, list[Measured]] = {row: [] for row in table}
    peaks: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    with workplace() as folder, progress(len(table) * (arguments.rounds + 1), "run") as bar:
        operations = {}
        for row in table:
            operations[row] = isolated(THREADS, count_operations, row.program, folder)
            bar.update()
        for _ in range(arguments.rounds):
            for precision, values in peaks.items():
                values.append(isolated(THREADS, product_rate, precision))
            for row in table:
                found[row].append(isolated(THREADS, measure, row.program, folder, arguments.steps))
                bar.update()
        best = {precision: max(values) for precision, values in peaks.items()}
        if arguments.sizes:
            print_sizes(found, operations, best["bfloat16"], folder)
        else:
            print_table(found, operations, best)
    reached = ", ".join(f"{peak / 1e9:.0f} GFLOP/s in {precision}" for precision, peak in best.items())
    print(f"\n`torch.mm` of {SIDE} x {SIDE} on {THREADS} threads: {reached}.")


def rows(zoubohao_path: Path | None, diffusers_path: Path | None) -> list[Row]:
    """All lines that can be measured, in the order of the table."""
    table = []
    for precision in PRECISIONS:
        half = precision == "bfloat16"
        alike = functools.partial(ours, model="paper", network=OURS, recipe={"batch_images": BATCH})
        table.append(Row("ours", precision, functools.partial(alike, precision=precision), False))
        few = functools.partial(alike, network={**OURS, "groups": 4}, precision=precision)
        table.append(Row("ours, norms of 4 groups", precision, few, False))
        if zoubohao_path:
            program = functools.partial(zoubohao, source=zoubohao_path, settings=ZOUBOHAO, bfloat16=half)
            table.append(Row(f"zoubohao{', autocast from outside' if half else ''}", precision, program, True))
        table.append(
            Row("lucidrains", precision, functools.partial(lucidrains, network=LUCIDRAINS, bfloat16=half), True)
        )
        if diffusers_path:
            program = functools.partial(diffusers, script=diffusers_path, network=DIFFUSERS, bfloat16=half)
            table.append(Row("diffusers", precision, program, True))
    for precision in PRECISIONS:
        program = functools.partial(ours, precision=precision)
        table.append(Row("ours, the default model", precision, program, False, alike=False))
    return table


def sizes() -> list[Row]:
    """The lines of `--sizes`."""
    alike = functools.partial(ours, model="paper", network=OURS, recipe={"batch_images": BATCH}, precision="bfloat16")
    table = [Row("that of the peers", "bfloat16", alike, False)]
    for channels in (32, 48, 64, 96):
        for batch in (8, 16):
            network = {"channels": channels, "groups": channels // 16}
            program = functools.partial(ours, network=network, recipe={"batch_images": batch}, precision="bfloat16")
            table.append(Row(f"the default's, {channels} channels", "bfloat16", program, False, alike=False))
    return table


def measure(program: Program, folder: Path, steps: int) -> Measured:
    """Train for `steps` after the warm-up."""
    clock = Clock(steps=WARM_UP + steps)
    trained = program(folder, clock)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB
    rate = trained.batch / clock.seconds_per_step(WARM_UP)
    return Measured(rate, memory, trained.batch, trained.parameters)


class Operations(NamedTuple):
    """Floating-point operations an image, forward and backward: all, and those of convolutions."""

    total: float
    convolutions: float


def count_operations(program: Program, folder: Path) -> Operations:
    """Those of one step.

    torch knows what its attention costs on CUDA, and is told here that it costs the same on a CPU.
    """
    for suffix in ("", "_backward"):
        on_cuda = getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention{suffix}")
        on_cpu = getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention_for_cpu{suffix}")
        flop_registry[on_cpu] = flop_registry[on_cuda]
    with FlopCounterMode(display=False) as counter:
        trained = program(folder, Clock(steps=1))
    by_name = counter.get_flop_counts()["Global"]
    convolutions = sum(count for name, count in by_name.items() if "convolution" in str(name))
    return Operations(counter.get_total_flops() / trained.batch, convolutions / trained.batch)


def convolution_seconds(program: Program, folder: Path) -> float:
    """Seconds an image in convolutions, forward and backward, by torch's profiler."""
    after_warm_up = schedule(wait=WARM_UP - 1, warmup=1, active=PROFILED, repeat=1)  # in which kernels are made
    with profile(activities=[ProfilerActivity.CPU], schedule=after_warm_up) as profiler:
        hook = register_optimizer_step_post_hook(lambda *_: profiler.step())
        trained = program(folder, Clock(steps=WARM_UP + PROFILED))
        hook.remove()
    names = ("aten::mkldnn_convolution", "aten::convolution_backward")
    microseconds = sum(each.self_cpu_time_total for each in profiler.key_averages() if each.key in names)
    return microseconds / 1e6 / PROFILED / trained.batch


def product_rate(precision: str) -> float:
    """Floating-point operations per second of the fastest of ten matrix products."""
    a, b = torch.randn(2, SIDE, SIDE).to(PRECISIONS[precision])
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / min(seconds)


def print_table(found: dict[Row, list[Measured]], operations: dict[Row, Operations], peaks: dict[str, float]) -> None:
    """The table in Markdown."""
    rates = {row: statistics.median(each.rate for each in values) for row, values in found.items()}
    print(
        "| program | precision | parameters | batch | images/s | range | times the best peer | GFLOP an image "
        "| of `torch.mm` | memory, MB | n |\n|---|---|---:|---:|---:|---|---:|---:|---:|---:|---:|"
    )
    for row, values in found.items():
        peers = [rate for other, rate in rates.items() if other.peer and other.precision == row.precision]
        ratio = f"{rates[row] / max(peers):.2f}" if row.alike else ""
        lowest, highest = min(each.rate for each in values), max(each.rate for each in values)
        share = rates[row] * operations[row].total / peaks[row.precision]
        memory = statistics.median(each.memory for each in values)
        print(
            f"| {row.name} | {row.precision} | {values[0].parameters:,} | {values[0].batch} | {rates[row]:.1f} "
            f"| {lowest:.1f} to {highest:.1f} | {ratio} | {operations[row].total / 1e9:.2f} | {100 * share:.0f} % "
            f"| {memory:.0f} | {len(values)} |"
        )


def print_sizes(found: dict[Row, list[Measured]], operations: dict[Row, Operations], peak: float, folder: Path) -> None:
    """The table of `--sizes` in Markdown."""
    print(
        "| network | parameters | batch | images/s | range | GFLOP an image | of `torch.mm` "
        "| of a step in convolutions | these, of `torch.mm` | n |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for row, values in found.items():
        rates, (total, convolutions) = [each.rate for each in values], operations[row]
        rate, seconds = statistics.median(rates), isolated(THREADS, convolution_seconds, row.program, folder)
        print(
            f"| {row.name} | {values[0].parameters:,} | {values[0].batch} | {rate:.1f} | {min(rates):.1f} to "
            f"{max(rates):.1f} | {total / 1e9:.2f} | {100 * rate * total / peak:.0f} % "
            f"| {100 * rate * seconds:.0f} % | {100 * convolutions / seconds / peak:.0f} % | {len(values)} |"
        )


if __name__ == "__main__":
    main()
