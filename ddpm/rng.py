"""Random numbers as a function of (seed, purpose, indices).

There is no generator state to save: whoever knows the seed, the purpose and the indices of a draw can repeat it, in
any order and in any process. NumPy's generators do the drawing: torch's keep 32 bits of a seed on the CPU, too few to
tell 50,000 images apart.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


def seed_sequence(seed: int, purpose: str, *ids: int) -> np.random.SeedSequence:
    """The 128-bit entropy of the stream `(seed, purpose, *ids)`, integers of any size and sign.

    It is a BLAKE2b hash of the tuple as Python writes it, in which two different tuples never look alike. SeedSequence
    itself would pad a list with zeros and cut long numbers into words, so that the list [5, 7] has the stream of
    [5, 7, 0], and [5 + 7 * 2**32, 9] that of [5, 7, 9].
    """
    name = repr((int(seed), purpose, *map(int, ids))).encode()
    return np.random.SeedSequence(int.from_bytes(blake2b(name, digest_size=16).digest(), "little"))


def numpy_stream(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A NumPy generator at the start of the stream `(seed, purpose, *ids)`."""
    return np.random.default_rng(seed_sequence(seed, purpose, *ids))


def normal(generator: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 noise of `shape` on the CPU, so that every device gets the same."""
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def word(seed: int, purpose: str, *ids: int) -> int:
    """63 random bits for `torch.manual_seed`, where torch itself draws: initial weights and dropout."""
    return int(seed_sequence(seed, purpose, *ids).generate_state(1, np.uint64)[0]) >> 1
