"""From one commit of an engine to another: how far apart they are, what lies between, which to try next."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sparkbuild.catalog.records import Recipe, Shelf
from sparkbuild.errors import SourceError, UsageError
from sparkbuild.files import Folders, locked
from sparkbuild.progress import Progress
from sparkbuild.source import local, sealed
from sparkbuild.source.checkout import scratch_folder
from sparkbuild.source.mirror import mirror_of, mirror_path
from sparkbuild.source.names import check_ref, check_url
from sparkbuild.source.records import Origin
from sparkbuild.source.repository import Repository
from sparkbuild.source.sealed import GitFailedError

_SUBJECT = 120  # characters


class Commit(msgspec.Struct, frozen=True):
    """A commit as a person knows it.

    ``authored`` is the author's date (ISO 8601), ``build_number`` the number of commits up to this one, 0
    where a shallow clone does not tell. ``subject`` holds nothing that steers a terminal, and is short.
    """

    id: str
    subject: str
    authored: str
    build_number: int


class Step(msgspec.Struct, frozen=True):
    """Two commits: ``ahead`` is the number of those that only the new one has, ``behind`` only the old."""

    old: Origin
    new: Origin
    ahead: int
    behind: int


@contextlib.contextmanager
def opened(
    shelf: Shelf[Recipe],
    folders: Folders,
    source: str | None,
    refs: Sequence[str],
    *,
    offline: bool,
    progress: Progress,
) -> Iterator[tuple[Repository, tuple[str, ...]]]:
    """Give an engine's repository, or that of ``source`` (a clone's folder or a URL), and the refs' commits.

    Raises UsageError for a bad ``source`` or ref, SourceError for a ref that is not there, MissingError where
    it would have to be fetched and can not.
    """
    for ref in refs:
        check_ref(ref)
    path = Path(source or "").expanduser()
    if source and path.is_file():
        raise UsageError("an archive has no history", where=source, remedy="give a clone's folder or a URL")
    if source and path.is_dir():
        with scratch_folder(folders) as scratch:
            lent = local.repository_of(path.resolve(), scratch)
            yield lent, tuple(_here(lent, ref) for ref in refs)
        return
    url = check_url(source or shelf.record.git.url)
    with locked(mirror_path(folders.cache, url).with_suffix(".lock")):
        mirror = mirror_of(folders.cache, url)
        found = [mirror.find(ref, offline=offline, progress=progress) for ref in refs]
    for note in (note for _, notes in found for note in notes):
        progress.note(note)
    yield mirror, tuple(commit for commit, _ in found)


def _here(lent: Repository, ref: str) -> str:
    if commit := lent.resolve(ref):
        return commit
    raise lent.unknown(ref)


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
    pin = shelf.record.git
    refs = (pin.commit, ref)
    with opened(shelf, folders, source, refs, offline=offline, progress=progress) as (found, commits):
        with locked(found.gitdir.with_suffix(".lock")):
            old, new = (found.origin(r, c, found.where) for r, c in zip(refs, commits, strict=True))
        ahead, behind = found.apart(*commits)
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
    return Step(old, new, ahead, behind)


def common(here: Repository, one: str, other: str) -> str:
    """Return the best common ancestor of two commits, "" when there is none; it may be one of the two."""
    with contextlib.suppress(GitFailedError):
        return sealed.ask(["merge-base", "--end-of-options", one, other], gitdir=here.gitdir)
    return ""


def candidates(here: Repository, bad: str, goods: Sequence[str]) -> tuple[str, ...]:
    """Return the commits that may be the first bad one, ``bad`` among them, the best to try next first.

    They are those that ``bad`` has and none of the ``goods``, in the order of ``git rev-list --bisect-all``:
    the first halves them best.
    """
    words = ["rev-list", "--bisect-all", "--end-of-options", bad, *(f"^{good}" for good in goods)]
    return tuple(re.findall(r"^[0-9a-f]{40}", _asked(here, words), re.MULTILINE))


def describe(here: Repository, commit: str) -> Commit:
    """Return what a person wants to know of a commit. Raises SourceError."""
    said = _asked(here, ["log", "-1", "--format=%aI%x00%s", "--end-of-options", commit])
    authored, _, subject = said.partition("\0")
    shallow = (here.gitdir / "shallow").exists()
    number = 0 if shallow else int(_asked(here, ["rev-list", "--count", "--end-of-options", commit]))
    return Commit(commit, _clean(subject), _clean(authored), number)


def _clean(text: str) -> str:
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return plain if len(plain) <= _SUBJECT else f"{plain[:_SUBJECT]}\N{HORIZONTAL ELLIPSIS}"


def _asked(here: Repository, words: Sequence[str]) -> str:
    try:
        return sealed.ask(words, gitdir=here.gitdir)
    except GitFailedError as failure:
        raise here.fault(str(failure)) from None
