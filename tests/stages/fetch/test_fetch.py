import contextlib
import fcntl
import functools
import hashlib
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from lsun_server import Fault, lsun_zip
from PIL import Image

from ddpm.config import ConfigError
from ddpm.drawing.scenes import FACTORS
from ddpm.pictures.codec import decode, encoding_of
from stages.fetch import archive as _archive
from stages.fetch import stage as fetch
from stages.fetch.archive import unzip
from stages.kit.errors import StageError
from stages.shared import download as _download
from stages.shared.lmdbs import count_records, read_lmdb, write_lmdb

PUBLISHED, LMDB, FACTORS_CSV = Path("lsun.csv"), Path("data/lmdb"), Path("data/factors.csv")
SMALL = {"data": "smoke", "sources.smoke.train_images": 6, "sources.smoke.val_images": 3}


def data_mdb(category, split):
    return LMDB / f"{category}_{split}_lmdb" / "data.mdb"


def main():
    fetch.main(PUBLISHED, LMDB, FACTORS_CSV)


@pytest.fixture(autouse=True)
def published(tmp_path, monkeypatch):
    """The table of LSUN's zips, and no waiting."""
    shutil.copy(REPOSITORY / "stages" / "lsun.csv", tmp_path / "lsun.csv")
    monkeypatch.setattr(_download, "SECOND", 0)


def records(count, seed=0):
    draw = random.Random(seed)
    return [(b"%040x" % draw.getrandbits(160), draw.randbytes(20_000)) for _ in range(count)]


@pytest.fixture
def mdb(tmp_path):
    write_lmdb(tmp_path / "given" / "data.mdb", records(5))
    return tmp_path / "given" / "data.mdb"


@pytest.mark.parametrize("categories", [["church"], ["church", "tower", "bridge"]])
def test_generated_images_are_lsun_records_and_depend_on_the_seed_alone(write_params, categories):
    small = {**SMALL, "sources.smoke.categories": categories}
    write_params(small)
    main()
    files = [data_mdb(category, split) for category in categories for split in ("train", "val")]
    assert sorted(LMDB.rglob("*.*")) == sorted(files)
    first = [path.read_bytes() for path in (*files, FACTORS_CSV)]
    table = pd.read_csv(FACTORS_CSV)
    assert list(table.columns) == ["split", "category", "key", *FACTORS]
    for category in categories:
        found = dict(read_lmdb(data_mdb(category, "train")))
        assert len(found) == 6
        assert all(key.decode() == hashlib.sha1(value).hexdigest() for key, value in found.items())
        assert {encoding_of(value) for value in found.values()} == {"jpeg", "webp"}
        assert {min(decode(value).pixels.shape[:2]) for value in found.values()} == {256}
        rows = table[table["category"] == category]
        assert list(rows["split"]) == ["train"] * 6 + ["val"] * 3
        assert set(rows["key"]) == {
            key.decode() for split in ("train", "val") for key, _ in read_lmdb(data_mdb(category, split))
        }
    main()
    assert [path.read_bytes() for path in (*files, FACTORS_CSV)] == first
    church = dict(read_lmdb(files[0]))
    write_params({**small, "sources.smoke.seed": 1})
    main()
    assert not set(church) & set(dict(read_lmdb(files[0])))


def test_a_category_is_drawn_the_same_beside_others(write_params):
    write_params({**SMALL, "sources.smoke.categories": ["bridge", "church"]})
    main()
    beside = data_mdb("church", "train").read_bytes()
    write_params(SMALL)
    main()
    assert data_mdb("church", "train").read_bytes() == beside


def test_unknown_kinds_sources_and_keys_are_named(write_params):
    for changes, message in (
        ({"data": "nope"}, r"sources\.nope: not there; sources has .*smoke"),
        ({"sources.smoke.kind": "web"}, r"sources\.smoke\.kind = 'web': must be one of generate, path, lsun"),
        ({"sources.smoke.images": 3}, r"sources\.smoke\.images: no such parameter"),
        ({"sources.smoke.categories": ["castle"]}, r"categories has castle; drawn are church, tower, bridge"),
        ({"sources.smoke.categories": ["church", "church"]}, r"categories has church twice"),
        ({"sources.smoke.categories": []}, r"sources\.smoke\.categories = \[\]"),
        ({"data": "lsun", "sources.lsun.categories": ["../tower"]}, r'categories\.0 = "\.\./tower"'),
        ({"data": "lsun", "sources.lsun.urls": ["ftp://example.org"]}, r'urls\.0 = "ftp:'),
        ({"data": "path", "sources.path.categories": ["a", "b"], "sources.path.val": "c"}, "one path for 2 categories"),
    ):
        write_params({**SMALL, **changes})
        with pytest.raises(ConfigError, match=message):
            main()


@pytest.mark.parametrize("form", ["given", "given/data.mdb", "church.zip"])
def test_path_takes_a_folder_a_file_or_a_zip(write_params, tmp_path, mdb, form, monkeypatch):
    lsun_zip(tmp_path / "church.zip", ["church_lmdb/data.mdb", "church_lmdb/lock.mdb"], mdb.read_bytes())
    write_params({"data": "path", "sources.path.train": form, "sources.path.val": str(tmp_path / form)})
    (tmp_path / "elsewhere").mkdir()
    shutil.copy("params.yaml", "elsewhere")  # a run of `dvc exp run --temp`
    shutil.copy(PUBLISHED, "elsewhere")
    monkeypatch.chdir("elsewhere")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    main()
    assert [data_mdb("photos", split).read_bytes() for split in ("train", "val")] == [mdb.read_bytes()] * 2
    assert FACTORS_CSV.read_text() == "split,category,key\n"


def test_path_puts_each_category_into_its_place(write_params, tmp_path, capfd):
    for category, count in (("church_outdoor", 4), ("tower", 3)):
        for split in ("train", "val"):
            write_lmdb(tmp_path / f"{category}_{split}" / "data.mdb", records(count))
    paths = {f"sources.path.{split}": f"{{category}}_{split}" for split in ("train", "val")}
    write_params({"data": "path", "sources.path.categories": ["tower", "church_outdoor"], **paths})
    main()
    assert count_records(data_mdb("tower", "val")) == 3
    assert count_records(data_mdb("church_outdoor", "train")) == 4
    assert "train = church_outdoor_train: 4 records; LSUN's church_outdoor train has 126227" in capfd.readouterr().err


def test_path_says_what_is_wrong(write_params, tmp_path, mdb):
    content = mdb.read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no LMDB\n" * 1000)
    (tmp_path / "short").write_bytes(content[: len(content) // 2])
    write_lmdb(tmp_path / "empty" / "data.mdb", [])
    lsun_zip(tmp_path / "none.zip", ["church_lmdb/images.mdb"], content)
    lsun_zip(tmp_path / "two.zip", ["a/data.mdb", "b/data.mdb"], content)
    lsun_zip(tmp_path / "text.zip", ["church_lmdb/data.mdb"], b"no LMDB\n" * 1000)
    lsun_zip(tmp_path / "absolute.zip", ["church_lmdb/data.mdb", "/etc/passwd"], content)
    lsun_zip(tmp_path / "up.zip", ["church_lmdb/data.mdb", "church_lmdb/../../passwd"], content)
    lsun_zip(tmp_path / "windows.zip", ["church_lmdb/data.mdb", "..\\passwd"], content)
    lsun_zip(tmp_path / "bomb.zip", ["church_lmdb/data.mdb"], bytes(10**8))
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        link = zipfile.ZipInfo("church_lmdb/data.mdb")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    damaged = bytearray(lsun_zip(tmp_path / "damaged.zip", ["church_lmdb/data.mdb"], content).read_bytes())
    (tmp_path / "short.zip").write_bytes(damaged[: len(damaged) // 2])
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "damaged.zip").write_bytes(damaged)
    for name, reason in {
        "missing": "no such file or folder",
        "folder": "a folder without data.mdb",
        "text": "not an LMDB",
        "short": "cut short",
        "empty": "an empty LMDB",
        "none.zip": "a zip with 0 files data.mdb",
        "two.zip": "a zip with 2 files data.mdb",
        "text.zip": "not an LMDB",
        "absolute.zip": "refused, its member '/etc/passwd' points outside",
        "up.zip": "refused, its member 'church_lmdb/../../passwd' points outside",
        "windows.zip": "refused, its member .* points outside",
        "bomb.zip": "refused, its member 'church_lmdb/data.mdb' grows from [0-9]+ to 100000000 bytes",
        "link.zip": "refused, its member 'church_lmdb/data.mdb' is a symbolic link",
        "damaged.zip": "a damaged zip",
        "short.zip": "a damaged zip",
    }.items():
        write_params({"data": "path", "sources.path.train": name})
        with pytest.raises(StageError, match=f"train = {re.escape(name)}: {reason}") as caught:
            main()
        assert "\n" not in str(caught.value)
        assert list(Path("data").rglob("*.*")) == []


def picture(path, encoding, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 50), (colour, 90, 200)).save(path, encoding)
    return path.read_bytes()


FOLDER = {"data": "folder", "sources.folder.train": "own"}


def splits(category="photos"):
    return [dict(read_lmdb(data_mdb(category, split))) for split in ("train", "val")]


def test_a_folder_gives_every_picture_at_any_depth_as_it_is(write_params, tmp_path, capfd):
    """Whatever it is called, also through links; a link to a folder above is a circle."""
    own, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    wanted = {
        "a.jpg": picture(own / "a.jpg", "jpeg"),
        "été/b 1.png": picture(own / "été" / "b 1.png", "png"),
        "été/deep/er/c.webp": picture(own / "été" / "deep" / "er" / "c.webp", "webp"),
        "misnamed.txt": picture(own / "misnamed.txt", "jpeg"),
        "link": picture(elsewhere / "d.jpg", "jpeg"),
        "linked/e.png": picture(elsewhere / "more" / "e.png", "png"),
    }
    (own / "link").symlink_to(elsewhere / "d.jpg")
    (own / "linked").symlink_to(elsewhere / "more")
    (own / "été" / "circle").symlink_to(own)
    (own / "gone").symlink_to("nowhere")
    (own / "page.jpg").write_text("<html>Not here</html>")
    (own / "empty.png").touch()
    os.mkfifo(own / "pipe")
    picture(own / ".thumbnails" / "a.jpg", "jpeg")
    picture(own / "été" / "._a.jpg", "jpeg")
    picture(elsewhere / "val" / "f.jpg", "jpeg")
    write_params({**FOLDER, "sources.folder.val": str(elsewhere / "val")})
    main()
    train, val = splits()
    assert train == {name.encode(): content for name, content in wanted.items()}
    assert list(val) == [b"f.jpg"]
    assert [decode(content).pixels.shape for content in train.values()] == [(50, 60, 3)] * 6
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("fetch:")]
    assert said == ["fetch: train = own: 6 pictures; passed over: 5 that are no JPEG, PNG or WebP, 2 hidden"]


def test_more_files_move_no_picture_between_training_and_held_out(write_params, tmp_path, monkeypatch):
    for index in range(60):
        picture(tmp_path / "own" / f"{index % 3}" / f"{index}.png", "png", index)
    write_params({**FOLDER, "sources.folder.val_fraction": 0.3})
    main()
    before = splits()
    assert 8 <= len(before[1]) <= 28
    assert sorted([*before[0], *before[1]]) == sorted(f"{index % 3}/{index}.png".encode() for index in range(60))
    data = data_mdb("photos", "train").read_bytes()
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: contextlib.nullcontext(list(scandir(folder))[::-1]))
    main()
    assert data_mdb("photos", "train").read_bytes() == data, "the order in which the system lists files is no matter"
    for index in range(200):
        picture(tmp_path / "own" / f"{index % 3}" / f"more {index}.png", "png", index)
    main()
    after = splits()
    assert all(old.items() < new.items() for old, new in zip(before, after, strict=True))


def test_a_category_for_each_folder(write_params, tmp_path):
    for split, offset in (("train", 0), ("val", 100)):
        for index, category in enumerate(["cat", "dog", "dog"]):
            picture(tmp_path / "own" / split / category / f"{index}.jpg", "jpeg", index + offset)
    paths = {f"sources.folder.{split}": f"own/{split}/{{category}}" for split in ("train", "val")}
    write_params({**FOLDER, "sources.folder.categories": ["dog", "cat"], **paths})
    main()
    assert [list(split) for split in splits("dog")] == [[b"1.jpg", b"2.jpg"]] * 2
    assert [list(split) for split in splits("cat")] == [[b"0.jpg"]] * 2
    write_params({**FOLDER, "sources.folder.categories": ["dog", "cat"]})
    with pytest.raises(ConfigError, match=r"train = own: one path for 2 categories; put {category} in it"):
        main()


def test_a_path_too_long_for_a_key_is_its_hash_and_its_end(write_params, tmp_path):
    names = ["/".join([letter * 200] * 3) + "/a.png" for letter in "xy"]
    for name in names:
        picture(tmp_path / "own" / name, "png")
    picture(tmp_path / "val" / "a.png", "png")
    write_params({**FOLDER, "sources.folder.val": "val"})
    main()
    keys = list(splits()[0])
    assert [len(key) for key in keys] == [320, 320]
    assert {key[-6:] for key in keys} == {b"/a.png"}


def test_a_folder_without_pictures_is_named(write_params, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("no picture")
    (tmp_path / "file").write_text("no folder")
    picture(tmp_path / "one" / "a.jpg", "jpeg")
    picture(tmp_path / "one" / "val" / "b.jpg", "jpeg")
    for changes, message in (
        ({"train": "missing"}, r"train = missing: no such folder \(looked for /.*/missing\)"),
        ({"train": "file"}, r"train = file: not a folder"),
        ({"train": "empty"}, r"train = empty: no picture among 0 files"),
        ({"train": "text", "val": "one"}, r"train = text: no picture among 1 files; passed over: 1 that are no JPEG"),
        ({"train": "one", "val_fraction": 1e-9}, r"val \(1e-09 of one, chosen by name\): none of 2 files falls to it"),
        ({"train": "one", "val": "one/val"}, r"train = one, val = one/val: one lies in the other"),
        ({"train": "one", "val": "text"}, r"val = text: no picture"),
        ({"train": "{category}", "categories": ["one", "two"], "val_fraction": 0.5}, r"two: no such folder"),
    ):
        shutil.rmtree(LMDB, ignore_errors=True)
        write_params({"data": "folder", **{f"sources.folder.{key}": value for key, value in changes.items()}})
        with pytest.raises(StageError, match=message) as caught:
            main()
        assert "\n" not in str(caught.value)
        assert not any(path.name.startswith(".") for path in LMDB.rglob("*"))
    write_params({**FOLDER, "sources.folder.val_fraction": 0.0})
    with pytest.raises(ConfigError, match=r"sources\.folder\.val_fraction = 0\.0: .* greater than 0"):
        main()


class Lsun:
    """A server with small zips in LSUN's layout, and the table that says so."""

    def __init__(self, server, folder):
        self.server, self.folder, self.rows = server, folder, []
        self.changes = {"data": "lsun", "sources.lsun.urls": [f"{server.url}/lsun/scenes"]}
        for split, count in (("train", 20), ("val", 3)):
            self.add("church_outdoor", split, count)

    def add(self, category, split, count):
        name = f"{category}_{split}_lmdb"
        write_lmdb(self.folder / "served.mdb", records(count))
        content = lsun_zip(
            self.folder / "served.zip", [f"{name}/data.mdb"], (self.folder / "served.mdb").read_bytes()
        ).read_bytes()
        self.server.files[f"/lsun/scenes/{name}.zip"] = content
        self.rows.append([category, split, count, len(content), hashlib.sha256(content).hexdigest()])
        self.publish()

    def publish(self, **changes):
        """Write the table, with `changes` to its first row."""
        table = pd.DataFrame(self.rows, columns=["category", "split", "records", "bytes", "sha256"])
        for column, value in changes.items():
            table.loc[0, column] = value
        table.to_csv(self.folder / "lsun.csv", index=False)


@pytest.fixture
def lsun(write_params, tmp_path, server):
    lsun = Lsun(server, tmp_path)
    write_params(lsun.changes)
    return lsun


TRAIN = "/lsun/scenes/church_outdoor_train_lmdb.zip"


def test_lsun_goes_on_where_the_connection_was_lost(lsun, server, capfd):
    server.faults[TRAIN] = [Fault(drop=200_000)]
    main()
    assert [count_records(data_mdb("church_outdoor", split)) for split in ("train", "val")] == [20, 3]
    assert dict(read_lmdb(data_mdb("church_outdoor", "train"))) == dict(records(20))
    assert server.asked[1] == (TRAIN, "bytes=200000-")
    assert "is kept" in capfd.readouterr().err
    asked = len(server.asked)
    main()
    assert len(server.asked) == asked, "what is there and right isn't asked for again"


def test_lsun_takes_several_categories_from_the_first_mirror_that_has_them(lsun, server, write_params, capfd):
    lsun.add("tower", "train", 4)
    lsun.rows.pop()  # no digest is published
    lsun.add("tower", "val", 2)
    lsun.rows.pop()
    lsun.publish()
    mirrors = [f"{server.url}/gone", f"{server.url}/lsun/scenes"]
    changes = {"sources.lsun.categories": ["tower", "church_outdoor"], "sources.lsun.urls": mirrors}
    write_params({**lsun.changes, **changes})
    main()
    assert count_records(data_mdb("tower", "train")) == 4
    assert count_records(data_mdb("church_outdoor", "val")) == 3
    errors = capfd.readouterr().err
    assert re.search(r"tower_train_lmdb\.zip: \d+ bytes, sha256 [0-9a-f]{64}, checked against nothing", errors)
    assert Path(".cache/download/lsun/tower_train_lmdb.zip.sha256").exists()


def test_lsun_refuses_another_file_until_it_is_accepted(lsun, server):
    digest = lsun.rows[0][-1]
    lsun.publish(sha256="0" * 64)
    message = (
        rf"sha256 is {digest}, not 0+ \(stages/lsun\.csv, church_outdoor train\).* put its sha256 into stages/lsun\.csv"
    )
    with pytest.raises(StageError, match=message):
        main()
    assert not Path("data").exists()
    lsun.publish(bytes=5)
    with pytest.raises(StageError, match=r"the server's file has \d+ bytes, not 5"):
        main()
    lsun.publish(records=21)
    with pytest.raises(StageError, match=r"20 records, not 21 \(stages/lsun\.csv, church_outdoor train\)"):
        main()
    lsun.publish()
    asked = len(server.asked)
    main()
    assert [path for path, _ in server.asked[asked:]] == [TRAIN.replace("train", "val")]


def test_what_is_held_to_nothing_and_is_no_zip_is_fetched_anew(lsun, server, write_params):
    lsun.add("castle", "train", 4)
    lsun.add("castle", "val", 2)
    del lsun.rows[2:]
    lsun.publish()
    write_params({**lsun.changes, "sources.lsun.categories": ["castle"]})
    path = "/lsun/scenes/castle_train_lmdb.zip"
    for wrong in (Fault(content=b"<html>Not here</html>"), Fault(content=server.files[path][:-5000])):
        server.faults[path] = [wrong]
        with pytest.raises(StageError, match=r"a damaged zip, or none .*it was removed"):
            main()
        assert not Path("data").exists()
        assert list(Path(".cache/download/lsun").glob("*train*")) == []
    main()
    assert count_records(data_mdb("castle", "train")) == 4


def test_a_full_disk_costs_no_download(lsun, write_params, monkeypatch):
    lsun.add("castle", "train", 4)
    lsun.rows.pop()
    lsun.publish()
    write_params({**lsun.changes, "sources.lsun.categories": ["castle"]})

    def full(folder, needed):
        raise StageError(f"no disk space in {folder}")

    monkeypatch.setattr(_archive, "require_space", full)
    with pytest.raises(StageError, match=r"^no disk space in"):
        main()
    assert Path(".cache/download/lsun/castle_train_lmdb.zip").exists()


@pytest.mark.parametrize(
    ("old", "new"), [("20,", "many,"), ("records", "images"), (r"(?s)[0-9a-f]{64}$", "0"), (r"(?s),[0-9a-f]{64}$", "")]
)
def test_a_wrong_table_of_lsuns_zips_is_named(lsun, old, new):
    PUBLISHED.write_text(re.sub(old, new, PUBLISHED.read_text().strip(), count=1))
    with pytest.raises(StageError, match=r"lsun\.csv: line [23]: not category, split, records, bytes and sha256"):
        main()


def unzipped(archive, target):
    try:
        return unzip(archive, target, archive.name)
    except StageError as error:
        return str(error)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_zip_with_wrong_bytes_is_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("zip")
    write_lmdb(folder / "data.mdb", [(b"key", b"value" * 100)])
    content = bytearray(lsun_zip(folder / "a.zip", ["a/data.mdb"], (folder / "data.mdb").read_bytes()).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    (folder / "a.zip").write_bytes(content)
    result = unzipped(folder / "a.zip", folder / "out" / "data.mdb")
    if result != 1:
        assert re.fullmatch(r"a\.zip: .+", result)
        assert list((folder / "out").glob("*")) == []


def test_lsun_without_the_file_or_the_lock(lsun, write_params):
    write_params({**lsun.changes, "sources.lsun.categories": ["castle"]})
    with pytest.raises(StageError, match=r"castle_train_lmdb\.zip: the server answers 404"):
        main()
    write_params(lsun.changes)
    with Path(".cache/download/lsun/church_outdoor_train_lmdb.zip.part").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StageError, match="another process is downloading"):
            main()
    assert not Path("data").exists()


def test_no_network_is_one_line_and_a_failed_command(lsun, server, tmp_path):
    server.shutdown()
    server.server_close()
    command = "import sys; from stages import _archive, _download, fetch; _download.SECOND = 0; fetch.run(fetch.main)"
    done = subprocess.run(
        [sys.executable, "-c", command, *map(str, (PUBLISHED, LMDB, FACTORS_CSV))],
        cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r": error: http://.*127.*: .*Connection refused.*\n$", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(lsun, server, kill_and_repeat):
    """Download, unpacking and all; a download that is whole is not asked for again."""
    lsun.rows.clear()
    lsun.add("church_outdoor", "train", 400)
    lsun.add("church_outdoor", "val", 100)
    server.pace = (1 << 16, 0.001)
    outputs = [*(data_mdb("church_outdoor", split) for split in ("train", "val")), FACTORS_CSV]
    archives = Path(".cache/download/lsun")
    forget = functools.partial(shutil.rmtree, archives, ignore_errors=True)
    kill_and_repeat(fetch.main, (PUBLISHED, LMDB, FACTORS_CSV), outputs, forget)
    assert {path.suffix for path in archives.iterdir()} == {".zip"}
