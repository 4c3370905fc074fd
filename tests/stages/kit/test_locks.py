"""One process works, the next one waits and says for whom: with `flock`, and on file systems without it."""

import errno
import fcntl
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stages.kit import locks
from stages.kit.locks import Lock, locked


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"POLL": 0.02, "BEAT": 0.05, "STALE": 0.5}.items():
        monkeypatch.setattr(locks, name, seconds)


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)


@pytest.fixture
def from_elsewhere(monkeypatch: pytest.MonkeyPatch, no_flock: None) -> None:
    """Every lock seems to be held on another machine."""
    monkeypatch.setattr(locks, "_runs_here", lambda text: False)


@pytest.mark.parametrize("kind", ["quick", "no_flock", "from_elsewhere"])
def test_the_second_waits_says_once_for_whom_and_goes_on(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    request.getfixturevalue(kind)
    order = []

    def second() -> None:
        with locked(tmp_path / "a" / "lock", "train", "training the same run"):
            order.append("second")

    with locked(tmp_path / "a" / "lock", "train", "training the same run"):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(timeout=0.8)  # longer than `STALE`: the first touches its lock
        assert waiting.is_alive()
        order.append("first")
    waiting.join(timeout=10)
    assert order == ["first", "second"]
    me = f"process {os.getpid()} on {socket.gethostname()}"
    said = f"train: waits for {me}, which is training the same run ({tmp_path}/a/lock)\n"
    assert capfd.readouterr().err == said
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.usefixtures("no_flock")
def test_without_flock_a_lock_that_another_took_over_stays_theirs(tmp_path: Path) -> None:
    """As when the machine of the first was suspended: it neither keeps that lock alive nor removes it."""
    lock, held = Lock(tmp_path / "lock"), tmp_path / "lock.held"
    release = lock.attempt()
    assert release
    held.write_text("17 elsewhere")
    os.utime(held, (1, 1))
    time.sleep(0.2)  # four beats
    assert held.stat().st_mtime == 1
    release()
    assert held.read_text() == "17 elsewhere"


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize(
    ("holder", "touched", "taken"),
    [
        ("17 elsewhere", False, True),
        ("17 elsewhere", True, False),
        (f"{2**22 + 1} {socket.gethostname()}", False, True),  # above the largest number of a process
        (f"{os.getppid()} {socket.gethostname()}", False, False),  # suspended, perhaps
        ("", False, True),  # killed before it wrote its name
    ],
)
def test_without_flock_a_lock_ends_with_its_process(holder: str, touched: bool, taken: bool, tmp_path: Path) -> None:
    lock, held = Lock(tmp_path / "lock"), tmp_path / "lock.held"
    held.write_text(holder)
    ends, got = time.monotonic() + 4 * locks.STALE, None
    while got is None and time.monotonic() < ends:
        got = lock.attempt()
        time.sleep(0.05)
        if touched:
            os.utime(held)
    assert (got is not None) == taken
    if got:
        got()
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_removed_after_it_was_opened_is_no_lock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the holder before removes it at its end; then a third process locks the new file."""
    path, flock, third = tmp_path / "lock", fcntl.flock, []

    def late(*arguments: Any) -> None:
        if not third:
            path.unlink()
            third.append(path.open("w"))
            flock(third[0], fcntl.LOCK_EX)
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    assert Lock(path).attempt() is None
    third[0].close()
    assert Lock(path).attempt() is not None


def test_another_error_is_no_lack_of_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output error"):
        Lock(tmp_path / "lock").attempt()
