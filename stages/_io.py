"""Files appear whole or not at all: every writer fills a temporary neighbour and renames it."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FULL = 1 << 22  # bytes; a write that fails for want of space may leave as much


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`, on any error it is removed.

    It has one name, so that what a killed process left is overwritten by the next. One process writes a path at a time:
    DVC sees to that for outputs, a lock for working states.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with naming_a_full_disk(path.parent):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Turn the error of a library that found the disk of `folder` full into an OSError that says so.

    LMDB calls it an input/output error, torch an unexpected position, NumPy counts what it wrote; safetensors gives the
    system's own words.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        if shutil.disk_usage(folder).free > FULL and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise OSError(f"no disk space in {folder}") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a metrics file: keys in the order given, floats to 6 significant digits so that diffs are readable."""
    write_text(path, json.dumps(_rounded(values), indent=2, allow_nan=False) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its row numbers."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write one array."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def write_npy_header(file: IO[bytes], images: int, size: int) -> None:
    """Write the header of uint8 `[images, size, size, 3]` at the start of `file`.

    NumPy leaves room in it, so that another number of images has a header of the same length.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (images, size, size, 3)}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, header)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 `[H, W, 3]` as PNG; the bytes depend on the pixels alone."""
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="png")


def write_animation(path: Path, frames: np.ndarray, milliseconds: int) -> None:
    """Write uint8 `[F, H, W, 3]` as an animated PNG that loops, each frame for so long and the last a second longer.

    It has 256 colours, or frames of noise would make it too large for a page.
    """
    some = frames[:, ::3, ::3]  # chooses the colours: k-means goes on while more than 3 % of these pixels change theirs
    colours = Image.fromarray(some.reshape(-1, *some.shape[2:])).quantize(256, kmeans=some.size // 100)
    images = [Image.fromarray(frame).quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    durations = [milliseconds] * (len(images) - 1) + [milliseconds + 1000]
    with replacing(path) as temporary:
        images[0].save(temporary, format="png", save_all=True, append_images=images[1:], duration=durations, loop=0)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write named tensors, and the metadata as JSON."""
    # Under one key: safetensors writes several in an order that differs from process to process.
    with replacing(path) as temporary:
        save_file(dict(tensors), temporary, {"metadata": json.dumps(metadata)})
        temporary.chmod(0o644)  # safetensors lets nobody else read it


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_safetensors` wrote: tensors and metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("metadata", "{}"))
        return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def repository_root() -> Path:
    """The checkout that the user works in; DVC may run a stage in a temporary copy of it."""
    return Path(os.environ.get("DVC_ROOT", "."))
