"""git's tree id of a folder, which says what a source holds wherever it came from."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from sparkbuild.errors import SourceError

DEEPEST = 100  # levels of folders; the deepest engine has ten


def git_tree(root: Path, *, level: int = 0) -> str:
    """Return the git tree id (40 hex digits) that ``git write-tree`` would give this folder.

    Everything in it counts, ignored or not, but for what is named ``.git`` at any depth. The format
    is git's own (Pro Git, "Git Objects"); empty folders, sockets, pipes and devices do not exist for
    git, and neither do they here. Raises SourceError for folders in folders without end.
    """
    if level > DEEPEST:
        raise too_deep(root)
    entries: list[tuple[bytes, bytes, bytes]] = []
    for path in root.iterdir():
        name = os.fsencode(path.name)
        if name == b".git":
            continue
        if path.is_symlink():
            link = os.readlink(path)  # noqa: PTH115 - as a Path it would lose "./" and "//"
            entries.append((name, b"120000", _blob(os.fsencode(link))))
        elif path.is_dir():
            if (tree := git_tree(path, level=level + 1)) != _EMPTY_TREE:
                entries.append((name + b"/", b"40000", bytes.fromhex(tree)))
        elif path.is_file():
            mode = b"100755" if path.stat().st_mode & stat.S_IXUSR else b"100644"
            entries.append((name, mode, _blob_of(path)))
    body = b"".join(mode + b" " + name.rstrip(b"/") + b"\0" + oid for name, mode, oid in sorted(entries))
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def _blob(data: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).digest()


def _blob_of(path: Path) -> bytes:
    """Return a file's blob id, read in blocks: a model may lie beside the source."""
    with path.open("rb") as file:
        begun = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        return hashlib.file_digest(file, lambda: begun).digest()


def too_deep(path: Path) -> SourceError:
    """Return the error for folders that are nested too deep: what works on them calls itself."""
    return SourceError(
        f"folders are nested more than {DEEPEST} deep",
        where=str(path)[:200],
        remedy="it is damaged or hostile; do not use it",
    )
