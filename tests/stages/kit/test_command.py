"""What a stage says at its end, and of a wrong command line."""

import importlib
import os
import re
import subprocess
import sys

import pytest
from support import REPOSITORY

from stages.kit.start import start

PUBLISHED = REPOSITORY / "stages" / "fetch" / "lsun.csv"


def python(folder, *arguments, **environment):
    """Run `python ...` in `folder`, with stderr to a pipe."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder, env={"PYTHONPATH": str(REPOSITORY), **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_stage_ends_in_what_it_made_and_a_log_has_lines(write_params, tmp_path):
    write_params({"data": "smoke", "sources.smoke.train_images": 40, "sources.smoke.val_images": 3})
    options = ["--published", PUBLISHED, "--lmdb", "data/lmdb", "--factors", "data/factors.csv"]
    options += ["--passed-over", "data/passed_over.csv"]
    done = python(tmp_path, "-m", "stages.fetch", *options)
    assert done.returncode == 0
    *bars, last = done.stderr.splitlines()
    assert re.fullmatch(r"fetch: 40 training and 3 held-out images of church in data/lmdb \(\d+\.\d s\)", last)
    assert not re.search(r"[\r\x1b]|\n\n", done.stderr)
    ends = [re.sub(r"\s*\[.*", "", bar) for bar in bars if "100%" in bar]
    assert ends == ["church train: 100%|##########| 40/40", "church val: 100%|##########| 3/3"]
    assert ",fetch," in (tmp_path / ".cache" / "log" / "stages.csv").read_text()


def test_a_missing_option_is_one_line_with_all_that_there_are(tmp_path):
    done = python(tmp_path, "-m", "stages.fetch", "--lmdb", "data/lmdb", PATH="")
    assert done.returncode == 1
    assert re.fullmatch(r"fetch: error: .*params.yaml'\n", done.stderr)
    done = python(REPOSITORY, "-m", "stages.fetch", "--lmdb", "data/lmdb")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the following arguments are required: --published, --factors, --passed-over; usage: " in done.stderr


def test_what_was_made_stands_where_nothing_can_be_logged(write_params, tmp_path):
    write_params({"data": "smoke", "sources.smoke.train_images": 2, "sources.smoke.val_images": 2})
    (tmp_path / ".cache").touch()
    options = ["--published", PUBLISHED, "--lmdb", "lmdb", "--factors", "factors.csv", "--passed-over", "p.csv"]
    done = python(tmp_path, "-m", "stages.fetch", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "factors.csv").exists()


def test_what_was_made_stands_where_nobody_reads_the_line(monkeypatch, tmp_path):
    """As behind `dvc repro 2>&1 | head`."""
    monkeypatch.chdir(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    code = "from stages.kit.command import run; run('stages.any', lambda: 'made')"
    environment = {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == 0
    assert ",any," in (tmp_path / ".cache" / "log" / "stages.csv").read_text()


def test_an_interruption_before_torch_is_loaded_is_one_line(write_params, monkeypatch):
    """Which takes seconds, and a check before a training takes longer."""
    write_params({})
    monkeypatch.setattr(sys, "argv", ["stages.rank"])

    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupt)
    with pytest.raises(SystemExit, match=r"^rank: interrupted before it began$"):
        start("rank")
