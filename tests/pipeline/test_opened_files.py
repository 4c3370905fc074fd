"""What a stage really opens is declared in `dvc.yaml`: nothing else can change its outputs."""

from collections import defaultdict
from pathlib import PurePath

import pytest
from ruamel.yaml import YAML
from support import REPOSITORY
from test_graph import CARRIED

from docs.generate import file_of, imports_of

STAGES = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
# ddpm/devices/processes.py is what stages/kit asks who is first; where the library uses it, test_graph wants a dep.
ALLOWED = ("params.yaml", "stages/kit", "ddpm/config.py", "ddpm/devices/processes.py", ".cache", ".dvc")
"""Parameters, which DVC compares one by one; plumbing; working states and downloads, which are held to digests."""


def outputs(stage: str) -> list[str]:
    named = [out for kind in ("outs", "metrics", "plots") for out in STAGES[stage].get(kind, [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in named]


def carried(stage: str) -> list[str]:
    """Code whose change an output carries that the stage depends on, with what that code imports."""
    modules = [module for module, output in CARRIED.items() if output in STAGES[stage]["deps"]]
    return [str(file_of(each)) for module in modules for each in (module, *imports_of(module))]


def within(path: str, places: list[str]) -> bool:
    return any(PurePath(place) in [PurePath(path), *PurePath(path).parents] for place in places)


@pytest.fixture(scope="module")
def opened(traced: str) -> dict[str, dict[str, set[str]]]:
    """By stage and by `r` or `w`, the files of the checkout that a run of the pipeline has opened."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in traced.splitlines():
        stage, mode, path = line.split("\t")
        found[stage][mode].add(path)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_what_it_depends_on(opened: dict[str, dict[str, set[str]]], stage: str) -> None:
    read = opened[stage]["r"]
    assert len(read) > 10
    places = [*STAGES[stage]["deps"], *outputs(stage), *ALLOWED, *carried(stage)]
    hidden = {path for path in read if PurePath(path).name.startswith(".") or path.endswith((".pyc", "__init__.py"))}
    assert {path for path in read - hidden if not within(path, places)} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_writes_its_outputs_and_working_state_alone(opened: dict[str, dict[str, set[str]]], stage: str) -> None:
    written = {path for path in opened[stage]["w"] if not path.endswith(".pyc") and "__pycache__" not in path}
    temporary = {
        str(PurePath(path).with_name(PurePath(path).name.removeprefix(".").removesuffix(".part"))) for path in written
    }
    assert {path for path in temporary if not within(path, [*outputs(stage), ".cache", ".dvc"])} == set()
