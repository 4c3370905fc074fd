import random

import lmdb
import pytest

from stages._lmdb import count_records, read_lmdb, write_lmdb
from stages._main import StageError


def records(count=300):
    draw = random.Random(0)
    return [(b"%040x" % draw.getrandbits(160), draw.randbytes(draw.randint(0, 9000))) for _ in range(count)]


def test_what_is_written_is_read_in_key_order(tmp_path):
    file = tmp_path / "church_lmdb" / "data.mdb"
    write_lmdb(file, iter(records()))
    assert list(read_lmdb(file)) == sorted(records())
    assert count_records(file) == 300
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
