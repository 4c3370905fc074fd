"""The documentation: its commands run, its links lead somewhere, its errors occur, what is made of the code is current.

Each block of ```sh in the README and in docs/ runs in a clone with the default profile on little data, unless the line
before it is `<!-- not run: REASON -->`. Overrides and options are checked of all.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from dvc.cli import parse_args
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from ruamel.yaml import YAML
from support import REPOSITORY

from benchmarks._clone import Clone, variables
from ddpm.gan.networks import GanConfig
from docs.generate import MODEL, SECTIONS, comments, generated
from stages.fetch.stage import KINDS
from stages.kit.params import Params

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
LINKED = [*PAGES, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "benchmarks" / "README.md"]
BLOCK = re.compile(r"^(?:<!-- not run: (.+?) -->\n)?```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """Commands; where `reason` says why, they aren't run."""

    page: str
    reason: str
    commands: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = BLOCK.findall(text)
        assert len(found) == text.count("```sh"), f"{page}: a block of commands isn't at the margin"
        yield from (Block(page.name, *block) for block in found)


def words(commands: str) -> Iterator[list[str]]:
    """Each call of dvc or python in a block, as the shell splits it."""
    for line in commands.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        call: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()<>"):
                if call:
                    yield call
                call = []
            elif call or word in ("dvc", "python"):
                call.append(word)


CALLS = [(block, call) for block in blocks() for call in words(block.commands)]


@pytest.mark.parametrize("call", [call for _, call in CALLS if call[0] == "dvc"], ids=" ".join)
def test_dvc_takes_the_command_and_its_overrides(call: list[str], tmp_path: Path) -> None:
    parsed = parse_args(call[1:])
    for sweep in get_hydra_sweeps({"params.yaml": getattr(parsed, "set_param", None) or []}):
        params = tmp_path / "params.yaml"
        params.write_bytes((REPOSITORY / "params.yaml").read_bytes())
        apply_overrides(params, sweep["params.yaml"])
        require_possible(Params(YAML(typ="safe").load(params)))


def require_possible(params: Params) -> None:
    """What the stages demand of their parameters before they work."""
    data, model = params.top.data, params.top.model
    params.section(KINDS[params.source().kind][0], "sources", data)
    sections = {name: params.section(config, name) for name, config in SECTIONS.items()}
    parts = {part: params.section(config, "models", model, part) for part, config in MODEL[params.model().kind].items()}
    network = parts["network"]
    (network.coarsest if isinstance(network, GanConfig) else network.ladder)(sections["extract"].size)
    assert {parts["sampling"].ema_decay} <= {0.0, *parts["recipe"].ema_decays}


@cache
def help_of(module: str) -> str:
    """What `python -m MODULE --help` says."""
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "call", [call for block, call in CALLS if block.reason and call[:2] == ["python", "-m"]], ids=" ".join
)
def test_python_modules_have_the_options(call: list[str]) -> None:
    options = {word.partition("=")[0] for word in call[3:] if word.startswith("--")}
    assert options <= set(re.findall(r"--[\w-]+", help_of(call[2])))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, little: Clone) -> Clone:
    """A clone in which the default profile has run once on little data, for the pages in their order."""
    clone = little.copy(tmp_path_factory.mktemp("docs") / "clone")
    clone.commit("run on little data")
    return clone


@pytest.mark.slow
@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_commands_run(page: str, clone: Clone) -> None:
    """Those of a page, in their order; what they change stays for the next page, as for a reader."""
    for block in blocks():
        if block.page == page and not block.reason:
            command = ["bash", "-euc", block.commands]
            done = subprocess.run(command, cwd=clone.folder, env=variables(), capture_output=True, text=True)
            assert not done.returncode, block.commands + done.stdout + done.stderr


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    """Those inside the repository: the file is there, and the heading."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not re.match(r"https?:", link) and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    assert not broken


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_what_is_made_of_the_code_is_current() -> None:
    for path, text in generated().items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m docs.generate`"


def test_every_parameter_has_a_meaning() -> None:
    lines = (REPOSITORY / "docs" / "parameters.md").read_text(encoding="utf-8").split("\n## ")[1:]
    for section in lines:
        for key, meaning in re.findall(r"^\| `(\w+)` \|.*\| (.*)\|$", section, re.MULTILINE):
            assert meaning.strip() or f"`{key}`" in section.partition("| key |")[0], section.splitlines()[0] + key


def test_comments_are_found_by_their_keys() -> None:
    text = "a: 1  # one\nb:\n  c:  # list\n  - x\n  d:\n    e: 2   # two\n  f: 3\ng: 4 # four\n"
    assert comments(text) == {"a": "one", "b.c": "list", "b.d.e": "two", "g": "four"}
