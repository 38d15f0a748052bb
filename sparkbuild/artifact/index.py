"""A shelf: a folder of artifacts and its index, which tells what is there without a look at each.

    ROOT/index.json                    handover.Index
    ROOT/ENGINE/KEY16/manifest.json    an artifact, named by the first 16 hex digits of its key
    ROOT/ENGINE/KEY16/bin/...
    ROOT/ENGINE/KEY16/smoke.json       a sidecar: what was found out later, of the manifest it names

The store is a shelf, and so is a published folder. The index only repeats what the folders say: one that
is lost, cut, changed or late is made again from them.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild.errors import StoreError
from sparkbuild.files import disk_error, locked, sha256_bytes, write_whole
from sparkbuild.handover import INDEX, MANIFEST, Entry, Index

NAME = 16  # hex digits of the key in a folder's name
_SUMS = ".index.sha256"  # of the index, then of the one before it
_MOST = 64 << 20  # bytes of an index or a sidecar
_SETTLED = 2e9  # ns; a change within one tick of a file system's clock leaves no trace, FAT's is the longest


class _Reproduced(msgspec.Struct, frozen=True):
    """What counts of reproduction.json, whose records are in sparkbuild/reproduction/."""

    schema: Literal["sparkbuild/reproduction/1"]
    manifest: str
    verdict: Literal["identical", "stripped", "device code", "features", "different"]


class _Smoked(msgspec.Struct, frozen=True):
    """What counts of smoke.json."""

    schema: Literal["sparkbuild/smoke/1"]
    manifest: str
    verdict: Literal["passed", "failed", "not run"]


def entry_of(root: Path, folder: Path) -> Entry:
    """Return the entry of the artifact in ``folder``, which is ROOT/ENGINE/KEY16.

    Raises StoreError when its manifest can not be read or is another artifact's.
    """
    from sparkbuild.artifact import manifest as manifests  # noqa: PLC0415 - half a second, and often not needed

    path = folder / MANIFEST
    seen = _changed(folder)  # before it is read: what comes later is seen the next time
    made = manifests.read(path)
    if (made.engine.name, made.key[:NAME]) != (folder.parent.name, folder.name):
        raise StoreError(
            f"the manifest is of {made.engine.name}@{made.key[:NAME]}, not of this folder",
            where=str(path),
            remedy="remove the folder and build again, or take it anew from where it came",
        )
    digest = sha256_bytes(path.read_bytes())
    reproduction, smoke = verdicts(folder, digest)
    return Entry(
        engine=made.engine.name,
        title=made.engine.title,
        state=made.engine.state.status,
        key=made.key,
        arch=made.target.arch,
        backend=made.target.backend,
        processor=made.target.processor,
        commit=made.source.commit,
        build_number=made.source.build_number,
        made=made.build.started,
        size=sum(f.size for f in made.files),
        manifest=path.relative_to(root).as_posix(),
        digest=digest,
        reproduction=reproduction,
        smoke=smoke,
        seen_ns=seen if abs(time.time_ns() - seen) > _SETTLED else 0,
    )


def verdicts(folder: Path, digest: str) -> tuple[str, str]:
    """Return the verdicts of reproduction and smoke test on the manifest with this SHA-256, "" for none."""
    reproduced = _verdict(folder / "reproduction.json", _Reproduced, digest)
    return reproduced, _verdict(folder / "smoke.json", _Smoked, digest)


def scan(root: Path) -> tuple[Index, tuple[StoreError, ...]]:
    """Return the index of what is there now, and what is wrong with each artifact that can not be read.

    Only what changed since index.json was written is read. Writes nothing. Raises StoreError when the
    folder itself can not be read.
    """
    known = {e.manifest: e for e in _believed(root) if e.manifest == _manifest_of(e)}
    found, problems = [], []
    for place, changed in _artifacts(root):
        entry = known.get(f"{place}/{MANIFEST}")
        if entry and entry.seen_ns == changed:
            found.append(entry)
            continue
        folder = root / place
        try:
            found.append(entry_of(root, folder))
        except (StoreError, OSError) as problem:
            if folder.exists():  # else it was removed since
                problems.append(_as_error(problem, folder))
    found.sort(key=lambda e: (e.engine, e.key))
    return Index("sparkbuild/index/1", tuple(found)), tuple(problems)


def update(root: Path) -> Index:
    """Bring index.json up to date, whole, and return it. Raises StoreError."""
    with held(root):
        return refresh(root)


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold the shelf's lock: for what changes the shelf and takes a moment. Not reentrant."""
    with locked(root / ".index.lock"):
        yield


def refresh(root: Path) -> Index:
    """Bring index.json up to date; for who holds the shelf's lock."""
    index, _ = scan(root)
    data = msgspec.json.encode(index)
    before = _bytes(root / INDEX)
    if data != before:
        # The sums first: whenever this is stopped, the index that is there is one of the two.
        write_alone(root / _SUMS, f"{sha256_bytes(data)}\n{sha256_bytes(before)}\n".encode())
        write_alone(root / INDEX, data)
    return index


def write_alone(path: Path, data: bytes) -> None:
    """Write a file whole and remove what writers that were killed left; for who holds the shelf's lock."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()
    write_whole(path, data)


def _believed(root: Path) -> tuple[Entry, ...]:
    """Return what index.json says, nothing when its sum is wrong: a changed bit can leave it valid."""
    data = _bytes(root / INDEX)
    if sha256_bytes(data).encode() not in _bytes(root / _SUMS).split():
        return ()
    try:
        return msgspec.json.decode(data, type=Index).artifacts
    except (ValueError, RecursionError):
        return ()


def _manifest_of(entry: Entry) -> str:
    return f"{entry.engine}/{entry.key[:NAME]}/{MANIFEST}"


def _artifacts(root: Path) -> Iterator[tuple[str, int]]:
    """Yield each ENGINE/KEY16 with a manifest and when it changed; no links and nothing hidden."""
    try:
        engines = [e.name for e in os.scandir(root) if _is_place(e)]
        for engine in engines:
            for entry in os.scandir(root / engine):
                if _is_place(entry):
                    with contextlib.suppress(FileNotFoundError):  # none in it, or removed since
                        yield f"{engine}/{entry.name}", _changed(entry.path)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise disk_error("cannot read the artifacts", root, problem) from problem


def _is_place(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")


def _changed(folder: Path | str) -> int:
    """Return when a folder or its manifest changed last, in ns since 1970."""
    manifest = os.stat(f"{folder}/{MANIFEST}", follow_symlinks=False)  # noqa: PTH116 - 10,000 of these
    if not stat.S_ISREG(manifest.st_mode):  # a pipe would be waited for
        raise FileNotFoundError(folder)
    return max(manifest.st_mtime_ns, os.stat(folder).st_mtime_ns)  # noqa: PTH116 - as above


def _verdict(path: Path, kind: type[_Reproduced | _Smoked], digest: str) -> str:
    """Return a sidecar's verdict; "" when there is none, it is not valid or is about another manifest."""
    try:
        found = msgspec.json.decode(_bytes(path), type=kind)
    except (ValueError, RecursionError):
        return ""
    return found.verdict if found.manifest == digest else ""


def _bytes(path: Path) -> bytes:
    """Return a small file's bytes, none when it is not there or is no such file."""
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size <= _MOST:
            return path.read_bytes()
    return b""


def _as_error(problem: StoreError | OSError, folder: Path) -> StoreError:
    if isinstance(problem, StoreError):
        return problem
    return disk_error("cannot read the artifact", folder, problem)
