"""How far a picture is from itself after what happens to pictures, and from others: `python -m benchmarks.duplicates`.

The distances are those of `ddpm.pictures.duplicates`, at 48 px; they say where `RADIUS` of the stage `extract` may lie.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ddpm.pictures.codec import decode
from ddpm.pictures.resizing import Preprocessing, resize
from stages.extract.duplicates import RADIUS
from stages.kit.progress import progress
from stages.shared.lmdbs import read_lmdb

PHOTOS = Path(__file__).parents[2] / "shared/data/photos_train_lmdb/data.mdb"
RECIPE = Preprocessing(size=48, geometry="center_crop", filter="lanczos")
Change = Callable[[Image.Image], Image.Image]


def encoded(encoding: str, quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, encoding, quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def scaled(factor: float) -> Change:
    return lambda image: image.resize(
        (round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC
    )


def cut(share: float) -> Change:
    """Without this share of the short side at each edge."""

    def change(image: Image.Image) -> Image.Image:
        edge = round(share * min(image.size))
        return image.crop((edge, edge, image.width - edge, image.height - edge))

    return change


def marked(image: Image.Image) -> Image.Image:
    copy = image.copy()
    ImageDraw.Draw(copy).text((image.width // 2 - 40, image.height // 2 + 90), "(c) photo stock", fill="white")
    return copy


CHANGES: dict[str, Change] = {
    "JPEG, quality 75": encoded("jpeg", 75),
    "JPEG, quality 30": encoded("jpeg", 30),
    "WebP, quality 50": encoded("webp", 50),
    "half the size": scaled(0.5),
    "5 % brighter": lambda image: image.point(lambda level: min(255, level * 1.05)),
    "a line of text": marked,
    "1 % cut off at each edge": cut(0.01),
    "4 % cut off at each edge": cut(0.04),
}


def mean_squares(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`[N, M]`: of the differences between each of `images` and each of `others`."""
    a, b = (array.reshape(len(array), -1).astype(float) for array in (images, others))
    return ((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T).clip(0) / a.shape[1]


def row(name: str, values: np.ndarray) -> str:
    quantiles = " | ".join(f"{value:.1f}" for value in np.quantile(values, [0, 0.5, 0.9, 1]))
    return f"| {name} | {quantiles} | {np.mean(values <= RADIUS):.0%} | {len(values)} |"


def main() -> None:
    pictures = [decode(value).pixels for _, value in read_lmdb(PHOTOS)]
    small = np.stack([resize(picture, RECIPE) for picture in pictures])
    print(f"| changed by | least | median | 90 % | most | within {RADIUS:g} | n |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with progress(len(CHANGES), "change") as bar:
        for name, change in CHANGES.items():
            again = np.stack([resize(np.array(change(Image.fromarray(picture))), RECIPE) for picture in pictures])
            print(row(name, np.sqrt(((again.astype(float) - small) ** 2).mean(axis=(1, 2, 3)))))
            bar.update()
    distances = np.minimum(*(mean_squares(small, others) for others in (small, small[:, :, ::-1])))
    np.fill_diagonal(distances, np.inf)
    print(row("nothing: the nearest other photograph", np.sqrt(distances.min(axis=1))))


if __name__ == "__main__":
    main()
