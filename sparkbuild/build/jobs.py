"""How many compile jobs at once: the cores this process may use, and the memory that is free now.

Builds at the same time share the jobs by GNU make's job server, which ninja understands: a named pipe with
a character for each job. Every build has one job of its own, the one in which it configures, links and
checks; for each further one its ninja takes a character, and puts it back (GNU make's manual, "POSIX
Jobserver Interaction").
"""

from __future__ import annotations

import contextlib
import os
import select
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sparkbuild.rooms import room

_CGROUP = Path("/sys/fs/cgroup")
_TOKEN = b"+"
_PATIENCE = 30.0  # seconds in which jobs are held back that others are at work on


class Jobs(msgspec.Struct, frozen=True):
    """A number of jobs and the sentence that explains it."""

    count: int
    why: str


class Shared(msgspec.Struct, frozen=True):
    """Jobs that several builds share: the named pipe, and how many there are in all."""

    path: Path
    count: int

    @property
    def environment(self) -> dict[str, str]:
        """What a ninja that shares the jobs finds in its environment."""
        return {"MAKEFLAGS": f"--jobserver-auth=fifo:{self.path}"}

    @contextlib.contextmanager
    def held(self, wanted: int) -> Iterator[int]:
        """Keep jobs from everybody for the block, as many of them as come free in half a minute."""
        pipe = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        taken, until = b"", time.monotonic() + _PATIENCE
        try:
            while len(taken) < wanted and (patience := until - time.monotonic()) > 0:
                if select.select([pipe], [], [], patience)[0]:
                    with contextlib.suppress(BlockingIOError):  # another was quicker
                        taken += os.read(pipe, wanted - len(taken))
            yield len(taken)
        finally:
            os.write(pipe, taken)
            os.close(pipe)


class Pool:
    """The holder of shared jobs: gives each build one, and what is over to all."""

    def __init__(self, path: Path, count: int) -> None:
        os.mkfifo(path, 0o600)
        self.shared = Shared(path, count)
        # Open for as long as it is shared: a pipe that nobody has open forgets what is in it.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def deal(self, builds: int) -> None:
        """Put in all jobs but one for each of so many builds, none of which has begun.

        What is in it goes: a ninja that was killed takes its jobs with it.
        """
        with contextlib.suppress(BlockingIOError):
            while os.read(self._pipe, self.shared.count):
                pass
        self.add(self.shared.count - builds)

    def add(self, jobs: int = 1) -> None:
        """Put in the job of a build that has ended, and after which none begins."""
        os.write(self._pipe, _TOKEN * jobs)

    def close(self) -> None:
        """End it."""
        os.close(self._pipe)


@contextlib.contextmanager
def pool(count: int) -> Iterator[Pool]:
    """Hold so many jobs for builds to share."""
    near = Path(tempfile.gettempdir())
    if any(c.isspace() for c in str(near)):  # which would end the word in MAKEFLAGS
        near = Path("/tmp")  # noqa: S108 - a folder of our own in it
    with room(near / "sparkbuild-jobs") as folder:
        held = Pool(folder / "jobs", count)
        try:
            yield held
        finally:
            held.close()


def choose_jobs(memory_mib: int, *, asked: int | None = None) -> Jobs:
    """Return how many jobs fit, each taking up to ``memory_mib`` MiB; ``asked`` overrules."""
    if asked:
        return Jobs(asked, "asked for")
    cores, free = available_cores(), available_mib()
    fit = max(1, free // memory_mib)
    if fit < cores:
        return Jobs(fit, f"{free} MiB free for {memory_mib} MiB a job; {cores} cores")
    return Jobs(cores, f"{cores} cores, {free} MiB free")


def share_jobs(memory_mib: int, shared: Shared | None, *, asked: int | None = None) -> Jobs:
    """Return the jobs that several builds share, or without such what `choose_jobs` does."""
    if shared:
        return Jobs(shared.count, "shared with the other builds")
    return choose_jobs(memory_mib, asked=asked)


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
