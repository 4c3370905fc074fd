"""KID of candidates for the default model, each after the same number of training images.

Run `python benchmarks/default_model.py NAME ...` after `dvc repro`. Each candidate is `models.tiny` of `params.yaml`
with a few values changed, trained on the images that `extract` wrote and judged by 256 DDIM samples (50 steps) against
the held-out images. Prints one table row a candidate and writes its samples as a grid to `.cache/benchmarks/NAME.png`.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ddpm.config import parse  # noqa: E402
from ddpm.images import tile_grid, to_model_range, to_uint8  # noqa: E402
from ddpm.metrics import kid  # noqa: E402
from ddpm.perceptual import load_lpips, pooled_features  # noqa: E402
from ddpm.predictor import make_predictor  # noqa: E402
from ddpm.rng import word  # noqa: E402
from ddpm.samplers import ImageNoise, SamplerConfig, run_sampler  # noqa: E402
from ddpm.schedule import DiffusionConfig, NoiseSchedule  # noqa: E402
from ddpm.training import Recipe, TrainConfig, Trainer, TrainState  # noqa: E402
from ddpm.unet import UNet, UNetConfig  # noqa: E402
from stages._io import read_safetensors, write_png  # noqa: E402
from stages._main import progress, setup  # noqa: E402
from stages._params import read_params  # noqa: E402

CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "batch_16": {"recipe": {"batch_images": 16, "learning_rate": 0.0015, "ema_decay": 0.995}},
    "uniform": {"recipe": {"timesteps": "uniform"}},
    "v": {"recipe": {"target": "v"}},
    "eps": {"recipe": {"target": "eps"}},
    "patch_4": {"network": {"channels": 96, "patch": 4, "blocks": 2}},
}
SAMPLES = 256
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(CANDIDATES), metavar="NAME", help=", ".join(CANDIDATES))
    parser.add_argument("--images", type=int, default=16_000, help="training images seen by each (16000)")
    arguments = parser.parse_args()
    setup(read_params())
    tensors, metadata = read_safetensors(ROOT / "data/weights/lpips.safetensors")
    lpips = load_lpips(tensors, metadata["net"])
    reference = pooled_features(lpips, to_model_range(np.load(ROOT / "data/images/val.npy")))
    print("| candidate | images | images/s | KID | 95 % interval | n |\n|---|---|---|---|---|---|", flush=True)
    for name in arguments.names:
        drawn, rate = train_and_sample(name, arguments.images)
        write_png(ROOT / f".cache/benchmarks/{name}.png", tile_grid(drawn[:64], columns=8, scale=3))
        found = kid(pooled_features(lpips, to_model_range(drawn)), reference)
        interval = f"{found.low:.3f} to {found.high:.3f}"
        print(f"| {name} | {arguments.images} | {rate:.0f} | {found.value:.3f} | {interval} | {found.n} |", flush=True)


def train_and_sample(name: str, images: int) -> tuple[np.ndarray, float]:
    """Samples of the candidate, uint8 `[SAMPLES, H, W, 3]`, and the training images it saw a second."""
    params, changes = read_params(), CANDIDATES[name]
    network = parse(UNetConfig, {**params.mapping("models", "tiny", "network"), **changes.get("network", {})}, name)
    recipe = parse(Recipe, {**params.mapping("models", "tiny", "recipe"), **changes.get("recipe", {})}, name)
    schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"))
    data = np.load(ROOT / "data/images/train.npy")
    trainer = Trainer(
        data,
        schedule,
        recipe,
        params.section(TrainConfig, "train"),
        seed=0,
        total_steps=images // recipe.batch_images,
        device=CPU,
    )
    torch.manual_seed(word(0, "weights"))
    state = TrainState(UNet(network, data.shape[1]), recipe, CPU)
    started = time.monotonic()
    with progress(images, "img", label=name) as bar:
        for _ in trainer.fit(state):
            bar.update(recipe.batch_images)
    seconds = time.monotonic() - started
    predict = make_predictor(state.ema, schedule, recipe.target, clip=True, precision=trainer.precision)
    config = SamplerConfig(sampler="ddim", steps=50, clip=True, variance="small", eta=0.0)
    chunks = []
    for start in range(0, SAMPLES, 64):
        noise = ImageNoise(0, "sample", range(start, start + 64), (3, *data.shape[1:3]), CPU)
        chunks.append(to_uint8(run_sampler(config, predict, schedule, noise(), noise)))
    return np.concatenate(chunks), images / seconds


if __name__ == "__main__":
    main()
