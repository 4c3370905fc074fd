"""Too little memory is one line that names the parameter to lower, wherever it shows."""

import errno
import mmap
import sys

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from support import REPOSITORY

from stages.kit.command import run
from stages.kit.memory import advice, lower, out_of_memory

MUCH = 1 << 46  # bytes: more than a process can address beside what it has


def by_torch() -> None:
    torch.empty(MUCH, dtype=torch.uint8)


def by_numpy() -> None:
    np.ones(MUCH, np.uint8)


def by_python() -> None:
    bytearray(MUCH)


def by_the_system() -> None:
    mmap.mmap(-1, MUCH)


def by_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...")


def by_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize("allocate", [by_torch, by_numpy, by_python, by_the_system, by_cuda, by_cublas])
def test_each_kind_is_one_line(allocate, monkeypatch: pytest.MonkeyPatch, write_params) -> None:
    write_params({"runtime.batch_images": 7})
    monkeypatch.setattr(sys, "argv", ["sample"])
    with pytest.raises(SystemExit) as ended:
        run("stages.sample", allocate)
    line = str(ended.value)
    assert line.startswith("sample: error: out of memory")
    assert line.endswith(": lower runtime.batch_images, now 7")
    assert "\n" not in line


def test_the_line_says_how_much_was_wanted() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        by_cuda()
    assert advice("train", caught.value).startswith(
        "out of memory, 2.00 GiB more were wanted: lower train.micro_batch_"
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the sizes don't match"),
        OSError(errno.ENOENT, "No such file"),
        ImportError("no module"),
        KeyError(),
    ],
)
def test_other_errors_are_none(error: Exception) -> None:
    assert not out_of_memory(error)


def test_every_stage_that_computes_has_a_parameter_to_lower() -> None:
    stages = set(YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"])
    assert {stage for stage in stages if not lower(stage)} == {"weights"}
    assert lower("rank") == ": lower runtime.batch_images, now empty (64, for LPIPS 128) or rank.samples, now 64"
