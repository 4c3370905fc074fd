"""The command line of a stage or tool: paths and options in, one line out, of what was made or of what went wrong."""

import argparse
import inspect
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from pydantic import TypeAdapter

from ddpm.config import ConfigError, parse
from stages.kit.errors import StageError, without_credentials
from stages.kit.files import repository_root
from stages.kit.launch import first_process
from stages.kit.memory import advice, out_of_memory
from stages.kit.params import read_value


def run(module: str, main: Callable[..., str]) -> None:
    """Call `main` with the command line of `python -m MODULE`; print in one line what it made, or what a user can mend.

    A positional parameter of `main` is a path. A keyword is an option that takes a path: without a default it is
    required, with None it is an input that may be left out, and with a path it is an output, by default in the folder
    `--output`. With False it is a switch, which takes nothing.
    `changes: Annotated[Mapping, CONFIG, SECTION]` makes each field of the class CONFIG an option; `main` gets those
    that are given, by name, to be put over the `SECTION` of `params.yaml`.
    """
    name = module.rpartition(".")[2]
    config, section = _changes(main)
    fields = TypeAdapter(config).json_schema()["properties"] if config else {}
    given = vars(_parser(module, main, section, fields).parse_args())
    started = time.monotonic()
    try:
        made = main(**_arguments(main, config, fields, given))
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same command starts it again" if first_process() else 1)
    except Exception as error:
        sys.exit(f"{name}: error: {_said(name, error)}")
    if first_process():
        seconds = time.monotonic() - started
        # What was made stands, also where nobody reads the line or nothing can be logged.
        try:
            print(f"{name}: {made} ({seconds:.1f} s)", file=sys.stderr)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # or Python would fail to write it once more at its end
        with suppress(OSError):
            _log(name, seconds)


def _said(name: str, error: Exception) -> str:
    """What a user can mend, in one line; what they can't is raised again."""
    if out_of_memory(error):
        return advice(name, error)
    if isinstance(error, StageError | ConfigError | OSError):
        return without_credentials(str(error))
    raise error


def _changes(main: Callable[..., str]) -> tuple[type | None, str]:
    """The class of the options that replace parameters, and the name of their section."""
    annotation = get_type_hints(main, include_extras=True).get("changes")
    return annotation.__metadata__ if annotation else (None, "")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """In one line, with all that there is."""
        usage = " ".join(self.format_usage().split())
        self.exit(2, f"{self.prog.rpartition('.')[2]}: error: {message}; {usage}\n")


def _parser(module: str, main: Callable[..., str], section: str, fields: Mapping[str, Any]) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m {module}", description=inspect.getdoc(main), allow_abbrev=False)
    parameters = inspect.signature(main).parameters.values()
    for parameter in parameters:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            parser.add_argument(parameter.name, type=Path, metavar=parameter.name.upper())
        elif parameter.default is False:
            parser.add_argument(_option(parameter.name), action="store_true")
        elif parameter.name != "changes":
            required = parameter.default is parameter.empty
            said = "" if required else f"(FOLDER/{parameter.default})" if parameter.default else "an input (none)"
            parser.add_argument(_option(parameter.name), type=Path, metavar="PATH", required=required, help=said)
    if any(isinstance(parameter.default, Path) for parameter in parameters):
        said = "where outputs go whose path isn't given (%(default)s)"
        parser.add_argument(
            "--output", type=Path, metavar="FOLDER", default=Path("out", module.rpartition(".")[2]), help=said
        )
    group = parser.add_argument_group(f"in place of what params.yaml has under {section}")
    for field, schema in fields.items():
        # A parameter may have the name of a field, but not that of an option.
        group.add_argument(_option(field), dest=_option(field), metavar="VALUE", help=_allowed(schema))
    return parser


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _allowed(schema: Mapping[str, Any]) -> str:
    """The values of a field, from its JSON schema."""
    if "anyOf" in schema:  # or null
        return f"{_allowed(schema['anyOf'][0])}, or ''"
    if "items" in schema:
        return f"[A,B,...] of {_allowed(schema['items'])}"
    return ", ".join(schema["enum"]) if "enum" in schema else schema["type"]


def _arguments(
    main: Callable[..., str], config: type | None, fields: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """What `main` is called with."""
    types = get_type_hints(config, include_extras=True) if config else {}
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(main).parameters.items():
        if name == "changes":
            arguments[name] = {
                field: parse(types[field], read_value(text, _option(field), listed="items" in schema), _option(field))
                for field, schema in fields.items()
                if (text := given[_option(field)]) is not None
            }
        else:
            output = isinstance(parameter.default, Path) and given[name] is None
            arguments[name] = given["output"] / parameter.default if output else given[name]
    return arguments


def _log(name: str, seconds: float) -> None:
    """Durations go here and to the terminal, never into an output: two runs must give the same bytes."""
    file = repository_root() / ".cache" / "log" / "stages.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as log:
        log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S},{name},{seconds:.1f}\n")
