"""What a stage leaves that has nothing to do for the chosen model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from stages.kit.errors import StageError
from stages.kit.files import write_text
from stages.kit.launch import first_process
from stages.shared.files.formats import write_csv, write_json

NOTE = "absent.txt"
"""All that is in a folder without contents: of an empty one DVC would warn at every step."""
WRITTEN = {".npy", ".png", ".svg", ".webp", ".safetensors", ".part"}
"""What the files of folders end in that stages fill anew; `.part`: what a killed process left."""


def require_outputs_alone(*folders: Path) -> None:
    """Fail where a folder that is to be emptied has what was written by no stage.

    Raises:
        StageError: naming it.
    """
    for file in sorted(file for folder in folders if folder.exists() for file in folder.iterdir()):
        if file.name != NOTE and file.suffix not in WRITTEN:
            raise StageError(f"{file}: no stage writes this, and all in {file.parent} is replaced: name another folder")


def emptied(folder: Path) -> Path:
    """FOLDER with no file in it.

    Raises:
        StageError: what is in it was written by no stage.
    """
    require_outputs_alone(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in list(folder.iterdir()):
        file.unlink()
    return folder


def leave_absent(folder: Path) -> None:
    """Empty FOLDER but for the note that there is nothing."""
    write_text(emptied(folder) / NOTE, "There is nothing here for the chosen model; reports/details/ says why.\n")


def nothing_to_do(reason: str, details: Path, folders: Sequence[Path], tables: Mapping[Path, Sequence[str]]) -> str:
    """The stage's line. DETAILS say the REASON, FOLDERS have a note alone, and TABLES have their columns, but no row.

    Of several processes the first one writes them.
    """
    if not first_process():
        return reason
    require_outputs_alone(*folders)
    for folder in folders:
        leave_absent(folder)
    for table, columns in tables.items():
        write_csv(table, pd.DataFrame(columns=list(columns)))
    write_json(details, {"absent": reason})
    return f"nothing to do: {reason}"
