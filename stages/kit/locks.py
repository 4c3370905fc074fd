"""Locks: one process does a piece of work; the next one waits, and says for whom.

Where the file system has `flock`, the system ends a lock together with the process that holds it. Some network file
systems have none. There a second file, `<name>.held`, is the lock: whoever creates it holds the lock and touches it
every `BEAT` seconds. It is taken over once nobody has touched it for `STALE` seconds, unless its process runs on this
machine (it may be suspended).
"""

import errno
import fcntl
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""The errors of file systems without `flock`."""
POLL = 0.5  # seconds between two attempts
BEAT = 10.0  # seconds
STALE = 120.0  # seconds; network file systems show another machine's touch up to a minute late

Release = Callable[[], None]


@contextmanager
def locked(path: Path, said_by: str, doing: str, waiting: Callable[[], object] = lambda: None) -> Iterator[bool]:
    """Hold the lock file `path`, which is removed at the end; true where another process held it before.

    While another process holds it, wait, and say once for whom; Ctrl-C ends the waiting.

    Args:
        path: the lock file; its folder is made.
        said_by: what the line on stderr begins with.
        doing: what the holder does, such as "training the same run".
        waiting: called again and again while another process holds the lock.

    Raises:
        OSError: the file can't be created.
    """
    lock, said = Lock(path), False
    while (release := lock.attempt()) is None:
        if not said:
            print(f"{said_by}: waits for {lock.holder()}, which is {doing} ({path})", file=sys.stderr)
            said = True
        with suppress(FileNotFoundError):  # the holder has just removed the folder
            waiting()
        time.sleep(POLL)
    try:
        yield said
    finally:
        release()


class _Seen(NamedTuple):
    """A lock by existence as another process has touched it last, and when this process saw that."""

    text: str
    touched: int  # nanoseconds, by the clock of the file system
    at: float  # seconds, by the monotonic clock of this process


class Lock:
    """The lock at `path`; one object makes all attempts of one waiter."""

    def __init__(self, path: Path):
        self.path, self.by_existence = path, path.with_name(f"{path.name}.held")
        self.seen: _Seen | None = None

    def attempt(self) -> Release | None:
        """Take the lock: what releases it, or None where another process holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._by_flock()
        except FileNotFoundError:  # another process has removed the folder since
            return self.attempt()
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            return self._by_existence()

    def holder(self) -> str:
        """Who holds the lock, for a message."""
        for path in (self.by_existence, self.path):
            with suppress(OSError):
                if words := path.read_text(encoding="utf-8").split():
                    return f"process {words[0]} on {words[-1]}"
        return "another process"

    def _by_flock(self) -> Release | None:
        file = self.path.open("ab")  # not "wb", which would remove the holder's name
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have removed the file between the opening and the lock: then this is no lock.
            if not os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                raise FileNotFoundError
            with suppress(OSError):  # a full disk: the name is for messages only
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), _myself())
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise

        def release() -> None:
            with suppress(OSError):  # the lock ends all the same
                # Whoever holds it may have removed its folder, and another process have made it anew.
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    self.path.unlink()
            file.close()

        return release

    def _by_existence(self) -> Release | None:
        try:
            with self.by_existence.open("xb", buffering=0) as file:
                file.write(_myself())
        except FileExistsError:
            self._take_from_the_dead()
            return None
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT):
                with suppress(OSError):
                    if self.by_existence.read_bytes() != _myself():  # taken over while this process stood still
                        return
                    os.utime(self.by_existence)

        threading.Thread(target=beat, daemon=True).start()

        def release() -> None:
            ended.set()
            with suppress(OSError):
                self.path.unlink(missing_ok=True)  # opened to try `flock`
            with suppress(OSError):
                if self.by_existence.read_bytes() == _myself():
                    self.by_existence.unlink()

        return release

    def _take_from_the_dead(self) -> None:
        """Remove the lock of a process that has ended, so that the next attempt gets it."""
        with suppress(FileNotFoundError), self.by_existence.open(encoding="utf-8") as file:
            text, touched = file.read(), os.fstat(file.fileno()).st_mtime_ns
            if self.seen is None or self.seen[:2] != (text, touched):
                self.seen = _Seen(text, touched, time.monotonic())
            if time.monotonic() - self.seen.at > STALE and not _runs_here(text):
                # By renaming, which only one of several waiters can do.
                aside = self.by_existence.with_name(f"{self.by_existence.name}.{os.getpid()}")
                self.by_existence.rename(aside)
                if aside.read_text(encoding="utf-8") == text:
                    aside.unlink()
                else:  # another waiter has taken it over in the meantime
                    aside.rename(self.by_existence)


def _myself() -> bytes:
    return f"{os.getpid()} {socket.gethostname()}".encode()


def _runs_here(text: str) -> bool:
    """Whether the process that wrote `text` runs on this machine."""
    number, _, host = text.partition(" ")
    if host != socket.gethostname() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True
