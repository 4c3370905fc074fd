"""Several processes for one stage: whether this one is among them, and how they are started.

`DDPM_LAUNCH` names the program that starts them, split into words as a shell would:

    DDPM_LAUNCH='torchrun --standalone --nproc-per-node=4' dvc repro train

It stands in the environment, not in `dvc.lock`: who shares the work changes results by rounding at most.
"""

import os
import shlex
from pathlib import Path

from stages.kit.errors import StageError

VARIABLE = "DDPM_LAUNCH"
GROUP = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets for each process. One of them alone, as some schedulers set it, makes no process group."""


def in_group() -> bool:
    """Whether a launcher has started this process as one of several."""
    return all(name in os.environ for name in GROUP) and os.environ["WORLD_SIZE"] != "1"


def process_count() -> int:
    """How many processes a launcher has started for this stage."""
    return int(os.environ["WORLD_SIZE"]) if in_group() else 1


def first_process() -> bool:
    """Whether this is the process that prints and writes: the only one, or the first of its group."""
    return not in_group() or os.environ["RANK"] == "0"


def launch(module: str, arguments: list[str]) -> None:
    """Replace this process by the launcher that `DDPM_LAUNCH` names, which starts `python -m MODULE ARGUMENTS`.

    Returns where there is nothing to launch: the variable is empty, or a launcher has started this process.

    Raises:
        StageError: the variable is no command.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text or all(name in os.environ for name in GROUP):
        return
    try:
        command = shlex.split(text)
        # The launcher, too, finds the modules in the folder where the stage was started.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
        os.execvp(command[0], [*command, "-m", module, *arguments])
    except (ValueError, OSError) as error:
        raise StageError(f"{VARIABLE} = {text!r}: {error}; it is a command such as {EXAMPLE}") from None


EXAMPLE = "'torchrun --standalone --nproc-per-node=2'"
