"""Where a compile sees the source and the build folder: at one path each, wherever they really lie.

nvcc hashes a source's real path into device symbols (those in anonymous namespaces), so equal bytes need
an equal path; neither a symlink nor a prefix map will do. And builds whose commands are equal to the last
path can share what they compile. Bubblewrap shows both there, in namespaces of the build's own. Where the
kernel does not allow these, as Ubuntu 24.04 does not for most users, the tree is copied there and a link
leads to the build folder: the same bytes, but the network stays within reach, and builds take turns.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild.errors import MissingError, StoreError
from sparkbuild.progress import Progress
from sparkbuild.toolchain import sandbox

SOURCE = Path("/var/tmp/sparkbuild/source")  # noqa: S108 - a mount point, or a copy that is checked
ROOM = SOURCE.parent
BUILD = ROOM / "build"
Way = Literal["namespace", "copy", "sandbox"]


class Isolation(msgspec.Struct, frozen=True):
    """What a build sees of the machine: its network, which user it is, the host's name.

    ``None`` and empty mean as it is. All of it needs namespaces. With a ``view`` the build is in a sandbox,
    where it sees that and nothing else, and has no network. ``shown`` are files and where they are seen, in
    place of what is there.
    """

    network: bool = True
    user: int | None = None
    host: str = ""
    view: sandbox.View | None = None
    shown: tuple[tuple[Path, Path], ...] = ()


_AS_IT_IS = Isolation()


class Place(msgspec.Struct, frozen=True):
    """How the source came to its path, and the words that stand before every command of the build."""

    way: Way
    enter: tuple[str, ...] = ()


@functools.cache
def why_no_namespace(isolation: Isolation = _AS_IT_IS) -> str:
    """Return why the tree can not be shown in a namespace here, or not so isolated; empty when it can."""
    return sandbox.tried(_bubblewrap(Path("/"), Path("/"), isolation))


@contextlib.contextmanager
def placed(tree: Path, where: Path, isolation: Isolation, progress: Progress) -> Iterator[Place]:
    """Hold a tree at SOURCE and the build folder ``where`` at BUILD for the block.

    Raises MissingError when there is neither a namespace nor a folder of that name to be had, or no
    sandbox and that was asked for; StoreError when the copy fails.
    """
    _check_path()
    if isolation.view is not None:
        sandbox.check()
        named = ("--hostname", isolation.host) if isolation.host else ()
        shown = (*named, "--ro-bind", str(tree), str(SOURCE), "--bind", str(where), str(BUILD))
        yield Place("sandbox", sandbox.enter(isolation.view, user=isolation.user, more=shown))
        return
    if not why_no_namespace():
        yield Place("namespace", _bubblewrap(tree, where, isolation))
        return
    if isolation.shown:
        raise MissingError(
            f"to replace a program, a build needs namespaces: {why_no_namespace()}",
            where="bwrap",
            remedy=sandbox.REMEDY,
        )
    with _claimed(progress):
        _copy(tree)
        with _linked(where):
            yield Place("copy")


def _bubblewrap(tree: Path, where: Path, isolation: Isolation) -> tuple[str, ...]:
    """Return the words that show ``tree`` at SOURCE, read-only, and ``where`` at BUILD.

    When bwrap ends, all it started does. As process 1 of its namespace a command is bwrap's own child, so
    its CPU time is counted. What is mounted over is /var/tmp, which nobody but root can move: whoever owns
    a folder in it could move that, with what is mounted there, and put another source in its place. What
    lies there is bound back.
    """
    words = ["bwrap", "--die-with-parent", "--unshare-pid", "--as-pid-1", "--dev-bind", "/", "/"]
    words += ["--tmpfs", str(ROOM.parent)]
    for path in _ours(ROOM.parent) + _ours(ROOM):
        words += ["--dev-bind-try", str(path), str(path)]
    words += ["--ro-bind", str(tree), str(SOURCE), "--dev-bind", str(where), str(BUILD)]
    for path, seen in isolation.shown:
        words += ["--ro-bind", str(path), str(seen)]
    if not isolation.network:
        words += ["--unshare-net"]
    if isolation.user is not None:
        words += ["--unshare-user", "--uid", str(isolation.user), "--gid", str(isolation.user)]
    if isolation.host:
        words += ["--unshare-uts", "--hostname", isolation.host]
    return (*words, "--")


def _ours(folder: Path) -> list[Path]:
    """Return what this user or root has in a folder, but for what every build has to itself."""
    try:
        found = sorted(folder.iterdir())
    except OSError:  # it is not there, or others may not look into it
        return []
    return [p for p in found if p not in (ROOM, SOURCE, BUILD) and _owner(p) in (0, os.getuid())]


def _owner(path: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return path.lstat().st_uid
    return None


def _copy(tree: Path) -> None:
    try:
        shutil.copytree(tree, SOURCE, symlinks=True, dirs_exist_ok=True)
    except OSError as problem:
        # All that failed is in one error, each as (from, to, why).
        why = problem.args[0][0][-1] if isinstance(problem, shutil.Error) else str(problem)
        raise StoreError(
            f"cannot copy the source to where every build sees it: {why}",
            where=str(SOURCE),
            remedy="free some disk space there, or install bubblewrap and allow it namespaces",
        ) from problem


@contextlib.contextmanager
def _linked(where: Path) -> Iterator[None]:
    """Let BUILD lead to ``where``; whoever holds SOURCE may."""
    try:
        BUILD.unlink(missing_ok=True)
        BUILD.symlink_to(where)
    except OSError as problem:
        raise _in_the_way(BUILD, f"can not be replaced ({problem.strerror})") from problem
    try:
        yield
    finally:
        BUILD.unlink(missing_ok=True)


def _check_path() -> None:
    """Raise MissingError where a link leads to SOURCE: compilers see the real path."""
    if (real := ROOM.parent.resolve()) != ROOM.parent:
        raise MissingError(
            f"{ROOM.parent} is a link to {real}, where compilers would see the source: not as elsewhere",
            where=str(ROOM.parent),
            remedy="make it a folder",
        )


def _make_room() -> None:
    """Make ROOM, where every user may add a folder of his own, as in /tmp."""
    try:
        with contextlib.suppress(FileExistsError):
            ROOM.mkdir()
            ROOM.chmod(0o1777)
    except OSError as problem:
        raise MissingError(
            f"{ROOM} can not be made ({problem.strerror}): every build sees its source there",
            where=str(ROOM),
            remedy="install bubblewrap and allow it namespaces",
        ) from problem
    if ROOM.is_symlink() or not ROOM.is_dir():
        raise _in_the_way(ROOM, "is not a folder")


@contextlib.contextmanager
def _claimed(progress: Progress) -> Iterator[None]:
    """Hold SOURCE, empty, for this build alone; what a killed one left there is removed.

    The folder itself carries the lock, which the kernel frees when its holder dies.
    """
    _make_room()
    if ROOM.stat().st_uid not in (0, os.getuid()):
        raise _in_the_way(ROOM, "belongs to another user, who could change what is compiled")
    while (handle := _locked(progress)) is None:
        pass
    try:
        if os.fstat(handle).st_uid != os.getuid():
            raise _in_the_way(SOURCE, "was left behind by another user")
        _empty()
        yield
    finally:
        if os.fstat(handle).st_uid == os.getuid():
            _empty()
            SOURCE.rmdir()
        os.close(handle)


def _locked(progress: Progress) -> int | None:
    """Return SOURCE opened and locked; None when its last holder removed it meanwhile."""
    with contextlib.suppress(FileExistsError):
        SOURCE.mkdir(mode=0o755)
    try:
        handle = os.open(SOURCE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise _in_the_way(SOURCE, f"can not be used ({problem.strerror})") from problem
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress.stage(f"wait for another build to leave {SOURCE}")
        fcntl.flock(handle, fcntl.LOCK_EX)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(handle), SOURCE.stat()):
            return handle
    os.close(handle)
    return None


def _empty() -> None:
    for path in SOURCE.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _in_the_way(path: Path, what: str) -> MissingError:
    return MissingError(
        f"{path} {what}: every build sees its source there",
        where=str(path),
        remedy=f"remove it (rm -r {path}), or install bubblewrap and allow it namespaces",
    )
