"""Random numbers as a function of (seed, purpose, indices).

There is no generator state to save: whoever knows the seed, the purpose and the indices of a draw can repeat it, in
any order and in any process.
"""

import zlib

import numpy as np
import torch


def key_of(seed: int, purpose: str, *ids: int) -> list[int]:
    """Entropy words of the stream `(seed, purpose, *ids)`; `seed` and `ids` are non-negative."""
    return [seed, zlib.crc32(purpose.encode()), *ids]


def numpy_stream(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A NumPy generator at the start of the stream `(seed, purpose, *ids)`."""
    return np.random.default_rng(np.random.SeedSequence(key_of(seed, purpose, *ids)))


def word(seed: int, purpose: str, *ids: int) -> int:
    """63 random bits that identify the stream `(seed, purpose, *ids)`."""
    state = np.random.SeedSequence(key_of(seed, purpose, *ids)).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def stream(seed: int, purpose: str, *ids: int) -> torch.Generator:
    """A CPU torch generator at the start of the stream `(seed, purpose, *ids)`."""
    return torch.Generator().manual_seed(word(seed, purpose, *ids))
