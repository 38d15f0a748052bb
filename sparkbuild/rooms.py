"""Temporary folders that a later run removes when their maker was killed: each carries its own lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sparkbuild.errors import MissingError
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
        for other in left(near):
            with contextlib.suppress(OSError, MissingError), held(other):
                shutil.rmtree(other)
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)
        os.close(handle)


def _made(near: Path) -> tuple[Path, int] | None:
    """Return a new room and its lock; None when another run removed it before it was locked."""
    mine = Path(tempfile.mkdtemp(prefix=_prefix(near), dir=near.parent))
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(mine, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # a share without locks will do: nobody else gets one either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if mine.exists():
            return mine, handle
        os.close(handle)
    return None


def left(near: Path) -> list[Path]:
    """Return the rooms beside a path, those at work too."""
    found = near.parent.iterdir() if near.parent.is_dir() else ()
    return sorted(p for p in found if p.name.startswith(_prefix(near)) and p.is_dir())


def _prefix(near: Path) -> str:
    return f".{near.name.lstrip('.')}."


@contextlib.contextmanager
def held(place: Path) -> Iterator[None]:
    """Hold a room that its maker left. Raises MissingError while that is at work, OSError when it is gone."""
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise MissingError(
            "another sparkbuild is at work in this", where=str(place), remedy="wait for it to end"
        ) from None
    finally:
        os.close(handle)
