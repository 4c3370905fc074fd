"""The table of mutations fits the code, and a change that no test notices is told from one that is noticed."""

import ast
from pathlib import Path

import pytest
from support import REPOSITORY

from benchmarks.mutations import Mutation, failed_test, read_mutations

ROOMS = ("autoencoder", "devices", "diffusion", "evaluation", "gan", "sampling", "training", "tuning")


def test_every_mutation_fits_the_code() -> None:
    """Its text occurs once, what it makes is Python, its tests are there, and no module is without a mutation."""
    mutations = read_mutations()
    for mutation in mutations:
        code = (REPOSITORY / mutation.file).read_text(encoding="utf-8")
        assert ast.dump(ast.parse(mutation.applied(code))) != ast.dump(ast.parse(code)), mutation.name
        assert all((REPOSITORY / test).is_file() for test in mutation.tests), mutation.name
    assert len({mutation.name for mutation in mutations}) == len(mutations)
    modules = [path for room in ROOMS for path in (REPOSITORY / "ddpm" / room).glob("*.py")]
    assert {REPOSITORY / each.file for each in mutations} == {path for path in modules if path.stem != "__init__"}


@pytest.mark.parametrize(("code", "count"), [("x = 2", 0), ("x = 1; y = 1", 2)])
def test_a_stale_mutation_is_named(code: str, count: int) -> None:
    mutation = Mutation(name="one is two", file="x.py", text="= 1", replacement="= 2", tests=[])
    with pytest.raises(SystemExit, match=f"one is two: its text occurs {count} times in x"):
        mutation.applied(code)


def test_what_tests_notice_is_told_from_what_they_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "test_sum.py").write_text("from added import total\ndef test_sum(): assert total == 3")
    for code, expected in (("total = 1 + 2", None), ("total = 1 - 2", "test_sum.py::test_sum")):
        (folder / "added.py").write_text(code)
        assert failed_test(folder, ["test_sum.py"]) == expected
    (folder / "added.py").write_text("total = (")
    with pytest.raises(SystemExit, match=r"pytest test_sum\.py ended with"):
        failed_test(folder, ["test_sum.py"])
