"""Folders of pictures."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from fetching import LMDB, PASSED_OVER, data_mdb, main
from PIL import Image

from ddpm.config import ConfigError
from ddpm.pictures.codec import decode
from stages.kit.errors import StageError
from stages.shared.lmdbs import read_lmdb


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
    (own / "itself").symlink_to("itself")
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
    assert said == [
        "fetch: train = own: 6 pictures; passed over: 2 hidden (.thumbnails); 1 empty (empty.png); "
        "4 no file (gone); 1 no picture in a known format (page.jpg)"
    ]
    table = [line.split(",", 1)[1] for line in PASSED_OVER.read_text().splitlines()]
    assert table == [
        "file,reason",
        ".thumbnails,hidden",
        "empty.png,empty",
        "gone,no file",
        "itself,no file",
        "page.jpg,no picture in a known format",
        "pipe,no file",
        "%C3%A9t%C3%A9/._a.jpg,hidden",
        "%C3%A9t%C3%A9/circle,no file",
    ]


def test_a_folder_gives_what_decode_opens_and_nothing_that_systems_made(write_params, tmp_path):
    own = tmp_path / "own"
    wanted = [f"a.{encoding}" for encoding in ("avif", "bmp", "gif", "heif", "jpeg", "png", "ppm", "tiff", "webp")]
    for name in wanted:
        picture(own / name, name.partition(".")[2])
    picture(own / "recycled" / "x.png", "png")  # a name that people give
    for folder in ("@eaDir/a.jpg", "#recycle", "$RECYCLE.BIN/S-1-5", "__MACOSX", "lost+found", "@Recycle"):
        picture(own / "deep" / folder / "SYNOPHOTO_THUMB_XL.jpg", "jpeg")
    picture(own / "b.NEF", "tiff")
    (own / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    picture(tmp_path / "val" / "f.jpg", "jpeg")
    write_params({**FOLDER, "sources.folder.val": "val"})
    main()
    train = splits()[0]
    assert sorted(train) == sorted([name.encode() for name in wanted] + [b"recycled/x.png"])
    assert {decode(content).pixels.shape for content in train.values()} == {(50, 60, 3)}
    reasons = dict(line.split(",")[1:] for line in PASSED_OVER.read_text().splitlines()[1:])
    assert reasons.pop("b.NEF").startswith("raw camera file")
    assert reasons.pop("Thumbs.db") == "no picture in a known format"
    assert set(reasons.values()) == {"made by a NAS or desktop system"}
    assert len(reasons) == 6


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
        ({"train": "missing"}, r"train = missing: no such file or folder \(looked for /.*/missing\)"),
        ({"train": "file"}, r"train = file: not a folder"),
        ({"train": "empty"}, r"train = empty: an empty folder \(/.*/empty\)"),
        (
            {"train": "text", "val": "one"},
            r"train = text: no picture among 1 files; passed over: 1 no picture in a known format",
        ),
        ({"train": "one/val"}, r"sources\.folder: no category has two images, so none is held out; name others in val"),
        ({"train": "one", "val": "one/val"}, r"train = one, val = one/val: one lies in the other"),
        ({"train": "one", "val": "text"}, r"val = text: no picture"),
        ({"train": "{category}", "categories": ["one", "two"], "val_fraction": 0.5}, r"two: no such file or folder"),
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


@pytest.mark.parametrize(("given", "lies"), [("~/pictures", "home/pictures"), ("~pictures", "~pictures")])
def test_a_path_may_begin_at_home(write_params, tmp_path, monkeypatch, given, lies):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    picture(tmp_path / lies / "a.png", "png")
    picture(tmp_path / "held out" / "b.png", "png")
    write_params({**FOLDER, "sources.folder.train": given, "sources.folder.val": "held out"})
    main()
    assert [list(split) for split in splits()] == [[b"a.png"], [b"b.png"]]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file whose reading fails")
def test_what_a_disk_can_not_read_is_named(write_params, tmp_path):
    picture(tmp_path / "own" / "a.jpg", "jpeg")
    (tmp_path / "own" / "b.jpg").symlink_to("/proc/self/mem")  # whose first page fails as a bad sector does
    write_params(FOLDER)
    with pytest.raises(OSError, match=r"Input/output error: .*own/b\.jpg"):
        main()


def test_an_empty_place_is_not_the_checkout(write_params):
    write_params({**FOLDER, "sources.folder.train": ""})
    with pytest.raises(ConfigError, match=r'sources\.folder\.train = "": string should have at least 1'):
        main()
