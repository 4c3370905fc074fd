"""Zips in LSUN's layout."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from lsun_server import lsun_zip

from stages.fetch.archive import unzip
from stages.kit.errors import StageError
from stages.shared.lmdbs import write_lmdb


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
