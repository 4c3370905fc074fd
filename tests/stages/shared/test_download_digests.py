"""What is downloaded is the file that was asked for: digests and their records."""

import re
import subprocess

import pytest
from downloading import CONTENT, DIGEST, OTHER, OTHER_DIGEST, PATH, PINNED, SIZE, failure, ranges
from lsun_server import Fault

from stages.shared import download as _download
from stages.shared.download import download


def test_another_digest_is_accepted_without_a_second_download(server, target, part):
    server.files[PATH] = OTHER
    message = failure([server.url + PATH], target, **PINNED)
    for words in (OTHER_DIGEST, DIGEST, "put its sha256 into pins.csv, church", str(part)):
        assert words in message
    asked = len(server.asked)
    download([server.url + PATH], target, **{**PINNED, "sha256": OTHER_DIGEST.upper()})
    assert target.read_bytes() == OTHER
    assert len(server.asked) == asked
    assert not part.exists()


@pytest.mark.parametrize("size", [SIZE, None])
def test_another_digest_that_is_not_accepted_starts_over(server, target, part, size):
    pinned = {**PINNED, "size": size}
    server.files[PATH] = OTHER
    failure([server.url + PATH], target, **pinned)
    server.faults[PATH] = [Fault(status=404)]
    assert OTHER_DIGEST not in failure([server.url + PATH], target, **pinned)
    assert part.read_bytes() == OTHER, "nothing is thrown away before the server sends something"
    server.files[PATH] = CONTENT
    server.faults[PATH] = [Fault(), Fault(drop=1000)] if size is None else [Fault(drop=1000)]
    download([server.url + PATH], target, **pinned)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[-2:] == [None, "bytes=1000-"]


def test_a_wrong_digest_goes_on_with_the_next_mirror_from_the_start(server, target, part):
    server.files |= {"/other": OTHER}
    download([server.url + "/other", server.url + PATH], target, **PINNED)
    assert server.asked == [("/other", None), (PATH, None)]
    assert target.read_bytes() == CONTENT
    target.unlink()
    message = failure([server.url + "/other", server.url + "/other"], target, **PINNED)
    assert len(server.asked) == 4
    assert message.count(OTHER_DIGEST) == 2
    assert part.read_bytes() == OTHER


def test_the_record_is_what_sha256sum_checks_and_holds_later_downloads(server, target, part, capfd):
    download([server.url + PATH], target)
    record = target.with_name("file.zip.sha256")
    assert re.search(rf"{SIZE} bytes, sha256 {DIGEST}, .*{record}", capfd.readouterr().err)
    check = ["sha256sum", "--check", "--strict", record.name]
    assert subprocess.run(check, cwd=target.parent, capture_output=True, check=True).stdout == b"file.zip: OK\n"
    subprocess.run(["sha256sum", "file.zip"], cwd=target.parent, stdout=record.open("wb"), check=True)
    target.unlink()
    download([server.url + PATH], target)
    target.unlink()
    server.files[PATH] = OTHER
    message = failure([server.url + PATH], target)
    for words in (OTHER_DIGEST, DIGEST, f"remove {record}"):
        assert words in message
    record.unlink()
    sent = len(server.sent)
    download([server.url + PATH], target)
    assert target.read_bytes() == OTHER
    assert record.read_text() == f"{OTHER_DIGEST}  file.zip\n"
    assert len(server.sent) == sent, "the server was asked whether there is more, and sent nothing"
    record.write_text("not a digest\n")
    target.unlink()
    assert str(record) in failure([server.url + PATH], target)


def test_a_file_put_there_by_hand_is_taken_and_a_wrong_one_replaced(server, target, part):
    target.write_bytes(OTHER)
    download([server.url + PATH], target)
    assert (server.asked, target.read_bytes()) == ([], OTHER)
    download([server.url + PATH], target, **PINNED)
    assert target.read_bytes() == CONTENT


def test_each_file_is_hashed_once_and_with_a_bar_where_that_takes_long(server, target, part, monkeypatch, capfd):
    hashed = []
    digest = _download._digest
    monkeypatch.setattr(_download, "_digest", lambda path: hashed.append(path.name) or digest(path))
    monkeypatch.setattr(_download, "LARGE", SIZE - 1)
    target.write_bytes(OTHER)
    part.write_bytes(OTHER)
    server.files["/other"] = OTHER
    download([server.url + "/other", server.url + PATH], target, **PINNED)
    assert hashed == ["file.zip", *["file.zip.part"] * 3], "the part held three files one after the other"
    assert "verifying file.zip.part: 100%" in capfd.readouterr().err
    hashed.clear()
    target.unlink()
    download([server.url + PATH], target)
    assert hashed == ["file.zip.part"]
