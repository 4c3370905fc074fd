"""What a stage says at its end, and what `make repro` does."""

import json
import re
import shutil
import subprocess
import sys

from conftest import REPOSITORY


def python(folder, *arguments, **environment):
    """Run `python ...` in `folder`, with stderr to a pipe."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder, env={"PYTHONPATH": str(REPOSITORY), **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_stage_ends_in_what_it_made_and_a_log_has_lines(write_params, tmp_path):
    write_params({"data": "smoke", "sources.smoke.train_images": 40, "sources.smoke.val_images": 3})
    shutil.copy(REPOSITORY / "stages" / "lsun.csv", tmp_path)
    done = python(tmp_path, "-m", "stages.fetch", "lsun.csv", "data/lmdb", "data/factors.csv")
    assert done.returncode == 0
    *bars, last = done.stderr.splitlines()
    assert re.fullmatch(r"fetch: 40 training and 3 held-out images of church in data/lmdb \(\d+\.\d s\)", last)
    assert not re.search(r"[\r\x1b]|\n\n", done.stderr)
    ends = [re.sub(r"\s*\[.*", "", bar) for bar in bars if "100%" in bar]
    assert ends == ["church train: 100%|##########| 40/40", "church val: 100%|##########| 3/3"]
    assert ",fetch," in (tmp_path / ".cache" / "log" / "stages.csv").read_text()


def test_make_repro_rounds_as_every_processor_can():
    """With the documented variables, under which no CPU has bfloat16."""
    makefile, page = ((REPOSITORY / name).read_text() for name in ("Makefile", "docs/determinism.md"))
    documented = dict(word.split("=") for word in re.search(r"^export (.+?) *#", page, re.MULTILINE)[1].split())
    assert dict(re.findall(r"^repro: export (\w+) := (\w+)$", makefile, re.MULTILINE)) == documented
    code = "import torch; from ddpm.precision import *; print(choose_precision('auto', torch.device('cpu')))"
    assert python(REPOSITORY, "-c", code, **documented).stdout == "torch.float32\n"


def test_the_summary_has_the_numbers_of_the_committed_run():
    done = python(REPOSITORY, "-m", "stages._summary", "reports/metrics.json", "reports/index.html")
    metrics = json.loads((REPOSITORY / "reports" / "metrics.json").read_text())
    best, kid = metrics["rank"]["best"], metrics["evaluate"]["samples"]["kid_alexnet"]
    numbers = [best["min"], best["max"], metrics["rank"]["held_out"]["median"], kid["value"], kid["low"], kid["high"]]
    found = re.findall(r"-?\d\.\d{3,}", done.stdout)
    assert [float(number) for number in found] == [
        float(f"{number:.{digits}f}") for number, digits in zip(numbers, [3] * 3 + [4] * 3, strict=True)
    ]
    assert done.stdout.splitlines()[-1] == f"the report: {REPOSITORY}/reports/index.html"


def test_a_summary_of_nothing_is_one_line(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    for name in ("missing.json", "other.json"):
        done = python(tmp_path, "-m", "stages._summary", name, "index.html")
        assert done.returncode == 1
        assert re.fullmatch(rf"summary: error: {name}: .*`dvc repro` writes it\n", done.stderr)
