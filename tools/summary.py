"""What `make repro` ends with, whether anything ran or not: the numbers to look at and the page to open.

`python -m tools.summary reports/metrics.json reports/index.html`
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path


def summary(metrics: Mapping[str, float], page: Path) -> str:
    """Four lines, from the metrics that the stage `page` has written."""
    copies = metrics.get("copies", "none can be")
    return "\n".join(
        [
            "KID to held-out images, 95 % interval: {kid:.4f} ({kid_low:.4f} to {kid_high:.4f})".format(**metrics),
            "precision {precision:.2f}, recall {recall:.2f}".format(**metrics),
            f"best samples: LPIPS {metrics['lpips6']:.3f} to their nearest training image; {copies} flagged as copies",
            f"the page: {page.resolve()}",
        ]
    )


def main(metrics: str, page: str) -> None:
    """Print the summary of the file METRICS."""
    try:
        print(summary(json.loads(Path(metrics).read_text(encoding="utf-8")), Path(page)))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"summary: error: {metrics}: {type(error).__name__}: {error}; `dvc repro` writes it")


if __name__ == "__main__":
    main(*sys.argv[1:])
