"""What `make` settles before it starts DVC: where this checkout lies, and whether in a Git repository.

`.venv/bin/python -m tools.prepare`
"""

import re
import subprocess
import sys
from pathlib import Path

HEADER = re.compile(rb"\A(#!/bin/sh\n'''exec' .*\n' '''|#!.*python.*)\n")
"""The first lines of a script that pip has written. They hold the path of the environment."""
ANYWHERE = b"#!/bin/sh\n'''exec' \"$(dirname \"$0\")/python\" \"$0\" \"$@\"\n' '''\n"
"""The same for a script that starts the Python beside it: to `sh` a command, to Python a string."""


def repair(environment: Path) -> bool:
    """Let the scripts of ENVIRONMENT run where it lies; False where it was made there."""
    made = re.search(r"^command = .* -m venv (?:--.*? )?(/.*)$", (environment / "pyvenv.cfg").read_text(), re.MULTILINE)
    if not made or Path(made[1]).resolve() == environment.resolve():
        return False
    for script in (environment / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            text = script.read_bytes()
            if HEADER.match(text):
                script.write_bytes(HEADER.sub(lambda _: ANYWHERE, text))
    # Writes `activate` and pyvenv.cfg anew; the packages stay.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    return True


def tell_dvc(repository: Path) -> str | None:
    """Let DVC run without Git where it can't run with it, and undo that where it can again; a line if that is new.

    It can't in a copy that has no `.git`, such as a ZIP of the code, and not where `data` is a link out of it.
    So `core.no_scm` is this function's to set.
    """
    local = repository / ".dvc" / "config.local"
    told = local.exists() and bool(re.search(r"no_scm\s*=\s*true", local.read_text(), re.IGNORECASE))
    in_git = any((folder / ".git").exists() for folder in (repository, *repository.parents))
    linked = not (repository / "data").resolve().is_relative_to(repository.resolve())
    if told != (in_git and not linked):
        return None
    change = ["--unset", "core.no_scm"] if told else ["core.no_scm", "true"]
    subprocess.run([sys.executable, "-m", "dvc", "config", "--quiet", "--local", *change], cwd=repository, check=True)
    if told:
        return "DVC uses Git again: `dvc exp` and `dvc metrics diff` work"
    reason = "data is a link" if in_git else "no Git repository"
    return f"{reason}: `dvc repro` works, `dvc exp` and `dvc metrics diff` don't (docs/troubleshooting.md)"


def main() -> None:
    """Say in a line what was settled."""
    if repair(Path(sys.prefix)):
        print("make: the folder was renamed; .venv is repaired", file=sys.stderr)
    if said := tell_dvc(Path.cwd()):
        print(f"make: {said}", file=sys.stderr)


if __name__ == "__main__":
    main()
