"""The way into every stage, `python -m stages.NAME`: what must be settled before torch is loaded, then the work."""

import importlib
import sys

from ddpm.config import ConfigError
from stages.kit.errors import StageError, without_credentials
from stages.kit.launch import launch
from stages.kit.params import read_params
from stages.kit.runtime import RuntimeConfig, set_arithmetic


def start(stage: str, *, shared: bool = False) -> None:
    """Run `main` of `stages.<stage>.stage` with the command line; a `shared` stage may run as several processes."""
    if not {"-h", "--help"} & set(sys.argv):
        try:
            set_arithmetic(read_params().section(RuntimeConfig, "runtime"))
            if shared:
                launch(f"stages.{stage}", sys.argv[1:])
        except (StageError, ConfigError, OSError) as error:
            sys.exit(without_credentials(f"{stage}: error: {error}"))
    # Only now, because this loads torch.
    try:
        command = importlib.import_module("stages.kit.command")
        main = importlib.import_module(f"stages.{stage}.stage").main
    except (ImportError, MemoryError) as error:
        if isinstance(error, ImportError) and "failed to map" not in str(error):
            raise
        sys.exit(f"{stage}: error: out of memory before it began: torch alone takes 3 GB of address space (ulimit -v)")
    command.run(f"stages.{stage}", main)
