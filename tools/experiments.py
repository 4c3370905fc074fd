"""The experiments of this checkout as a table, the lowest KID first: `python -m tools.experiments`."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

import pandas as pd

WIDTH = 120
"""Columns of a terminal."""
LEAST = 20
"""Columns that changed parameters have, however long the name of an experiment is."""
NUMBERS = {"kid": 4, "kid_low": 4, "kid_high": 4, "precision": 2, "recall": 2, "lpips6": 3, "copies": 0, "loss": 4}
"""The metrics in the order of the columns, and their decimal places."""


def revisions(shown: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and data of the workspace, of HEAD and of each experiment, from what `dvc exp show --json` prints."""
    for baseline in shown:
        yield "workspace" if baseline["rev"] == "workspace" else "HEAD", baseline.get("data") or {}
        for experiment in baseline.get("experiments") or []:
            last = experiment["revs"][0]
            yield last.get("name") or last["rev"][:7], last.get("data") or {}


def parameters(data: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that change results, by their dotted names."""
    values = data.get("params", {}).get("params.yaml", {}).get("data", {})
    flat = pd.json_normalize(values).iloc[0].to_dict() if values else {}
    return {str(name): value for name, value in flat.items() if not str(name).startswith("runtime.")}


def table(shown: Sequence[Mapping[str, Any]]) -> str:
    """The table of what `dvc exp show --json` prints; parameters are compared with those of HEAD."""
    rows = dict(revisions(shown))
    head = parameters(rows["HEAD"])
    numbers = [data.get("metrics", {}).get("reports/metrics.json", {}).get("data", {}) for data in rows.values()]
    frame = pd.DataFrame(numbers, list(rows), list(NUMBERS), float).sort_values("kid", kind="stable")
    digits = {name: f"{{:.{places}f}}".format for name, places in NUMBERS.items()}
    heading, *lines = frame.rename_axis(columns="experiment").to_string(na_rep="-", formatters=digits).splitlines()
    text = [f"{heading}  changed parameters"]
    for name, line in zip(frame.index, lines, strict=True):
        own = parameters(rows[name])
        changes = ", ".join(f"{key}={value}" for key, value in own.items() if value != head.get(key))
        first, *more = wrap(changes, max(LEAST, WIDTH - len(line) - 2)) or [""]
        text += [f"{line}  {first}".rstrip(), *(f"{'':{len(line)}}  {rest}" for rest in more)]
    return "\n".join(text)


def main() -> None:
    """Print the table of the checkout in the working directory."""
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"dvc exp show ended with {done.returncode}"]
        errors = [line for line in said if line.startswith("ERROR: ")] or said  # warnings come before
        sys.exit(f"experiments: error: {errors[0].removeprefix('ERROR: ')}")
    print(table(json.loads(done.stdout)))


if __name__ == "__main__":
    main()
