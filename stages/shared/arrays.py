"""Arrays of images that are read a part at a time."""

from pathlib import Path

import numpy as np


class ArrayFile:
    """A `.npy` file, mapped only while a part of it is copied: else all of its pages would come to count as memory."""

    def __init__(self, path: Path):
        whole = np.load(path, mmap_mode="r")
        self.path, self.offset, self.shape = path, whole.offset, whole.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.array(np.memmap(self.path, np.uint8, "r", self.offset, self.shape)[rows])
