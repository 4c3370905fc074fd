"""Stage `sample`: weights to images, and the forward and the reverse process as figures."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.diffusion.process import q_sample
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.images import tile_grid, to_model_range, to_uint8
from ddpm.rng import normal, numpy_stream
from stages.kit.device import announce
from stages.kit.files import repository_root
from stages.kit.inception import inception_checked
from stages.kit.launch import first_process
from stages.kit.params import read_params
from stages.kit.processes import distributed, together
from stages.kit.progress import progress
from stages.kit.state import run_folder
from stages.sample.draw import Drawing, draw_chunks, join_chunks, prepare
from stages.shared.figures import PICTURE_DPI, save_figure, strip_figure
from stages.shared.formats import write_csv, write_png, write_safetensors
from stages.shared.images import image_set, open_images, read_index, require_one_preprocessing
from stages.shared.model import SampleConfig

ROWS = 4
"""Images in the forward strip, and in the trajectory."""
REVERSED = 2
"""Images in the reverse strip, with two rows each."""
FORWARD = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Columns of the forward strip, as fractions of T."""
REVERSE = (1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Columns of the reverse strip, likewise."""
FRAMES = 23
"""Of the trajectory, before the last, at most."""


def main(
    weights: Path,
    *,
    changes: Annotated[Mapping[str, Any], SampleConfig, "sample"],
    images: Path | None = None,
    samples: Path = Path(),
    figures: Path = Path(),
) -> str:
    """Draw images with WEIGHTS, the folder that `train` writes or a file of it, into the folder SAMPLES.

    `samples.npy` has a table beside it. The first 64 are shown as `samples.png` in the folder FIGURES. There a strip
    shows the reverse process and, given the folder IMAGES of real ones, another the forward process.
    `reverse.safetensors` has the trajectory of a few images, uint8 [2, images, frames, H, W, 3], x_t and estimates of
    x_0.
    """
    drawn, grid = image_set(samples, "samples"), figures / "samples.png"
    with distributed():
        with together():
            # Inception's weights are for `evaluate`, which would refuse a wrong file only after hours of drawing.
            drawing = prepare(weights, inception_checked(read_params({"sample": changes})))
            real = first_images(images, {weights: drawing.model.preprocessing}) if images else None
        announce("sample", drawing.device, drawing.model.precision)
        root = repository_root() / ".cache" / "sample"
        with run_folder(root, drawing.identity, "drawing the same images") as folder:
            chunks = draw_chunks(drawing, folder)
            if first_process():
                join_chunks(drawn.array, chunks, drawing)
                write_csv(drawn.table, index_table(drawing))
                write_png(grid, tile_grid(np.load(drawn.array, mmap_mode="r")[:64], columns=8))
                if real:
                    strip = forward_strip(real, drawing.model.schedule, drawing.config.seed)
                    save_figure(figures / "forward.png", strip, PICTURE_DPI)
                show_reverse(drawing, figures, samples / "reverse.safetensors")
                shutil.rmtree(folder)
    return f"{drawing.config.count:,} images in {drawn.array}; see {grid}"


class Shown(NamedTuple):
    """Real images, uint8 `[N, H, W, 3]`, and the category of each."""

    images: np.ndarray
    categories: list[str]


def first_images(folder: Path, model: Mapping[Path, str]) -> Shown:
    """`ROWS` images: the first of each category, then the second of each, and so on.

    `model` has the preprocessing of the images that it draws.

    Raises:
        StageError: array and table don't belong together, or not to the model.
    """
    path, index = image_set(folder, "train")
    real = open_images(path, index)
    require_one_preprocessing({index: real.preprocessing, **model})
    table = read_index(index)
    table = table.assign(turn=table.groupby("label").cumcount()).sort_values(["turn", "label"])[:ROWS]
    return Shown(real.array[table["row"].to_numpy()], list(table["category"]))


def index_table(drawing: Drawing) -> pd.DataFrame:
    """One row for each image."""
    rows, model = range(drawing.config.count), drawing.model
    table = {"row": rows, "seed": drawing.config.seed, "preprocessing": model.preprocessing}
    if model.classes:
        table["category"] = [model.classes[label] for label in drawing.labels(rows)]
    return pd.DataFrame(table)


def forward_strip(real: Shown, schedule: NoiseSchedule, seed: int) -> Figure:
    """Real images on their way to noise, the report's figure 1."""
    steps = [round(fraction * (schedule.steps - 1)) for fraction in FORWARD]
    x0 = to_model_range(real.images)
    eps = normal(numpy_stream(seed, "forward"), x0.shape)
    columns = [to_uint8(q_sample(schedule, x0, torch.full((len(x0),), t), eps)) for t in steps]
    rows = real.categories if len(set(real.categories)) > 1 else None
    return strip_figure(np.stack(columns, axis=1), [f"t = {t}" for t in steps], rows)


def show_reverse(drawing: Drawing, figures: Path, trajectory: Path) -> None:
    """Draw the first `ROWS` images again, by themselves, and show how they come about."""
    wanted = [fraction * drawing.timesteps[0] for fraction in REVERSE]
    columns = list(dict.fromkeys(min(drawing.timesteps, key=lambda t: abs(t - near)) for near in wanted))
    frames = drawing.timesteps[:: -(-len(drawing.timesteps) // FRAMES)]
    seen = watch(drawing, {*columns, *frames})
    save_figure(figures / "reverse.png", reverse_strip(seen, columns), PICTURE_DPI)
    moving = np.stack([seen[t] for t in [*frames, -1]], axis=2)  # [2, ROWS, frames, H, W, 3]
    write_safetensors(trajectory, {"frames": torch.from_numpy(moving)}, {"timesteps": frames})


Seen = Mapping[int, np.ndarray]
"""By t, x_t and the estimates of x_0, uint8 `[2, ROWS, H, W, 3]`; at t = -1 both are the samples."""


def watch(drawing: Drawing, steps: set[int]) -> Seen:
    """What is seen at `steps`."""
    seen = {}
    with progress(ROWS * drawing.how.sampler.evaluations, "eval", label="reverse process") as bar:

        def on_step(t: int, xt: Tensor, x0: Tensor) -> None:
            bar.update(ROWS)
            if t in steps:
                seen[t] = np.stack([to_uint8(xt), to_uint8(x0)])  # of Heun's two at one t the second has the better x_t

        drawn = drawing.images(range(ROWS), on_step)
    return {**seen, -1: np.stack([drawn, drawn])}


def reverse_strip(seen: Seen, steps: Sequence[int]) -> Figure:
    """Two rows an image: x_t, and what the network takes it for; the last column is the sample."""
    pairs = np.stack([seen[t][:, :REVERSED] for t in [*steps, -1]], axis=2).swapaxes(0, 1)
    names = ["$x_t$", "estimate of $x_0$"] * REVERSED
    return strip_figure(pairs.reshape(-1, *pairs.shape[2:]), [*(f"t = {t}" for t in steps), "sample"], names, group=2)
