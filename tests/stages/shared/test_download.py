"""Downloading one file from servers that fail in every way: the right bytes, or one line that says what is wrong."""

import fcntl
import hashlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lsun_server import Fault

from stages.kit.errors import StageError
from stages.shared import download as _download
from stages.shared import http as _http
from stages.shared.download import download
from stages.weights import stage as weights


def some_file(seed):
    return random.Random(seed).randbytes(300_000)


CONTENT, OTHER = some_file(0), some_file(1)
SIZE = len(CONTENT)
DIGEST, OTHER_DIGEST = (hashlib.sha256(content).hexdigest() for content in (CONTENT, OTHER))
PINNED = {"size": SIZE, "sha256": DIGEST, "pin": "pins.csv, church"}
PATH = "/file.zip"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(_download, "SECOND", 0)
    monkeypatch.setattr(_http, "TIMEOUT", (5, 0.2))


@pytest.fixture
def target(tmp_path, server):
    server.files[PATH] = CONTENT
    return tmp_path / "cache" / "file.zip"


@pytest.fixture
def part(target):
    target.parent.mkdir()
    return target.with_name("file.zip.part")


def failure(urls, target, **pinned):
    """The one line of the error."""
    with pytest.raises(StageError) as caught:
        download(urls, target, **pinned)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    return str(caught.value)


def waits(capfd):
    return [int(seconds) for seconds in re.findall(r"; going on in (\d+) s\n", capfd.readouterr().err)]


def ranges(server):
    return [asked for _, asked in server.asked]


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


def test_a_server_without_ranges_takes_nothing_away(server, target, part):
    part.write_bytes(CONTENT[:200_000])
    server.faults[PATH] = [Fault(ranges=False, drop=1000), *[Fault(ranges=False, drop=n) for n in [150_000] * 5]]
    assert "; 200000 bytes are kept" in failure([server.url + PATH], target, **PINNED)
    assert part.read_bytes() == CONTENT[:200_000]
    assert ranges(server) == ["bytes=200000-"] * 6, "not a new byte in any of them"
    server.faults[PATH] = [Fault(ranges=False, drop=250_000), Fault(ranges=False)]
    download([server.url + PATH], target, **PINNED)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[6:] == ["bytes=200000-", "bytes=250000-"]
    target.unlink()
    part.write_bytes(CONTENT[:200_000])
    server.faults[PATH] = [Fault(ranges=False, drop=1000, headers={"Content-Length": None})]
    download([server.url + PATH], target)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[8:] == ["bytes=200000-", "bytes=200000-"]


@pytest.mark.parametrize("stated", ["nonsense", "", "bytes 7-299999/300000", "bytes -7-8/9", "bytes {start}-8/7", None])
def test_after_a_useless_content_range_all_is_asked_for(server, target, part, stated):
    part.write_bytes(CONTENT[:1000])
    server.faults[PATH] = [Fault(headers={"Content-Range": stated})]
    download([server.url + PATH], target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=1000-", None]


@pytest.mark.parametrize("pinned", [PINNED, {}])
@pytest.mark.parametrize("length", ["many", "-5", "1e3", "", "9" * 5000, "٣"])
def test_a_useless_content_length_is_one_line(server, target, length, pinned):
    server.faults[PATH] = [Fault(headers={"Content-Length": length.encode().decode("latin-1")})]
    assert "a useless Content-Length" in failure([server.url + PATH], target, **pinned)


def test_lies_about_the_length(server, target, part):
    server.faults[PATH] = [Fault(length=10)]
    assert f"has {SIZE + 10} bytes, not {SIZE}" in failure([server.url + PATH], target, **PINNED)
    server.faults[PATH] = [Fault(length=-10)]
    assert f"has {SIZE - 10} bytes, not {SIZE}" in failure([server.url + PATH], target, **PINNED)
    server.files["/long"] = CONTENT + b"more"
    server.faults["/long"] = [Fault(headers={"Content-Length": None})]
    assert f"has more than {SIZE} bytes" in failure([server.url + "/long"], target, **PINNED)
    part.unlink()
    server.faults[PATH] = [Fault(drop=1000), Fault(length=-10), Fault(length=10)]  # the Content-Range is right
    download([server.url + PATH], target, **PINNED)
    assert ranges(server)[-3:] == [None, "bytes=1000-", f"bytes={SIZE - 10}-"]
    target.unlink()
    for headers in ({}, {"Content-Length": None, "Content-Range": "bytes {start}-8/*"}):
        server.faults[PATH] = [Fault(drop=1000), Fault(headers=headers, length=10, ending="stall")]
        download([server.url + PATH], target, **PINNED)
        assert ranges(server)[-2:] == [None, "bytes=1000-"], "all is there, whether or not the answer ends"
        target.unlink()
    server.faults[PATH] = [Fault(length=10)]
    download([server.url + PATH], target)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[-2:] == [None, f"bytes={SIZE}-"]


@pytest.mark.parametrize(
    "url",
    ["nowhere", "http://", "http://[::1", "http://a..b/x", "http://x:y/", "ftp://x/y", "http://\n/", "http://ä..ö/"],
)
def test_a_malformed_address_is_one_line(target, url):
    assert failure([url], target).startswith(url.split("\n")[0])


def test_redirects(server, target):
    server.faults[PATH] = [Fault(status=302, headers={"Location": PATH})] * 50
    assert "redirects" in failure([server.url + PATH], target, **PINNED)
    server.faults[PATH] = [Fault(status=302, headers={"Location": "http://a..b/"})]
    failure([server.url + PATH], target, **PINNED)
    server.faults[PATH] = [Fault(status=302, headers={"Location": PATH})]
    download([server.url + PATH], target, **PINNED)
    assert target.read_bytes() == CONTENT


def test_a_second_process_is_told(server, target, part):
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another process is downloading" in failure([server.url + PATH], target, **PINNED)
    assert server.asked == []


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


def test_weights_try_once_and_leave_no_record(server, target):
    server.faults[PATH] = [Fault(status=503)]
    with pytest.raises(StageError, match=r"answers 503 Service Unavailable$"):
        weights.download(server.url + PATH, target)
    assert len(server.asked) == 1
    weights.download(server.url + PATH, target)
    assert [path.name for path in target.parent.iterdir()] == ["file.zip"]


# Faults that leave what is down a part of the right file, whatever is pinned: first those that another attempt outlives
PASSING = st.one_of(
    st.builds(
        Fault,
        drop=st.integers(0, SIZE),
        ending=st.sampled_from(["close", "close", "reset", "stall"]),
        ranges=st.booleans(),
    ),
    st.builds(Fault, status=st.sampled_from([408, 429, 500, 503]), headers=st.just({"Retry-After": "3"})),
    st.sampled_from(
        [
            Fault(ranges=False),
            Fault(length=1000),
            Fault(status=302, headers={"Location": PATH}),
            Fault(headers={"Content-Length": None}),
            Fault(headers={"Content-Range": "nonsense"}),
            Fault(headers={"Content-Range": "bytes 7-8/{total}"}),
            Fault(headers={"Content-Range": "bytes {start}-8/*"}),
            Fault(headers={"Content-Range": "bytes {start}-8/400000"}),
        ]
    ),
)
REFUSING = st.one_of(
    st.builds(Fault, status=st.sampled_from([204, 404, 416])),
    st.builds(Fault, headers=st.fixed_dictionaries({"Content-Length": st.sampled_from(["-5", "five"])})),
)
HONEST = st.integers(0, 7).flatmap(lambda number: PASSING if number else REFUSING)
# Faults that show only in the size or the digest
SHORT = st.one_of(
    st.builds(Fault, length=st.integers(-SIZE // 2, -1), ranges=st.booleans()),
    st.builds(Fault, content=st.integers(1, SIZE - 1).map(lambda end: CONTENT[:end])),
    st.builds(Fault, headers=st.just({"Content-Length": None}), drop=st.integers(0, SIZE)),
)
# Faults that show only in the digest
FALSE = st.builds(
    Fault, content=st.sampled_from([OTHER, OTHER + b"more", OTHER[:-9]]), drop=st.none() | st.integers(0, SIZE)
)


@st.composite
def schedules(draw):
    """What is pinned, what is down before, and the faults of two mirrors; and whether a fault feigns another file."""
    pinned = {name: PINNED[name] for name in ("size", "sha256") if draw(st.booleans())}
    misleading = bool(pinned) and draw(st.booleans())
    faults = st.one_of(HONEST, SHORT, *[FALSE] * ("sha256" in pinned)) if misleading else HONEST
    mirrors = [draw(st.lists(faults, max_size=12)) for _ in range(draw(st.integers(1, 2)))]
    return pinned, draw(st.sampled_from([0, 100_000, SIZE])), mirrors, misleading


@settings(
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schedules())
def test_whatever_a_server_does_it_is_the_right_bytes_or_one_line(server, schedule):
    pinned, down, mirrors, misleading = schedule
    server.files = {f"/{number}{PATH}": CONTENT for number in range(len(mirrors))} | {PATH: CONTENT}
    server.faults = {f"/{number}{PATH}": list(faults) for number, faults in enumerate(mirrors)}
    urls = [f"{server.url}/{number}{PATH}" for number in range(len(mirrors))]
    with tempfile.TemporaryDirectory() as folder:
        target, part = Path(folder, "file.zip"), Path(folder, "file.zip.part")
        if down:
            part.write_bytes(CONTENT[:down])
        for attempt in range(4):
            before = part.stat().st_size if part.exists() else 0
            server.asked.clear()
            server.sent.clear()
            line = None
            try:
                download(urls, target, **pinned)
            except StageError as error:
                line = str(error)
            asked = [before, *(int(asked[6:-1]) for asked in ranges(server) if asked)]
            assert misleading or asked == sorted(asked), "what is down is never less than it was"
            if line is None:
                break
            assert "\n" not in line
            assert attempt == 0 or (misleading and attempt < 3), "the server is healed"
            if not misleading:
                left = part.read_bytes()
                plain = [end for fault, _, end in server.sent if fault == Fault(drop=fault.drop, ranges=fault.ranges)]
                assert left == CONTENT[: len(left)]
                assert len(left) >= max(*asked, *plain, 0)
            server.faults.clear()
        assert target.read_bytes() == CONTENT
        assert not part.exists()
        assert target.with_name("file.zip.sha256").exists() == ("sha256" not in pinned)
        if attempt and not misleading:
            assert sum(end - start for _, start, end in server.sent) == SIZE - before
            assert len(server.asked) == (0 if before == pinned.get("size") else 1)


@pytest.mark.slow
def test_killed_at_fifty_moments_it_ends_with_the_same_bytes(server, target, part, processes):
    draw = random.Random(0)
    server.files[PATH] = CONTENT
    server.pace = (4096, 0.002)
    killed = down = 0
    while killed < 50:
        server.faults[PATH] = [Fault(ranges=draw.random() < 0.8)]
        process = processes.Process(target=download, args=([server.url + PATH], target), kwargs=PINNED)
        asked = len(server.asked)
        process.start()
        while process.is_alive() and len(server.asked) == asked:
            time.sleep(0.001)
        process.join(draw.uniform(0, 0.06))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        killed += process.exitcode == -signal.SIGKILL
        left = (target if target.exists() else part).read_bytes()
        assert left == CONTENT[: len(left)]
        assert len(left) >= down
        down = len(left)
        if target.exists():
            assert left == CONTENT
            target.unlink()
            down = 0
    download([server.url + PATH], target, **PINNED)
    assert target.read_bytes() == CONTENT
