"""The errors that docs/troubleshooting.md quotes, provoked: they are said as it says."""

import os
import platform
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn import PREPROCESSING, write_images
from support import REPOSITORY, WriteParams
from trainers import SMALL, Trainers, allow_little_memory, arguments

from benchmarks._clone import Clone, variables
from stages.kit import runtime
from stages.kit.locks import locked
from stages.kit.runtime import PORTABLE_INTEL
from stages.shared import download as _download

PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTES = re.findall(r"^```text\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
NOWHERE = "http://127.0.0.1:9"  # nothing listens there

Fail = Callable[..., str]


def is_quoted(line: str) -> bool:
    return any(re.fullmatch(re.escape(quote).replace("…", ".*"), line) for quote in QUOTES)


@pytest.fixture
def fail(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Run a stage, as `python -m stages.NAME` does, to the error that it ends with."""

    for name, value in PORTABLE_INTEL.items():  # which the stage sets for good
        monkeypatch.setenv(name, value)

    def run(stage: str, changes: dict[str, Any], *words: Path | str) -> str:
        write_params({"runtime.threads": 1, **changes})
        monkeypatch.setattr(sys, "argv", [stage, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(f"stages.{stage}", run_name="__main__")
        return str(ended.value.code)

    return run


@pytest.mark.parametrize(
    "changes",
    [{"sample.sampler": "ddmi"}, {"runtime.device": "cuda:7"}, {"epcohs": 3}],
    ids=str,
)
def test_wrong_parameters(fail: Fail, changes: dict[str, Any]) -> None:
    assert is_quoted(fail("sample", changes, "model"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no AVX2 to lack")
def test_a_processor_without_avx2(
    fail: Fail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu sse2\n")
    assert is_quoted(fail("train", {}))
    assert capsys.readouterr().err == ""
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu sse2 sse4_2 avx\n")
    fail("train", {})  # for want of paths
    assert is_quoted(capsys.readouterr().err.splitlines()[0])


@pytest.mark.parametrize("launcher", ["no-such-launcher -n 2", "torchrun 'unbalanced"])
def test_no_such_launcher(fail: Fail, monkeypatch: pytest.MonkeyPatch, launcher: str) -> None:
    monkeypatch.setenv("DDPM_LAUNCH", launcher)
    assert is_quoted(fail("train", {}))


def test_attention_on_no_level(fail: Fail, tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.zeros((8, 64, 64, 3), np.uint8))
    table = pd.DataFrame({"row": range(8), "category": "church", "label": 0, "preprocessing": PREPROCESSING.name})
    table.to_csv(tmp_path / "train.csv", index=False)
    assert is_quoted(fail("train", {}, *arguments(tmp_path)))


def test_no_network(fail: Fail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(_download, "SECOND", 0.0)
    assert is_quoted(fail("weights", {}, "--backbone", "backbone.safetensors"))
    source, table = {"data": "lsun", "sources.lsun.urls": [NOWHERE]}, REPOSITORY / "stages" / "fetch" / "lsun.csv"
    assert is_quoted(
        fail(
            "fetch",
            source,
            "--published",
            table,
            "--lmdb",
            "lmdb",
            "--factors",
            "factors.csv",
            "--passed-over",
            "passed_over.csv",
        )
    )


def test_divergence(fail: Fail, tmp_path: Path) -> None:
    write_images(tmp_path)
    changes = {**SMALL, "models.smoke.recipe.learning_rate": 1e10, "train.clip_norm": float("inf")}
    assert is_quoted(fail("train", changes, *arguments(tmp_path)))


def test_too_little_memory(trainers: Trainers, write_params: WriteParams) -> None:
    large = {"models.smoke.recipe.batch_images": 800, "models.smoke.network.patch": 1}
    write_params({**SMALL, **large, "models.smoke.network.channels": 64})
    assert is_quoted(trainers.run(before=allow_little_memory)[1].splitlines()[-1])


def test_two_trainers(trainers: Trainers, tmp_path: Path) -> None:
    trainers.run("one")
    [state] = (tmp_path / ".cache" / "train").glob("*/state.pt")
    with locked(state.with_name("lock"), "train", "training the same run"):
        second = trainers.start("two")
        assert is_quoted(trainers.wait_for_line("two", "waits for"))
    second.join()


def test_a_state_of_other_circumstances(trainers: Trainers, write_params: WriteParams) -> None:
    folder = trainers.killed()
    write_params({**SMALL, "runtime.threads": 2})
    process = trainers.start()
    assert is_quoted(trainers.wait_for_line("out", folder.name))
    process.kill()
    process.join()


def test_a_damaged_state(trainers: Trainers) -> None:
    (trainers.killed() / "state.pt").write_bytes(b"")
    assert is_quoted(trainers.run()[1].splitlines()[-1])


def test_an_unknown_override(tmp_path: Path) -> None:
    said = Clone(tmp_path).dvc("exp", "run", "-S", "sample.samplr=ddim", fails=True)
    assert any(map(is_quoted, said.splitlines())), said


def test_two_commands_of_dvc(tmp_path: Path) -> None:
    """In a project of its own, whose stage says that it runs and then waits for a line."""
    os.mkfifo(tmp_path / "go")
    (tmp_path / "dvc.yaml").write_text("stages: {wait: {cmd: echo begun; read line < go; echo > out, outs: [out]}}\n")
    dvc = [sys.executable, "-m", "dvc"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": variables(), "text": True}
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], check=True, **options)
    with subprocess.Popen([*dvc, "repro"], stdout=subprocess.PIPE, **options) as first:
        assert first.stdout
        while "begun" not in (first.stdout.readline()):
            assert first.poll() is None
        second = subprocess.run([*dvc, "repro"], capture_output=True, **options)
        (tmp_path / "go").write_text("\n")
    assert second.returncode
    assert any(map(is_quoted, second.stderr.splitlines())), second.stderr


def test_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"  # says what a Python 3.9 says to the Makefile's questions
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18\n')
    old.chmod(0o755)
    clone = Clone(tmp_path / "clone")
    said = subprocess.run(["make", f"PYTHON={old}", "repro"], cwd=clone.folder, capture_output=True, text=True)
    assert any(map(is_quoted, said.stdout.splitlines())), said
