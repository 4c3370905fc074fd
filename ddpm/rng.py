"""Random numbers as a function of (seed, purpose, indices).

There is no generator state to save: whoever knows the seed, the purpose and the indices of a draw can repeat it, in
any order and in any process. NumPy's generators do the drawing: torch's keep 32 bits of a seed on the CPU, too few to
tell 50,000 images apart.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def key_of(seed: int, purpose: str, *ids: int) -> list[int]:
    """Entropy words of the stream `(seed, purpose, *ids)`; `seed` and `ids` are non-negative."""
    return [seed, zlib.crc32(purpose.encode()), *ids]


def numpy_stream(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A NumPy generator at the start of the stream `(seed, purpose, *ids)`."""
    return np.random.default_rng(np.random.SeedSequence(key_of(seed, purpose, *ids)))


def normal(generator: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 noise of `shape` on the CPU, so that every device gets the same."""
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def word(seed: int, purpose: str, *ids: int) -> int:
    """63 random bits for `torch.manual_seed`, where torch itself draws: initial weights and dropout."""
    state = np.random.SeedSequence(key_of(seed, purpose, *ids)).generate_state(1, np.uint64)
    return int(state[0]) >> 1
