"""What faint grain costs the samples by each judge: `python -m benchmarks.grain`, after `dvc repro`.

The same normal noise is added to the samples and to the held-out images that they are compared with, rounded to whole
levels. Where a judge only sees a grain that is fainter, its numbers rise to those of training images, which are judged
alike beside them. Half a minute for each row.
"""

import argparse
from dataclasses import asdict

import numpy as np

from benchmarks._judges import FEATURES, ROOT, compared, reporting_images
from benchmarks.quality_time import shown


def with_noise(images: np.ndarray, levels: float, seed: int) -> np.ndarray:
    """The images plus normal noise of so many of 255 levels."""
    noise = np.random.default_rng(seed).normal(0, levels, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def main() -> None:
    """Print a line of the table after each comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grain")
    parser.add_argument("--levels", type=float, nargs="+", default=[0, 4, 8], help="of the noise (0 4 8)")
    parser.add_argument("--images", type=int, default=1000, help="of each set (1000)")
    options = parser.parse_args()
    held_out = reporting_images()[: options.images]
    sets = {"samples": "data/samples/samples.npy", "training images": "data/images/train.npy"}
    images = {name: np.load(ROOT / file, mmap_mode="r")[: options.images] for name, file in sets.items()}
    print("| judge | noise, levels | images | KID | precision | recall |\n|---|---:|---|---|---:|---:|")
    for judge, load in FEATURES.items():
        features = load()
        for levels in options.levels:
            reference = features(with_noise(held_out, levels, seed=1))
            for name, each in images.items():
                found = compared(features(with_noise(each, levels, seed=2)), reference)
                numbers = " | ".join(f"{found[number].value:.2f}" for number in ("precision", "recall"))
                print(f"| {judge} | {levels:g} | {name} | {shown(asdict(found['kid']))} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
