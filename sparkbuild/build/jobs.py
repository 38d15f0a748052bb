"""How many compile jobs at once: the cores this process may use, and the memory that is free now."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

_CGROUP = Path("/sys/fs/cgroup")


class Jobs(msgspec.Struct, frozen=True):
    """A number of jobs and the sentence that explains it."""

    count: int
    why: str


def choose_jobs(memory_mib: int, *, asked: int | None = None) -> Jobs:
    """Return how many jobs fit, each taking up to ``memory_mib`` MiB; ``asked`` overrules."""
    if asked:
        return Jobs(asked, "asked for")
    cores, free = available_cores(), available_mib()
    fit = max(1, free // memory_mib)
    if fit < cores:
        return Jobs(fit, f"{free} MiB free for {memory_mib} MiB a job; {cores} cores")
    return Jobs(cores, f"{cores} cores, {free} MiB free")


def available_cores() -> int:
    """Return the cores this process may use: affinity, and the cgroup's quota."""
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def available_mib() -> int:
    """Return the MiB that can be had without swapping: /proc/meminfo, and the cgroup's limit."""
    meminfo = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines() if ":" in line)
    free = int(meminfo.get("MemAvailable", "1048576 kB").split()[0]) // 1024
    limit, used = _read(_CGROUP / "memory.max").strip(), _read(_CGROUP / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        free = min(free, (int(limit) - int(used)) // (1 << 20))
    return max(free, 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
