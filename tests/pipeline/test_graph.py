"""`dvc.yaml` against the code: a stage depends on the modules that it imports, all of them and no others."""

import ast
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from docs.generate import imports_of, modules

ROOT = Path(__file__).parents[1]
SHARED = ("train", "sample", "rank")
"""Stages that several processes may share."""
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def closure(module: str) -> set[str]:
    """`module` and all of our modules that it reaches."""
    reached, open_ = set(), {module}
    while open_:
        reached |= open_
        open_ = set().union(*map(imports_of, open_)) - reached
    return reached


@pytest.mark.parametrize("name", STAGES)
def test_code_dependencies_are_the_imports(name: str) -> None:
    declared = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert declared == {f"{module.replace('.', '/')}.py" for module in closure(f"stages.{name}")}


@pytest.mark.parametrize("name", STAGES)
def test_paths_of_the_command_are_declared(name: str) -> None:
    stage = STAGES[name]
    outputs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    declared = {next(iter(out)) if isinstance(out, dict) else out for out in outputs} | set(stage["deps"])
    arguments = [word for word in stage["cmd"].split()[3:] if not word.startswith("--")]
    launcher = "${LAUNCH:-python}" if name in SHARED else "python"
    assert stage["cmd"].replace("\\", "").startswith(f"{launcher} -m stages.{name} ")
    assert set(arguments) == {path for path in declared if not path.endswith(".py")}


@pytest.mark.parametrize("name", STAGES)
def test_no_parameter_escapes_the_run_cache(name: str) -> None:
    """DVC drops keys of these two names when it hashes a section, as if they were those of a file."""
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    for parameter in STAGES[name].get("params", []):
        found = values
        for key in re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], parameter).split("."):
            found = found[key]
        assert not re.search(r"'(size|nfiles)':", repr(found)), parameter


def test_library_knows_nothing_of_the_pipeline() -> None:
    for module in modules("ddpm"):
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        names = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        names |= {
            node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
        }
        forbidden = names & {"stages", "yaml", "ruamel", "dvc", "matplotlib", "lmdb", "pathlib", "os", "tqdm"}
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not forbidden | (calls & {"open", "print"}), module


def test_imports_have_no_circle() -> None:
    edges = {module: imports_of(module) for module in modules("ddpm") + modules("stages")}
    while leaves := {module for module, targets in edges.items() if not targets & edges.keys()}:
        edges = {module: targets for module, targets in edges.items() if module not in leaves}
    assert not edges


@pytest.mark.parametrize("package", ["ddpm", "stages"])
def test_packages_do_nothing_when_imported(package: str) -> None:
    """So that `__init__.py`, which every module loads, is no dependency of any stage."""
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr]
