"""Temporary folders that a later run removes when their maker was killed: each carries its own lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sparkbuild.files import make_folder


@contextlib.contextmanager
def room(near: Path) -> Iterator[Path]:
    """Give a temporary folder beside a path. Rooms there that nobody holds any more go.

    The kernel frees a room's lock with its holder, so that no age has to tell who was killed.
    """
    make_folder(near.parent)
    while not (made := _made(near)):
        pass
    mine, handle = made
    try:
        for other in near.parent.iterdir():
            if other != mine and other.name.startswith(f".{near.name}."):
                _remove_unheld(other)
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)
        os.close(handle)


def _made(near: Path) -> tuple[Path, int] | None:
    """Return a new room and its lock; None when another run removed it before it was locked."""
    mine = Path(tempfile.mkdtemp(prefix=f".{near.name}.", dir=near.parent))
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(mine, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # a share without locks will do: nobody else gets one either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if mine.exists():
            return mine, handle
        os.close(handle)
    return None


def _remove_unheld(place: Path) -> None:
    with contextlib.suppress(OSError):  # no folder, held, somebody else's, or gone by now
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place)
        finally:
            os.close(handle)
