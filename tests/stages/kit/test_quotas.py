"""The room for processes that the control groups of a container leave, in folders like the system's."""

import os
from pathlib import Path

import pytest

from stages.kit.quotas import room

GB = 1_000_000_000
SYSTEMD = "0::/user.slice/job.scope\n"
DOCKER = "5:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n1:name=systemd:/docker/1f\n"


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 25}.get)  # 137 GB


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000", "memory.max": "max"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "max 100000", "memory.max": str(4 * GB)}, 8),
        (SYSTEMD, {"user.slice/cpu.max": "300000 100000", "user.slice/job.scope/cpu.max": "max 100000"}, 3),
        (SYSTEMD, {"user.slice/job.scope/memory.max": "1000"}, 1),
        (DOCKER, {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        (DOCKER, {"cpu/docker/1f/cpu.cfs_quota_us": "500000", "cpu/docker/1f/cpu.cfs_period_us": "100000"}, 5),
        (DOCKER, {"cpu/cpu.cfs_quota_us": "-1", "memory/memory.limit_in_bytes": str(3 * GB)}, 6),
        (DOCKER, {"memory/memory.limit_in_bytes": "9223372036854771712"}, 96),
        (SYSTEMD, {"another.slice/cpu.max": "100000 100000"}, 96),
        ("", {}, 96),
    ],
)
def test_the_narrowest_limit_counts(tmp_path: Path, own: str, files: dict[str, str], expected: int) -> None:
    for name, text in files.items():
        if name.startswith("cpu/"):  # as version 1 mounts it
            (tmp_path / "cpu,cpuacct").mkdir(exist_ok=True)
            if not (tmp_path / "cpu").exists():
                (tmp_path / "cpu").symlink_to("cpu,cpuacct")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text(own)
    assert room(tmp_path, tmp_path / "own") == expected


def test_without_control_groups_the_cores_count(tmp_path: Path) -> None:
    assert room(tmp_path / "none", tmp_path / "none") == 96


def test_the_cores_that_this_process_is_bound_to_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert room(tmp_path, tmp_path / "none") == 1


def test_the_memory_of_the_machine_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 19}.get)  # 2.1 GB
    assert room(tmp_path / "none", tmp_path / "none") == 4
