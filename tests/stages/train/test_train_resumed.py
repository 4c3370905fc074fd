"""A training that is killed and started again in other circumstances: it goes on, or says what there is to go on from.

Nothing here is lost: no state is removed or passed over without a line.
"""

import os
import platform
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from support import REPOSITORY, WriteParams
from trainers import SMALL, Trainers, arguments, outputs

from stages.kit.resume import step_of
from stages.shared.files.formats import read_safetensors


def modules_from(tree: Path) -> None:
    sys.path.insert(0, str(tree))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the code, to be edited."""
    for package in ("ddpm", "stages"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, tmp_path / "tree" / package, ignore=ignored)
    return tmp_path / "tree"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def kept_with(folder: Path, difference: str) -> str:
    """The line on a state that isn't continued."""
    step = step_of(folder / "state.pt")
    return (
        f"train: {folder} has step {step} of this run, but with {difference}; "
        f"it is kept and not continued; DDPM_RESUME={folder.name} continues it"
    )


def test_comments_and_messages_may_change(trainers: Trainers, tmp_path: Path, tree: Path) -> None:
    trainers.killed(before=partial(modules_from, tree))
    trainer = tree / "ddpm" / "training" / "trainer.py"
    edit(trainer, '"""The rate of `step`."""', '"""The learning rate of `step`."""  # a comment')
    edit(trainer, "leave nothing of", "leave none of the")
    with (tree / "stages" / "train" / "stage.py").open("a") as file:
        file.write("MORE = 1\n")
    code, stderr = trainers.run("killed", before=partial(modules_from, tree))
    assert code == 0
    assert "train: continues at step" in stderr
    trainers.run("straight", root="other")
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "straight")


def test_other_code_is_named(trainers: Trainers, tree: Path) -> None:
    folder = trainers.killed(before=partial(modules_from, tree))
    edit(tree / "ddpm" / "training" / "trainer.py", "DIVERGED = 10.0", "DIVERGED = 20.0")
    code, stderr = trainers.run(before=partial(modules_from, tree))
    assert code == 0
    assert kept_with(folder, "other ddpm.training.trainer") in stderr.splitlines()
    assert "continues at step" not in stderr
    assert (folder / "state.pt").exists()


def test_another_number_of_threads_is_taken_when_told_to(
    trainers: Trainers, write_params: WriteParams, tmp_path: Path
) -> None:
    trainers.run("straight", root="other")
    folder = trainers.killed()
    write_params({**SMALL, "runtime.threads": 2})
    process = trainers.start()
    line = trainers.wait_for_line("out", "has step")
    process.kill()
    process.join()
    step = step_of(folder / "state.pt")
    assert line == kept_with(folder, "threads 1 (now 2)")

    code, stderr = trainers.run(DDPM_RESUME=folder.name)
    assert code == 0
    mixed = f"up to step {step} with threads 1 (now 2)"
    assert f"train: continues at step {step}, epoch {step / 6:.4g} of the run of 6 epochs, {mixed}\n" in stderr
    one, two = (read_safetensors(tmp_path / out / "model" / "raw.safetensors")[0] for out in ("straight", "out"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-4

    code, stderr = trainers.run("again")
    assert code == 0
    assert f"train: continues at step 36, epoch 6 of the run of 6 epochs, {mixed}\n" in stderr
    code, stderr = trainers.run("new", DDPM_RESUME="new")
    assert code == 0
    assert "continues" not in stderr
    assert outputs(tmp_path / "again") == outputs(tmp_path / "out") != outputs(tmp_path / "new")


def test_neighbours_neither_block_nor_remove_an_unfinished_run(
    trainers: Trainers, write_params: WriteParams, tmp_path: Path
) -> None:
    trainers.run("straight", root="other")
    folder = trainers.killed()
    for seed in (1, 2, 3, 4):
        write_params({**SMALL, "epochs": 1, "seed": seed})
        assert trainers.run("short")[0] == 0
    others = [path for path in folder.parent.iterdir() if path != folder]
    assert len(others) == 3
    (others[0] / "run.json").write_text("")
    write_params(SMALL)
    code, stderr = trainers.run("killed")
    assert code == 0
    assert f"train: passes over {others[0]}/run.json: damaged (" in stderr
    assert "train: continues at step" in stderr
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "straight")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no AVX2 to leave out")
def test_another_processor_is_named(trainers: Trainers, write_params: WriteParams, tmp_path: Path) -> None:
    """Processes of their own, as torch looks at the variable once."""
    write_params({**SMALL, "epochs": 2, "runtime.portable": False})

    def train(instructions: str, **more: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DVC_ROOT": str(tmp_path), **more}
        environment["ATEN_CPU_CAPABILITY"] = instructions
        command = [sys.executable, "-m", "stages.train", *arguments(tmp_path / "out")]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stderr

    train("avx2")
    [state] = (tmp_path / ".cache" / "train").glob("*/state.pt")
    difference = "instructions AVX2 (now DEFAULT)"
    stderr = train("default")
    assert kept_with(state.parent, difference) in stderr.splitlines()
    assert "continues at step" not in stderr
    assert "continues at step 12" in train("default")
    [anew] = [folder for folder in state.parent.parent.iterdir() if folder != state.parent]
    shutil.rmtree(anew)
    stderr = train("default", DDPM_RESUME=str(state.parent))
    assert f"continues at step 12, epoch 2 of the run of 2 epochs, up to step 12 with {difference}" in stderr


@pytest.mark.parametrize("end", ["released", "interrupted"])
def test_a_second_trainer_of_the_same_run_waits(trainers: Trainers, tmp_path: Path, end: str) -> None:
    first = trainers.start("one")
    trainers.wait_for_state()
    os.kill(first.pid, signal.SIGSTOP)
    second = trainers.start("two")
    line = trainers.wait_for_line("two", "waits for")
    assert line.startswith(f"train: waits for process {first.pid} on ")
    assert "which is training the same run (" in line
    if end == "interrupted":
        os.kill(second.pid, signal.SIGINT)
        second.join()
        assert second.exitcode == 1
        last = (tmp_path / "two.err").read_text().splitlines()[-1]
        assert last == "train: interrupted; the same command starts it again"
    os.kill(first.pid, signal.SIGCONT)
    first.join()
    second.join()
    assert first.exitcode == 0
    assert (tmp_path / "two.err").read_text().count("waits for") == 1
    if end == "released":
        assert second.exitcode == 0
        assert "continues at step 36" in (tmp_path / "two.err").read_text()
        assert outputs(tmp_path / "two") == outputs(tmp_path / "one")
