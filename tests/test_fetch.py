import fcntl
import hashlib
import random
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pandas as pd
import pytest
from lsun_server import lsun_zip

from ddpm.config import ConfigError
from ddpm.images import decode, encoding_of
from ddpm.scenes import FACTORS
from stages import fetch
from stages._lmdb import count_records, read_lmdb, write_lmdb
from stages._main import StageError

OUTS = [Path("data/train.mdb"), Path("data/val.mdb"), Path("data/factors.csv")]
SMALL = {"data": "smoke", "sources.smoke.train_images": 6, "sources.smoke.val_images": 3}


def records(count, seed=0):
    draw = random.Random(seed)
    return [(b"%040x" % draw.getrandbits(160), draw.randbytes(20_000)) for _ in range(count)]


@pytest.fixture
def data_mdb(tmp_path):
    write_lmdb(tmp_path / "given" / "data.mdb", records(5))
    return tmp_path / "given" / "data.mdb"


def test_generated_images_are_lsun_records_and_depend_on_the_seed_alone(write_params):
    write_params(SMALL)
    fetch.main(*OUTS)
    first = [path.read_bytes() for path in OUTS]
    found = dict(read_lmdb(OUTS[0]))
    assert len(found) == 6
    assert all(key.decode() == hashlib.sha1(value).hexdigest() for key, value in found.items())
    assert {encoding_of(value) for value in found.values()} == {"jpeg", "webp"}
    assert {min(decode(value).size) for value in found.values()} == {256}
    table = pd.read_csv(OUTS[2])
    assert list(table.columns) == ["split", "key", *FACTORS]
    assert list(table["split"]) == ["train"] * 6 + ["val"] * 3
    assert set(table["key"]) == {key.decode() for path in OUTS[:2] for key, _ in read_lmdb(path)}
    fetch.main(*OUTS)
    assert [path.read_bytes() for path in OUTS] == first
    write_params({**SMALL, "sources.smoke.seed": 1})
    fetch.main(*OUTS)
    assert not set(found) & set(dict(read_lmdb(OUTS[0])))
    assert sorted(path.name for path in OUTS[0].parent.iterdir()) == ["factors.csv", "train.mdb", "val.mdb"]


def test_unknown_kinds_sources_and_keys_are_named(write_params):
    write_params({"data": "nope"})
    with pytest.raises(ConfigError, match=r"sources\.nope: not there; sources has .*smoke"):
        fetch.main(*OUTS)
    write_params({**SMALL, "sources.smoke.kind": "web"})
    with pytest.raises(ConfigError, match=r"sources\.smoke\.kind = 'web': must be one of generate, path, lsun"):
        fetch.main(*OUTS)
    write_params({**SMALL, "sources.smoke.images": 3})
    with pytest.raises(ConfigError, match=r"sources\.smoke\.images: no such parameter"):
        fetch.main(*OUTS)
    write_params({"data": "lsun", "sources.lsun.train.sha256": "123"})
    with pytest.raises(ConfigError, match=r"sources\.lsun\.train\.sha256 = \"123\""):
        fetch.main(*OUTS)


@pytest.mark.parametrize("form", ["given", "given/data.mdb", "church.zip"])
def test_path_takes_a_folder_a_file_or_a_zip(write_params, tmp_path, data_mdb, form, monkeypatch):
    lsun_zip(tmp_path / "church.zip", ["church_lmdb/data.mdb", "church_lmdb/lock.mdb"], data_mdb.read_bytes())
    write_params({"data": "path", "sources.path.train": form, "sources.path.val": str(tmp_path / form)})
    (tmp_path / "elsewhere").mkdir()
    shutil.copy("params.yaml", "elsewhere")  # a run of `dvc exp run --temp`
    monkeypatch.chdir("elsewhere")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    fetch.main(*OUTS)
    assert OUTS[0].read_bytes() == OUTS[1].read_bytes() == data_mdb.read_bytes()
    assert OUTS[2].read_text() == "split,key\n"


def test_path_says_what_is_wrong(write_params, tmp_path, data_mdb):
    content = data_mdb.read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no LMDB\n" * 1000)
    (tmp_path / "short").write_bytes(content[: len(content) // 2])
    write_lmdb(tmp_path / "empty" / "data.mdb", [])
    lsun_zip(tmp_path / "none.zip", ["church_lmdb/images.mdb"], content)
    lsun_zip(tmp_path / "two.zip", ["a/data.mdb", "b/data.mdb"], content)
    lsun_zip(tmp_path / "text.zip", ["church_lmdb/data.mdb"], b"no LMDB\n" * 1000)
    damaged = bytearray(lsun_zip(tmp_path / "damaged.zip", ["church_lmdb/data.mdb"], content).read_bytes())
    (tmp_path / "short.zip").write_bytes(damaged[: len(damaged) // 2])
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "damaged.zip").write_bytes(damaged)
    for given, reason in {
        "missing": "no such file or folder",
        "folder": "a folder without data.mdb",
        "text": "not an LMDB",
        "short": "cut short",
        "empty": "an empty LMDB",
        "none.zip": "a zip with 0 files data.mdb",
        "two.zip": "a zip with 2 files data.mdb",
        "text.zip": "not an LMDB",
        "damaged.zip": "a damaged zip",
        "short.zip": "a damaged zip",
    }.items():
        write_params({"data": "path", "sources.path.train": given})
        with pytest.raises(StageError, match=f"train = {re.escape(given)}: {reason}") as caught:
            fetch.main(*OUTS)
        assert "\n" not in str(caught.value)
        assert list(Path("data").glob("*")) == []


@pytest.fixture
def lsun(write_params, tmp_path, server):
    """Serve two small zips in LSUN's layout and write parameters that hold the downloads to them."""
    changes = {"data": "lsun", "sources.lsun.url": f"{server.url}/lsun/scenes"}
    for split, count in (("train", 20), ("val", 3)):
        name = f"church_outdoor_{split}_lmdb"
        write_lmdb(tmp_path / "served.mdb", records(count))
        archive = lsun_zip(tmp_path / "served.zip", [f"{name}/data.mdb"], (tmp_path / "served.mdb").read_bytes())
        content = archive.read_bytes()
        server.files[f"/lsun/scenes/{name}.zip"] = content
        changes[f"sources.lsun.{split}.bytes"] = len(content)
        changes[f"sources.lsun.{split}.sha256"] = hashlib.sha256(content).hexdigest()
    write_params(changes)
    return changes


def test_lsun_goes_on_where_the_connection_was_lost(lsun, server, capfd):
    train = "/lsun/scenes/church_outdoor_train_lmdb.zip"
    server.drops[train] = 200_000
    with pytest.raises(StageError, match=r"IncompleteRead.*; \d+ bytes are kept, the same command goes on from there"):
        fetch.main(*OUTS)
    assert not Path("data").exists()
    fetch.main(*OUTS)
    assert [count_records(path) for path in OUTS[:2]] == [20, 3]
    assert dict(read_lmdb(OUTS[0])) == dict(records(20))
    kept = int(re.fullmatch(r"bytes=(\d+)-", server.asked[1][1])[1])
    assert 100_000 < kept <= 200_000
    assert "is kept" in capfd.readouterr().err
    asked = len(server.asked)
    fetch.main(*OUTS)
    assert len(server.asked) == asked, "what is there and right isn't asked for again"


def test_lsun_refuses_another_file(lsun, server, write_params):
    digest = lsun["sources.lsun.train.sha256"]
    write_params({**lsun, "sources.lsun.train.sha256": "0" * 64})
    with pytest.raises(StageError, match=rf"sha256 is {digest}, not 0+; the download was removed"):
        fetch.main(*OUTS)
    write_params({**lsun, "sources.lsun.train.bytes": 5})
    with pytest.raises(StageError, match=r"the server's file has \d+ bytes, not 5"):
        fetch.main(*OUTS)
    assert not Path("data").exists()
    assert [path.stat().st_size for path in Path(".cache/download").rglob("*.zip*")] in ([], [0])


def test_lsun_without_a_digest_prints_it(lsun, write_params, capfd):
    write_params({**lsun, "sources.lsun.val.bytes": None, "sources.lsun.val.sha256": None})
    fetch.main(*OUTS)
    size, digest = lsun["sources.lsun.val.bytes"], lsun["sources.lsun.val.sha256"]
    assert f"{size} bytes, sha256 {digest} (not checked)" in capfd.readouterr().err


def test_lsun_without_the_file_the_space_or_the_lock(lsun, server, write_params, monkeypatch):
    write_params({**lsun, "sources.lsun.category": "castle"})
    with pytest.raises(StageError, match=r"castle_train_lmdb\.zip: the server answers 404"):
        fetch.main(*OUTS)
    write_params(lsun)
    folder = next(Path(".cache/download").rglob("scenes"))
    with (folder / "church_outdoor_train_lmdb.zip.part").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StageError, match="another process is downloading"):
            fetch.main(*OUTS)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(StageError, match=r"no disk space in .*: 0\.00 GB needed"):
        fetch.main(*OUTS)
    assert not Path("data").exists()


def test_no_network_is_one_line_and_a_failed_command(lsun, server, write_params, tmp_path):
    url = server.url
    server.shutdown()
    server.server_close()
    write_params({**lsun, "sources.lsun.url": url})
    command = [sys.executable, "-m", "stages.fetch", *map(str, OUTS)]
    repository = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": repository}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(r"fetch: error: http://127.*: .*Connection refused\n", done.stderr)
