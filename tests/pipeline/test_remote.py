"""A remote as docs/dvc.md has it, on a local S3 server: outputs go there and come back, and a fork's CI uses them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from dvc.utils.hydra import apply_overrides
from moto.server import ThreadedMotoServer
from ruamel.yaml import YAML
from support import REPOSITORY

from benchmarks._clone import Clone
from stages.kit.files import digest

WORKFLOW = YAML(typ="safe").load(REPOSITORY / "docs" / "github-actions.yml")
STEPS = WORKFLOW["jobs"]["dvc"]["steps"]
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server that has the bucket of docs/dvc.md."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="my-bucket")
        yield address
    server.stop()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, little: Clone, endpoint: str) -> Clone:
    """A clone whose run is committed and lies in the bucket."""
    clone = little.copy(tmp_path_factory.mktemp("remote") / "pushed")
    clone.dvc("remote", "add", "--default", "storage", "s3://my-bucket/ddpm-church")
    clone.dvc("remote", "modify", "storage", "endpointurl", endpoint)
    clone.commit("run on little data")
    clone.dvc("push")
    clone.git("tag", "-a", "ddpm-church@v1.0.0", "-m", "first model")
    return clone


@pytest.fixture
def theirs(pushed: Clone, tmp_path: Path) -> Clone:
    """What somebody else has after `git clone`: no output."""
    return pushed.cloned(tmp_path / "theirs")


def outputs(clone: Clone) -> dict[str, str]:
    """sha256 of each file in data/, by its path."""
    return {
        path.relative_to(clone.folder).as_posix(): digest(path)
        for path in (clone.folder / "data").rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_a_fresh_clone_pulls_its_outputs_and_runs_nothing(pushed: Clone, theirs: Clone) -> None:
    assert "data/lmdb" in theirs.dvc("pull", fails=True)
    theirs.dvc("pull", "--allow-missing")
    assert theirs.ran("repro", "--allow-missing") == []
    assert outputs(theirs) == {name: digest for name, digest in outputs(pushed).items() if "data/lmdb" not in name}
    assert theirs.ran("repro") == ["fetch"]
    assert outputs(theirs) == outputs(pushed)


@pytest.mark.slow
def test_the_model_is_had_without_the_rest(pushed: Clone, theirs: Clone) -> None:
    theirs.dvc("get", str(pushed.folder), "data/model", "--out", "out/by_path")
    theirs.dvc("artifacts", "get", str(pushed.folder), "ddpm-church", "--rev", "v1.0.0", "--out", "out/by_name")
    model = {path.name: digest(path) for path in (pushed.folder / "data" / "model").iterdir()}
    for name in ("by_path", "by_name"):
        assert {path.name: digest(path) for path in (theirs.folder / "out" / name).iterdir()} == model


def test_the_workflow_sees_all_of_git_and_keeps_what_pip_fetched() -> None:
    options = {step["uses"].partition("@")[0]: step["with"] for step in STEPS if "uses" in step}
    assert options["actions/checkout"] == {"fetch-depth": 0, "persist-credentials": False}
    assert options["actions/setup-python"]["cache"] == "pip"


def test_the_workflow_s_secrets_are_seen_by_dvc_pull_alone_and_its_actions_can_t_change() -> None:
    assert str(WORKFLOW).count("secrets.") == 2
    assert [step["run"] for step in STEPS if "secrets." in str(step)] == ["dvc pull --allow-missing"]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in STEPS if "uses" in step)


@pytest.mark.slow
def test_the_workflow_runs_what_a_commit_changes(theirs: Clone, tmp_path: Path) -> None:
    """All of its lines but `make test`, as GitHub's runner does: bash -e, with files for what it tells the runner."""
    apply_overrides(theirs.folder / "params.yaml", ["sample.seed=1"])
    theirs.commit("another seed")
    summary = tmp_path / "summary"
    variables = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    variables |= {"BASE": "origin/master", "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_PATH": str(tmp_path / "path")}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    lines = [step["run"] for step in STEPS if "run" in step]
    assert lines.pop(0) == "make test"
    said = "".join(
        subprocess.run(
            ["bash", "-e", "-c", line], cwd=theirs.folder, env=variables, capture_output=True, text=True, check=True
        ).stdout
        for line in lines
    )
    assert sorted(re.findall(r"Running stage '(\w+)'", said)) == ["evaluate", "page", "rank", "sample"]
    assert "| kid " in summary.read_text()
