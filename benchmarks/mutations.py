"""Whether the tests notice errors in the mathematics: `python -m benchmarks.mutations [--only NAME ...]`.

Each entry of mutations.toml replaces one piece of `ddpm/`. In a copy of the repository the script makes one change at a
time and runs the tests that ought to fail, up to the first that does. Tests that are marked slow or wait for a network
to learn are left out: they would notice much, but not say what is wrong. Before that the same tests must pass in the
copy as it is. A change is killed if a test fails, or if the tests take ten minutes.

Every run is forked from a process that has imported the large libraries, but nothing of this repository.
"""

import argparse
import importlib
import multiprocessing
import os
import re
import sys
import tempfile
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks._clone import REPOSITORY, Clone

TABLE = Path(__file__).with_suffix(".toml")
LIBRARIES = (
    "diffusers.models.unets.unet_2d", "diffusers.schedulers.scheduling_unipc_multistep", "hypothesis", "lpips",
    "matplotlib.pyplot", "pandas", "pydantic.dataclasses", "ruamel.yaml", "scipy.spatial", "scipy.stats", "torch",
    "torch_fidelity", "torchvision",
)  # fmt: skip
QUICK = ("-m", "not slow", "-k", "not learnt")
LIMIT_SECONDS = 600
"""A change may turn a loop into one without end."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """`text`, which occurs once in `file`, becomes `replacement`; one of `tests` must fail, unless it is `equivalent`.

    `equivalent` is the reason for which no test can tell the two apart.
    """

    name: str
    file: str
    text: str
    replacement: str
    tests: list[str]
    equivalent: str = ""

    def applied(self, code: str) -> str:
        """`code` with the change.

        Raises:
            SystemExit: the text isn't there exactly once.
        """
        if code.count(self.text) != 1:
            raise SystemExit(f"{TABLE.name}: {self.name}: its text occurs {code.count(self.text)} times in {self.file}")
        return code.replace(self.text, self.replacement)


def read_mutations() -> list[Mutation]:
    """All of the table, in its order."""
    return [Mutation(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutation"]]


def _pytest(folder: Path, tests: list[str], said: Path) -> None:
    os.chdir(folder)
    sys.path[0] = str(folder)
    sys.dont_write_bytecode = True  # or a change that leaves size and second of a file as they were might not be seen
    with said.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        code = pytest.main(["-x", *QUICK, "-p", "no:cacheprovider", "--tb=line", *tests])
    os._exit(code)


def failed_test(folder: Path, tests: list[str]) -> str | None:
    """The first of `tests` that fails in `folder`, or None.

    Raises:
        SystemExit: pytest didn't come to run them.
    """
    said = folder.parent / "said.txt"
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(folder, tests, said))
    process.start()
    process.join(LIMIT_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return "the time limit"
    if process.exitcode == pytest.ExitCode.OK:
        return None
    text = said.read_text(errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (?:\S+/)?(\S+)", text, re.MULTILINE)
    if process.exitcode != pytest.ExitCode.TESTS_FAILED or failed is None:
        raise SystemExit(f"pytest {' '.join(tests)} ended with {process.exitcode}:\n{text[-2000:]}")
    return failed[1]


def score(folder: Path, mutations: list[Mutation]) -> None:
    """Print a row for each mutation, then how many are killed."""
    print("| mutation | file | result |\n|---|---|---|")
    killed, equivalent = 0, 0
    for mutation in mutations:
        file = folder / mutation.file
        code = file.read_text(encoding="utf-8")
        file.write_text(mutation.applied(code), encoding="utf-8")
        by = failed_test(folder, mutation.tests)
        file.write_text(code, encoding="utf-8")
        killed, equivalent = killed + bool(by), equivalent + (not by and bool(mutation.equivalent))
        why = f"equivalent: {mutation.equivalent}" if mutation.equivalent else "**survived**"
        print(f"| {mutation.name} | {mutation.file} | {f'killed by `{by}`' if by else why} |", flush=True)
    print(f"\n{killed} of {len(mutations)} killed, {equivalent} equivalent, the others survived")


def main() -> None:
    """Check the table and the tests, then make the changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names in the table, or how they begin")
    names = parser.parse_args().only
    mutations = [each for each in read_mutations() if names is None or each.name.startswith(tuple(names))]
    if not mutations:
        raise SystemExit(f"{TABLE.name} has none of these names")
    for mutation in mutations:
        mutation.applied((REPOSITORY / mutation.file).read_text(encoding="utf-8"))
    for library in LIBRARIES:
        importlib.import_module(library)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "clone"
        folder.mkdir()
        Clone(folder)
        tests = sorted({test for mutation in mutations for test in mutation.tests})
        if failed := failed_test(folder, tests):
            raise SystemExit(f"{failed} fails without any change")
        score(folder, mutations)


if __name__ == "__main__":
    main()
