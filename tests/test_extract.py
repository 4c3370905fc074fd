import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ddpm.config import ConfigError
from ddpm.images import encode
from ddpm.scenes import FACTORS as FACTOR_COLUMNS
from stages import extract
from stages._lmdb import write_lmdb
from stages._main import StageError

FACTORS = Path("factors.csv")
OUTS = [Path(name) for name in ("train.npy", "val.npy", "train.csv", "val.csv", "extract.json", "extract.png")]


def picture(index, size=(300, 256)):
    levels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(size, Image.BICUBIC)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


GOOD = {
    b"00": encode(picture(0), "jpeg"),
    b"02": encode(picture(2, (256, 400)), "webp"),
    b"04": png(picture(4, (256, 256)).convert("L")),
}
BAD = {b"01": b"", b"03": b"no image\n" * 9, b"05": GOOD[b"00"][:3000]}


@pytest.fixture
def lmdbs(write_params):
    write_params({"extract.max_bad_fraction": 0.5})
    sources = [Path("train.mdb"), Path("val.mdb")]
    write_lmdb(sources[0], {**GOOD, **BAD}.items())
    write_lmdb(sources[1], GOOD.items())
    FACTORS.write_text("split,key,roof\ntrain,00,NA\ntrain,02,steep\nval,02,flat\n")
    return [*sources, FACTORS]


def test_good_records_are_packed_and_bad_ones_reported(lmdbs, capfd):
    extract.main(*lmdbs, *OUTS)
    images = np.load(OUTS[0])
    grey = picture(4, (256, 256)).convert("L").convert("RGB").resize((48, 48), Image.LANCZOS)
    assert images.shape == (3, 48, 48, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[2], np.asarray(grey))
    buffer = io.BytesIO()
    np.save(buffer, images)
    assert OUTS[0].read_bytes() == buffer.getvalue()
    table = pd.read_csv(OUTS[2], dtype=str, keep_default_na=False)
    assert list(table.columns) == [*extract.COLUMNS, "roof"]
    assert table.drop(columns="reason").to_csv(index=False, header=False).splitlines() == [
        "0,00,0,300,256,jpeg,ok,NA",
        ",01,0,,,other,bad,",
        "1,02,0,256,400,webp,ok,steep",
        ",03,0,,,other,bad,",
        "2,04,0,256,256,png,ok,",
        ",05,0,,,jpeg,bad,",
    ]
    assert list(pd.read_csv(OUTS[3], dtype=str, keep_default_na=False)["roof"]) == ["", "flat", ""]
    assert json.loads(OUTS[4].read_text())["train"] == {
        "n": 6,
        "images": 3,
        "bad": 3,
        "encoding": {"jpeg": 2, "webp": 1, "png": 1, "other": 2},
    }
    errors = capfd.readouterr().err
    assert "train: bad record 01: no bytes" in errors
    assert "train: bad record 05: image file is truncated" in errors


def test_too_many_bad_records_fail_and_leave_nothing(lmdbs, write_params):
    for allowed in (0.01, 0.49):
        write_params({"extract.max_bad_fraction": allowed})
        with pytest.raises(StageError, match=r"train\.mdb: 3 of 6 records are bad .*: 01: no bytes; 03: "):
            extract.main(*lmdbs, *OUTS)
    write_params({"extract.max_bad_fraction": 1.0})
    write_lmdb(lmdbs[0], BAD.items())
    with pytest.raises(StageError, match="3 of 3 records are bad"):
        extract.main(*lmdbs, *OUTS)
    assert sorted(path.name for path in Path().iterdir()) == ["factors.csv", "params.yaml", "train.mdb", "val.mdb"]


@pytest.mark.parametrize(("key", "value"), [("size", 4), ("size", 48.5), ("filter", "nearest"), ("crop", True)])
def test_impossible_recipes_are_named(lmdbs, write_params, key, value):
    write_params({f"extract.{key}": value})
    with pytest.raises(ConfigError, match=rf"params\.yaml: extract\.{key}"):
        extract.main(*lmdbs, *OUTS)


def test_no_factor_has_the_name_of_an_index_column():
    assert not set(FACTOR_COLUMNS) & set(extract.COLUMNS)


def test_real_photographs(photos, write_params):
    write_params({})
    FACTORS.write_text("split,key\n")
    sources = [photos / f"photos_{split}_lmdb" / "data.mdb" for split in ("train", "val")]
    extract.main(*sources, FACTORS, *OUTS)
    first = [path.read_bytes() for path in OUTS]
    counts = json.loads(OUTS[4].read_text())
    assert counts["train"] == {
        "n": 600,
        "images": 600,
        "bad": 0,
        "encoding": {"jpeg": 300, "webp": 300, "png": 0, "other": 0},
    }
    table = pd.read_csv(OUTS[3])
    assert list(table["row"]) == list(range(100))
    assert list(table["key"]) == sorted(table["key"])
    assert set(table[["source_width", "source_height"]].min(axis=1)) == {256}
    with Image.open(OUTS[5]) as figure:
        assert figure.size == (8 * (3 * 48 + 2) + 2,) * 2
    extract.main(*sources, FACTORS, *OUTS)
    assert [path.read_bytes() for path in OUTS] == first
