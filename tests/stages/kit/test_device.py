"""Which device a stage takes, and what it says where an NVIDIA card can't be used. No machine here has one."""

from pathlib import Path

import pytest
import torch
from support import WriteParams

from ddpm.config import ConfigError
from stages.kit import device as _device
from stages.kit.device import has_card, setup
from stages.kit.params import read_params

NO_KERNELS = "CUDA error: no kernel image is available for execution on the device\nCompile with ..."
GROUP = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="these are machines whose GPU can't be used")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a card: the places to look for one, empty."""
    (tmp_path / "pci" / "0000:01:00.0").mkdir(parents=True)
    monkeypatch.setattr(_device, "PCI", tmp_path / "pci")
    monkeypatch.setattr(_device, "DRIVER", tmp_path / "driver")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def add_card(machine: Path, how: str) -> None:
    if how == "driver":
        (machine / "driver").write_text("NVRM version: 470\n")
    elif how == "nvidia-smi":
        (machine / how).write_text("#!/bin/sh\necho 'GPU 0: NVIDIA GeForce GTX 1080 (UUID: GPU-1)'\n")
        (machine / how).chmod(0o755)
    else:
        pci = machine / "pci" / "0000:01:00.0"
        (pci / "vendor").write_text("0x10de\n")
        (pci / "class").write_text("0x030200\n")


def test_a_machine_without_a_card_takes_the_cpu_in_silence(
    machine: Path, write_params: WriteParams, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params({"runtime.threads": torch.get_num_threads()})
    assert setup(read_params()) == torch.device("cpu")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["driver", "pci", "nvidia-smi"])
def test_a_card_without_a_working_driver_is_one_line(
    machine: Path, how: str, write_params: WriteParams, capsys: pytest.CaptureFixture[str]
) -> None:
    add_card(machine, how)
    write_params({"runtime.threads": torch.get_num_threads()})
    assert setup(read_params()) == torch.device("cpu")
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("runtime.device = auto: computes on the CPU: there is an NVIDIA card, but ")
    assert "--gpus all" in said or "install the packages" in said


@pytest.mark.parametrize(("vendor", "kind"), [("0x8086", "0x030000"), ("0x10de", "0x040300"), ("", "")])
def test_other_devices_are_no_card(machine: Path, vendor: str, kind: str) -> None:
    """Graphics of another maker; the sound of an NVIDIA card, which a virtual machine may have alone."""
    (machine / "pci" / "0000:01:00.0" / "vendor").write_text(vendor)
    (machine / "pci" / "0000:01:00.0" / "class").write_text(kind)
    (machine / "nvidia-smi").write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    (machine / "nvidia-smi").chmod(0o755)
    assert not has_card()


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_card_that_torch_has_no_kernels_for(
    asked: str, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(NO_KERNELS)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "add", fail)
    monkeypatch.setattr(torch, "ones", lambda size, device: torch.zeros(size))
    write_params({"runtime.threads": torch.get_num_threads(), "runtime.device": asked})
    if asked == "cuda":
        with pytest.raises(ConfigError, match=r"'cuda': CUDA error: no kernel image .*too old\); try auto or cpu$"):
            setup(read_params())
    else:
        assert setup(read_params()) == torch.device("cpu")
        assert "no kernels for the card" in capsys.readouterr().err


def test_one_of_several_processes_never_goes_to_the_cpu_by_itself(
    machine: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_card(machine, "pci")
    for name, value in GROUP.items():
        monkeypatch.setenv(name, value)
    write_params({"runtime.threads": torch.get_num_threads()})
    with pytest.raises(ConfigError, match=r"try cpu$"):
        setup(read_params())


@pytest.mark.parametrize("group", [True, False])
def test_only_processes_of_a_group_have_cards_of_their_own(
    group: bool, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some schedulers set LOCAL_RANK for a lone process too."""
    asked: list[str] = []

    def unusable(name: str) -> str:
        asked.append(name)
        return "not here"

    for name, value in {"LOCAL_RANK": "3", **(GROUP if group else {})}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_device, "unusable", unusable)
    write_params({"runtime.threads": torch.get_num_threads(), "runtime.device": "cuda"})
    with pytest.raises(ConfigError, match="not here"):
        setup(read_params())
    assert asked == ["cuda:3" if group else "cuda:0"]
