"""Files appear whole or not at all."""

import gc
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.kit.state import WorkingState
from stages.shared.files.formats import write_npy, write_safetensors
from stages.shared.lmdbs import write_lmdb

ZEROS = torch.zeros(8_000_000)  # 32 MB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB, so that only what fills it can be taken for full."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield tmp_path
    gc.collect()  # an error and its frames are a circle, which keeps the failed file open
    subprocess.run(["umount", tmp_path], check=True)


def save_state(folder: Path) -> None:
    working = WorkingState(folder)
    working.save({"a": ZEROS})
    working.wait()


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_lmdb(folder / "data.mdb", ((b"%d" % i, bytes(100_000)) for i in range(400))),
        lambda folder: write_safetensors(folder / "a.safetensors", {"a": ZEROS}, {}),
        lambda folder: write_npy(folder / "a.npy", ZEROS.numpy()),
        save_state,
    ],
    ids=["lmdb", "safetensors", "npy", "state"],
)
def test_a_full_disk_is_named_and_nothing_stays(small_disk: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(OSError, match=r"^(no disk|Not enough free) space [^\n]*$"):
        write(small_disk)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_are_as_open_as_the_umask_allows(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        (tmp_path / ".a.safetensors.part").touch(0o600)  # what a killed process left
        write_safetensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {})
        write_npy(tmp_path / "a.npy", np.arange(3))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == 2 * [0o666 & ~mask]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(TypeError):
        write_safetensors(tmp_path / "a.npy", {"a": ZEROS}, {"not JSON": object()})
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
