"""Figures of one look, whose bytes depend on the data alone."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from stages.kit.files import replacing

mpl.use("Agg")
mpl.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#888888",
        "xtick.color": "#444444",
        "ytick.color": "#444444",
        "legend.frameon": False,
    }
)

SAMPLES, HELD_OUT, REAL = "#1f5fa8", "#d97b1e", "#6b6b6b"
"""Colours of samples, of held-out images and of training images in every figure."""

REPORT = "#2e8b57"
"""Colour of the report's own numbers."""

DPI = 110
"""Pixels per inch of plots, and `PICTURE_DPI` of figures made of images: Git keeps these files."""
PICTURE_DPI = 100
CELL, MARGIN = 0.6, 1.35
"""Widths in inches, of an image in a strip and of the rows' labels: nine images take half a page of 1,400 pixels."""


def save_figure(path: Path, figure: Figure, dpi: int = DPI) -> None:
    """Write `figure` as PNG, without the version that matplotlib would put into it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})


def strip_figure(
    images: np.ndarray, columns: Sequence[str], rows: Sequence[str] | None = None, *, group: int = 1
) -> Figure:
    """Rows of images, uint8 `[rows, columns, H, W, 3]`, labelled; a gap stands after every `group` rows."""
    count, width = images.shape[:2]
    gaps = np.full(count, 0.05)
    gaps[group::group] += 0.25 if group > 1 else 0
    height = count + gaps.sum()
    margin = MARGIN if rows else 0.05
    figure = Figure(figsize=(width * CELL + margin, height * CELL + 0.3))
    left, top = margin / figure.get_figwidth(), 1 - 0.3 / figure.get_figheight()
    cell = (1 - left) / width, top / height
    for row, y in enumerate(np.cumsum(gaps + 1)):
        for column in range(width):
            axes = figure.add_axes((left + column * cell[0], top - y * cell[1], cell[0] * 0.96, cell[1]))
            axes.imshow(images[row, column], interpolation="nearest")
            axes.axis("off")
            if row == 0:
                axes.set_title(columns[column], fontsize=8)
            if column == 0 and rows:
                axes.text(-0.06, 0.5, rows[row], transform=axes.transAxes, ha="right", va="center", fontsize=8)
    return figure
