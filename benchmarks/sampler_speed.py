"""Milliseconds of an evaluation in our samplers and in those of two public programs, with one and the same network.

Run `python -m benchmarks.sampler_speed --zoubohao PATH` after `dvc repro` and `benchmarks.quality_time`, PATH being a
checkout of zoubohao/DenoisingDiffusionProbabilityModel-ddpm-, whose `GaussianDiffusionSampler` runs under
`torch.no_grad`, as its `eval` calls it; what it prints at each step goes nowhere. diffusers' pipelines are called as
its documentation shows, without the progress bar. Both get our trained network in torch's usual memory layout, in a
shell that turns its output into the noise that they ask for, and run in float32, as they do unless told otherwise; in
the rows that say so an autocast is put around them from outside.

A row draws 64 images, and what it took is divided by its evaluations. Peers and ours take equally many: 30 steps of
their chain of 1,000, each of which costs the same, and 20 steps of DDIM and of DPM-Solver++. All rows take turns; the
first round, in which kernels are chosen and the network is compiled, isn't counted. At the end zoubohao's 1,000 steps
run once as a whole, and beside them the pick of `benchmarks/results/quality_time.json`; both with the KID of their 64
images.
"""

import argparse
import contextlib
import importlib
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.quality_time import FILE, REFERENCE, ROOT, TIMED, Row, drawing_of, machine, row_of, shown
from ddpm.diffusion.schedule import DiffusionConfig
from ddpm.evaluation.metrics import kid
from ddpm.evaluation.perceptual import load_lpips, pooled_features
from ddpm.images import to_model_range, to_uint8
from stages.kit.params import read_params
from stages.kit.progress import progress
from stages.sample.draw import Drawing
from stages.shared.files.formats import read_safetensors
from stages.shared.models.diffusion import Model

CHAIN, FEW = 30, 20
"""Steps of ancestral sampling, and of the samplers that are made for few."""


class Noise(nn.Module):
    """The network of `model` as peers see it: eps for x_t `[B, C, H, W]` at one t, a number or `[B]`."""

    def __init__(self, model: Model):
        super().__init__()
        self.network = model.network.to(memory_format=torch.contiguous_format)
        self.model = model

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:  # noqa: D102
        ts = t.expand(len(xt))
        return self.model.schedule.noise_of(xt, self.model.denoiser(xt, ts), int(ts[0]))


class DiffusersNoise(Noise):
    """The same with what diffusers' pipelines ask of a network."""

    dtype, device = torch.float32, torch.device("cpu")

    @property
    def config(self) -> SimpleNamespace:  # noqa: D102
        channels, *size = self.model.shape
        return SimpleNamespace(in_channels=channels, sample_size=tuple(size))

    def forward(self, xt: Tensor, t: Tensor) -> SimpleNamespace:  # type: ignore[override]  # noqa: D102
        return SimpleNamespace(sample=super().forward(xt, t))


@dataclass(frozen=True)
class Timed:
    """A line of the table: `draw` draws 64 images in so many evaluations."""

    name: str
    precision: str
    evaluations: int
    draw: Callable[[], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoubohao", type=Path, metavar="PATH", required=True, help="a checkout of its repository")
    parser.add_argument("--rounds", type=int, default=3, help="in which all rows take their turn (3)")
    parser.add_argument("--threads", type=int, help="of the CPU (runtime.threads)")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.zoubohao))
    picked = row_of(json.loads(FILE.read_text())["pick"])
    table = [*peers(arguments.threads), *ours(arguments.threads)]
    chosen = our(picked, arguments.threads)
    seconds: dict[str, list[float]] = {row.name: [] for row in (*table, chosen)}
    with progress((arguments.rounds + 1) * len(seconds) + 1, "run") as bar:
        for number in range(arguments.rounds + 1):
            for row in (*table, chosen):
                measured = seconds_of(row)
                if number:
                    seconds[row.name].append(measured)
                bar.update()
        started = time.perf_counter()
        theirs = zoubohao(model_of(arguments.threads), REFERENCE.steps).draw()
        whole = time.perf_counter() - started
        bar.update()
    print_table(table, seconds)
    own = statistics.median(seconds[chosen.name])
    print(
        f"\n{TIMED} images by zoubohao's {REFERENCE.steps:,} steps: {whole:.1f} s, KID {shown(kid_of(theirs))}; by "
        f"{chosen.name}: {own:.2f} s, KID {shown(kid_of(chosen.draw()))}; {whole / own:.0f} times as fast. "
        f"On {machine(torch.device('cpu'))}, torch {torch.__version__}."
    )


def model_of(threads: int | None) -> Model:
    """A copy of the trained model, in float32."""
    return drawing_of(replace(REFERENCE, precision="float32"), TIMED, threads).model


def peers(threads: int | None) -> list[Timed]:
    """The rows of the two programs."""
    model = model_of(threads)
    chain = [zoubohao(model, CHAIN), in_diffusers(model, "DDPM", CHAIN)]
    few = [in_diffusers(model, name, FEW) for name in ("DDIM", "DPMSolverMultistep")]
    return [*chain, *few, *(autocast(row) for row in chain)]


def zoubohao(model: Model, steps: int) -> Timed:
    """Its sampler with a chain of so many steps."""
    betas = read_params().section(DiffusionConfig, "diffusion")
    program: Any = importlib.import_module("Diffusion.Diffusion")
    sampler = program.GaussianDiffusionSampler(Noise(model), betas.beta_start, betas.beta_end, steps)

    @torch.no_grad()
    def draw() -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            return to_uint8(sampler(torch.randn(TIMED, *model.shape)))

    return Timed("zoubohao", "float32", steps, draw)


def in_diffusers(model: Model, name: str, steps: int) -> Timed:
    """One of its schedulers in the pipeline that it is made for."""
    scheduler = getattr(diffusers, f"{name}Scheduler")()
    make: Any = diffusers.DDIMPipeline if name == "DDIM" else diffusers.DDPMPipeline
    pipeline = make(DiffusersNoise(model), scheduler)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> np.ndarray:
        return pipeline(batch_size=TIMED, num_inference_steps=steps, output_type="np").images

    return Timed(f"diffusers, {name}Scheduler", "float32", steps, draw)


def autocast(row: Timed) -> Timed:
    """`row` in bfloat16, as far as that can be had from outside."""

    def draw() -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            return row.draw()

    return replace(row, name=f"{row.name}, autocast from outside", precision="bfloat16", draw=draw)


def ours(threads: int | None) -> list[Timed]:
    """Our rows: as many steps as the peers', and what layout and compilation change."""
    chain, half = Row("ancestral", CHAIN, precision="float32"), Row("ancestral", CHAIN, precision="bfloat16")
    few = [Row(name, FEW, precision="bfloat16") for name in ("ddim", "dpmpp_2m")]
    usual, compiled = drawing_of(half, TIMED, threads), drawing_of(half, TIMED, threads)
    usual.model.network.to(memory_format=torch.contiguous_format)
    compiled.model.network.compile()
    return [
        *(our(row, threads) for row in (chain, half, *few)),
        timed(usual, "ours, ancestral, usual memory layout"),
        timed(compiled, "ours, ancestral, compiled"),
    ]


def our(row: Row, threads: int | None) -> Timed:
    """`row` as the stage `sample` draws it."""
    return timed(drawing_of(row, TIMED, threads), f"ours, {row.sampler}, {row.steps} steps, {row.precision}")


def timed(drawing: Drawing, name: str) -> Timed:
    precision = str(drawing.model.precision).removeprefix("torch.")
    evaluations = drawing.how.sampler.evaluations
    return Timed(name, precision, evaluations, lambda: drawing.images(range(TIMED), lambda *_: None))


def seconds_of(row: Timed) -> float:
    """How long it takes to draw 64 images."""
    started = time.perf_counter()
    row.draw()
    return time.perf_counter() - started


def kid_of(images: np.ndarray) -> dict[str, Any]:
    """To the held-out images."""
    tensors, metadata = read_safetensors(ROOT / "data/weights/lpips.safetensors")
    lpips = load_lpips(tensors, metadata["net"])
    both = (images, np.load(ROOT / "data/images/val.npy"))
    return asdict(kid(*(pooled_features(lpips, to_model_range(each)) for each in both)))


def print_table(table: list[Timed], seconds: dict[str, list[float]]) -> None:
    milliseconds = {row: [1000 * each / row.evaluations for each in seconds[row.name]] for row in table}
    default = next(row for row in table if row.name.startswith("ours") and row.precision == "bfloat16")
    own = statistics.median(milliseconds[default])
    print(
        f"| program | precision | evaluations | ms an evaluation of {TIMED} images | range "
        f"| times {default.name} | n |\n|---|---|---:|---:|---|---:|---:|"
    )
    for row, values in milliseconds.items():
        middle = statistics.median(values)
        print(
            f"| {row.name} | {row.precision} | {row.evaluations} | {middle:.1f} | {min(values):.1f} to "
            f"{max(values):.1f} | {middle / own:.2f} | {len(values)} |"
        )


if __name__ == "__main__":
    main()
