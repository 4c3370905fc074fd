"""Random numbers are functions of (seed, purpose, indices)."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.rng import normal, numpy_stream, word

IDS = st.tuples(st.integers(0, 2**40), st.sampled_from(["sample", "noise"]), st.integers(0, 2**40))


def test_streams_stay_as_they_are() -> None:
    """NumPy doesn't promise its generators' numbers for ever; a release with others changes every result."""
    assert numpy_stream(0, "epoch", 3).permutation(8).tolist() == [4, 7, 0, 1, 6, 5, 2, 3]
    expected = pytest.approx([1.242452, -0.173282, -0.635433], abs=1e-6)
    assert normal(numpy_stream(0, "sample", 7), (3,)).tolist() == expected
    assert word(0, "weights") == 4329534939928230648


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((5, "sample"), (5, "sample", 0)),
        ((5, "sample", 0), (5, "sample", 0, 0)),
        ((5, "sample", 1, 2), (5, "sample", 1 + (2 << 32))),
        ((5 + (zlib.crc32(b"sample") << 32), "epoch", 7), (5, "sample", zlib.crc32(b"epoch"), 7)),
        ((5, "plumless"), (5, "buckeroo")),  # whose CRC-32 is the same
        ((5, "sample", 12), (5, "sample, 1", 2)),
        ((5, "sample', 1"), (5, "sample", 1)),
    ],
)
def test_length_and_size_of_the_indices_count(one: tuple, other: tuple) -> None:
    """Pairs that are one stream where a key is padded with zeros, cut into 32-bit words, or joined without marks."""
    assert not torch.equal(normal(numpy_stream(*one), (4,)), normal(numpy_stream(*other), (4,)))
    assert word(*one) != word(*other)


def test_numpys_integers_are_integers() -> None:
    assert word(0, "batch", np.int64(3)) == word(0, "batch", 3)


@given(IDS, IDS)
def test_streams_differ_when_their_names_do(a: tuple[int, str, int], b: tuple[int, str, int]) -> None:
    first, second = (normal(numpy_stream(*ids), (4,)) for ids in (a, b))
    assert torch.equal(first, second) == (a == b)
