"""How outputs are written and read: the bytes of a file depend on its contents alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stages.kit.errors import StageError
from stages.kit.files import replacing, write_text


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
    """Write uint8 `[H, W, 3]`, or `[H, W, 4]` with opacity, as PNG; the bytes depend on the pixels alone."""
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="png")


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write named tensors, and the metadata as JSON."""
    # Under one key: safetensors writes several in an order that differs from process to process.
    with replacing(path) as temporary:
        temporary.unlink(missing_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # what the umask allows; safetensors lets nobody else read its file
        save_file(dict(tensors), temporary, {"metadata": json.dumps(metadata)})
        temporary.chmod(mode)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_safetensors` wrote: tensors and metadata.

    Raises:
        StageError: PATH is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, _metadata(file)  # noqa: SIM118
    except SafetensorError as error:
        raise StageError(f"{path}: no file of weights ({error})") from None


def read_backbone(path: Path) -> tuple[dict[str, Tensor], str]:
    """The convolutions behind LPIPS, as the stage `weights` wrote them, and the name of their network.

    Raises:
        StageError: PATH is no such file.
    """
    tensors, metadata = read_safetensors(path)
    if "net" not in metadata:
        raise StageError(f"{path}: not the weights behind LPIPS, which the stage `weights` writes")
    return tensors, metadata["net"]


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that `write_safetensors` wrote; tensors stay on disk."""
    with safe_open(path, framework="pt") as file:
        return _metadata(file)


def _metadata(file: Any) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get("metadata", "{}"))


class ArrayFile:
    """A `.npy` file, mapped only while a part of it is copied: else all of its pages would come to count as memory."""

    def __init__(self, path: Path):
        whole = np.load(path, mmap_mode="r")
        self.path, self.offset, self.shape = path, whole.offset, whole.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.array(np.memmap(self.path, np.uint8, "r", self.offset, self.shape)[rows])
