"""A file is downloaded whatever becomes of the connection, or one line says what is wrong."""

import os
import shutil
import threading
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from downloading import CONTENT, PATH, PINNED, SIZE, failure, ranges, waits
from lsun_server import Fault

from stages.kit.errors import StageError
from stages.kit.locks import locked
from stages.shared import download as _download
from stages.shared.download import download
from stages.weights import stage as weights


def test_a_lost_connection_goes_on_where_it_was(server, target, capfd):
    server.faults[PATH] = [Fault(drop=n, ending=ending) for n in (70_001, 50_000) for ending in ("close", "stall")]
    assert download([server.url + PATH], target, **PINNED) == target
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=70001-", "bytes=140002-", "bytes=190002-", "bytes=240002-"]
    assert waits(capfd) == [1, 1, 1, 1], "each brought something, so none is the second in a row"
    assert [path.name for path in target.parent.iterdir()] == ["file.zip"]
    download([server.url + PATH], target, **PINNED)
    assert len(server.asked) == 5, "what is there and right isn't asked for again"


def test_the_waits_grow_and_begin_anew_with_a_new_byte(server, target, capfd, monkeypatch):
    server.faults[PATH] = [Fault(status=500)] * 5 + [Fault(drop=1)] + [Fault(drop=0)] * 4 + [Fault(drop=1)]
    download([server.url + PATH], target, **PINNED)
    assert waits(capfd) == [1, 2, 4, 8, 16, 1, 2, 4, 8, 16, 1]
    target.unlink()
    server.faults[PATH] = [Fault(status=status) for status in (408, 429, 500, 502, 503, 504, 599, 521)]
    download([server.url + PATH], target, **PINNED, attempts=9)
    assert waits(capfd) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_six_failures_in_a_row_give_up_and_say_what_is_kept(server, target):
    server.faults[PATH] = [Fault(drop=1000)] + [Fault(drop=0)] * 5
    message = failure([server.url + PATH], target, **PINNED)
    assert message.endswith("; 1000 bytes are kept, the same command goes on from there")
    assert message.startswith(f"{server.url}{PATH}: ")
    assert "(6 times in a row)" in message
    assert len(server.asked) == 6


def test_retry_after_is_honoured_up_to_a_minute(server, target, capfd):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    server.faults[PATH] = [
        Fault(status=503, headers={"Retry-After": asked}) for asked in ("7", "86400", soon, "soon", "-1")
    ]
    download([server.url + PATH], target, **PINNED)
    first, second, third, *rest = waits(capfd)
    assert (first, second, rest) == (7, 60, [8, 16])
    assert 20 <= third <= 30


def test_mirrors_are_tried_in_turn(server, target, capfd):
    server.files |= {"/short": CONTENT[:-1], "/down": CONTENT, "/good": CONTENT}
    server.faults["/down"] = [Fault(drop=1000)] + [Fault(status=503)] * 5
    urls = [server.url + path for path in ("/none", "/short", "/down", "/good")]
    download(urls, target, **PINNED)
    assert target.read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/none", "/short", *["/down"] * 6, "/good"]
    assert server.asked[-1] == ("/good", "bytes=1000-")
    lines = capfd.readouterr().err
    assert "/none: the server answers 404 Not Found; going on with " in lines
    assert f"the server's file has {SIZE - 1} bytes, not {SIZE} (pins.csv, church, to be changed" in lines


def test_without_a_mirror_that_delivers_each_is_named_with_its_reason(server, target):
    server.files["/short"] = CONTENT[:5]
    message = failure(
        [server.url + "/none", server.url + "/short", "http://127.0.0.1:1/x", "nowhere"], target, **PINNED
    )
    for words in ("/none: the server answers 404", "/short: the server's file has 5", ":1/x: ", "refused", "nowhere: "):
        assert words in message
    assert "kept" not in message


def test_a_second_process_waits_and_takes_the_file_of_the_first(server, target, capfd):
    lock = target.with_name("file.zip.lock")
    with locked(lock, "first", "downloading the same file"):
        second = threading.Thread(target=download, args=([server.url + PATH], target), kwargs=PINNED)
        second.start()
        second.join(timeout=0.3)
        assert second.is_alive()
        target.write_bytes(CONTENT)
    second.join(timeout=10)
    assert capfd.readouterr().err.startswith(f"file.zip: waits for process {os.getpid()} on ")
    assert server.asked == []
    assert [path.name for path in target.parent.iterdir()] == ["file.zip"]


def test_no_disk_space(server, target, part, monkeypatch):
    part.symlink_to("/dev/full")
    assert f"no disk space in {target.parent}" in failure([server.url + PATH], target, **PINNED)
    part.unlink()
    part.write_bytes(CONTENT[:100_000])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 199_999))
    assert "no disk space in" in failure([server.url + PATH], target, **PINNED)
    assert part.read_bytes() == CONTENT[:100_000]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 200_000))
    download([server.url + PATH], target, **PINNED)
    assert target.read_bytes() == CONTENT


def test_an_interrupted_wait_keeps_what_is_down(server, target, part, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(_download, "time", SimpleNamespace(sleep=interrupt))
    server.faults[PATH] = [Fault(drop=1234)]
    with pytest.raises(KeyboardInterrupt):
        download([server.url + PATH], target, **PINNED)
    assert part.read_bytes() == CONTENT[:1234]


def test_weights_try_once_and_leave_no_record(server, target):
    server.faults[PATH] = [Fault(status=503)]
    with pytest.raises(StageError, match=r"answers 503 Service Unavailable$"):
        weights.download(server.url + PATH, target)
    assert len(server.asked) == 1
    weights.download(server.url + PATH, target)
    assert [path.name for path in target.parent.iterdir()] == ["file.zip"]
