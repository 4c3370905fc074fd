"""Stage `sample`: weights to images, and the forward and the reverse process as strips."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.diffusion import q_sample
from ddpm.images import tile_grid, to_model_range, to_uint8
from ddpm.rng import normal, numpy_stream
from ddpm.samplers import ImageNoise, SamplerConfig
from ddpm.schedule import NoiseSchedule, spaced_timesteps
from stages._figures import save_figure, strip_figure
from stages._images import open_images, require_one_recipe
from stages._io import write_csv, write_npy, write_png
from stages._main import progress, run, setup
from stages._model import Model, SampleConfig, load_model, sampler_config
from stages._params import read_params

CHUNK = 64
"""Images in flight at once."""
ROWS = 4
"""Images in a strip."""
FORWARD = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Columns of the forward strip, as fractions of T."""
REVERSE = (1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Columns of the reverse strip, likewise."""


def main(
    weights: Path,
    images: Path,
    index: Path,
    samples: Path,
    samples_index: Path,
    grid: Path,
    forward: Path,
    reverse: Path,
) -> None:
    """Draw images from the folder WEIGHTS into SAMPLES, with a GRID; show the FORWARD process on IMAGES, the REVERSE.

    The tables INDEX and SAMPLES_INDEX name the recipe that the images were made by, and so the samples. A conditional
    model draws its classes in turn.
    """
    params = read_params()
    device, sample = setup(params), params.section(SampleConfig, "sample")
    config = sampler_config(params, sample)
    model = load_model(weights, params, device, sample.precision)
    real = open_images(images, index)
    require_one_recipe({index: real.recipe, weights: model.image_recipe})
    history = History(spaced_timesteps(model.schedule.steps, config.steps))
    drawn = draw(model, config, sample, device, history)
    write_npy(samples, drawn)
    table = {"row": range(len(drawn)), "seed": sample.seed, "recipe": model.image_recipe}
    if model.classes:
        table["category"] = [model.classes[row % len(model.classes)] for row in range(len(drawn))]
    write_csv(samples_index, pd.DataFrame(table))
    write_png(grid, tile_grid(drawn[:64], columns=8, scale=3))
    save_figure(forward, forward_strip(real.array[:ROWS], model.schedule, sample.seed))
    save_figure(reverse, history.strip(drawn[:ROWS]))


def draw(
    model: Model, config: SamplerConfig, sample: SampleConfig, device: torch.device, history: "History"
) -> np.ndarray:
    """`sample.count` images, uint8 `[N, H, W, 3]`, a chunk at a time; `history` sees the steps of the first chunk."""
    chunks: list[np.ndarray] = []
    with progress(sample.count * config.steps, "eval", label="sample") as bar:

        def on_step(t: int, xt: Tensor, x0: Tensor) -> None:
            bar.update(len(xt))
            if not chunks:
                history.keep(t, xt, x0)

        for start in range(0, sample.count, CHUNK):
            ids = range(start, min(start + CHUNK, sample.count))
            noise = ImageNoise(sample.seed, "sample", ids, model.shape, device)
            label = torch.tensor(ids, device=device) % len(model.classes) if model.classes else None
            chunks.append(to_uint8(model.sample(config, noise(), noise, on_step, label)))
    return np.concatenate(chunks)


def forward_strip(images: np.ndarray, schedule: NoiseSchedule, seed: int) -> Figure:
    """Real images on their way to noise, the report's figure 1."""
    steps = [round(fraction * (schedule.steps - 1)) for fraction in FORWARD]
    x0 = to_model_range(images)
    eps = normal(numpy_stream(seed, "forward"), x0.shape)
    columns = [to_uint8(q_sample(schedule, x0, torch.full((len(x0),), t), eps)) for t in steps]
    return strip_figure(np.stack(columns, axis=1), [f"t = {t}" for t in steps])


class History:
    """x_t and the estimates of x_0 of the first images, at the steps nearest to `REVERSE`."""

    def __init__(self, timesteps: list[int]):
        wanted = [round(fraction * timesteps[0]) for fraction in REVERSE]
        self.steps = list(dict.fromkeys(min(timesteps, key=lambda t: abs(t - w)) for w in wanted))
        self.xt: list[np.ndarray] = []
        self.x0: list[np.ndarray] = []

    def keep(self, t: int, xt: Tensor, x0: Tensor) -> None:
        """Keep this step if the strip shows it."""
        if t in self.steps:
            self.xt.append(to_uint8(xt[:ROWS]))
            self.x0.append(to_uint8(x0[:ROWS]))

    def strip(self, drawn: np.ndarray) -> Figure:
        """Two rows an image: x_t, and what the network takes it for; the last column is the sample."""
        pairs = np.stack([np.stack([*self.xt, drawn], axis=1), np.stack([*self.x0, drawn], axis=1)], axis=1)
        rows = pairs.reshape(-1, *pairs.shape[2:])  # [2 * images, columns, H, W, 3]
        names = ["$x_t$", "estimate of $x_0$"] * len(drawn)
        return strip_figure(rows, [*(f"t = {t}" for t in self.steps), "sample"], names)


if __name__ == "__main__":
    run(main)
