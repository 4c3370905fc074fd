"""The experiments of this checkout as a table, the lowest KID first: `python -m tools.experiments`."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import dvc.api
from dvc.exceptions import DvcException

from stages.kit.params import MAPS, SCALARS

WIDTH = 120
"""Columns of a terminal."""
HEADINGS = ("experiment", "KID, 95 % interval", "precision", "recall", "LPIPS", "copies", "loss", "changed parameters")


def changed(row: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """The parameters in which an experiment differs from `base`, as `-S` takes them; not what its machine decides."""
    names = [name for name in row if name.partition(".")[0] in SCALARS + MAPS and not name.startswith("runtime.")]
    return ", ".join(f"{name}={shown(row[name])}" for name in names if row[name] != base.get(name))


def shown(value: Any) -> str:
    """A parameter's value, whole numbers without a point."""
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def cells(row: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """One line of the table; a dash for numbers that an experiment does not have."""
    name = row["Experiment"] or row["rev"]
    if row.get("kid") is None:
        return [name, *"-" * 6, changed(row, base)]
    kid = "{kid:.4f} [{kid_low:.4f}, {kid_high:.4f}]".format(**row)
    formats = {"precision": ".2f", "recall": ".2f", "lpips6": ".3f", "copies": ".0f", "loss": ".4f"}
    return [name, kid, *(format(row[key], digits) for key, digits in formats.items()), changed(row, base)]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of what `dvc.api.exp_show` gives; `rows` has the workspace first and the commit second."""
    base = next((row for row in rows if row["rev"] != "workspace"), rows[0])
    best_first = sorted(rows, key=lambda row: (row.get("kid") is None, row.get("kid")))
    lines = [list(HEADINGS), *(cells(row, base) for row in best_first)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in text)


def main() -> None:
    """Print the table of the checkout in the working directory."""
    try:
        print(table(dvc.api.exp_show()))
    except DvcException as error:
        sys.exit(f"experiments: error: {error}")


if __name__ == "__main__":
    main()
