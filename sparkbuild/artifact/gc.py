"""Free the store of what nobody needs: artifacts by age, number and size, and what killed runs left.

Never removed: what is in use or what ``use --back`` returns to, what was published, what a process runs
from, what a builder holds, what can not be read. A removal begins with a rename, so that no half artifact
is ever listed; one that was killed is debris for the next. Lock files stay: whoever waits for one that is
removed and whoever makes it anew would both hold it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sparkbuild import rooms
from sparkbuild.artifact import index, store, use
from sparkbuild.errors import MissingError
from sparkbuild.files import Folders, disk_error, locked, sha256_file, sync_folder
from sparkbuild.handover import MANIFEST, Entry, plain_bytes

_LEFT = re.compile(rf"\.([0-9a-f]{{{index.NAME}}})\.(?!lock$).+")  # by files.whole_folder and by _remove
TAKEN = "taken"  # beside which an import makes its room
_KILLED = "left by a run that was killed"
_DAY = dt.timedelta(days=1)


class Doomed(msgspec.Struct, frozen=True):
    """What goes: its folder, why, and its size in bytes.

    ``name`` is ENGINE@KEY and ``digest`` its manifest's; both are empty for debris.
    """

    path: Path
    why: str
    size: int
    name: str = ""
    digest: str = ""


class _Published(msgspec.Struct, frozen=True):
    """What counts of published.json."""

    places: tuple[str, ...]


def plan_gc(
    folders: Folders,
    *,
    older_than: float | None = None,
    keep: int | None = None,
    max_size: int | None = None,
) -> tuple[Doomed, ...]:
    """Return what would be removed: debris, then artifacts, oldest first.

    ``keep`` spares the newest so many of each engine, arch and backend. Of the others go those made more
    than ``older_than`` days ago, then the oldest until all that is left has at most ``max_size`` bytes;
    with neither of the two, all of them. Without any of the three only debris goes.
    """
    doomed = list(_debris(folders))
    if (older_than, keep, max_size) != (None, None, None):
        found, _ = store.entries(folders)
        spared = _newest(found, keep)
        running = _running()
        free = [
            e
            for e in reversed(found)
            if e not in spared and not _is_needed((folders.store / e.manifest).parent, running, folders)
        ]
        total = sum(e.size for e in found)
        doomed += [
            Doomed((folders.store / e.manifest).parent, why, e.size, e.name, e.digest)
            for e, why in _choose(free, older_than, max_size, total)
        ]
    return tuple(d for d in doomed if not _is_held(d.path))


def collect_garbage(
    folders: Folders,
    *,
    older_than: float | None = None,
    keep: int | None = None,
    max_size: int | None = None,
) -> tuple[Doomed, ...]:
    """Remove what ``plan_gc`` returns, but for what is needed by the time its turn comes.

    Returns what was removed. Raises StoreError for what the disk refuses.
    """
    for old in _lost(folders):
        with contextlib.suppress(MissingError), _held(old):
            if old.exists() and not (final := _final(old)).exists():
                old.rename(final)
    planned = plan_gc(folders, older_than=older_than, keep=keep, max_size=max_size)
    gone = []
    for doomed in planned:
        with contextlib.suppress(MissingError, FileNotFoundError), _held(doomed.path):
            if _remove(doomed, folders):
                gone.append(doomed)
    index.update(folders.store)
    return tuple(gone)


def _newest(found: Sequence[Entry], keep: int | None) -> set[Entry]:
    """Return the newest so many of each kind; ``found`` has the newest first."""
    seen: Counter[tuple[str, str, str]] = Counter()
    spared = set()
    for entry in found:
        kind = (entry.engine, entry.arch, entry.backend)
        if seen[kind] < (keep or 0):
            spared.add(entry)
        seen[kind] += 1
    return spared


def _choose(
    free: Sequence[Entry], older_than: float | None, max_size: int | None, total: int
) -> Iterator[tuple[Entry, str]]:
    """Yield which of ``free``, the oldest first, go and why; ``total`` is the size of the whole store."""
    now = dt.datetime.now(dt.UTC)
    for entry in free:
        days = (now - entry.made) / _DAY
        if older_than is not None and days > older_than:
            why = f"made {days:.0f} days ago"
        elif max_size is not None and total > max_size:
            why = "the oldest, and the store is too large"
        elif older_than is None and max_size is None:
            why = "newer ones of its kind are kept"
        else:
            continue
        total -= entry.size
        yield entry, why


def _is_needed(folder: Path, running: set[tuple[str, int]], folders: Folders) -> bool:
    """Return whether an artifact is in use, next in use, published, or some process runs from it."""
    used = use.in_use(folders)
    if folder in (*used.values(), *(use.previous(engine, folders) for engine in used)):
        return True
    try:
        published = msgspec.json.decode(plain_bytes(folder / "published.json"), type=_Published).places
    except FileNotFoundError:
        published = ()
    except (OSError, ValueError, RecursionError):  # somebody wrote it, so it was published
        return True
    return bool(published) or not running.isdisjoint(_identities(folder))


def _running() -> set[tuple[str, int]]:
    """Return device and inode of every file that a process runs or has loaded (proc(5), maps).

    Only root sees other users' processes. By inode, since a container has paths of its own.
    """
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            for line in maps.read_text(errors="replace").splitlines():
                _, _, _, device, inode, *path = line.split(maxsplit=5)
                if path:
                    found.add((device, int(inode)))
    return found


def _identities(folder: Path) -> Iterator[tuple[str, int]]:
    for status in _statuses(folder):
        yield f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}", status.st_ino


def _debris(folders: Folders) -> Iterator[Doomed]:
    """Yield what killed builds and removals left."""
    lost = set(_lost(folders))
    for path in sorted(folders.store.glob("*/.*")):
        if _LEFT.fullmatch(path.name) and path not in lost:
            yield Doomed(path, _KILLED, _size(path))
    for path in rooms.left(folders.store / TAKEN):
        yield Doomed(path, _KILLED, _size(path))


def _lost(folders: Folders) -> list[Path]:
    """Return artifacts that were about to be replaced and have no successor: killed between two renames."""
    olds = folders.store.glob("*/.*.old")
    return [p for p in olds if _LEFT.fullmatch(p.name) and (p / MANIFEST).exists() and not _final(p).exists()]


def _final(path: Path) -> Path:
    """Return the artifact's folder that a temporary one belongs to."""
    found = _LEFT.fullmatch(path.name)
    return path.with_name(found[1]) if found else path


def _held(path: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of the artifact that a folder is of. Raises MissingError when somebody else does."""
    if path.name.startswith(f".{TAKEN}."):
        return rooms.held(path)
    return locked(store.lock_of(_final(path)), wait=0)


def _is_held(path: Path) -> bool:
    try:
        with _held(path):
            return False
    except (MissingError, FileNotFoundError):  # the latter: a room that is gone by now
        return True


def _remove(doomed: Doomed, folders: Folders) -> bool:
    """Remove it; called under its lock. Returns False when it is needed by now, or another's or gone."""
    path = doomed.path
    try:
        if doomed.name:
            with index.held(folders.store):
                changed = not path.exists() or sha256_file(path / MANIFEST) != doomed.digest
                if changed or _is_needed(path, _running(), folders):
                    return False
                path = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
                doomed.path.rename(path)  # onto the empty folder, which rename(2) replaces
                sync_folder(path.parent)
        elif not path.exists():
            return False
        shutil.rmtree(path)
    except OSError as problem:
        raise disk_error("cannot remove", path, problem) from problem
    return True


def _size(path: Path) -> int:
    return sum(status.st_size for status in _statuses(path))


def _statuses(path: Path) -> Iterator[os.stat_result]:
    """Yield what is known of a file, or of each in a folder, but for what others remove meanwhile."""
    inside = (Path(top, name) for top, _, names in os.walk(path) for name in names)
    for file in inside if path.is_dir() else [path]:
        with contextlib.suppress(FileNotFoundError):
            yield file.lstat()
