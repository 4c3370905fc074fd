"""The figures of the page as files beside it, small enough for Git."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from stages.kit.errors import StageError
from stages.kit.files import replacing
from stages.page.sheets import LONGEST, Sheet
from stages.shared.files.absent import emptied

PLOTS = ("nearest", "metrics", "colours", "factors", "noise_loss")
"""Figures of lines and words, in SVG."""
PICTURES = (
    "samples.png",
    "processes.webp",
    "interpolation.webp",
    "interpolation_real.webp",
    "best.webp",
    "selections.webp",
    "data.webp",
)
"""Figures made of images, all but the samples compressed."""
OPTIONS: Mapping[str, Mapping[str, Any]] = {".png": {}, ".webp": {"quality": 75, "method": 4}}
"""How Pillow writes each format."""
GRIDS = ("samples", "data")
"""Pictures whose size grows with that of the images."""
WIDEST = 680
"""Pixels: two pictures of this width stand side by side on a page of 1,400. Wider grids are reduced to it."""


@dataclass(frozen=True)
class Figure:
    """A published figure: the file's `path` relative to the page, its width and height in pixels."""

    path: str
    size: tuple[int, int]


def publish(drawn: Path, folder: Path) -> dict[str, Figure]:
    """Fill `folder` anew with the figures that the stages have DRAWN; by name.

    Those that have a folder of their own are left out where it lacks them, as for a GAN.

    Raises:
        StageError: `folder` has what no stage wrote, or is DRAWN.
    """
    if folder.resolve() == drawn.resolve():
        raise StageError(f"{folder}: the page's figures would replace those that it is made of: name another folder")
    emptied(folder)
    figures = {}
    for name in PLOTS:
        target = folder / f"{name}.svg"
        if source := found(drawn, target.name):
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)
            figures[name] = plot_of(target)
    for target in map(folder.joinpath, PICTURES):
        source = found(drawn, f"{target.stem}.png")
        if source is None:
            continue
        with Image.open(source) as picture:
            if target.stem in GRIDS:
                picture.thumbnail((WIDEST, WIDEST))
            write_picture(target, picture)
        figures[target.stem] = figure_of(target)
    return figures


def found(drawn: Path, name: str) -> Path | None:
    """The file of this name in DRAWN, or in the folder there that is named as it; None where that folder lacks it."""
    own = drawn / Path(name).stem
    if not own.is_dir():
        return drawn / name
    return own / name if (own / name).exists() else None


def publish_one(picture: Path, folder: Path) -> Figure:
    """Publish the PNG file PICTURE, which not every run has, in `folder`."""
    target = folder / f"{picture.stem}.webp"
    with Image.open(picture) as opened:
        opened.thumbnail((WIDEST, WIDEST))
        write_picture(target, opened)
    return figure_of(target)


def publish_sheets(sheets: Mapping[str, Sheet], folder: Path) -> None:
    """Write each sheet as `<name>_sheet.webp` into `folder`."""
    for name, sheet in sheets.items():
        write_picture(folder / f"{name}_sheet.webp", sheet.picture)


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write `picture` in the format that the name of `path` ends in, reduced where it is too long for WebP."""
    if max(picture.size) > LONGEST:
        picture.thumbnail((LONGEST, LONGEST))
    with replacing(path) as temporary:
        picture.save(temporary, path.suffix[1:], **OPTIONS[path.suffix])


def plot_of(path: Path) -> Figure:
    """The plot in the SVG file `path`, whose folder lies beside the page; it says its size in points."""
    width, height = (float(ElementTree.parse(path).getroot().attrib[side][:-2]) for side in ("width", "height"))
    return Figure(f"{path.parent.name}/{path.name}", (round(width * 96 / 72), round(height * 96 / 72)))


def figure_of(path: Path) -> Figure:
    """The picture in the file `path`, whose folder lies beside the page."""
    with Image.open(path) as picture:
        return Figure(f"{path.parent.name}/{path.name}", picture.size)
