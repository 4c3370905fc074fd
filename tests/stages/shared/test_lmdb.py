import random
import subprocess
import sys

import lmdb
import pytest
from support import REPOSITORY

from stages.kit.errors import StageError
from stages.shared import lmdbs
from stages.shared.lmdbs import count_records, key_bytes, key_text, read_lmdb, split_lmdb, write_lmdb


def records(count=300):
    draw = random.Random(0)
    return [(b"%040x" % draw.getrandbits(160), draw.randbytes(draw.randint(0, 9000))) for _ in range(count)]


def test_what_is_written_is_read_in_key_order(tmp_path):
    file = tmp_path / "church_lmdb" / "data.mdb"
    write_lmdb(file, iter(records()))
    assert list(read_lmdb(file)) == sorted(records())
    assert count_records(file) == 300
    assert [path.name for path in file.parent.iterdir()] == ["data.mdb"]
    killed = file.with_name(".data.mdb.scratch.part")
    killed.mkdir()
    (killed / "data.mdb").write_bytes(b"of a run that was killed")
    write_lmdb(file, iter(records()))
    assert [path.name for path in file.parent.iterdir()] == ["data.mdb"]
    with lmdb.open(str(file.parent), readonly=True, lock=False) as environment:  # as torchvision's LSUN opens it
        assert environment.stat()["entries"] == 300


def test_the_same_records_give_the_same_compact_bytes(tmp_path):
    write_lmdb(tmp_path / "a.mdb", records())
    write_lmdb(tmp_path / "b.mdb", records())
    data = (tmp_path / "a.mdb").read_bytes()
    assert data == (tmp_path / "b.mdb").read_bytes()
    pages = sum(-(-(16 + len(value)) // 4096) for _, value in records())  # LMDB's page header has 16 bytes
    assert len(data) < 1.2 * pages * 4096


def test_the_map_grows_with_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdbs, "MAP_SIZE", 1 << 16)
    write_lmdb(tmp_path / "data.mdb", records())
    assert list(read_lmdb(tmp_path / "data.mdb")) == sorted(records())


def test_little_address_space_is_enough_for_little_and_one_line_for_more(tmp_path):
    """As `ulimit -v` sets it on a cluster."""
    large = [(b"%d" % number, bytes(1 << 20)) for number in range(300)]
    write_lmdb(tmp_path / "large.mdb", large)
    code = f"""
import resource
from pathlib import Path
from stages.kit.errors import StageError
from stages.shared.lmdbs import count_records, write_lmdb
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 28) + (1 << 24),) * 2)
folder = Path({str(tmp_path)!r})
write_lmdb(folder / "little.mdb", [(b"key", b"value")])
print(count_records(folder / "little.mdb"))
for work in (lambda: count_records(folder / "large.mdb"),
             lambda: write_lmdb(folder / "other.mdb", ((b"%d" % i, bytes(1 << 20)) for i in range(300)))):
    try:
        work()
    except StageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    count, reading, writing = done.stdout.splitlines()
    assert count == "1"
    assert reading.startswith(f"{tmp_path}/large.mdb: too little address space to map it whole; `ulimit -v unlimited`")
    assert writing.startswith(f"{tmp_path}/other.mdb: too little address space")
    assert not (tmp_path / "other.mdb").exists()


def test_an_error_between_records_leaves_nothing(tmp_path):
    def failing():
        yield from records(3)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_lmdb(tmp_path / "data.mdb", failing())
    with pytest.raises(StageError, match="two records have the key"):
        write_lmdb(tmp_path / "data.mdb", records(3) + records(1))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_lmdb_is_named(tmp_path):
    file = tmp_path / "data.mdb"
    with pytest.raises(StageError, match="no such file"):
        count_records(file)
    for content in (b"", b"not an LMDB " * 1000):
        file.write_bytes(content)
        with pytest.raises(StageError, match=r"data\.mdb: not an LMDB"):
            next(read_lmdb(file))
    write_lmdb(file, [])
    with pytest.raises(StageError, match="an empty LMDB"):
        count_records(file)


@pytest.mark.parametrize("kept", [0.9, 0.1])
def test_a_file_cut_short_is_refused_before_it_is_mapped(tmp_path, kept):
    file = tmp_path / "data.mdb"
    write_lmdb(file, records())
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(StageError, match=f"cut short, .* of {len(data)} bytes"):
        list(read_lmdb(file))


KEYS = {
    "LSUN's": lambda draw, number: b"%040x" % draw.getrandbits(160),
    "counted": lambda draw, number: b"image_%06d.jpg" % number,
    "bytes": lambda draw, number: draw.randbytes(draw.randint(1, 30)) + b"%d" % number,
    "alike": lambda draw, number: b"a" * 100 + b"%d" % number,
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_runs_cover_every_record_once(tmp_path, kind, count):
    draw = random.Random(0)
    file = tmp_path / "data.mdb"
    write_lmdb(file, [(KEYS[kind](draw, number), b"value") for number in range(count)])
    firsts = split_lmdb(file, 20)
    runs = [list(read_lmdb(file, *ends)) for ends in zip(firsts, [*firsts[1:], None], strict=True)]
    assert [record for run in runs for record in run] == list(read_lmdb(file))
    if count == 1000:
        assert len(runs) >= 19
        assert max(len(run) for run in runs) < 100


def test_runs_are_found_without_reading_the_values(tmp_path):
    file = tmp_path / "data.mdb"
    write_lmdb(file, ((b"%040x" % random.Random(number).getrandbits(160), bytes(200_000)) for number in range(2000)))
    code = f"""
from pathlib import Path
from stages.shared.lmdbs import split_lmdb
def mapped():
    words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(words["VmHWM"].split()[0])
before = mapped()
split_lmdb(Path({str(file)!r}), 10)
print(mapped() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150_000  # kB, of 400,000; 256 of the values are looked at


def test_any_key_is_given_back():
    for key in (b"0a", b"NA", b'a b,"c"\r\n', bytes(range(256)), "été".encode(), b"%41"):
        assert key_bytes(key_text(key)) == key
        assert key_text(key).isprintable()
