"""The store: one folder an artifact, there whole or not at all, found by its key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.errors import StoreError, UsageError, did_you_mean
from sparkbuild.files import Folders, locked, whole_folder, write_whole

_NAME = 16  # hex digits of the key in a folder's name


class Stored(msgspec.Struct, frozen=True):
    """An artifact in the store: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """ENGINE@KEY, as the commands take it."""
        return f"{self.manifest.engine.name}@{self.manifest.key[:12]}"


def folder(engine: str, key: str, folders: Folders) -> Path:
    """Return where an artifact is, or would be."""
    return folders.store / engine / key[:_NAME]


@contextlib.contextmanager
def reserved(engine: str, key: str, folders: Folders) -> Iterator[None]:
    """Hold the lock of one key: two builders of the same thing take turns."""
    place = folder(engine, key, folders)
    with locked(place.with_name(f".{place.name}.lock")):
        yield


def find(engine: str, key: str, folders: Folders) -> Stored | None:
    """Return the artifact with this key when it is there, whole, and its files have their size."""
    place = folder(engine, key, folders)
    if not (place / "manifest.json").is_file():
        return None
    stored = Stored(place, manifests.read(place / "manifest.json"))
    damaged = [f.path for f in stored.manifest.files if _size(place / f.path) != f.size]
    if damaged or stored.manifest.key != key:
        raise StoreError(
            f"the stored artifact is damaged: {', '.join(damaged) or 'wrong key'}",
            where=str(place),
            remedy=f"remove the folder and build again: rm -r {place}",
        )
    return stored


@contextlib.contextmanager
def adding(engine: str, key: str, folders: Folders) -> Iterator[Path]:
    """Give a folder to fill; it becomes the artifact when the block succeeds."""
    with whole_folder(folder(engine, key, folders), flush=True) as temp:
        yield temp


def finish(temp: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file of an artifact."""
    write_whole(temp / "manifest.json", manifests.encode(manifest))


def all_stored(folders: Folders) -> list[Stored]:
    """Return every artifact whose manifest can be read, newest first."""
    found = [s for s in _each(folders) if isinstance(s, Stored)]
    return sorted(found, key=lambda s: s.manifest.build.started, reverse=True)


def damaged(folders: Folders) -> list[StoreError]:
    """Return what is wrong with each artifact whose manifest can not be read."""
    return [s for s in _each(folders) if isinstance(s, StoreError)]


def _each(folders: Folders) -> Iterator[Stored | StoreError]:
    for path in sorted(folders.store.glob("*/*/manifest.json")):
        if not path.parent.name.startswith("."):
            try:
                yield Stored(path.parent, manifests.read(path))
            except StoreError as problem:
                yield problem


def pick(name: str, folders: Folders) -> Stored:
    """Return the artifact named ENGINE (its newest), ENGINE@KEY or KEY (a unique beginning)."""
    engine, at, key = name.partition("@")
    stored = all_stored(folders)
    found = [s for s in stored if s.manifest.engine.name == engine and s.manifest.key.startswith(key)]
    if name and not at and not found:
        found = [s for s in stored if s.manifest.key.startswith(name)]
    ambiguous = at or not any(s.manifest.engine.name == engine for s in found)
    if ambiguous and len(found) > 1:
        raise UsageError(f"{name} is not unique", remedy=f"one of: {', '.join(s.name for s in found)}")
    if not found:
        names = [s.name for s in stored]
        raise UsageError(
            f"no artifact {name!r} in the store",
            where=str(folders.store),
            remedy=did_you_mean(name, names) + "'sparkbuild list' shows them all",
        )
    return found[0]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
