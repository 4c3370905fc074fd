"""What every stage does around its work: paths from the command line, errors in one line, progress, the device."""

import argparse
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import torch
from pydantic import NonNegativeFloat, PositiveInt, TypeAdapter
from pydantic.dataclasses import dataclass
from tqdm import tqdm

from ddpm.config import STRICT, ConfigError
from stages._io import repository_root
from stages._params import Params, read_value


class StageError(Exception):
    """Something the user can mend; the message is one line: what is wrong, where, what would be right."""


def run(main: Callable[..., None], config: type | None = None, section: str = "") -> None:
    """Call `main` with what the command line gives; report what a user can mend in one line.

    A positional parameter of `main` is a path. A keyword is an option: where its default is a path, that of an output,
    by default in the folder `--output`; where its default is None, that of an input. Of `config`, the class of a
    `section` of `params.yaml`, each field is an option, and `main` gets those that are given, by name, as `changes`.
    """
    name = Path(sys.argv[0]).stem
    fields = TypeAdapter(config).json_schema()["properties"] if config else {}
    given = vars(_parser(name, main, section, fields).parse_args())
    started = time.monotonic()
    try:
        main(**_arguments(main, fields, given))
    except (StageError, ConfigError, OSError) as error:
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same command starts it again" if first_process() else 1)
    if first_process():
        _log(name, time.monotonic() - started)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """In one line, with all that there is."""
        usage = " ".join(self.format_usage().split())
        self.exit(2, f"{self.prog.rpartition('.')[2]}: error: {message}; {usage}\n")


def _parser(name: str, main: Callable[..., None], section: str, fields: Mapping[str, Any]) -> argparse.ArgumentParser:
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


def _arguments(main: Callable[..., None], fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What `main` is called with."""
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(main).parameters.items():
        if name == "changes":
            arguments[name] = {
                field: read_value(text, _option(field), listed="items" in schema)
                for field, schema in fields.items()
                if (text := given[_option(field)]) is not None
            }
        else:
            output = isinstance(parameter.default, Path) and given[name] is None
            arguments[name] = given["output"] / parameter.default if output else given[name]
    return arguments


def first_process() -> bool:
    """Whether this is the process that speaks and writes, the only one unless torchrun started several."""
    return os.environ.get("RANK", "0") == "0"


def _log(name: str, seconds: float) -> None:
    """Durations go here and to the terminal, never into an output: two runs must give the same bytes."""
    print(f"{name}: {seconds:.1f} s", file=sys.stderr)
    file = repository_root() / ".cache" / "log" / "stages.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as log:
        log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S},{name},{seconds:.1f}\n")


@contextmanager
def stop_request() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, for loops that stop between two steps rather than anywhere in one."""
    event = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in signals]
    try:
        yield event
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def progress(total: int | None, unit: str, *, initial: int = 0, label: str | None = None) -> tqdm:
    """A progress bar on stderr with rate and time left; a line every half minute where stderr is no terminal."""
    interval = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm(
        total=total,
        initial=initial,
        unit=unit,
        unit_scale=unit == "B",
        desc=label,
        mininterval=interval,
        maxinterval=interval,
        dynamic_ncols=True,
        disable=not first_process(),
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RuntimeConfig:
    """What no output's content depends on, beyond the rounding of another kind of device."""

    device: str
    threads: PositiveInt
    compile: bool
    save_every_seconds: NonNegativeFloat


def setup(params: Params) -> torch.device:
    """The device that `runtime.device` asks for (`auto`: CUDA where there is one), and `runtime.threads` threads.

    Of several processes on a machine each gets a CUDA device of its own.
    """
    runtime = params.section(RuntimeConfig, "runtime")
    torch.set_num_threads(runtime.threads)
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        device = torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"params.yaml: runtime.device = {runtime.device!r}: {reason}; try auto or cpu") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
