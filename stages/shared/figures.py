"""Figures of one look, whose bytes depend on the data alone."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from stages.kit.files import replacing

INK = "#7d828a"
"""Of words and axes: a grey that is readable on light and on dark paper. In SVG each paper has its own."""
THEMES = "<style>svg { --ink: #4b5057 } @media (prefers-color-scheme: dark) { svg { --ink: #b4b9c1 } }</style>"

mpl.use("Agg")
mpl.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "savefig.transparent": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "ddpm",
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor"), INK
        ),
    }
)

SAMPLES, HELD_OUT, REAL = "#3a7fd0", "#cc7722", "#7d838b"
"""Colours of samples, of held-out images and of training images in every figure."""

REPORT = "#2e9b62"
"""Colour of the report's own numbers."""

GRID: dict[str, Any] = {"color": INK, "alpha": 0.25, "linewidth": 0.6}
"""Lines behind the data."""

WIDTH = 3.5
"""Inches, of every plot: on a phone its words of 9 points have at least 11 pixels."""
DPI = 100
"""Pixels per inch of figures made of images, in whose rows words of 8 points have 11 pixels."""
CELL, MARGIN = 0.6, 1.35
"""Widths in inches, of an image in a strip and of the rows' labels: nine images take half a page of 1,400 pixels."""


def save_figure(path: Path, figure: Figure) -> None:
    """Write a plot as `.svg`, a figure made of images as `.png`: transparent, of the same bytes for the same data."""
    kind = path.suffix[1:]
    nothing = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=DPI, metadata=nothing[kind])
        if kind == "svg":
            drawing = _numbered(temporary.read_text(encoding="utf-8")).replace(INK, "var(--ink)")
            temporary.write_text(drawing.replace("<defs>", f"{THEMES}<defs>", 1), encoding="utf-8")


def _numbered(drawing: str) -> str:
    """The SVG with numbers for clip paths, in their order.

    Matplotlib names them by a hash of bounds in full precision, whose last digits depend on the processor.
    """
    for number, name in enumerate(dict.fromkeys(re.findall(r'<clipPath id="(p[0-9a-f]{10})"', drawing))):
        drawing = drawing.replace(name, f"clip{number}")
    return drawing


def strip_figure(
    images: np.ndarray, columns: Sequence[str], rows: Sequence[str], groups: Sequence[int], headings: Sequence[str]
) -> Figure:
    """Labelled rows of images, uint8 `[rows, columns, H, W, 3]`: `groups` of so many rows, each below its heading."""
    count, width = images.shape[:2]
    above = np.full(count, 0.05)
    above[np.cumsum([0, *groups[:-1]])] = [0.75] + [0.5] * (len(groups) - 1)
    height = count + above.sum()
    figure = Figure(figsize=(width * CELL + MARGIN, height * CELL))
    left = MARGIN / figure.get_figwidth()
    cell = (1 - left) / width, 1 / height
    tops = np.cumsum(above + 1) - 1
    for row, top in enumerate(tops):
        for column in range(width):
            axes = figure.add_axes((left + column * cell[0], 1 - (top + 1) * cell[1], cell[0] * 0.96, cell[1]))
            axes.imshow(images[row, column], interpolation="nearest")
            axes.axis("off")
            if row == 0:
                axes.set_title(columns[column], fontsize=8, pad=3)
            if column == 0:
                axes.text(-0.06, 0.5, rows[row], transform=axes.transAxes, ha="right", va="center", fontsize=8)
    for first, heading in zip(np.cumsum([0, *groups[:-1]]), headings, strict=True):
        y = 1 - (tops[first] - (0.45 if first == 0 else 0.1)) * cell[1]
        figure.text(left, y, heading, ha="left", va="bottom", fontsize=9)
    return figure
