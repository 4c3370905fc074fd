"""Many categories and long grids: a table that can be read, pictures that WebP can hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.interpolate.methods import METHODS
from stages.page.facts import records
from stages.page.publish import write_picture
from stages.page.render import way
from stages.page.sheets import LONGEST, neighbour_sheet, sheet


def split(images_of: dict[str, int]) -> dict[str, Any]:
    counts = {"n": 9, "images": 9, "bad": 0, "dropped": 0, "enlarged": 0}
    return {**counts, "encoding": {"jpeg": 9}, "mode": {"RGB": 9}, "images_of": images_of}


def test_a_category_without_held_out_images_has_none_in_the_table() -> None:
    found = records({"train": split({"cat": 8, "dog": 1}), "val": split({"cat": 9})})
    assert found["columns"][-2:] == ["cat", "dog"]
    assert (found["train"][-2:], found["val"][-2:]) == ([8, 1], [9, 0])


def test_an_encoding_of_held_out_images_alone_has_a_column() -> None:
    held_out = split({}) | {"encoding": {"jpeg": 7, "gif": 2}}
    found = records({"train": split({}), "val": held_out})
    place = found["columns"].index("gif")
    assert (found["train"][place], found["val"][place]) == (0, 2)


def test_each_method_between_noises_has_words() -> None:
    assert way("lerp_vp_ancestral_shared") == "lerp_vp, ancestral, shared noise"
    assert all(", " in way(name) for name in METHODS)
    assert way("slerp") == "slerp"  # of a GAN


def test_of_many_categories_the_table_has_no_column_each() -> None:
    many = split({str(number): 1 for number in range(200)})
    assert records({"train": many, "val": many})["columns"] == ["records", "used", "jpeg", "RGB"]


@pytest.mark.parametrize(("rows", "columns"), [(300, 2), (2, 1001)])
def test_a_long_sheet_has_smaller_tiles(rows: int, columns: int) -> None:
    found = sheet(np.zeros((rows, columns, 64, 64, 3), np.uint8))
    width, height = found.picture.size
    assert max(width, height) <= LONGEST
    assert (width % columns, height % rows) == (0, 0)  # each tile at a whole pixel


def test_the_best_are_on_the_sheet_wherever_they_stand(tmp_path: Path) -> None:
    """Of 70 ranked samples the first 64 are shown; the nearest is the last."""
    for name, count in (("samples", 70), ("train", 1), ("val", 1)):
        np.save(tmp_path / f"{name}.npy", np.arange(count, dtype=np.uint8).repeat(12).reshape(count, 2, 2, 3))
    nothing = dict.fromkeys(["neighbour", "original", "held_out_neighbour"], 0)
    nothing |= dict.fromkeys(["mirrored", "original_mirrored", "held_out_mirrored"], 0)
    table = pd.DataFrame({"rank": range(1, 71), "sample": range(69, -1, -1), **nothing})
    table.to_csv(tmp_path / "neighbours.csv", index=False)
    found, rows = neighbour_sheet(tmp_path, tmp_path, tmp_path / "neighbours.csv", best=2)
    assert [row["sample"] for row in rows] == [*range(64), 68, 69]
    assert found.rows == 66
    best = next(row for row in rows if row["rank"] == 1)
    assert np.unique(np.asarray(found.picture)[best["row"] * found.picture.height // found.rows, 0]).tolist() == [69]


def test_a_picture_too_long_for_webp_is_reduced(tmp_path: Path) -> None:
    write_picture(tmp_path / "long.webp", Image.new("RGB", (20_000, 40)))
    with Image.open(tmp_path / "long.webp") as picture:
        assert picture.size == (LONGEST, 33)
