"""Patches of a recipe: checked, then applied exactly, in order, or not at all.

What a patch touches is asked of git itself (``--numstat``, ``--summary``): the program that reads
the patch is the one that applies it, so the two can not disagree.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from sparkbuild.errors import SourceError
from sparkbuild.files import sha256_bytes
from sparkbuild.handover import plain_bytes
from sparkbuild.source.records import Patch
from sparkbuild.source.sealed import GitFailedError, ask

_LIMIT = 1 << 20  # bytes
_GOOD_MODES = ("100644", "100755")
Fit = Literal["applies", "in the source already", "does not apply"]


class Fitting(msgspec.Struct, frozen=True):
    """Whether a patch fits a tree; ``said`` is what git says of one that does not."""

    name: str
    fit: Fit
    said: str = ""


def describe(paths: Sequence[Path]) -> tuple[Patch, ...]:
    """Return the names and digests of patch files."""
    return tuple(Patch(path.name, sha256_bytes(_read(path))) for path in paths)


def digest(patches: Sequence[Patch]) -> str:
    """Return one SHA-256 over names and contents, in order."""
    return sha256_bytes("".join(f"{p.sha256} {p.name}\n" for p in patches).encode())


def apply(paths: Sequence[Path], tree: Path) -> None:
    """Apply patches to a tree that the caller throws away on SourceError."""
    for path in paths:
        names = touched(path)
        _check_paths(path, tree, names)
        before = [_content(tree / name) for name in names]
        _apply(path, tree)
        _check_paths(path, tree, names)
        same = [name for name, old in zip(names, before, strict=True) if _content(tree / name) == old]
        if same:
            raise _refuse(path, f"git applied it but {same[0]!r} did not change", "make the patch again")


def fittings(paths: Sequence[Path], tree: Path, room: Path) -> tuple[Fitting, ...]:
    """Return how each patch fits an unpatched tree behind those before it that do.

    The tree stays as it is: what the patches touch is copied into ``room``, an empty folder. Raises
    SourceError for a patch that may not be applied to any tree.
    """
    found: list[Fitting] = []
    copied: set[str] = set()
    for path in paths:
        names = touched(path)
        _check_paths(path, tree, names)
        for part in {str(p) for name in names for p in (name, *PurePosixPath(name).parents)} - copied:
            if (tree / part).is_file():
                (room / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(tree / part, room / part)
            copied.add(part)
        found.append(_tried(path, room))
    return tuple(found)


def _tried(path: Path, room: Path) -> Fitting:
    """Apply a patch where it fits, and return how it does; git refuses some that pass its ``--check``."""
    fit, said = _fit(path, room)
    try:
        if fit == "applies":
            _git(path, cwd=room)
    except GitFailedError as failure:
        fit, said = "does not apply", str(failure).strip()
    return Fitting(path.name, fit, said)


def _fit(path: Path, tree: Path) -> tuple[Fit, str]:
    try:
        _git(path, "--check", cwd=tree)
    except GitFailedError as failure:
        try:
            _git(path, "--check", "--reverse", cwd=tree)
        except GitFailedError:
            return "does not apply", str(failure).strip()
        return "in the source already", ""
    return "applies", ""


def _check_text(path: Path) -> None:
    data = _read(path)
    if b"\r" in data or b"\0" in data:
        raise _refuse(path, "it holds carriage returns or binary data", "save it with plain line ends")
    try:
        data.decode()
    except UnicodeDecodeError:
        raise _refuse(path, "it is not UTF-8", "save it as UTF-8") from None


def _read(path: Path) -> bytes:
    try:
        return plain_bytes(path, _LIMIT)
    except OSError as problem:
        raise _refuse(path, f"it can not be read: {problem.strerror}", "mend the file") from None
    except ValueError as problem:
        raise _refuse(path, str(problem), "split it, or carry the change in a fork") from None


def touched(path: Path) -> list[str]:
    """Return the files a patch changes, as git reads it; SourceError for all but plain text editing."""
    _check_text(path)
    for line in _git(path, "--summary").splitlines():
        words = line.split()
        if words[:2] not in [["create", "mode"], ["delete", "mode"]] or words[2] not in _GOOD_MODES:
            raise _refuse(
                path, f"it does more than edit text: {line.strip()}", "keep to edits of plain files"
            )
    rows = [row.split("\t", 2) for row in _git(path, "--numstat", "-z").split("\0") if row]
    if not rows:
        raise _refuse(path, "it changes nothing", "remove it")
    if any(row[0] == "-" for row in rows):
        raise _refuse(path, "it holds a binary change", "keep to edits of text")
    return [row[2] for row in rows]


def _check_paths(path: Path, tree: Path, names: Sequence[str]) -> None:
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or ".git" in (p.casefold() for p in parts):
            raise _refuse(path, f"{name!r} is outside of the tree", "keep to files of the engine")
        steps = [tree.joinpath(*parts[: i + 1]) for i in range(len(parts))]
        if any(step.is_symlink() for step in steps):
            raise _refuse(path, f"{name!r} goes through a symbolic link", "patch the file it points at")


def _apply(path: Path, tree: Path) -> None:
    fit, said = _fit(path, tree)
    if fit == "does not apply":
        raise SourceError(
            f"the patch {path.name} does not apply: {said.splitlines()[0]}",
            where=str(path),
            remedy="adapt the patch to this commit, or build the commit that the recipe pins",
            output=said,
        )
    if fit == "in the source already":
        raise _refuse(path, "it is already applied", "remove it from the recipe for this commit")
    try:
        _git(path, cwd=tree)
    except GitFailedError as failure:
        raise _refuse(path, f"git could not apply it: {failure}", "see that the disk has room") from None


def _git(path: Path, *flags: str, cwd: Path | None = None) -> str:
    """Run ``git apply``; a GIT_DIR that is none keeps it from finding a repository around the tree."""
    command = ["apply", "--whitespace=nowarn", *flags, "--end-of-options", str(path.absolute())]
    try:
        return ask(command, gitdir=os.devnull, cwd=cwd)
    except GitFailedError as failure:
        if cwd:
            raise
        raise _refuse(path, f"git can not read it: {failure}", "make it with git diff") from None


def _content(path: Path) -> tuple[bytes, int] | None:
    return (path.read_bytes(), path.stat().st_mode) if path.is_file() else None


def _refuse(path: Path, why: str, remedy: str) -> SourceError:
    return SourceError(f"refused the patch {path.name}: {why}", where=str(path), remedy=remedy)
