"""How many processes there is room for: by the cores and the memory of this machine, or of the container on it."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
PROCESS = 500_000_000
"""Bytes for one process: 420 MB of its own with all libraries, as they are where it isn't forked, and a photograph."""


def room(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """How many processes may work at once, at least 1: one for each core, fewer where memory is short.

    Linux limits a container by control groups: `cgroups` is where they are mounted, `own` lists those of this process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_memory_limits(cgroups, own)]
    return max(1, min([cores, *_cpu_quotas(cgroups, own), min(memory) // PROCESS]))


def _cpu_quotas(cgroups: Path, own: Path) -> Iterator[int]:
    """Cores, rounded up."""
    for group in _groups(cgroups, own, "cpu"):
        # Version 2 has both numbers in one file. Without a quota the first is `max`, in version 1 -1.
        words = _words(group / "cpu.max") or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        if len(words) == 2 and all(word.isdecimal() for word in words):
            yield -(-int(words[0]) // int(words[1]))


def _memory_limits(cgroups: Path, own: Path) -> Iterator[int]:
    """Bytes."""
    for group in _groups(cgroups, own, "memory"):
        for word in _words(group / "memory.max") + _words(group / "memory.limit_in_bytes"):
            if word.isdecimal():
                yield int(word)


def _groups(cgroups: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group for `controller` and of all above it, which bind as well.

    In a container only the last may be there: its own group looks like the root, and `own` has the host's path.
    """
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):  # version 2 has none
            root, group = cgroups / controller if controllers else cgroups, Path(path.lstrip("/"))
            yield from (root / each for each in (group, *group.parents))


def _words(file: Path) -> list[str]:
    return _read(file).split()


def _read(file: Path) -> str:
    """The text of a file, empty where there is none, as on macOS."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
