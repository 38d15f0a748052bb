"""Which artifact of an engine is in use, and which was before it: one link, switched in one step.

    STORE/current/ENGINE        -> ../ENGINE/NOW       what is in use; NOW is the artifact's folder
    STORE/current/.ENGINE.NOW   -> ../ENGINE/BEFORE    what to return to for as long as that is NOW

The second link is written first and means nothing until the first is renamed into its place. So there is
no moment, whenever it is killed, in which nothing is in use or the way back is lost. A program that runs
keeps its files, and one that starts meets a single link, which is there at every moment.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from sparkbuild.artifact import index, store
from sparkbuild.artifact.store import Stored
from sparkbuild.errors import StoreError, UsageError, did_you_mean
from sparkbuild.files import Folders, disk_error, sha256_file, sync_folder

_NAME = re.compile("[0-9a-f]{16}")


def link(engine: str, folders: Folders) -> Path:
    """Return the path at which the artifact in use is found, whichever that is."""
    return folders.store / "current" / engine


def use(stored: Stored, folders: Folders) -> Path:
    """Make an artifact the one in use and return its link; what was in use is what ``back`` returns to.

    Raises StoreError when a file of it is missing or is not the recorded one.
    """
    engine, name = stored.manifest.engine.name, stored.path.name
    with index.held(folders.store):
        _check(stored, folders)
        now, _ = _read(engine, folders)
        if now != name:
            _switch(engine, name, now, folders)
    return link(engine, folders)


def back(engine: str, folders: Folders) -> Stored:
    """Return to the artifact that was in use before, and return it; once more goes forth again.

    Raises UsageError where there is none, StoreError when it is damaged or gone.
    """
    with index.held(folders.store):
        _known(engine, folders)
        now, before = _read(engine, folders)
        if not before:
            raise UsageError(f"no other artifact of {engine} was in use before {now}")
        stored = store.opened(folders.store / engine / before)
        _check(stored, folders)
        _switch(engine, before, now, folders)
    return stored


def in_use(folders: Folders) -> dict[str, Path]:
    """Return the folder of the artifact in use of each engine."""
    with contextlib.suppress(FileNotFoundError):
        links = sorted(p for p in (folders.store / "current").iterdir() if not p.name.startswith("."))
        return {p.name: folders.store / p.name / now for p in links if (now := _target(p))}
    return {}


def used(engine: str, folders: Folders) -> Stored:
    """Return the artifact in use of an engine. Raises UsageError where there is none."""
    return store.opened(_known(engine, folders))


def _known(engine: str, folders: Folders) -> Path:
    known = in_use(folders)
    if engine not in known:
        raise UsageError(
            f"nothing of {engine!r} is in use",
            remedy=did_you_mean(engine, known) + "'sparkbuild use ENGINE@KEY' takes an artifact into use",
        )
    return known[engine]


def previous(engine: str, folders: Folders) -> Path | None:
    """Return the folder that ``back`` would return to."""
    _, before = _read(engine, folders)
    return folders.store / engine / before if before else None


def _read(engine: str, folders: Folders) -> tuple[str, str]:
    """Return the names of the folders in use now and before, empty where there is none."""
    place = link(engine, folders)
    now = _target(place)
    return now, _target(place.with_name(f".{engine}.{now}")) if now else ""


def _target(place: Path) -> str:
    try:
        name = place.readlink().name
    except OSError:  # none, or no link
        return ""
    return name if _NAME.fullmatch(name) else ""


def _switch(engine: str, now: str, before: str, folders: Folders) -> None:
    """Put both links in place. Called under the shelf's lock, so a temporary one is a killed run's."""
    place = link(engine, folders)
    way_back = place.with_name(f".{engine}.{now}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if before:
            _put(way_back, f"../{engine}/{before}")
        else:
            way_back.unlink(missing_ok=True)
        _put(place, f"../{engine}/{now}")
        for left in place.parent.iterdir():
            if left != way_back and re.fullmatch(rf"\.{re.escape(engine)}\.{_NAME.pattern}", left.name):
                left.unlink()
    except OSError as problem:
        raise disk_error(f"cannot switch to {engine}@{now}", place, problem) from problem


def _put(place: Path, target: str) -> None:
    temp = place.with_name(".new")
    temp.unlink(missing_ok=True)
    temp.symlink_to(target)
    temp.replace(place)
    sync_folder(place.parent)


def _check(stored: Stored, folders: Folders) -> None:
    """Raise StoreError when it is gone, or a file of it is missing or is not the recorded one."""
    made = stored.manifest
    found = store.find(made.engine.name, made.key, folders)
    if not found:
        raise StoreError(
            f"{stored.name} is not in the store", where=str(stored.path), remedy="build it again"
        )
    changed = [f.path for f in found.manifest.files if sha256_file(found.path / f.path) != f.sha256]
    if changed:
        raise StoreError(
            f"{stored.name} is damaged: {', '.join(changed)} not as recorded",
            where=str(stored.path),
            remedy=f"remove the folder and build again: rm -r {stored.path}",
        )
