"""The figures of the page as files beside it, small enough for Git."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stages.kit.files import replacing
from stages.page.sheets import Sheet

LOSSLESS = ("samples",)
"""Pictures whose every pixel counts."""
PLOTS = ("nearest", "kid", "precision_recall", "diversity", "colours", "factors", "noise_loss")
"""Figures of lines and words, which PNG compresses best."""
PICTURES = ("data", "forward", "reverse", "interpolation", "interpolation_real", "best")
"""Figures made of images, which are published as JPEG: DVC and browsers show it, and it takes a third of PNG."""


@dataclass(frozen=True)
class Figure:
    """A published figure: the file's `path` relative to the page, its width and height in pixels."""

    path: str
    size: tuple[int, int]


def publish(drawn: Path, folder: Path) -> dict[str, Figure]:
    """Copy the figures that the stages have DRAWN into `folder`; by name."""
    figures = {}
    for name in LOSSLESS + PLOTS:
        target = folder / f"{name}.png"
        with replacing(target) as temporary:
            shutil.copyfile(drawn / target.name, temporary)
        figures[name] = figure_of(target)
    for name in PICTURES:
        target = folder / f"{name}.jpg"
        with Image.open(drawn / f"{name}.png") as picture, replacing(target) as temporary:
            picture.convert("RGB").save(temporary, "jpeg", quality=88, subsampling=0)
        figures[name] = figure_of(target)
    return figures


def figure_of(path: Path) -> Figure:
    """The figure in the file `path`, whose folder lies beside the page."""
    with Image.open(path) as picture:
        return Figure(f"{path.parent.name}/{path.name}", picture.size)


def publish_sheets(sheets: Mapping[str, Sheet], folder: Path) -> None:
    """Write each sheet as `<name>_sheet.webp` into `folder`."""
    for name, sheet in sheets.items():
        with replacing(folder / f"{name}_sheet.webp") as temporary:
            sheet.picture.convert("RGB").save(temporary, "webp", quality=80, method=4)
