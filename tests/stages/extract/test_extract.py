"""Records to arrays and tables."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from extracting import (
    BAD,
    DETAILS,
    FACTORS,
    FIGURES,
    GOOD,
    PREPROCESSING,
    TRAIN,
    UNSEEN,
    VAL,
    data_mdb,
    main,
    picture,
    read_table,
    write,
)
from PIL import Image

from ddpm.config import ConfigError
from ddpm.drawing.scenes import FACTORS as FACTOR_COLUMNS
from ddpm.pictures.codec import decode
from ddpm.pictures.resizing import resize
from stages.extract import stage as extract
from stages.fetch.stage import encode
from stages.kit.errors import StageError
from stages.shared.files.images import ImageSet, open_alike, open_images
from stages.shared.lmdbs import read_lmdb


def test_good_records_are_packed_and_bad_ones_reported(lmdbs, capfd):
    main()
    images = np.load(TRAIN.array)
    assert images.shape == (6, 48, 48, 3)
    assert images.dtype == np.uint8
    expected = [resize(decode(value).pixels, PREPROCESSING) for value in [*GOOD.values(), *UNSEEN.values()]]
    np.testing.assert_array_equal(images, expected)
    buffer = io.BytesIO()
    np.save(buffer, images)
    assert TRAIN.array.read_bytes() == buffer.getvalue()
    table = read_table(TRAIN.table)
    assert list(table.columns) == ["row", *extract.Record._fields, "preprocessing", "roof"]
    assert set(table.pop("preprocessing")) == {PREPROCESSING.name}
    assert table.drop(columns="reason").to_csv(index=False, header=False).splitlines() == [
        "0,00,church,0,300,256,jpeg,RGB,ok,NA",
        ",01,church,0,,,other,,bad,",
        "1,02,church,0,256,400,webp,RGB,ok,steep",
        ",03,church,0,,,other,,bad,",
        "2,04,church,0,40,30,png,L,ok,",
        ",05,church,0,,,jpeg,,bad,",
        "3,10,tower,1,300,256,jpeg,RGB,ok,",
        "4,11,tower,1,300,256,jpeg,RGB,ok,",
        "5,12,tower,1,300,256,jpeg,RGB,ok,",
    ]
    assert pd.read_csv(TRAIN.table)["label"].dtype == np.int64
    assert list(read_table(VAL.table)["roof"]) == ["", "flat"]
    assert json.loads(DETAILS.read_text())["train"] == {
        "n": 9,
        "images": 6,
        "bad": 3,
        "dropped": 0,
        "enlarged": 1,
        "images_of": {"church": 3, "tower": 3},
        "encoding": {"jpeg": 5, "webp": 1, "png": 1, "other": 2},
        "mode": {"L": 1, "RGB": 5},
        "duplicates_in_training": {"exact": 0, "near": 0},
        "duplicates_held_out": {"exact": 0, "near": 0},
    }
    errors = capfd.readouterr().err
    assert "train: bad record 01: no bytes" in errors
    assert "train: bad record 05: image file is truncated" in errors


def test_another_category_shifts_no_label_and_no_row(lmdbs, write_params):
    main()
    before, table = np.load(TRAIN.array), read_table(TRAIN.table)
    write("train", bridge={b"30": encode(picture(30), "jpeg")})
    write("val", bridge={b"31": encode(picture(31), "jpeg")})
    write_params({**lmdbs, "sources.demo.categories": ["church", "tower", "bridge"]})
    main()
    np.testing.assert_array_equal(np.load(TRAIN.array)[: len(before)], before)
    pd.testing.assert_frame_equal(read_table(TRAIN.table)[: len(table)], table)
    assert list(read_table(TRAIN.table)["label"])[len(table) :] == ["2"]


def files():
    return sorted(path for path in Path().rglob("*") if path.is_file())


def test_too_many_bad_records_fail_and_leave_nothing(lmdbs, write_params):
    """Of a split: a small category may have more of them, but not only bad ones."""
    write("train", church={**GOOD, **BAD}, tower=GOOD)
    there = files()
    for allowed in (0.01, 0.33):
        write_params({**lmdbs, "extract.max_bad_fraction": allowed})
        with pytest.raises(StageError, match=r"train: 3 of 9 records are bad .*: church 01: no bytes; church 03: "):
            main()
    write_params({**lmdbs, "extract.max_bad_fraction": 1.0})
    write("val", church=GOOD, tower=BAD)  # a label without an image
    with pytest.raises(StageError, match=r"tower_val_lmdb/data\.mdb: none of its records is usable: tower 01: "):
        main()
    for category in ("church", "tower"):
        data_mdb(category, "val").unlink()
    with pytest.raises(StageError, match="no category has held-out images"):
        main()
    write("val", church=GOOD, tower=GOOD)
    assert files() == there
    write_params({**lmdbs, "extract.max_bad_fraction": 0.34})
    main()
    assert TRAIN.array.exists()


def test_the_limits_of_decoding_are_parameters(lmdbs, write_params):
    """A picture of 300 x 256 pixels beyond `max_pixels`, and a JPEG without its end."""
    whole, cut = GOOD[b"00"], GOOD[b"00"][:-2]
    write("train", church={**GOOD, b"07": cut}, tower=GOOD)
    small = {b"20": encode(picture(20, (40, 30)), "jpeg")}
    write("val", church=small, tower=small)
    reasons = {}
    for changed in ({}, {"extract.truncated": "use"}, {"extract.max_pixels": 300 * 256 - 1}):
        write_params({**lmdbs, "extract.max_bad_fraction": 1.0, **changed})
        main()
        table = read_table(TRAIN.table).set_index(["category", "key"])["reason"]
        reasons[next(iter(changed), "")] = table["church"]["07"], table["tower"]["00"]
    assert whole != cut
    assert "truncated" in reasons[""][0]
    assert reasons["extract.truncated"] == ("", "")
    assert reasons["extract.max_pixels"][1] == "more than 76799 pixels"


@pytest.mark.parametrize("key", ["crop", "sizes"])
def test_unknown_parameters_are_named(lmdbs, write_params, key):
    write_params({**lmdbs, f"extract.{key}": 1})
    with pytest.raises(ConfigError, match=rf"params\.yaml: extract\.{key}: no such parameter"):
        main()


def test_images_and_tables_are_held_to_each_other(lmdbs, write_params):
    main()
    assert [len(array) for array in open_alike(dict([TRAIN, VAL]))] == [6, 2]
    with pytest.raises(StageError, match=r"val\.npy has 2 images, images/train\.csv says 6"):
        open_images(VAL.array, TRAIN.table)
    other = ImageSet(*(path.rename(f"other_{path.name}") for path in TRAIN))
    write_params({**lmdbs, "extract.geometry": "squash"})
    main()
    with pytest.raises(
        StageError, match=r"val\.csv: images prepared by 48-squash-.*, other_train\.csv: by 48-center_crop-"
    ):
        open_alike(dict([VAL, other]))


def test_no_factor_has_the_name_of_an_index_column():
    assert not set(FACTOR_COLUMNS) & {"row", *extract.Record._fields, "preprocessing"}


def test_real_photographs(photos, write_params):
    write_params({"data": "path"})
    FACTORS.write_text("split,category,key\n")
    for split in ("train", "val"):
        data_mdb("photos", split).parent.mkdir(parents=True)
        data_mdb("photos", split).symlink_to(photos / f"photos_{split}_lmdb" / "data.mdb")
    main()
    counts = json.loads(DETAILS.read_text())
    assert counts["train"] == {
        "n": 600,
        "images": 600,
        "bad": 0,
        "dropped": 0,
        "enlarged": 0,
        "images_of": {"photos": 600},
        "encoding": {"jpeg": 300, "webp": 300, "png": 0, "other": 0},
        "mode": {"RGB": 600},
        "duplicates_in_training": {"exact": 0, "near": 0},
        "duplicates_held_out": {"exact": 0, "near": 0},
    }
    table = pd.read_csv(VAL.table)
    assert list(table["row"]) == list(range(100))
    assert list(table["key"]) == sorted(table["key"])
    assert set(table[["source_width", "source_height"]].min(axis=1)) == {256}
    records = dict(read_lmdb(data_mdb("photos", "val")))
    for row, image in zip(table.itertuples(), np.load(VAL.array)[:20], strict=False):
        with Image.open(io.BytesIO(records[row.key.encode()])) as opened:
            side, (width, height) = 256, opened.size
            left, top = (width - side) // 2, (height - side) // 2
            square = opened.convert("RGB").crop((left, top, left + side, top + side))
        expected = np.asarray(square.resize((48, 48), Image.LANCZOS))
        assert np.abs(image.astype(int) - expected).max() <= 2
    with Image.open(FIGURES / "data.png") as figure:
        assert figure.size == (8 * (48 + 2) + 2,) * 2
