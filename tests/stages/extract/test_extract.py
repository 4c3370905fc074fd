import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm.config import ConfigError
from ddpm.drawing.scenes import FACTORS as FACTOR_COLUMNS
from ddpm.pictures.codec import ENCODINGS, BadImage, decode
from ddpm.pictures.resizing import Preprocessing, resize
from stages.extract import stage as extract
from stages.fetch.stage import encode
from stages.kit import workers as _workers
from stages.kit.errors import StageError
from stages.shared.images import open_alike, open_images
from stages.shared.lmdbs import key_bytes, read_lmdb, write_lmdb

FACTORS = Path("factors.csv")
OUTS = [
    Path(name)
    for name in ("train.npy", "val.npy", "train.csv", "val.csv", "duplicates.csv", "extract.json", "extract.png")
]
RECIPE = Preprocessing(size=48, geometry="center_crop", filter="lanczos")


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
    b"04": png(picture(4, (40, 30)).convert("L")),
}
BAD = {b"01": b"", b"03": b"no image\n" * 9, b"05": GOOD[b"00"][:3000]}
UNSEEN = {b"1%x" % index: encode(picture(10 + index), "jpeg") for index in range(3)}


def data_mdb(category, split):
    return Path("lmdb") / f"{category}_{split}_lmdb" / "data.mdb"


def write(split, **records):
    for category, values in records.items():
        write_lmdb(data_mdb(category, split), values.items())


def read_table(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def main():
    extract.main(Path("lmdb"), FACTORS, *OUTS)


@pytest.fixture
def lmdbs(write_params):
    changes = {"sources.demo.categories": ["church", "tower"], "extract.max_bad_fraction": 0.5}
    write_params(changes)
    write("train", church={**GOOD, **BAD}, tower=UNSEEN)
    write("val", church={b"20": encode(picture(20), "jpeg")}, tower={b"21": encode(picture(21), "jpeg")})
    FACTORS.write_text("split,category,key,roof\ntrain,church,00,NA\ntrain,church,02,steep\nval,tower,21,flat\n")
    return changes


def test_good_records_are_packed_and_bad_ones_reported(lmdbs, capfd):
    main()
    images = np.load(OUTS[0])
    assert images.shape == (6, 48, 48, 3)
    assert images.dtype == np.uint8
    expected = [resize(decode(value).pixels, RECIPE) for value in [*GOOD.values(), *UNSEEN.values()]]
    np.testing.assert_array_equal(images, expected)
    buffer = io.BytesIO()
    np.save(buffer, images)
    assert OUTS[0].read_bytes() == buffer.getvalue()
    table = read_table(OUTS[2])
    assert list(table.columns) == ["row", *extract.Record._fields, "recipe", "roof"]
    assert set(table.pop("recipe")) == {RECIPE.name}
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
    assert pd.read_csv(OUTS[2])["label"].dtype == np.int64
    assert list(read_table(OUTS[3])["roof"]) == ["", "flat"]
    assert json.loads(OUTS[5].read_text())["train"] == {
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
    before, table = np.load(OUTS[0]), read_table(OUTS[2])
    write("train", bridge={b"30": encode(picture(30), "jpeg")})
    write("val", bridge={b"31": encode(picture(31), "jpeg")})
    write_params({**lmdbs, "sources.demo.categories": ["church", "tower", "bridge"]})
    main()
    np.testing.assert_array_equal(np.load(OUTS[0])[: len(before)], before)
    pd.testing.assert_frame_equal(read_table(OUTS[2])[: len(table)], table)
    assert list(read_table(OUTS[2])["label"])[len(table) :] == ["2"]


def test_too_many_bad_records_fail_and_leave_nothing(lmdbs, write_params):
    there = sorted(path.name for path in Path().iterdir())
    for allowed in (0.01, 0.49):
        write_params({**lmdbs, "extract.max_bad_fraction": allowed})
        with pytest.raises(
            StageError, match=r"church_train_lmdb/data\.mdb: 3 of 6 records are bad .*: 01: no bytes; 03: "
        ):
            main()
    write_params({**lmdbs, "extract.max_bad_fraction": 1.0})
    write("val", church=GOOD, tower=BAD)  # a label without an image
    with pytest.raises(StageError, match=r"tower_val_lmdb/data\.mdb: 3 of 3 records are bad"):
        main()
    data_mdb("tower", "val").unlink()
    with pytest.raises(StageError, match=r"tower_val_lmdb/data\.mdb: no such file"):
        main()
    write("val", tower=GOOD)
    assert sorted(path.name for path in Path().iterdir()) == there


@pytest.mark.parametrize("key", ["crop", "sizes"])
def test_unknown_parameters_are_named(lmdbs, write_params, key):
    write_params({**lmdbs, f"extract.{key}": 1})
    with pytest.raises(ConfigError, match=rf"params\.yaml: extract\.{key}: no such parameter"):
        main()


def reencoded(value, **options):
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(value)).convert("RGB")
    if options.pop("mirrored", False):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(buffer, "jpeg", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dedupe", ["report", "drop"])
def test_duplicates_and_leaks_are_found_and_dropped_if_told(lmdbs, write_params, dedupe):
    write_params({**lmdbs, "extract.dedupe": dedupe})
    first, second, third = (encode(picture(index), "jpeg") for index in (40, 41, 42))
    church = {b"a": first, b"b": second, b"c": third, b"d": first, b"e": reencoded(third, quality=50)}
    fourth = encode(picture(44), "jpeg")
    write("train", church=church, tower={b"f": reencoded(second, quality=90, mirrored=True), b"g": fourth})
    write("val", church={b"h": reencoded(third, quality=60)}, tower={b"i": encode(picture(43), "jpeg")})
    main()
    found = read_table(OUTS[4])
    assert found.drop(columns="rms").to_csv(index=False, header=False).splitlines() == [
        "c,church,val,h,church,near,no",
        "d,church,train,a,church,exact,no",
        "e,church,val,h,church,near,no",
        "f,tower,train,b,church,near,yes",
    ]
    counts = json.loads(OUTS[5].read_text())
    assert counts["train"]["duplicates_in_training"] == {"exact": 1, "near": 1}
    assert counts["train"]["duplicates_held_out"] == {"exact": 0, "near": 2}
    images, recipe = open_images(OUTS[0], OUTS[2])
    assert recipe == RECIPE.name
    table = read_table(OUTS[2])
    if dedupe == "report":
        assert list(table["row"]) == list("0123456")
        return
    assert list(table["status"]) == ["ok", "ok", *["duplicate"] * 4, "ok"]
    assert list(table["reason"])[2:6] == ["repeats val h", "repeats train a", "repeats val h", "repeats train b"]
    assert list(table["row"]) == ["0", "1", "", "", "", "", "2"]
    np.testing.assert_array_equal(images, [resize(decode(value).pixels, RECIPE) for value in (first, second, fourth)])
    assert counts["train"]["dropped"] == 4
    write("val", church={b"h": first}, tower={b"i": fourth})
    with pytest.raises(StageError, match="drop leaves no training image of tower"):
        main()


def test_the_same_bytes_from_any_number_of_workers(lmdbs, monkeypatch):
    seen = set()
    for cores in (1, 2, 3):
        for records in (1, 2, 128):
            monkeypatch.setattr(_workers, "cores", lambda cores=cores: cores)
            monkeypatch.setattr(
                extract, "RUN", records
            )  # of one record: some runs have more, which go on in the parent
            main()
            seen.add(tuple(path.read_bytes() for path in OUTS))
    assert len(seen) == 1


def test_images_and_tables_are_held_to_each_other(lmdbs, write_params):
    main()
    assert [len(array) for array in open_alike({OUTS[0]: OUTS[2], OUTS[1]: OUTS[3]})] == [6, 2]
    with pytest.raises(StageError, match=r"val\.npy has 2 images, train\.csv says 6"):
        open_images(OUTS[1], OUTS[2])
    others = [path.rename(f"other_{path}") for path in (OUTS[0], OUTS[2])]
    write_params({**lmdbs, "extract.geometry": "squash"})
    main()
    with pytest.raises(
        StageError, match=r"val\.csv: images made by 48-squash-.*, other_train\.csv: by 48-center_crop-"
    ):
        open_alike({OUTS[1]: OUTS[3], others[0]: others[1]})


def readable(value):
    try:
        return decode(value)
    except BadImage:
        return None


VALUES = [*GOOD.values(), *UNSEEN.values()]


@settings(max_examples=25, deadline=None)
@given(
    count=st.sampled_from([0, 1, 2, 3, 50, 255, 256, 257, 600, 5000]),
    seed=st.integers(0, 10**6),
    flips=st.integers(0, 4),
)
def test_a_fuzzed_lmdb_is_accounted_for_record_by_record(tmp_path_factory, count, seed, flips):
    """Odd keys, and values with random bytes changed: nothing crashes, and the counts add up."""
    rng = np.random.default_rng(seed)
    records = {}
    for number in range(count):
        value = bytearray(VALUES[rng.integers(len(VALUES))])
        for place in rng.integers(0, len(value), flips):
            value[place] = rng.integers(256)
        records[rng.bytes(rng.integers(1, 40)) + b"%d" % number] = bytes(value)
    folder = tmp_path_factory.mktemp("fuzz")
    file, target = folder / "data.mdb", folder / "train.npy"
    write_lmdb(file, records.items())
    config = extract.ExtractConfig(size=32, geometry="squash", filter="bilinear", max_bad_fraction=1.0, dedupe="report")
    sources = [extract.Lmdb(file, "church", 0)]
    if not any(readable(value) for value in records.values()):
        with pytest.raises(StageError, match="records are bad" if records else "an empty LMDB"):
            extract.extract(sources, target, config, "train")
        return
    table = extract.extract(sources, target, config, "train")
    assert [key_bytes(key) for key in table["key"]] == sorted(records)
    good = table[table["status"] == "ok"]
    assert list(good["row"]) == list(range(len(good)))
    images = np.load(target)
    assert images.shape == (len(good), 32, 32, 3)
    for key, row in good[["key", "row"]].sample(min(5, len(good)), random_state=0).itertuples(index=False):
        np.testing.assert_array_equal(images[row], resize(decode(records[key_bytes(key)]).pixels, config))
    for key in table.loc[table["status"] == "bad", "key"].head(5):
        with pytest.raises(BadImage):
            decode(records[key_bytes(key)])
    counts = extract.summary(table, ["L", "RGB"], 32)
    assert counts["n"] == count == counts["images"] + counts["bad"] == sum(counts["encoding"].values())
    assert list(counts["encoding"]) == list(ENCODINGS)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(lmdbs, kill_and_repeat):
    write("train", church={b"%06d" % index: value for index, value in enumerate(VALUES * 150)}, tower=UNSEEN)
    kill_and_repeat(extract.main, (Path("lmdb"), FACTORS, *OUTS), OUTS)
    assert not list(Path().glob(".*.part"))


def test_no_factor_has_the_name_of_an_index_column():
    assert not set(FACTOR_COLUMNS) & {"row", *extract.Record._fields, "recipe"}


def test_real_photographs(photos, write_params):
    write_params({"data": "path"})
    FACTORS.write_text("split,category,key\n")
    for split in ("train", "val"):
        data_mdb("photos", split).parent.mkdir(parents=True)
        data_mdb("photos", split).symlink_to(photos / f"photos_{split}_lmdb" / "data.mdb")
    main()
    counts = json.loads(OUTS[5].read_text())
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
    table = pd.read_csv(OUTS[3])
    assert list(table["row"]) == list(range(100))
    assert list(table["key"]) == sorted(table["key"])
    assert set(table[["source_width", "source_height"]].min(axis=1)) == {256}
    records = dict(read_lmdb(data_mdb("photos", "val")))
    for row, image in zip(table.itertuples(), np.load(OUTS[1])[:20], strict=False):
        with Image.open(io.BytesIO(records[row.key.encode()])) as opened:
            side, (width, height) = 256, opened.size
            left, top = (width - side) // 2, (height - side) // 2
            square = opened.convert("RGB").crop((left, top, left + side, top + side))
        expected = np.asarray(square.resize((48, 48), Image.LANCZOS))
        assert np.abs(image.astype(int) - expected).max() <= 2
    with Image.open(OUTS[6]) as figure:
        assert figure.size == (8 * (3 * 48 + 2) + 2,) * 2
