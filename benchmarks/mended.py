"""What samples lack: `python -m benchmarks.mended NAME=samples.npy ...`. The default's, after `dvc repro`, without any.

For each set, one property after another is made that of training images, and the KID is taken anew: where it falls,
the property was a part of it. `brightness` and `colour` give each sample, by its rank among the samples, the mean that
a training image of that rank has; `fine and coarse` scales each frequency so that the mean power is that of training
images. Beside that stand the shares of dark and of warm images, and the power at four scales over that of training
images. A few seconds for each number.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np

from benchmarks._judges import ROOT, alexnet, compared, reporting_images
from benchmarks.quality_time import shown

DARK, WARM = 70, 25
"""Levels: a mean below the first, a mean red that is above the mean blue by more than the second."""
SCALES = ((1, 3), (3, 8), (8, 16), (16, 24))
"""Waves across an image, from and up to."""


def brightness(images: np.ndarray) -> np.ndarray:
    """The mean of each image, `[N]`."""
    return images.mean(axis=(1, 2, 3))


def warmth(images: np.ndarray) -> np.ndarray:
    """Mean red less mean blue, `[N]`."""
    return images[..., 0].mean(axis=(1, 2)) - images[..., 2].mean(axis=(1, 2))


def greenness(images: np.ndarray) -> np.ndarray:
    """Mean green less the mean of red and blue, `[N]`."""
    red, green, blue = images.mean(axis=(1, 2)).T
    return green - (red + blue) / 2


def power(images: np.ndarray) -> np.ndarray:
    """Mean squared amplitude of each frequency, `[H, W, 3]`, without the means of images."""
    return np.mean([np.abs(np.fft.fft2(each - each.mean(axis=(0, 1)), axes=(0, 1))) ** 2 for each in images], axis=0)


def ranked(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """What has the rank of each of the `values` among `real` ones."""
    return np.quantile(real, (np.argsort(np.argsort(values)) + 0.5) / len(values))


def with_brightness(images: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Each image times a number."""
    found = brightness(images)
    return images * (ranked(found, brightness(real)) / found)[:, None, None, None]


def with_colour(images: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Each image plus a colour of brightness 0."""
    warmer, greener = (ranked(kind(images), kind(real)) - kind(images) for kind in (warmth, greenness))
    colour = np.stack([warmer / 2 - greener / 3, greener * 2 / 3, -warmer / 2 - greener / 3], axis=-1)
    return images + colour[:, None, None]


def with_power(images: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Each image through the same filter."""
    gain = np.sqrt(power(real) / np.maximum(power(images), 1e-9))
    means = images.mean(axis=(1, 2), keepdims=True)
    return np.fft.ifft2(np.fft.fft2(images - means, axes=(1, 2)) * gain, axes=(1, 2)).real + means


MENDED: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "nothing": lambda images, real: images,
    "brightness": with_brightness,
    "colour": with_colour,
    "fine and coarse": with_power,
    "all three": lambda images, real: with_power(with_colour(with_brightness(images, real), real), real),
}


def by_scale(powers: np.ndarray) -> list[float]:
    """The mean power at each of the `SCALES`."""
    across = np.fft.fftfreq(len(powers)) * len(powers)
    waves = np.hypot(across[:, None], across)
    return [float(powers[(low <= waves) & (waves < high)].mean()) for low, high in SCALES]


def main() -> None:
    """Print a line for each set, then one for each property mended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mended")
    parser.add_argument("sets", nargs="*", default=["default=data/samples/samples.npy"], metavar="NAME=samples.npy")
    options = parser.parse_args()
    if wrong := [each for each in options.sets if "=" not in each]:
        parser.error(f"{wrong[0]}: must be NAME=samples.npy")
    real = np.load(ROOT / "data" / "images" / "train.npy").astype(float)
    sets = {name: np.load(file).astype(float) for name, file in (each.split("=", 1) for each in options.sets)}
    scales = " | ".join(f"power at {low} to {high} waves" for low, high in SCALES)
    print(f"| images | dark | warm | {scales} |\n|---|---:|---:|{'---:|' * len(SCALES)}")
    expected = by_scale(power(real))
    for name, images in {"training images": real, **sets}.items():
        shares = [np.mean(brightness(images) < DARK), np.mean(warmth(images) > WARM)]
        ratios = [f"{found / wanted:.2f}" for found, wanted in zip(by_scale(power(images)), expected, strict=True)]
        print("|", " | ".join([name, *(f"{share:.0%}" for share in shares), *ratios]), "|", flush=True)
    features = alexnet()
    reference = features(reporting_images())
    print("\n| images | mended | KID | precision | recall |\n|---|---|---:|---:|---:|")
    for name, images in sets.items():
        for mended, change in MENDED.items():
            found = compared(features(change(images, real).round().clip(0, 255).astype(np.uint8)), reference)
            numbers = " | ".join(f"{found[number].value:.2f}" for number in ("precision", "recall"))
            print(f"| {name} | {mended} | {shown(asdict(found['kid']))} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
