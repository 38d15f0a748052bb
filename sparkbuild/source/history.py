"""From one commit of an engine to another: what git knows of both, and how far they are apart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sparkbuild.catalog.records import Recipe, Shelf
from sparkbuild.errors import SourceError
from sparkbuild.files import Folders, locked
from sparkbuild.progress import Progress
from sparkbuild.source import local, repository
from sparkbuild.source.checkout import scratch_folder
from sparkbuild.source.names import check_ref, check_url
from sparkbuild.source.records import Origin
from sparkbuild.source.repository import Repository


class Step(msgspec.Struct, frozen=True):
    """Two commits: ``ahead`` is the number of those that only the new one has, ``behind`` only the old."""

    old: Origin
    new: Origin
    ahead: int
    behind: int


def step(
    shelf: Shelf[Recipe],
    folders: Folders,
    *,
    ref: str,
    source: str | None = None,
    offline: bool = False,
    progress: Progress,
) -> Step:
    """Return the way from a recipe's pin to ``ref``, a branch, tag or commit id of its repository.

    ``source`` is a clone's folder or a URL instead of the recipe's own. Raises UsageError for a bad ``ref``
    or ``source``, MissingError where the network or git is missing, SourceError for a ref or a pin that
    the repository does not have, or whose history it lacks.
    """
    check_ref(ref)
    pin = shelf.record.git
    with _repository(shelf, folders, source) as found:
        commit, notes = _commit(found, ref, offline=offline, progress=progress)
        before, _ = _commit(found, pin.commit, offline=offline, progress=progress)
        old, new = (found.origin(r, c, found.where) for r, c in ((pin.commit, before), (ref, commit)))
        if not new.build_number:
            raise SourceError(
                "a shallow clone does not tell how many commits there are: the build number is not known",
                where=found.where,
                remedy="name the repository's URL or a whole clone (git fetch --unshallow)",
            )
        if old.tree != pin.tree:
            raise SourceError(
                f"commit {pin.commit} has the tree {old.tree}, the recipe says {pin.tree}",
                where=str(shelf.path),
                remedy="correct git.tree in the recipe",
            )
        ahead, behind = found.apart(before, commit)
        return Step(old, msgspec.structs.replace(new, notes=(*notes, *new.notes)), ahead, behind)


@contextlib.contextmanager
def _repository(shelf: Shelf[Recipe], folders: Folders, source: str | None) -> Iterator[Repository]:
    folder = Path(source).expanduser() if source else None
    if folder and folder.is_dir():
        with scratch_folder(folders) as scratch:
            yield local.repository_of(folder.resolve(), scratch)
        return
    url = check_url(source or shelf.record.git.url)
    with locked(repository.mirror_path(folders.cache, url).with_suffix(".lock")):
        yield repository.mirror(folders.cache, url)


def _commit(found: Repository, ref: str, *, offline: bool, progress: Progress) -> tuple[str, tuple[str, ...]]:
    if found.url:
        return found.find(ref, offline=offline, progress=progress)
    if commit := found.resolve(ref):
        return commit, ()
    raise found.unknown(ref)
