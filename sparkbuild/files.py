"""Files that appear whole or not at all, digests, locks, and what a full disk means."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import filelock
import msgspec
import platformdirs

from sparkbuild.errors import BinaryError, CompileError, MissingError, StoreError, UsageError

T = TypeVar("T")
# CMake splits lists at ";"; quotes, backslashes, "|" and control characters break the files it
# writes, and bytes that are not UTF-8 (lone surrogates here) its JSON. Found by trying each.
_UNBUILDABLE = re.compile(r'[;"\\|\x00-\x1f\x7f\ud800-\udfff]')
_LIBC = ctypes.CDLL(None, use_errno=True)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EROFS, errno.EACCES, errno.EPERM}
_FAILING = {errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO, errno.ETIMEDOUT}
DISK_FAULTS = _NO_ROOM | _NOT_ALLOWED | _FAILING
NAME_FAULTS = {
    errno.ENAMETOOLONG,
    errno.ELOOP,
}  # of a path that a person gave; in an archive they are its own
_MOST = 256 << 20  # bytes of a file that somebody else wrote
_FULL = re.compile("No space left on device|Disk quota exceeded")
_LEAST = 1 << 20  # bytes free, below which a disk counts as full


class Folders(msgspec.Struct, frozen=True):
    """Where things live: ``cache`` may be deleted at any time, ``store`` holds artifacts."""

    cache: Path
    store: Path
    config: Path

    @classmethod
    def default(cls) -> Folders:
        """Return SPARKBUILD_HOME's folders, else the platform's own for this user.

        Raises UsageError for a path with a character that CMake or ninja can not take.
        """
        if home := os.environ.get("SPARKBUILD_HOME"):
            root = Path(home).expanduser().absolute()
            found = cls(root / "cache", root / "store", root / "config")
        else:
            dirs = platformdirs.PlatformDirs("sparkbuild", appauthor=False)
            found = cls(dirs.user_cache_path, dirs.user_data_path / "store", dirs.user_config_path)
        if bad := _UNBUILDABLE.search(str(found.cache)):
            raise UsageError(
                f"CMake and ninja can not build below a path with {bad[0]!r} in it",
                where=ascii(str(found.cache)),
                remedy="point SPARKBUILD_HOME at another folder",
            )
        return found


def to_json(value: Any) -> bytes:  # noqa: ANN401 - any record
    """Return a record as JSON; paths become strings."""
    return msgspec.json.encode(value, enc_hook=os.fspath)


def from_json(data: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Read a record from JSON. Raises ValueError."""
    return msgspec.json.decode(data, type=kind, dec_hook=lambda wanted, value: wanted(value))


class _Kept(msgspec.Struct, frozen=True):
    sha256: str
    record: msgspec.Raw


def keep(path: Path, record: object) -> None:
    """Write a record for `kept`, whole and with its SHA-256: a changed bit can leave JSON valid."""
    data = to_json(record)
    write_whole(path, to_json(_Kept(sha256_bytes(data), msgspec.Raw(data))))


def kept(path: Path, kind: type[T]) -> T | None:
    """Return what `keep` wrote; None where there is nothing, or not what it wrote."""
    try:
        found = from_json(path.read_bytes(), _Kept)
        data = bytes(found.record)
        return from_json(data, kind) if sha256_bytes(data) == found.sha256 else None
    except (OSError, ValueError, RecursionError):
        return None


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(path: str, flags: int) -> int:
    """Open a plain file in a folder that anybody may have filled; for ``opener`` of open().

    No link is followed and no pipe waited for. Raises OSError.
    """
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no plain file", path)
    return handle


def read_plain(path: Path, most: int = _MOST) -> bytes:
    """Return the first ``most`` bytes of a plain file; the rest is as in ``plain``."""
    with open(path, "rb", opener=plain) as file:
        return file.read(most)


def inside(folder: Path, name: str | Path) -> Path | None:
    """Return the file that a name leads to, where that is a plain one below ``folder``; else None."""
    try:
        real = Path(os.path.realpath(folder / name))
        return real if real.is_relative_to(os.path.realpath(folder)) and real.is_file() else None
    except (OSError, ValueError):  # a name that is too long, or none
        return None


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut."""
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temp = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temp.chmod(mode)
            temp.replace(path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as problem:
        raise disk_error(f"cannot write {path.name}", path, problem) from problem


@contextlib.contextmanager
def whole_folder(final: Path, *, flush: bool = False) -> Iterator[Path]:
    """Give a temporary folder that becomes ``final`` when the block succeeds, and vanishes if not.

    A folder that is there already stays until then and is replaced. Call it under a lock: what a run that
    was killed left of it goes first. ``flush`` writes its files to the disk first, for what nothing checks
    again after a power cut.
    """
    try:
        make_folder(final.parent)
        _clear(final)
        temp = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        old = temp.with_name(f"{temp.name}.old")
    except OSError as problem:
        raise disk_error(f"cannot create {final.name}", final, problem) from problem
    try:
        temp.chmod(0o755 | _shared(final.parent))
        yield temp
        if flush:
            _flush(temp)
        sync_folder(temp)
        if final.exists():
            final.rename(old)
        temp.rename(final)
        sync_folder(final.parent)
    except OSError as problem:
        raise disk_error(f"cannot write {final.name}", final, problem) from problem
    finally:
        if old.exists() and not final.exists():  # stopped between the two renames
            old.rename(final)
        shutil.rmtree(temp, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _clear(final: Path) -> None:
    """Remove what a killed run left of a folder; the folder itself returns where that run had moved it."""
    for left in final.parent.iterdir():
        if left.name.startswith(f".{final.name}.") and left.is_dir() and not left.is_symlink():
            if left.name.endswith(".old") and not final.exists():
                left.rename(final)
            else:
                shutil.rmtree(left, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; in one that a group shares (setgid, group may write) it shares."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        if bit := _shared(made.parent):
            made.chmod(stat.S_IMODE(made.stat().st_mode) | bit)


def _shared(folder: Path) -> int:
    """Return the group's write bit where a folder is shared by a group, else 0."""
    mode = folder.stat().st_mode
    return stat.S_IWGRP if mode & stat.S_ISGID and mode & stat.S_IWGRP else 0


def disk_error(what: str, path: Path | str, problem: OSError) -> StoreError:
    """Turn an OSError into the error a person can act on."""
    return StoreError(
        f"{what}: {problem.strerror or problem}",
        where=str(path),
        remedy=f"{_mend(problem.errno)}, or {_another(Path(path))}",
    )


def _mend(number: int | None) -> str:
    if number in _NO_ROOM:
        return "free some disk space there"
    if number in _NOT_ALLOWED:
        return "make it writable for you"
    if number in NAME_FAULTS:
        return "give a shorter path"
    return "see to the disk or share ('dmesg' tells more)" if number in _FAILING else "see what is there"


def _another(path: Path) -> str:
    """Return which other place a person can name for what does not go to this one."""
    with contextlib.suppress(UsageError):
        known = Folders.default()
        if not any(path.absolute().is_relative_to(p) for p in (known.cache, known.store, known.config)):
            return "name another place"
    return "point SPARKBUILD_HOME at a writable folder with room"


@contextlib.contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk below ``path``, whichever program met it, into a StoreError.

    A failed compile stays one: it already says that the disk is full.
    """
    try:
        yield
    except (StoreError, CompileError):
        raise
    except OSError as problem:
        if problem.errno in DISK_FAULTS | NAME_FAULTS:
            raise disk_error("cannot read or write", Path(problem.filename or path), problem) from problem
        raise
    except Exception as problem:
        full = _FULL.search(f"{problem} {getattr(problem, 'output', '')}")
        # A linker may leave a file that is cut short, and say nothing.
        cut = isinstance(problem, BinaryError) and shutil.disk_usage(path).free < _LEAST
        if full or cut:
            why = OSError(errno.ENOSPC, full[0] if full else os.strerror(errno.ENOSPC))
            raise disk_error("cannot read or write", path, why) from problem
        raise


def _flush(path: Path) -> None:
    """Flush all that was written to the file system of ``path`` (syncfs(2)): thousands of files at once."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(handle) != 0:
            if ctypes.get_errno() != errno.ENOSYS:
                raise OSError(ctypes.get_errno(), "syncfs failed")
            os.sync()  # a sandbox's kernel may lack the narrower call
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path, *, wait: float = -1) -> Iterator[None]:
    """Hold a lock file; the kernel frees it when its holder dies, so it can not go stale.

    ``wait`` is in seconds, negative for ever. Raises MissingError when the time is over, StoreError
    when the file can not be made.
    """
    try:
        make_folder(path.parent)
        lock = filelock.FileLock(path, timeout=wait, mode=0o644 | _shared(path.parent))
        lock.acquire()
    except filelock.Timeout:
        raise MissingError(
            "another sparkbuild is at work on this", where=str(path), remedy="wait for it to end"
        ) from None
    except OSError as problem:
        raise disk_error(f"cannot lock {path.name}", path, problem) from problem
    try:
        yield
    finally:
        lock.release()
