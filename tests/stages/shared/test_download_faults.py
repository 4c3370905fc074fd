"""Downloads under any faults in any order, and killed at any moment."""

import random
import signal
import tempfile
import time
from pathlib import Path

import pytest
from downloading import CONTENT, OTHER, PATH, PINNED, SIZE, ranges
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lsun_server import Fault

from stages.kit.errors import StageError
from stages.shared.download import download

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
