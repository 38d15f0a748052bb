"""The store: a shelf (see index.py) with one folder an artifact, there whole or not at all.

A manifest's records take half a second to import: they are where a manifest is read or written, not where
the index is enough.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from sparkbuild.artifact import index
from sparkbuild.errors import StoreError, UsageError, did_you_mean
from sparkbuild.files import Folders, locked, whole_folder, write_whole
from sparkbuild.handover import MANIFEST, Entry

if TYPE_CHECKING:
    from sparkbuild.artifact.manifest import Manifest

Sidecar = Literal["reproduction.json", "smoke.json", "timeline.json", "published.json"]


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
    return folders.store / engine / key[: index.NAME]


@contextlib.contextmanager
def reserved(engine: str, key: str, folders: Folders, *, wait: float = -1) -> Iterator[None]:
    """Hold the lock of one key: two builders of the same thing take turns. ``wait`` as in files.locked."""
    with locked(lock_of(folder(engine, key, folders)), wait=wait):
        yield


def lock_of(place: Path) -> Path:
    """Return the lock file of the artifact in a folder: who holds it finds nothing removed or replaced."""
    return place.with_name(f".{place.name}.lock")


def holds(stored: Stored, folders: Folders) -> bool:
    """Return whether an artifact is this store's, and not one in another folder."""
    return Path(os.path.realpath(stored.path)).parent.parent == Path(os.path.realpath(folders.store))


def opened(path: Path) -> Stored:
    """Return the artifact in a folder. Raises StoreError when its manifest can not be read."""
    from sparkbuild.artifact import manifest as manifests  # noqa: PLC0415 - see the module's docstring

    return Stored(path, manifests.read(path / MANIFEST))


def find(engine: str, key: str, folders: Folders) -> Stored | None:
    """Return the artifact with this key when it is there, whole, and its files have their size."""
    place = folder(engine, key, folders)
    if not (place / MANIFEST).is_file():
        return None
    stored = opened(place)
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
    """Give a folder to fill; it becomes the artifact when the block succeeds. Call it under ``reserved``."""
    with whole_folder(folder(engine, key, folders), flush=True) as temp:
        yield temp
    with contextlib.suppress(StoreError):  # it is stored; the index heals at the next update
        index.update(folders.store)


def finish(temp: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file of an artifact."""
    from sparkbuild.artifact import manifest as manifests  # noqa: PLC0415 - as above

    write_whole(temp / MANIFEST, manifests.encode(manifest))


def add_sidecar(stored: Stored, name: Sidecar, data: bytes) -> None:
    """Write what was found out later of an artifact into its folder, whole.

    A verdict is believed where its ``manifest`` member is this manifest's digest. Raises StoreError, also
    when the artifact was removed meanwhile.
    """
    root = stored.path.parent.parent
    with index.held(root):
        if not (stored.path / MANIFEST).is_file():
            raise StoreError(
                f"{stored.name} is not there any more", where=str(stored.path), remedy="build it again"
            )
        index.write_alone(stored.path / name, data)
        index.refresh(root)


def entries(folders: Folders) -> tuple[list[Entry], tuple[StoreError, ...]]:
    """Return every artifact as its index entry, newest first, and what is wrong with unreadable ones."""
    found, problems = index.scan(folders.store)
    return sorted(found.artifacts, key=lambda e: e.made, reverse=True), problems


def all_stored(folders: Folders) -> list[Stored]:
    """Return every artifact whose manifest can be read, newest first. Reads them all."""
    found = []
    for entry in entries(folders)[0]:
        with contextlib.suppress(StoreError):  # removed since
            found.append(opened((folders.store / entry.manifest).parent))
    return found


def pick(name: str, folders: Folders, aliases: Mapping[str, str] | None = None) -> Stored:
    """Return the artifact named ENGINE (its newest), ENGINE@KEY or KEY (a unique beginning)."""
    engine, at, key = name.partition("@")
    engine = (aliases or {}).get(engine, engine)
    known, _ = entries(folders)
    found = [e for e in known if e.engine == engine and e.key.startswith(key)]
    if name and not at and not found:
        found = [e for e in known if e.key.startswith(name)]
    ambiguous = at or not any(e.engine == engine for e in found)
    if ambiguous and len(found) > 1:
        raise UsageError(f"{name} is not unique", remedy=f"one of: {', '.join(e.name for e in found)}")
    if not found:
        raise UsageError(
            f"no artifact {name!r} in the store",
            where=str(folders.store),
            remedy=did_you_mean(name, [e.name for e in known]) + "'sparkbuild list' shows them all",
        )
    return opened((folders.store / found[0].manifest).parent)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
