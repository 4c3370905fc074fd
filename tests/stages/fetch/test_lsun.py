"""LSUN's zips, downloaded."""

import functools
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fetching import FACTORS_CSV, OPTIONS, PUBLISHED, data_mdb, main, records
from killing import kill_and_repeat
from lsun_server import Fault, lsun_zip
from support import REPOSITORY

from stages.fetch import archive as _archive
from stages.fetch import stage as fetch
from stages.kit.errors import StageError, without_credentials
from stages.shared.lmdbs import count_records, read_lmdb, write_lmdb


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
    pin = r"stages/fetch/lsun\.csv, church_outdoor train"
    message = rf"sha256 is {digest}, not 0+ \({pin}\).* put its sha256 into {pin}"
    with pytest.raises(StageError, match=message):
        main()
    assert not Path("data").exists()
    lsun.publish(bytes=5)
    with pytest.raises(StageError, match=r"the server's file has \d+ bytes, not 5"):
        main()
    lsun.publish(records=21)
    with pytest.raises(StageError, match=r"20 records, not 21 \(stages/fetch/lsun\.csv, church_outdoor train\)"):
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


def test_a_category_that_is_not_there_is_named(lsun, write_params):
    write_params({**lsun.changes, "sources.lsun.categories": ["castle"]})
    with pytest.raises(StageError, match=r"castle_train_lmdb\.zip: the server answers 404"):
        main()
    assert not Path("data").exists()


def test_no_network_is_one_line_and_a_failed_command(lsun, server, tmp_path):
    server.shutdown()
    server.server_close()
    code = (
        "from stages.kit import command; from stages.fetch import stage; from stages.shared import download; "
        "download.SECOND = 0; command.run('stages.fetch', stage.main)"
    )
    words = [word for name, path in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", str(path))]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"(^|\n)fetch: error: http://.*127.*: .*Connection refused.*\n$", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://user:s3cret@localhost/lsun", "urls has a password; Git, dvc.lock and the page would show it"),
        ("http://user:s3cret/2@localhost", "urls has a password"),
        ("http://s3cret@localhost:8000/", "urls has a password"),
        ("ftp://user:s3cret@localhost/", "string should match pattern '^https?://'"),
    ],
)
def test_a_password_in_an_address_is_refused_and_never_shown(lsun, write_params, tmp_path, url, message):
    write_params({**lsun.changes, "sources.lsun.urls": [url]})
    words = [word for name, path in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", str(path))]
    done = subprocess.run(
        [sys.executable, "-m", "stages.fetch", *words],
        cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(r"fetch: error: params\.yaml: sources\.lsun.*://\*\*\*@localhost.*\n", done.stderr)
    assert message in done.stderr
    assert "s3" not in done.stderr


def test_an_address_without_a_password_is_taken_as_it_is():
    for url in ("http://host:8000/a@b", "https://host/a@b:c", "see a@b"):
        assert without_credentials(url) == url


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(lsun, server, processes):
    """Download, unpacking and all; a download that is whole is not asked for again."""
    lsun.rows.clear()
    lsun.add("church_outdoor", "train", 400)
    lsun.add("church_outdoor", "val", 100)
    server.pace = (1 << 16, 0.001)
    outputs = [*(data_mdb("church_outdoor", split) for split in ("train", "val")), FACTORS_CSV]
    archives = Path(".cache/download/lsun")
    forget = functools.partial(shutil.rmtree, archives, ignore_errors=True)
    kill_and_repeat(processes, fetch.main, OPTIONS, outputs, forget)
    assert {path.suffix for path in archives.iterdir()} == {".zip"}
