"""What `make repro` ends with, whether anything ran or not: the page to open and the numbers to look at.

`python -m stages._summary reports/metrics.json reports/index.html`
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def summary(metrics: Mapping[str, Any], page: Path) -> str:
    """Four lines, from the metrics that the stage `report` has put together."""
    rank, samples = metrics["rank"], metrics["evaluate"]["samples"]
    best, held_out = rank["best"], rank["held_out"]
    kid = next(value for name, value in samples.items() if name.startswith("kid_"))  # whose features, the page says
    return "\n".join(
        [
            f"LPIPS to the nearest training image, best {best['n']} samples: {best['min']:.3f} to {best['max']:.3f}",
            f"the same of held-out images, median of {held_out['n']}: {held_out['median']:.3f}",
            f"KID to held-out images, 95 % interval: {kid['value']:.4f} ({kid['low']:.4f} to {kid['high']:.4f})",
            f"the report: {page.resolve()}",
        ]
    )


def main(metrics: str, page: str) -> None:
    """Print the summary of the file METRICS."""
    try:
        found = json.loads(Path(metrics).read_text(encoding="utf-8"))
        print(summary(found, Path(page)))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"summary: error: {metrics}: {type(error).__name__}: {error}; `dvc repro` writes it")


if __name__ == "__main__":
    main(*sys.argv[1:])
