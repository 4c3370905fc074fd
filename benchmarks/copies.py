"""Which copies of training images the stage `rank` flags, and how many real images: `python -m benchmarks.copies`.

After `dvc repro`, of its images, or with `--photos` of the real photographs in `../shared/data`. Each change is done to
the same 128 training images, at 48 px. The held-out images are then split at random, many times: how many of one half
would be flagged if the other were the null?
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm.evaluation.copies import copy_distances, p_values, threshold
from ddpm.evaluation.neighbours import nearest
from ddpm.evaluation.perceptual import Metric, load_lpips
from ddpm.pictures.codec import decode
from ddpm.pictures.resizing import Preprocessing, resize
from ddpm.rng import numpy_stream
from stages.rank.stage import CANDIDATES, bar
from stages.shared.files.formats import read_safetensors
from stages.shared.lmdbs import read_lmdb

DATA = Path(__file__).parents[1] / "data"
PHOTOS = Path(__file__).parents[2] / "shared/data"
RECIPE = Preprocessing(size=48, geometry="center_crop", filter="lanczos")
RATE = 0.01
Change = Callable[[np.ndarray], np.ndarray]


def each(change: Callable[[Image.Image], Image.Image]) -> Change:
    return lambda images: np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def encoded(encoding: str, quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        image.save(buffer := io.BytesIO(), encoding, quality=quality)
        return Image.open(buffer).convert("RGB")

    return each(change)


def moved(x: int, y: int) -> Change:
    """What leaves on one side is missing on the other, where the edge is repeated."""

    def change(images: np.ndarray) -> np.ndarray:
        height, width = images.shape[1:3]
        wide = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        return wide[:, 2 - y : 2 - y + height, 2 - x : 2 - x + width]

    return change


def levels(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda images: change(images.astype(float)).round().clip(0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "none": lambda images: images,
    "mirrored": lambda images: images[:, :, ::-1],
    "moved by a pixel to the right": moved(1, 0),
    "moved by a pixel down": moved(0, 1),
    "moved by a pixel right and down": moved(1, 1),
    "mirrored, moved by a pixel": lambda images: moved(1, 0)(images[:, :, ::-1]),
    "2 % brighter": levels(lambda images: images * 1.02),
    "10 % brighter": levels(lambda images: images * 1.1),
    "JPEG, quality 75": encoded("jpeg", 75),
    "JPEG, quality 40": encoded("jpeg", 40),
    "WebP, quality 75": encoded("webp", 75),
    "noise of 5 levels": levels(lambda images: images + numpy_stream(0, "noise").normal(0, 5, images.shape)),
    "moved by two pixels": moved(2, 0),
}


def photos(split: str) -> np.ndarray:
    pictures = (decode(value).pixels for _, value in read_lmdb(PHOTOS / f"photos_{split}_lmdb/data.mdb"))
    return np.stack([resize(picture, RECIPE) for picture in pictures])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", action="store_true")
    of_photos = parser.parse_args().photos
    tensors, metadata = read_safetensors(DATA / "weights/lpips.safetensors")
    metric = Metric(load_lpips(tensors, metadata["net"]))
    train, val = (photos(split) if of_photos else np.load(DATA / f"images/{split}.npy") for split in ("train", "val"))
    originals = train[numpy_stream(0, "copies").permutation(len(train))[:128]]
    images = np.concatenate([val, *(change(originals) for change in CHANGES.values())])
    with bar("training images") as on_block:
        found = nearest(metric, images, train, CANDIDATES, mirror=True, on_block=on_block)
    copies = copy_distances(images, train, found.rows).min(axis=1)
    null, lpips_null = copies[: len(val)], found.distances[: len(val), 0]
    print("| change | median LPIPS | flagged by LPIPS alone | greatest 1 - correlation | greatest p | flagged | n |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    parts = np.arange(len(val), len(images)).reshape(len(CHANGES), -1)
    for name, part in zip(CHANGES, parts, strict=True):
        lpips, distances = found.distances[part, 0], copies[part]
        print(
            f"| {name} | {np.median(lpips):.4f} | {np.mean(lpips < threshold(lpips_null, RATE)):.0%} "
            f"| {distances.max():.4f} | {p_values(distances, null).max():.4f} "
            f"| {np.mean(distances < threshold(null, RATE)):.0%} | {len(part)} |"
        )
    median, greatest = np.median(lpips_null), null.max()
    print(f"| held-out images | {median:.4f} | | {greatest:.4f} | 1 | {rate_among(null):.2%} | {len(null)} |")


def rate_among(null: np.ndarray) -> float:
    """The share of one half that is flagged if the other half is the null, in the mean of many halvings."""
    shares = []
    for turn in range(2000):
        one, other = np.array_split(numpy_stream(0, "halves", turn).permutation(null), 2)
        shares.append(np.mean(one < threshold(other, RATE)))
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
