"""Sources on this machine: a folder as it is, a repository's commit, an archive.

No git command ever runs with a foreign repository's configuration: its objects are lent to an
empty repository of our own, and its HEAD and refs are copied there as text.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from sparkbuild.archives import extract
from sparkbuild.errors import SourceError, UsageError
from sparkbuild.handover import plain_bytes
from sparkbuild.source.mirror import create
from sparkbuild.source.names import legible
from sparkbuild.source.records import Origin
from sparkbuild.source.repository import Repository
from sparkbuild.trees import git_tree

Write = Callable[[Path], None]
Found = tuple[Origin, Write]

_LFS = b"version https://git-lfs.github.com/spec/"
_POINTER = 64 << 10  # bytes of a file in a git directory that names another place
_LFS_SIZE = 1024  # bytes; a pointer is smaller (the Git LFS specification)


def from_folder(folder: Path, ref: str | None, scratch: Path) -> Found:
    """Return a folder's content as it is; or, with ``ref`` or for a bare repository, a commit of it."""
    with _readable(folder):
        gitdir = _gitdir(folder)
    if ref and not gitdir:
        raise UsageError(
            f"--ref {ref} needs a git repository",
            where=str(folder),
            remedy="leave --ref out, or name a clone",
        )
    if gitdir and (ref or gitdir == folder):
        return _from_commit(gitdir, ref or "HEAD", folder, scratch)
    return _as_it_is(folder, _head(gitdir, folder, scratch) if gitdir else None)


def from_archive(archive: Path, scratch: Path) -> Found:
    """Return an archive's content, below its single top folder where it has one."""
    root = scratch / "archive"
    root.mkdir()
    extract(archive, root)
    while len(entries := list(root.iterdir())) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        root = entries[0]
    return _as_it_is(root, None, location=archive)


def copy(folder: Path, into: Path, tree: str) -> None:
    """Copy a folder without any ``.git``, sockets, pipes and devices; SourceError if it changed meanwhile."""
    try:
        shutil.copytree(folder, into, symlinks=True, dirs_exist_ok=True, ignore=_unwanted)
    except shutil.Error as problem:
        raise SourceError(
            f"cannot copy the source: {problem.args[0][0][2]}", where=str(folder), remedy="mend the folder"
        ) from None
    if git_tree(into) != tree:
        raise SourceError("the source changed while it was copied", where=str(folder), remedy="run it again")


def _as_it_is(folder: Path, head: Origin | None, location: Path | None = None) -> Found:
    tree = git_tree(folder)
    notes = _pointers(folder)
    origin = Origin(way="local", location=str(location or folder), ref="", tree=tree, notes=notes)
    if head:
        if head.tree != tree:
            notes = (
                f"differs from its commit {head.commit[:12]}: uncommitted changes or further files",
                *notes,
            )
        origin = msgspec.structs.replace(head, ref="", tree=tree, notes=(*head.notes, *notes))
    return origin, lambda into: copy(folder, into, tree)


def repository_of(folder: Path, scratch: Path) -> Repository:
    """Return a repository in ``scratch`` that reads a folder's commits. Raises UsageError without one."""
    if gitdir := _gitdir(folder):
        return _lent(gitdir, scratch)
    raise UsageError("it is no git repository", where=str(folder), remedy="name a clone")


def _from_commit(gitdir: Path, ref: str, folder: Path, scratch: Path) -> Found:
    repository = _lent(gitdir, scratch)
    commit = repository.resolve(ref)
    if not commit:
        raise repository.unknown(ref)
    origin = msgspec.structs.replace(repository.origin(ref, commit, str(folder)), way="local")
    return origin, lambda into: repository.write(commit, origin.tree, into, offline=True)


def _head(gitdir: Path, folder: Path, scratch: Path) -> Origin | None:
    """Return the commit a work tree stands on, None for a repository without one."""
    repository = _lent(gitdir, scratch)
    commit = repository.resolve("HEAD")
    return (
        msgspec.structs.replace(repository.origin("", commit, str(folder)), way="local") if commit else None
    )


def _lent(gitdir: Path, scratch: Path) -> Repository:
    ours = scratch / "lent.git"
    create(ours)
    with _readable(gitdir):
        common = gitdir
        if (gitdir / "commondir").is_file():  # a linked work tree
            common = (gitdir / os.fsdecode(plain_bytes(gitdir / "commondir", _POINTER)).strip()).resolve()
        (ours / "objects" / "info").mkdir(exist_ok=True)
        (ours / "objects" / "info" / "alternates").write_bytes(_quoted(common / "objects"))
        (ours / "HEAD").write_bytes(plain_bytes(gitdir / "HEAD", _POINTER))
        shutil.copytree(common / "refs", ours / "refs", dirs_exist_ok=True, symlinks=True, ignore=_unwanted)
        for name in ("packed-refs", "shallow"):
            if (common / name).is_file():
                (ours / name).write_bytes(plain_bytes(common / name))
    return Repository(ours, lender=str(gitdir))


def _quoted(path: Path) -> bytes:
    """Return a path as a line of alternates (gitrepository-layout(5)), quoted: it may hold a line break."""
    odd = re.compile(rb'[\x00-\x1f"\\\\]')
    return b'"' + odd.sub(lambda found: b"\\%03o" % found[0][0], os.fsencode(path)) + b'"\n'


@contextlib.contextmanager
def _readable(place: Path) -> Iterator[None]:
    """Turn what a damaged or hostile git directory gives into an error."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as problem:  # RuntimeError: links in circles
        raise SourceError(
            f"its git directory can not be read: {str(problem)[:200]}",
            where=str(place),
            remedy="mend it, or give an archive of the folder without it",
        ) from problem


def _gitdir(folder: Path) -> Path | None:
    """Return a folder's git directory: its own, a linked one, or the folder itself when bare."""
    dot = folder / ".git"
    if dot.is_file():
        link = os.fsdecode(plain_bytes(dot, _POINTER)).partition("gitdir:")[2].strip()
        dot = (folder / link).resolve() if link else dot
    for found in (dot, folder):
        if (found / "HEAD").is_file() and ((found / "objects").is_dir() or (found / "commondir").is_file()):
            return found
    return None


def _unwanted(folder: str, names: list[str]) -> list[str]:
    def wanted(name: str) -> bool:
        mode = Path(folder, name).lstat().st_mode
        return name != ".git" and (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))

    return [name for name in names if not wanted(name)]


def _pointers(folder: Path) -> tuple[str, ...]:
    """Return a note when files are Git LFS pointers instead of content."""
    if not any(
        b"filter=lfs" in path.read_bytes() for path in folder.rglob(".gitattributes") if path.is_file()
    ):
        return ()
    files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and ".git" not in p.parts)
    found = sorted(
        str(p.relative_to(folder))
        for p in files
        if p.stat().st_size < _LFS_SIZE and p.read_bytes().startswith(_LFS)
    )
    return (f"{len(found)} files are Git LFS pointers, the first {legible(found[0])}",) if found else ()
