"""Images as PNG files for other programs, and other programs' PNG files as a set that our stages judge."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ddpm.pictures.codec import BadImage, decode
from stages.extract.config import ExtractConfig
from stages.kit.command import run
from stages.kit.errors import StageError
from stages.kit.files import require_space
from stages.kit.params import read_params
from stages.kit.progress import progress
from stages.shared.files.formats import write_csv, write_npy_header
from stages.shared.files.images import image_set


def main(source: Path, folder: Path) -> str:
    """Write the array SOURCE, a `.npy` file of uint8 [N, H, W, 3], into FOLDER: 000000.png, 000001.png, ...

    Where SOURCE is a folder, its PNG files go into FOLDER as `samples.npy`, in the order of their names, with the table
    `samples.csv`, as the stage `sample` writes them. They count as made by the section `extract` of params.yaml, so
    that they are compared with images made so. They are read as `extract` reads pictures: a colour profile becomes
    sRGB, an orientation is applied, and transparency laid over white; all else keeps its pixels.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StageError(f"{folder} isn't empty; name another folder, or remove it")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        made = write_array(source, part) if source.is_dir() else write_files(source, part)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return f"{made} in {folder}"


def write_files(source: Path, folder: Path) -> str:
    """The array as numbered PNG files.

    Raises:
        StageError: it is no array of images.
    """
    try:
        images = np.load(source, mmap_mode="r")
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StageError(f"{source}: no array in NumPy's format: {error}") from None
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        found = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else "several arrays"
        raise StageError(f"{source}: {found}; must be one array of uint8 [N, H, W, 3]")
    require_space(folder, images.nbytes)
    with progress(len(images), "img", label="PNG files") as bar:
        for row, pixels in enumerate(images):
            Image.fromarray(pixels).save(folder / f"{row:06}.png")
            bar.update()
    return f"{len(images):,} PNG files"


def write_array(source: Path, folder: Path) -> str:
    """The PNG files right in `source` as a set of samples.

    Raises:
        StageError: there is none, or one is no image of `extract.size`.
    """
    files = sorted(path for path in source.iterdir() if path.suffix.lower() == ".png" and path.name[0] != ".")
    if not files:
        raise StageError(f"{source}: no PNG files; folders in it aren't looked into")
    preprocessing = read_params().section(ExtractConfig, "extract")
    require_space(folder, len(files) * 3 * preprocessing.size**2)
    samples = image_set(folder, "samples")
    with samples.array.open("wb") as array, progress(len(files), "img", label="PNG files") as bar:
        write_npy_header(array, len(files), preprocessing.size)
        for path in files:
            array.write(pixels_of(path, preprocessing.size).data)
            bar.update()
    names = [path.name for path in files]
    write_csv(
        samples.table, pd.DataFrame({"row": range(len(files)), "file": names, "preprocessing": preprocessing.name})
    )
    return f"{len(files):,} images"


def pixels_of(path: Path, size: int) -> np.ndarray:
    """The image in the file PATH, uint8 `[size, size, 3]`.

    Raises:
        StageError: it is none, or of another size.
    """
    try:
        pixels = decode(path.read_bytes()).pixels
    except BadImage as error:
        raise StageError(f"{path}: {error}") from None
    height, width, _ = pixels.shape
    if (height, width) != (size, size):
        raise StageError(
            f"{path}: {width} x {height} pixels; params.yaml has extract.size = {size}, and images of other sizes "
            "can't be compared with those"
        )
    return np.ascontiguousarray(pixels)


if __name__ == "__main__":
    run("tools.images", main)
