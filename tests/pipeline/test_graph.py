"""`dvc.yaml` against the code: a stage depends on all code that can change its outputs, and on nothing else."""

import ast
import re
from pathlib import Path, PurePath

import pytest
from ruamel.yaml import YAML

from docs.generate import file_of, imports_of, modules, room

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
PLUMBING = ("stages.kit.", "ddpm.config")
"""What can't change an output, and is no dependency."""
CODE = ("ddpm/", "stages/")
CARRIED = {"ddpm.autoencoder.network": "data/latents", "ddpm.gan.networks": "data/gan"}
"""Code whose digest is in the files of an output: what depends on that output needn't depend on the code, too."""


def code_of(stage: str) -> set[PurePath]:
    """The files of the modules that can change the outputs of a stage: all that it reaches but by plumbing alone."""
    carried = {module for module, data in CARRIED.items() if data in STAGES[stage]["deps"]}
    reached: set[str] = set()
    open_ = {f"stages.{stage}.stage", f"stages.{stage}.__main__"}
    while open_:
        reached |= open_
        imported = set().union(*map(imports_of, open_))
        open_ = {module for module in imported if not module.startswith(PLUMBING)} - reached - carried
    return {file_of(module) for module in reached}


def covers(dep: str, path: PurePath) -> bool:
    return PurePath(dep) == path or PurePath(dep) in path.parents


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_that_a_stage_imports_is_its_dependency(stage: str) -> None:
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith(CODE) and dep != "stages/kit/VERSION"]
    code = code_of(stage)
    assert [path for path in code if not any(covers(dep, path) for dep in deps)] == []
    assert [dep for dep in deps if not any(covers(dep, path) for path in code)] == []
    assert "stages/kit/VERSION" in STAGES[stage]["deps"]


def test_training_depends_on_what_it_imports_and_on_no_other_module() -> None:
    """So that a new sampler, metric, figure or kind of network never trains a model again."""
    deps = [dep for dep in STAGES["train"]["deps"] if dep.startswith(CODE) and dep != "stages/kit/VERSION"]
    files = {path.relative_to(ROOT) for dep in deps for path in [ROOT / dep, *(ROOT / dep).rglob("*.py")]}
    depended = {path for path in files if path.suffix == ".py" and path.name != "__init__.py"}
    assert depended == code_of("train")


def outputs(stage: str) -> list[str]:
    named = [out for kind in ("outs", "metrics", "plots") for out in STAGES[stage].get(kind, [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in named]


@pytest.mark.parametrize("stage", STAGES)
def test_a_command_starts_without_a_shell_and_names_declared_paths(stage: str) -> None:
    command = STAGES[stage]["cmd"].strip()
    assert re.fullmatch(r"[\w./ -]+", command)  # nothing that one shell reads otherwise than another
    assert command.startswith(f"python -m stages.{stage} ")
    declared = [*STAGES[stage]["deps"], *outputs(stage)]
    for path in [word for word in command.split()[3:] if not word.startswith("--")]:
        assert any(covers(path, PurePath(each)) or covers(each, PurePath(path)) for each in declared), path


@pytest.mark.parametrize("stage", STAGES)
def test_no_parameter_escapes_the_run_cache(stage: str) -> None:
    """DVC drops keys of these two names when it hashes a section, as if they were those of a file."""
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    for parameter in STAGES[stage].get("params", []):
        found = values
        for key in re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], parameter).split("."):
            found = found[key]
        assert not re.search(r"'(size|nfiles)':", repr(found)), parameter


def test_the_pipeline_is_read_in_one_sitting() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 375


@pytest.mark.parametrize("folder", ["ddpm", "stages", "tools", "tests", "docs", "benchmarks"])
def test_files_are_about_one_thing_and_functions_are_seen_at_once(folder: str) -> None:
    for path in [path for end in ("py", "jinja") for path in (ROOT / folder).rglob(f"*.{end}")]:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 320, path
        if path.suffix == ".py":
            functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
            assert all(node.end_lineno - node.lineno < 50 for node in functions), path


def test_library_knows_nothing_of_the_pipeline() -> None:
    for module in modules("ddpm"):
        tree = ast.parse((ROOT / file_of(module)).read_text())
        names = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        names |= {
            node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
        }
        forbidden = names & {"stages", "tools", "yaml", "ruamel", "dvc", "matplotlib", "lmdb", "pathlib", "os", "tqdm"}
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not forbidden | (calls & {"open", "print"}), module


def test_neither_modules_nor_rooms_import_in_a_circle() -> None:
    every = modules("ddpm") + modules("stages") + modules("tools")
    by_module = {module: imports_of(module) for module in every}
    by_room: dict[str, set[str]] = {}
    for module, targets in by_module.items():
        name = f"{module.split('.')[0]}.{room(module)}"
        by_room.setdefault(name, set()).update(f"{target.split('.')[0]}.{room(target)}" for target in targets)
        by_room[name].discard(name)
    for edges in (by_module, by_room):
        while leaves := {name for name, targets in edges.items() if not targets & edges.keys()}:
            edges = {name: targets for name, targets in edges.items() if name not in leaves}
        assert not edges


def test_stages_import_nothing_of_each_other_or_of_tools() -> None:
    for module in modules("stages"):
        rooms = {f"{target.split('.')[0]}.{room(target)}" for target in imports_of(module)}
        own = {"stages.kit", "stages.shared", f"stages.{room(module)}"}
        assert {name for name in rooms if name.startswith(("stages.", "tools."))} <= own, module


@pytest.mark.parametrize("package", ["ddpm", "stages", "tools"])
def test_packages_do_nothing_when_imported(package: str) -> None:
    """So that `__init__.py`, which every import loads, can't change an output."""
    for path in (ROOT / package).rglob("__init__.py"):
        assert [type(node) for node in ast.parse(path.read_text()).body] == [ast.Expr], path
