"""The table of experiments, of a small repository with real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import REPOSITORY

from tools.experiments import table

STAGE = """
import json, pathlib, ruamel.yaml
seed = ruamel.yaml.YAML(typ="safe").load(pathlib.Path("params.yaml"))["seed"]
numbers = {"kid": 0.03 - seed / 100, "kid_low": -0.01, "kid_high": 0.0512345, "precision": 0.734375, "recall": 0.859375,
           "lpips6": 0.0523, "copies": seed, "loss": 0.00823}
pathlib.Path("reports").mkdir(exist_ok=True)
pathlib.Path("reports/metrics.json").write_text(json.dumps(numbers))
"""
GRAPH = """
stages:
  page:
    cmd: python stage.py
    params: [seed, models]
    metrics: [reports/metrics.json: {cache: false}]
"""
PARAMS = "seed: 0\nmodels: {tiny: {recipe: {learning_rate: 0.0012, ema_decays: [0.9, 0.99]}}}\nruntime: {threads: 2}\n"
FAR = "models.tiny.recipe.ema_decays=[0.5,0.75,0.875,0.9375]"


def environment():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    who = {f"GIT_{role}_{key}": "a@b" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    return {**os.environ, **who, "PATH": path, "PYTHONPATH": str(REPOSITORY), "DVC_NO_ANALYTICS": "1"}


def run(folder, *command):
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """HEAD; an experiment that differs in two parameters; one in the queue; a workspace that no stage has seen yet."""
    folder = tmp_path_factory.mktemp("experiments")
    for name, text in {"stage.py": STAGE, "dvc.yaml": GRAPH, "params.yaml": PARAMS}.items():
        (folder / name).write_text(text)
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "repro", "-q")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-q", "-m", "first")
    changes = [word for change in ("seed=2", "models.tiny.recipe.learning_rate=0.5", FAR) for word in ("-S", change)]
    run(folder, "dvc", "exp", "run", "-q", "-n", "better", *changes)
    run(folder, "git", "checkout", "-q", ".")
    run(folder, "dvc", "exp", "run", "-q", "--queue", "-n", "waiting", "-S", "seed=7")
    (folder / "params.yaml").write_text(PARAMS.replace("threads: 2", "threads: 1"))
    return folder


def test_the_best_comes_first_with_what_was_changed(repository):
    heading, *lines = run(repository, sys.executable, "-m", "tools.experiments").splitlines()
    names = ["experiment", "kid", "kid_low", "kid_high", "precision", "recall", "lpips6", "copies", "loss"]
    assert heading.split() == [*names, "changed", "parameters"]
    rows = [line.split() for line in lines]
    first = ["better", "0.0100", "-0.0100", "0.0512", "0.73", "0.86", "0.052", "2", "0.0082", "seed=2,"]
    assert rows[0] == [*first, "models.tiny.recipe.learning_rate=0.5,"]
    assert "".join(word for row in rows[1:-3] for word in row) == FAR.replace(" ", "")
    same = ["0.0300", "-0.0100", "0.0512", "0.73", "0.86", "0.052", "0", "0.0082"]
    assert rows[-3:] == [["workspace", *same], ["HEAD", *same], ["waiting", *"-" * 8, "seed=7"]]
    assert max(map(len, [heading, *lines])) <= 120


def test_a_long_name_leaves_room_for_what_was_changed():
    params = {"params": {"params.yaml": {"data": {"seed": 2}}}}
    experiments = [{"revs": [{"rev": "1234567", "name": "n" * 100, "data": params}]}]
    shown = table([{"rev": "workspace"}, {"rev": "89abcde", "experiments": experiments}])
    assert "seed=2" in shown


def test_metrics_fit_into_a_terminal(repository):
    shown = run(repository, "dvc", "metrics", "show")
    assert len(json.loads((repository / "reports" / "metrics.json").read_text())) == 8
    assert max(map(len, shown.splitlines())) <= 120


def refused(folder):
    """What the tool says as it fails."""
    command = [sys.executable, "-m", "tools.experiments"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize(
    ("said", "line"), [("WARNING: new\nERROR: why\n", "why"), ("", "dvc exp show ended with 3"), ("why\n", "why")]
)
def test_what_dvc_says_at_its_end_is_one_line(said, line, tmp_path):
    (tmp_path / "dvc.py").write_text(f"import sys\nsys.stderr.write({said!r})\nsys.exit(3)\n")
    assert refused(tmp_path) == f"experiments: error: {line}\n"


def test_elsewhere_it_is_one_line(tmp_path):
    stderr = refused(tmp_path)
    assert stderr.startswith("experiments: error: you are not inside of a DVC repository")
    assert stderr.count("\n") == 1
