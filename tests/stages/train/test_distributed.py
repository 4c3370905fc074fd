"""Several processes that train together: the same run as one alone, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import REPOSITORY, WriteParams
from trainers import SMALL, Trainers, arguments, outputs

from stages.shared.files.formats import read_safetensors

TWO = {**SMALL, "epochs": 3, "train.micro_batch_images": 2}
"""Each of two processes has two micro-batches of every batch; for one process they are the same four."""


@pytest.fixture
def trainers(trainers: Trainers, write_params: WriteParams) -> Trainers:
    write_params(TWO)
    return trainers


def torchrun(folder: Path) -> subprocess.Popen[bytes]:
    """Start two processes that write into `out`, and to stderr into `out.err`."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "stages.train", *arguments(folder / "out")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DVC_ROOT": str(folder)}
    with (folder / "out.err").open("wb") as stderr:
        return subprocess.Popen(command, env=environment, cwd=folder, stderr=stderr)


def assert_alike(one: Path, other: Path) -> None:
    """Two runs are the same but for the order of their sums."""
    losses = [pd.read_csv(out / "loss.csv")["loss"] for out in (one, other)]
    assert len(losses[0]) == 18
    assert np.abs(losses[0] - losses[1]).max() < 1e-5
    for name in ("raw", "ema_0.99", "ema_0.9"):
        a, b = (read_safetensors(out / "model" / f"{name}.safetensors")[0] for out in (one, other))
        assert max((a[key] - b[key]).abs().max() for key in a) < 1e-4


@pytest.mark.slow
def test_torchrun_stopped_and_continued_is_a_run_by_one_process(trainers: Trainers, tmp_path: Path) -> None:
    process = torchrun(tmp_path)
    trainers.wait_for_state()
    process.terminate()
    assert process.wait() != 0
    assert (tmp_path / "out.err").read_text().count("train: interrupted; the same command") == 1
    assert not (tmp_path / "out").exists()

    assert torchrun(tmp_path).wait() == 0
    stderr = (tmp_path / "out.err").read_text()
    assert stderr.count("train: continues at step") == 1
    assert stderr.count("144/144") == 1  # one of them draws a bar
    assert (tmp_path / ".cache" / "log" / "stages.csv").read_text().count("train") == 1
    assert len(list((tmp_path / ".cache" / "train").iterdir())) == 1
    trainers.run("straight", root="straight_root")
    assert_alike(tmp_path / "out", tmp_path / "straight")


def test_two_and_one_alone_continue_each_other(trainers: Trainers, tmp_path: Path) -> None:
    for rank in (0, 1):
        started, ranks = time.time(), trainers.start_two()
        trainers.wait_for_state(since=started)
        ranks[rank].kill()
        ranks[1 - rank].join()
        assert ranks[1 - rank].exitcode == 1
        stderr = (tmp_path / "out.err").read_text()
        assert stderr.count("train: error: another process of this run ended; the same command continues") == rank + 1
        assert "Traceback" not in stderr

        started, process = time.time(), trainers.start()
        trainers.wait_for_state(since=started)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it had ended before"
    assert (tmp_path / "out.err").read_text().count("train: continues at step") == 3
    assert trainers.run_two()[0] == [0, 0]
    trainers.run("straight", root="straight_root")
    assert_alike(tmp_path / "out", tmp_path / "straight")


def test_processes_with_unequal_parts_of_a_batch_are_a_run_by_one(
    trainers: Trainers, write_params: WriteParams, tmp_path: Path
) -> None:
    """Of eight images one has 3 + 2 and the other 3."""
    write_params({**TWO, "train.micro_batch_images": 3})
    assert trainers.run_two()[0] == [0, 0]
    trainers.run("straight", root="straight_root")
    assert_alike(tmp_path / "out", tmp_path / "straight")


def test_an_error_of_the_first_process_ends_all_and_is_said_once(trainers: Trainers, tmp_path: Path) -> None:
    process = trainers.start()
    trainers.wait_for_state()
    process.kill()
    process.join()
    [state] = (tmp_path / ".cache" / "train").glob("*/state.pt")
    state.write_bytes(state.read_bytes()[:-1000])
    codes, stderr = trainers.run_two()
    announced, line = stderr.splitlines()
    assert codes == [1, 1]
    assert announced.endswith("float32, 2 processes, 1 thread each")
    assert f"train: error: {state}: damaged (" in line


def test_two_wait_for_another_process_and_go_on_from_what_it_did(trainers: Trainers, tmp_path: Path) -> None:
    process = trainers.start("one")
    trainers.wait_for_state()
    os.kill(process.pid, signal.SIGSTOP)
    ranks = trainers.start_two()
    trainers.wait_for_line("out", f"train: waits for process {process.pid} on ")
    os.kill(process.pid, signal.SIGCONT)
    for each in [process, *ranks]:
        each.join()
    assert [each.exitcode for each in [process, *ranks]] == [0, 0, 0]
    assert (tmp_path / "out.err").read_text().count("train: continues at step 18,") == 1
    assert outputs(tmp_path / "out") == outputs(tmp_path / "one")


def test_more_processes_than_micro_batches_are_refused(
    trainers: Trainers, write_params: WriteParams, tmp_path: Path
) -> None:
    write_params({**TWO, "train.micro_batch_images": 8})
    codes, stderr = trainers.run_two()
    assert codes == [1, 1]
    assert stderr == (
        "train: error: params.yaml: models.smoke.recipe: "
        "batch_images = 8 in micro-batches of 8 can't be shared by 2 processes\n"
    )


def test_two_diverge_together(trainers: Trainers, write_params: WriteParams) -> None:
    write_params({**TWO, "models.smoke.recipe.learning_rate": 1e10, "train.clip_norm": float("inf")})
    codes, stderr = trainers.run_two()
    assert codes == [1, 1]
    assert stderr.count("train: error: the loss of step ") == 1
