"""Processes that wait at a gate, so that a signal meets a build where it is meant to."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import filelock

from tests.integration.engine import Box


class Gate:
    """A FIFO that a compiler or CMake reads: it waits there, using no time, until the gate opens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def open(self) -> None:
        """Let everybody through, those who wait and those to come."""
        with contextlib.suppress(OSError):  # ENXIO: nobody waits
            os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
        self.path.unlink(missing_ok=True)
        self.path.touch()


def family(box: Box) -> dict[int, str]:
    """Return the processes, by id, that have this home in their environment or command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes()
            if str(box.home).encode() in words + (folder / "environ").read_bytes():
                found[int(folder.name)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def at_the_gate(gate: Gate, box: Box, program: str) -> bool:
    """Return whether a process of this name waits at the gate: it is blocked in opening a FIFO."""
    for pid, words in family(box).items():
        with contextlib.suppress(OSError):
            waiting = Path("/proc", str(pid), "wchan").read_text() in (
                "wait_for_partner",
                "fifo_open",
                "0",
                "",
            )
            if program in words.split(" ")[0] and waiting and gate.path.exists():
                return True
    return False


def assert_all_free(box: Box) -> None:
    """Check that nobody is left, nothing is stored and every lock can be had."""
    wait_for(lambda: not family(box), 15.0)
    assert box.artifacts() == []
    for path in box.home.rglob("*.lock"):
        with filelock.FileLock(path, timeout=0):
            pass
