"""From a recipe to its patched source tree: from git, from an sdist, or from this machine."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild.archives import extract
from sparkbuild.catalog.records import Recipe, Revision, SdistSource, Shelf
from sparkbuild.errors import MissingError, SourceError, UsageError
from sparkbuild.files import (
    Folders,
    disk_error,
    keep,
    kept,
    locked,
    whole_folder,
)
from sparkbuild.packages import obtain
from sparkbuild.progress import Progress
from sparkbuild.rooms import room
from sparkbuild.source import local, patches
from sparkbuild.source.local import Found
from sparkbuild.source.mirror import mirror_of, mirror_path
from sparkbuild.source.names import check_ref, check_url, redact
from sparkbuild.source.options import Declared, scan
from sparkbuild.source.records import Origin, Patch, SourceTree
from sparkbuild.source.repository import Repository, RepositoryError
from sparkbuild.trees import git_tree

Asked = Literal["auto", "git", "sdist"]
_LONG_AGO = 946_684_800  # seconds since 1970: the year 2000, which no clock that goes back falls behind


class Record(msgspec.Struct, frozen=True):
    """What source.json holds beside a tree: where it is from, and what its CMake files say."""

    source: SourceTree
    declared: Declared


class Job(msgspec.Struct, frozen=True):
    """One checkout: what is asked of whom, and where it goes."""

    shelf: Shelf[Recipe]
    folders: Folders
    patches: tuple[Patch, ...]
    way: Asked
    offline: bool
    progress: Progress

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return self.shelf.record


def checkout(
    shelf: Shelf[Recipe],
    folders: Folders,
    *,
    ref: str | None = None,
    source: str | None = None,
    way: Asked = "auto",
    offline: bool = False,
    progress: Progress,
) -> SourceTree:
    """Return an engine's patched source tree, from the cache where it is there already.

    ``ref`` is a branch, tag or commit id (default: the recipe's pin); ``source`` a folder, an archive
    or a repository's URL instead of the recipe's own. ``auto`` takes git, and the recipe's sdist when
    the git host can not be reached; the tree's notes then say so.

    Raises UsageError for a bad ``ref`` or ``source``, MissingError where the network or git is
    missing, SourceError when the source is not what it should be or a patch does not apply.
    """
    job = Job(shelf, folders, patches.describe(shelf.patches), way, offline, progress)
    if ref is not None:
        check_ref(ref)
    if source is not None:
        return _from_given(job, source, ref)
    if way == "sdist":
        return _from_sdist(job, ref)
    return _pinned(job, ref) or _from_git_or_sdist(job, ref)


def _pinned(job: Job, ref: str | None) -> SourceTree | None:
    """Return the tree of the recipe's own pin when it lies in the cache, without asking git."""
    pin = job.recipe.git
    record = _kept(job, pin.tree) if ref in (None, pin.commit) else None
    if record and record.source.commit == pin.commit and job.way in ("auto", record.source.way):
        return record.source
    return None


def _from_git_or_sdist(job: Job, ref: str | None) -> SourceTree:
    sdist = job.recipe.sdist
    url = check_url(job.recipe.git.url)
    try:
        return _from_git(job, redact(url), url, ref or job.recipe.git.commit)
    except MissingError as away:
        if job.way == "git" or not sdist or ref not in (None, sdist.commit):
            raise
        note = _substitute(job.recipe, sdist, away)
        try:
            tree = _from_sdist(job, ref, note)
        except MissingError as missing:
            raise MissingError(
                f"no source of {job.recipe.name}: {away.what}; and {missing.what}",
                where=f"{away.where}; {missing.where}",
                remedy="run it once with the network, or give --source a folder or an archive",
            ) from None
    job.progress.note(note)
    return tree


def _substitute(recipe: Recipe, sdist: SdistSource, away: MissingError) -> str:
    text = f"{away.what}; built from the sdist {sdist.pin.file}, commit {_dated(sdist)}"
    if sdist.commit == recipe.git.commit:
        return f"{text}, the commit that the recipe pins"
    age = "older" if sdist.commit_time < recipe.git.commit_time else "newer"
    return f"{text}, {age} than the pin {_dated(recipe.git)}"


def _dated(revision: Revision) -> str:
    return f"{revision.commit[:12]} of {dt.datetime.fromtimestamp(revision.commit_time, dt.UTC):%Y-%m-%d}"


def _from_sdist(job: Job, ref: str | None, note: str = "") -> SourceTree:
    """Return the tree of the recipe's sdist, downloaded and checked."""
    sdist = job.recipe.sdist
    if not sdist or ref not in (None, sdist.commit):
        held = f"its sdist is commit {sdist.commit}" if sdist else "its recipe names none"
        raise UsageError(
            f"no sdist of {job.recipe.name} for this: {held}",
            where=str(job.shelf.path),
            remedy="leave --ref out, or take the source from git",
        )
    notes = tuple(n for n in (note, sdist.note) if n)
    origin = _revised(
        Origin(way="sdist", location=sdist.pin.file, ref=sdist.commit, tree=sdist.tree, notes=notes), sdist
    )

    def write(into: Path) -> None:
        archive = obtain(sdist.pin, job.folders, offline=job.offline, progress=job.progress)
        extract(archive, into, below=sdist.root, strip=1)
        if (found := git_tree(into)) != sdist.tree:
            raise SourceError(
                f"{sdist.pin.file} holds the tree {found} below {sdist.root}, expected {sdist.tree}",
                where=str(job.shelf.path),
                remedy="correct sdist.root and sdist.tree in the recipe",
            )

    return _shelve(job, (origin, write))


def _revised(origin: Origin, revision: Revision) -> Origin:
    known = {name: getattr(revision, name) for name in ("commit", "build_number", "commit_time")}
    return msgspec.structs.replace(origin, **known)


def _from_git(job: Job, location: str, url: str, ref: str) -> SourceTree:
    """Return the tree of a commit in the shared mirror of a URL; a damaged mirror is made anew, once."""
    try:
        return _from_mirror(job, location, url, ref)
    except RepositoryError as problem:
        gitdir = mirror_path(job.folders.cache, url)
        with locked(gitdir.with_suffix(".lock")):
            if not gitdir.exists() or Repository(gitdir, url).is_sound():
                raise
            if job.offline:
                raise MissingError(
                    f"the git mirror is damaged: {problem.what}",
                    where=str(gitdir),
                    remedy="run the same command once without --offline: it is made anew",
                ) from None
            shutil.rmtree(gitdir)
        job.progress.note(f"the git mirror was damaged and is made anew ({problem.what})")
        return _from_mirror(job, location, url, ref)


def _from_mirror(job: Job, location: str, url: str, ref: str) -> SourceTree:
    lock = mirror_path(job.folders.cache, url).with_suffix(".lock")
    with locked(lock):
        mirror = mirror_of(job.folders.cache, url)
        commit, notes = mirror.find(ref, offline=job.offline, progress=job.progress)
        origin = mirror.origin(ref, commit, location)
    pin = job.recipe.git
    if commit == pin.commit:
        if origin.tree != pin.tree:
            raise SourceError(
                f"commit {commit} has the tree {origin.tree}, the recipe says {pin.tree}",
                where=str(job.shelf.path),
                remedy="correct git.tree in the recipe",
            )
        origin = _revised(origin, pin)
    origin = msgspec.structs.replace(origin, notes=(*notes, *origin.notes))

    def write(into: Path) -> None:
        with locked(lock):
            mirror.write(commit, origin.tree, into, offline=job.offline)

    return _shelve(job, (origin, write))


def _from_given(job: Job, source: str, ref: str | None) -> SourceTree:
    """Return the tree of what a person named: a folder, an archive or a URL."""
    if job.way == "sdist":
        raise UsageError("an sdist and --source exclude each other", where="--source", remedy="leave one out")
    path = Path(source).expanduser()
    if "://" in source or "::" in source or source.startswith("-") or not path.exists():
        if not any(mark in source for mark in (":", "://")) and not source.startswith("-"):
            raise UsageError(
                "no such folder or archive", where=source[:200], remedy="give an existing path or a URL"
            )
        return _from_git(job, redact(source), check_url(source), ref or "HEAD")
    if any("\ud800" <= c <= "\udfff" for c in str(path)):  # bytes that are no text, as Python spells them
        raise UsageError("the path is not UTF-8", where=ascii(source)[:200], remedy="give it another name")
    path = path.resolve()
    if not path.is_dir() and not path.is_file():
        raise UsageError("neither a folder nor a file", where=str(path), remedy="name a folder or an archive")
    if job.folders.cache.resolve().is_relative_to(path):
        raise UsageError(
            "the source holds sparkbuild's own cache", where=str(path), remedy="name a smaller folder"
        )
    if ref and path.is_file():
        raise UsageError("an archive has no branches or tags", where="--ref", remedy="leave --ref out")
    with scratch_folder(job.folders) as scratch:
        found = local.from_folder(path, ref, scratch) if path.is_dir() else local.from_archive(path, scratch)
        return _shelve(job, found)


@contextlib.contextmanager
def scratch_folder(folders: Folders) -> Iterator[Path]:
    """Give an empty folder in the cache for the block."""
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(room(folders.cache / "scratch"))
        except OSError as problem:
            raise disk_error("cannot work in the cache", folders.cache, problem) from problem
        yield scratch


def _place(job: Job, tree: str) -> Path:
    return job.folders.cache / "src" / job.recipe.name / f"{tree[:12]}-{patches.digest(job.patches)[:12]}"


def _kept(job: Job, tree: str) -> Record | None:
    """Return the record of a tree in the cache, None when there is none or it is damaged."""
    place = _place(job, tree)
    record = kept(place / "source.json", Record)
    if not record or not (place / "tree").is_dir():
        return None
    if record.source.tree != tree or record.source.patches != job.patches:
        return None
    source = msgspec.structs.replace(record.source, path=place / "tree")
    return msgspec.structs.replace(record, source=source)


def _shelve(job: Job, found: Found) -> SourceTree:
    """Return the tree of an origin, written and patched first where the cache does not have it."""
    origin, write = found
    place = _place(job, origin.tree)
    with locked(place.with_name(f"{place.name}.lock")):
        record = _kept(job, origin.tree) or _made(job, origin, write, place)
    said = {name: getattr(origin, name) for name in Origin.__struct_fields__}
    return msgspec.structs.replace(record.source, **said)


def _made(job: Job, origin: Origin, write: local.Write, place: Path) -> Record:
    shutil.rmtree(place, ignore_errors=True)  # damaged
    job.progress.stage(f"check out {job.recipe.name} {origin.commit[:12] or origin.location}")
    with whole_folder(place) as temp:
        tree = temp / "tree"
        tree.mkdir()
        write(tree)
        patches.apply(job.shelf.patches, tree)
        source = SourceTree(
            engine=job.recipe.name,
            path=place / "tree",
            patched_tree=git_tree(tree) if job.patches else origin.tree,
            patches=job.patches,
            **{name: getattr(origin, name) for name in Origin.__struct_fields__},
        )
        _age(tree)
        record = Record(source, scan(tree))
        keep(temp / "source.json", record)
    return record


def _age(tree: Path) -> None:
    """Give every file one old time: a source that is newer than what was made of it is made again."""
    for folder, _, names in os.walk(tree):
        for name in names:
            os.utime(Path(folder, name), (_LONG_AGO, _LONG_AGO), follow_symlinks=False)


def intact(source: SourceTree) -> bool:
    """Return whether a tree still holds what was checked out (reads every file: about 0.3 s)."""
    return git_tree(source.path) == source.patched_tree
