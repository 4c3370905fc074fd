"""The command line of every stage: paths and options in, one line out, of what was made or of what went wrong."""

import argparse
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from pydantic import TypeAdapter

from ddpm.config import ConfigError, parse
from stages._io import repository_root
from stages._main import StageError, first_process
from stages._params import read_value


def run(main: Callable[..., str], config: type | None = None, section: str = "") -> None:
    """Call `main` with what the command line gives; say in one line what it says was made, or what a user can mend.

    A positional parameter of `main` is a path. A keyword is an option: where its default is a path, that of an output,
    by default in the folder `--output`; where its default is None, that of an input. Of `config`, the class of a
    `section` of `params.yaml`, each field is an option, and `main` gets those that are given, by name, as `changes`.
    """
    name = Path(sys.argv[0]).stem
    fields = TypeAdapter(config).json_schema()["properties"] if config else {}
    given = vars(_parser(name, main, section, fields).parse_args())
    started = time.monotonic()
    try:
        made = main(**_arguments(main, config, fields, given))
    except (StageError, ConfigError, OSError) as error:
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same command starts it again" if first_process() else 1)
    if first_process():
        seconds = time.monotonic() - started
        print(f"{name}: {made} ({seconds:.1f} s)", file=sys.stderr)
        _log(name, seconds)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """In one line, with all that there is."""
        usage = " ".join(self.format_usage().split())
        self.exit(2, f"{self.prog.rpartition('.')[2]}: error: {message}; {usage}\n")


def _parser(name: str, main: Callable[..., str], section: str, fields: Mapping[str, Any]) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m stages.{name}", description=inspect.getdoc(main), allow_abbrev=False)
    parameters = inspect.signature(main).parameters.values()
    for parameter in parameters:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            parser.add_argument(parameter.name, type=Path, metavar=parameter.name.upper())
        elif parameter.default is not parameter.empty:
            said = f"(FOLDER/{parameter.default})" if parameter.default else "an input (none)"
            parser.add_argument(_option(parameter.name), type=Path, metavar="PATH", help=said)
    if any(isinstance(parameter.default, Path) for parameter in parameters):
        said = "where outputs go whose path isn't given (%(default)s)"
        parser.add_argument("--output", type=Path, metavar="FOLDER", default=Path("out", name), help=said)
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
