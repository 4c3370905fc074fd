"""What is held out of one place, whatever it is called, and what must lie in two."""

import os
import shutil
import zipfile
from pathlib import Path
from unicodedata import normalize

import lmdb
import pytest
from fetching import LMDB, data_mdb, main, records
from lsun_server import lsun_zip

from ddpm.config import ConfigError
from stages.fetch.splits import hold_out
from stages.kit.errors import StageError
from stages.shared.lmdbs import count_records, read_lmdb, write_lmdb


def keys(path):
    return [key for key, _ in read_lmdb(path)]


@pytest.mark.parametrize(("count", "fraction", "held_out"), [(1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (40, 1e-9, 1)])
def test_of_two_records_one_is_held_out_and_one_stays(tmp_path, count, fraction, held_out):
    train, val = tmp_path / "train.mdb", tmp_path / "val.mdb"
    val.write_text("of an earlier run")
    write_lmdb(train, records(count))
    hold_out(train, val, fraction)
    assert count_records(train) == count - held_out
    assert val.exists() == bool(held_out)
    assert sorted([*read_lmdb(train), *(read_lmdb(val) if held_out else ())]) == sorted(records(count))


def test_another_record_moves_none(tmp_path):
    sides = []
    for count in (60, 200):
        write_lmdb(tmp_path / "train.mdb", records(count))
        hold_out(tmp_path / "train.mdb", tmp_path / "val.mdb", 0.3)
        sides.append([set(keys(tmp_path / f"{split}.mdb")) for split in ("train", "val")])
    assert 8 <= len(sides[0][1]) <= 28
    assert all(few < many for few, many in zip(*sides, strict=True))


@pytest.mark.parametrize("form", ["given", "given/data.mdb", "church.zip"])
def test_one_lmdb_is_split(write_params, tmp_path, form):
    write_lmdb(tmp_path / "given" / "data.mdb", records(40))
    lsun_zip(tmp_path / "church.zip", ["church/data.mdb"], (tmp_path / "given" / "data.mdb").read_bytes())
    write_params({"data": "path", "sources.path.train": form, "sources.path.val": None})
    main()
    train, val = (keys(data_mdb("photos", split)) for split in ("train", "val"))
    assert 1 <= len(val) <= 12
    assert sorted(train + val) == sorted(key for key, _ in records(40))


def test_lsuns_objects_have_no_splits(write_params, tmp_path, server):
    write_lmdb(tmp_path / "served.mdb", records(40))
    zipped = lsun_zip(tmp_path / "a.zip", ["potted plant/data.mdb"], (tmp_path / "served.mdb").read_bytes())
    server.files["/objects/potted%20plant.zip"] = zipped.read_bytes()
    source = {"urls": [f"{server.url}/objects"], "categories": ["potted plant"], "val_fraction": 0.2}
    write_params({"data": "lsun", **{f"sources.lsun.{key}": value for key, value in source.items()}})
    main()
    assert [path for path, _ in server.asked] == ["/objects/potted%20plant.zip"]
    counts = [count_records(data_mdb("potted plant", split)) for split in ("train", "val")]
    assert sum(counts) == 40
    assert counts[1] >= 1


def windows_lmdb(folder, count=5):
    """As large as its map, almost all of which is nowhere."""
    with lmdb.open(str(folder), map_size=1 << 36, writemap=True) as environment, environment.begin(write=True) as write:
        for key, value in records(count):
            write.put(key, value)
    return folder / "data.mdb"


def test_of_a_sparse_lmdb_only_what_it_holds_is_copied(write_params, tmp_path):
    file = windows_lmdb(tmp_path / "train")
    shutil.rmtree(tmp_path / "val", ignore_errors=True)
    (file.parent / "lock.mdb").unlink()
    file.chmod(0o444)
    val = windows_lmdb(tmp_path / "val", 3)
    os.truncate(val, 1 << 28)  # which a test can pack
    with zipfile.ZipFile(tmp_path / "val.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(val, "val/data.mdb")
    write_params({"data": "path", "sources.path.train": "train", "sources.path.val": "val.zip"})
    main()
    assert dict(read_lmdb(data_mdb("photos", "train"))) == dict(records(5))
    assert dict(read_lmdb(data_mdb("photos", "val"))) == dict(records(3))
    assert all(path.stat().st_size < 300_000 for path in LMDB.rglob("data.mdb"))


def test_a_database_within_an_lmdb_is_refused(write_params, tmp_path):
    with lmdb.open(str(tmp_path / "nested"), max_dbs=1) as environment:
        images = environment.open_db(b"images")
        with environment.begin(write=True, db=images) as write:
            write.put(b"key", b"value")
    write_params({"data": "path", "sources.path.train": "nested", "sources.path.val": None})
    with pytest.raises(StageError, match=r"train = nested: its records lie in a database within it, b'images'"):
        main()


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("a", "{category}"),
        ("{category}", "link/{category}"),
        ("a", "linked"),
        ("a", "hard/{category}"),
    ],
)
def test_the_same_data_named_twice_is_refused_at_once(write_params, tmp_path, train, val):
    """By its name, through a link to it or to a folder above, by a second name of its file."""
    write_lmdb(tmp_path / "a" / "data.mdb", records(5))
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to("a")
    (tmp_path / "hard" / "a").mkdir(parents=True)
    (tmp_path / "hard" / "a" / "data.mdb").hardlink_to(tmp_path / "a" / "data.mdb")
    write_params(
        {"data": "path", "sources.path.categories": ["a"], "sources.path.train": train, "sources.path.val": val}
    )
    with pytest.raises(StageError, match=r"both are .*; name two apart, or leave val empty"):
        main()
    assert not LMDB.exists()


NAMES = ["0", "NA", "null", "Golden Retriever", "Cat", "cat", normalize("NFD", "été"), "-x", "a&b$c_<d>"]


def test_folders_are_found_whatever_they_are_called(write_params, tmp_path):
    for number, name in enumerate(NAMES):
        write_lmdb(tmp_path / "all" / name / "data.mdb", records(3, number))
    given = [0, *NAMES[1:6], normalize("NFC", "été"), *NAMES[7:]]
    write_params(
        {
            "data": "path",
            "sources.path.categories": given,
            "sources.path.train": "all/{category}",
            "sources.path.val": None,
        }
    )
    main()
    for number, name in enumerate(map(str, given)):
        found = [record for split in ("train", "val") for record in read_lmdb(data_mdb(name, split))]
        assert sorted(found) == sorted(records(3, number))


@pytest.mark.parametrize("name", [None, True, 1.5, ".hidden", "a/b", "..", "", " a", "a\nb"])
def test_other_names_are_refused_in_one_line(write_params, name):
    write_params({"data": "path", "sources.path.categories": [name]})
    with pytest.raises(ConfigError, match=r"sources\.path\.categories\.0 = .*: a category is ") as caught:
        main()
    assert "\n" not in str(caught.value)
    assert not Path("data").exists()
