"""Stage `sample`: weights to images, and the forward and the reverse process as figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.diffusion.process import q_sample
from ddpm.images import tile_grid, to_model_range
from ddpm.rng import normal, numpy_stream
from stages.kit.device import announce
from stages.kit.files import repository_root
from stages.kit.inception import inception_checked
from stages.kit.launch import first_process
from stages.kit.params import read_params
from stages.kit.processes import distributed, together
from stages.kit.progress import progress
from stages.kit.state import parts_folder
from stages.sample.draw import Drawing, Draws, draw_chunks, join_chunks, prepare
from stages.sample.gan import prepare_gan
from stages.shared.figures import save_figure, strip_figure
from stages.shared.files.absent import emptied, leave_absent, require_outputs_alone
from stages.shared.files.formats import write_csv, write_png, write_safetensors
from stages.shared.files.images import image_set, open_images, read_index, require_one_preprocessing
from stages.shared.models.diffusion import SampleConfig
from stages.shared.models.gan import folder_of, is_gan
from stages.shared.models.tuned import tuned_or

GRID = 64
"""Images in the grid of samples."""
ROWS = 4
"""Images in the trajectory."""
REAL_ROWS = 3
"""Real images on their way to noise."""
COLUMNS = (0.0, 0.06, 0.13, 0.22, 0.35, 0.5, 0.7, 1.0)
"""Of the figure of both processes, as fractions of the first time step that is sampled at."""
FRAMES = 23
"""Of the trajectory, before the last, at most."""


def main(
    weights: Path,
    *,
    changes: Annotated[Mapping[str, Any], SampleConfig, "sample"],
    tuned: Path | None = None,
    gan: Path | None = None,
    latents: Path | None = None,
    images: Path | None = None,
    samples: Path = Path(),
    figures: Path = Path(),
) -> str:
    """Draw images with WEIGHTS, the folder that `train` writes or a file of it, into the folder SAMPLES.

    If the folder TUNED has weights, these are taken. For a model of kind gan it is the folder GAN that is drawn with,
    if it is given. A model of latents needs the folder LATENTS, which has the autoencoder.

    `samples.npy` has a table beside it. The first 64 are shown as `samples.png` in the folder FIGURES. There
    `processes/processes.png` shows the reverse process and, given the folder IMAGES of real ones, the forward process
    above it. `reverse/reverse.safetensors` has the trajectory of a few images, uint8 [2, images, frames, H, W, 3], x_t
    and estimates of x_0. A GAN has neither.
    """
    drawn, grid = image_set(samples, "samples"), figures / "samples.png"
    figure, trajectory = figures / "processes", samples / "reverse"
    require_outputs_alone(figure, trajectory)
    weights = tuned_or(weights, tuned)
    with distributed():
        with together():
            # Inception's weights are for `evaluate`, which would refuse a wrong file only after hours of drawing.
            params = inception_checked(read_params({"sample": changes}))
            weights = folder_of(weights, gan, params)
            drawing = prepare_gan(weights, params) if is_gan(weights) else prepare(weights, params, latents)
            real = first_images(images, {weights: drawing.model.preprocessing}) if images else None
        announce("sample", drawing.device, drawing.model.precision)
        root = repository_root() / ".cache" / "sample"
        with parts_folder(root, drawing.identity, "drawing the same images") as folder:
            chunks = draw_chunks(drawing, folder)
            if first_process():
                join_chunks(drawn.array, chunks, drawing)
                write_csv(drawn.table, index_table(drawing))
                write_png(grid, tile_grid(np.load(drawn.array, mmap_mode="r")[:GRID], columns=8))
                if isinstance(drawing, Drawing):
                    files = emptied(figure) / "processes.png", emptied(trajectory) / "reverse.safetensors"
                    show_processes(drawing, real, *files)
                else:
                    leave_absent(figure)
                    leave_absent(trajectory)
    return f"{drawing.config.count:,} images in {drawn.array}; see {grid}"


class Shown(NamedTuple):
    """Real images, uint8 `[N, H, W, 3]`, and the category of each."""

    images: np.ndarray
    categories: list[str]


def first_images(folder: Path, model: Mapping[Path, str]) -> Shown:
    """`REAL_ROWS` images: the first of each category, then the second of each, and so on.

    `model` has the preprocessing of the images that it draws.

    Raises:
        StageError: array and table don't belong together, or not to the model.
    """
    path, index = image_set(folder, "train")
    real = open_images(path, index)
    require_one_preprocessing({index: real.preprocessing, **model})
    table = read_index(index)
    table = table.assign(turn=table.groupby("label").cumcount()).sort_values(["turn", "label"])[:REAL_ROWS]
    return Shown(real.array[table["row"].to_numpy()], list(table["category"]))


def index_table(drawing: Draws) -> pd.DataFrame:
    """One row for each image."""
    rows, model = range(drawing.config.count), drawing.model
    table = {"row": rows, "seed": drawing.config.seed, "preprocessing": model.preprocessing}
    if model.classes:
        table["category"] = [model.classes[label] for label in drawing.labels(rows)]
    return pd.DataFrame(table)


Seen = Mapping[int, np.ndarray]
"""By t, x_t and the estimates of x_0, uint8 `[2, ROWS, H, W, 3]`; at t = -1 both are the samples."""


def show_processes(drawing: Drawing, real: Shown | None, figure: Path, trajectory: Path) -> None:
    """Draw the first `ROWS` images again, by themselves, and show how they come about and how real ones dissolve."""
    wanted = [fraction * drawing.timesteps[0] for fraction in COLUMNS]
    columns = sorted({min(drawing.timesteps, key=lambda t: abs(t - near)) for near in wanted})
    frames = drawing.timesteps[:: -(-len(drawing.timesteps) // FRAMES)]
    seen = watch(drawing, {*columns, *frames})
    save_figure(figure, processes_figure(seen, columns, real, drawing))
    moving = np.stack([seen[t] for t in [*frames, -1]], axis=2)  # [2, ROWS, frames, H, W, 3]
    write_safetensors(trajectory, {"frames": torch.from_numpy(moving)}, {"timesteps": frames})


def processes_figure(seen: Seen, columns: Sequence[int], real: Shown | None, drawing: Drawing) -> Figure:
    """The report's figure 1: noise rises from left to right at the same `columns` of t in both processes."""
    reverse = np.stack([seen[t][:, 0] for t in (-1, *columns)], axis=1)
    rows, names = list(reverse), ["$x_t$ of sample 0", "estimate of $x_0$"]
    groups, headings = [2], ["← reverse process: the network takes noise out, step by step"]
    if real:
        rows = [*forward_rows(real, columns, drawing), *rows]
        kinds = real.categories if len(set(real.categories)) > 1 else ["training image"] * len(real.categories)
        plain = [kind.replace("$", r"\$") for kind in kinds]  # a folder's name is no formula
        names = [*(f"$x_t$ of a\n{kind}" for kind in plain), *names]
        groups, headings = [len(kinds), 2], ["forward process: noise is added, equation (2) →", *headings]
    labels = ["image", *(f"t = {t}" for t in columns)]
    return strip_figure(np.stack(rows), labels, names, groups, headings)


def forward_rows(real: Shown, steps: Sequence[int], drawing: Drawing) -> np.ndarray:
    """Real images and what becomes of each at `steps`, uint8 `[images, 1 + steps, H, W, 3]`."""
    model, device = drawing.model, drawing.device
    x0 = model.encoded(to_model_range(real.images).to(device))
    eps = normal(numpy_stream(drawing.config.seed, "forward"), x0.shape).to(device)
    ts = [torch.full((len(x0),), t, device=device) for t in steps]
    noisy = [model.pixels(q_sample(model.schedule, x0, t, eps)) for t in ts]
    return np.stack([real.images, *noisy], axis=1)


def watch(drawing: Drawing, steps: set[int]) -> Seen:
    """What is seen at `steps`, with no more images at once than the network takes."""
    parts, at_once = [], drawing.model.at_once
    with progress(ROWS * drawing.evaluations, "eval", label="reverse process") as bar:
        for first in range(0, ROWS, at_once):
            parts.append(watch_some(drawing, range(first, min(first + at_once, ROWS)), steps, bar.update))
    return {t: np.concatenate([part[t] for part in parts], axis=1) for t in parts[0]}


def watch_some(drawing: Drawing, ids: Sequence[int], steps: set[int], seen_by: Callable[[int], object]) -> Seen:
    """The same of the images of these numbers."""
    seen = {}

    def on_step(t: int, xt: Tensor, x0: Tensor) -> None:
        seen_by(len(ids))
        if t in steps:
            seen[t] = np.stack(
                [drawing.model.pixels(xt), drawing.model.pixels(x0)]
            )  # of Heun's two at one t the second has the better x_t

    drawn = drawing.images(ids, on_step)
    return {**seen, -1: np.stack([drawn, drawn])}
