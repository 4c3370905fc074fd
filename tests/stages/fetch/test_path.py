"""LMDBs and zips on this machine."""

import re
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from fetching import FACTORS_CSV, PUBLISHED, data_mdb, main, records
from lsun_server import lsun_zip

from stages.kit.errors import StageError
from stages.shared.lmdbs import count_records, write_lmdb


@pytest.fixture
def mdb(tmp_path):
    write_lmdb(tmp_path / "given" / "data.mdb", records(5))
    return tmp_path / "given" / "data.mdb"


@pytest.mark.parametrize("form", ["given", "given/data.mdb", "church.zip"])
def test_path_takes_a_folder_a_file_or_a_zip(write_params, tmp_path, mdb, form, monkeypatch):
    lsun_zip(tmp_path / "church.zip", ["church_lmdb/data.mdb", "church_lmdb/lock.mdb"], mdb.read_bytes())
    shutil.copytree(tmp_path, tmp_path / "val")
    write_params({"data": "path", "sources.path.train": form, "sources.path.val": str(tmp_path / "val" / form)})
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
    write_lmdb(tmp_path / "zeros.mdb", [(b"key", bytes(10**8))])
    lsun_zip(tmp_path / "bomb.zip", ["church_lmdb/data.mdb"], (tmp_path / "zeros.mdb").read_bytes())
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        link = zipfile.ZipInfo("church_lmdb/data.mdb")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    damaged = bytearray(lsun_zip(tmp_path / "damaged.zip", ["church_lmdb/data.mdb"], content).read_bytes())
    (tmp_path / "short.zip").write_bytes(damaged[: len(damaged) // 2])
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "damaged.zip").write_bytes(damaged)
    (tmp_path / "loop").symlink_to("loop")
    for name, reason in {
        "missing": "no such file or folder",
        "loop": "no such file or folder",
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
        "bomb.zip": "refused, its data.mdb grows to [0-9]+ bytes, more than [0-9]+",
        "link.zip": "refused, its member 'church_lmdb/data.mdb' is a symbolic link",
        "damaged.zip": "a damaged zip",
        "short.zip": "a damaged zip",
    }.items():
        write_params({"data": "path", "sources.path.train": name, "sources.path.val": None})
        with pytest.raises(StageError, match=f"train = {re.escape(name)}: {reason}") as caught:
            main()
        assert "\n" not in str(caught.value)
        assert list(Path("data").rglob("*.*")) == []
