"""What a source tree is, as frozen records."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild.packages import Sha256

Kind = Literal["BOOL", "STRING", "PATH", "FILEPATH", "variable"]
Way = Literal["git", "sdist", "local"]


class Option(msgspec.Struct, frozen=True):
    """A cache variable that an engine's CMake files declare.

    ``default`` is the text that stands there, so it may hold ``${...}``; ``kind`` is CMake's cache
    type, "variable" where the call leaves it open; ``file`` is relative to the tree.
    """

    name: str
    kind: Kind
    default: str
    help: str
    file: str


class Patch(msgspec.Struct, frozen=True):
    """A patch file by its name and content."""

    name: str
    sha256: Sha256


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a source comes from, known before a file of it is written.

    ``tree`` is the git tree id of the content, without submodules and patches.
    """

    way: Way
    location: str
    ref: str
    tree: str
    commit: str = ""
    build_number: int = 0
    commit_time: int = 0
    notes: tuple[str, ...] = ()


class SourceTree(Origin, frozen=True, kw_only=True):
    """An engine's source, patched, in a folder that holds nothing else and no ``.git``.

    ``location`` is a URL without credentials, the sdist's file name or a local path. ``commit`` is
    empty, ``build_number`` and ``commit_time`` (seconds since 1970) are 0 where they are not known.
    ``patched_tree`` is the git tree id of what lies in ``path``; ``notes`` are facts for a person.
    """

    engine: str
    path: Path
    patched_tree: str
    patches: tuple[Patch, ...] = ()
