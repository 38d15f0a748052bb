"""Remember what was found on this machine for as long as the files it was found in stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from sparkbuild.files import from_json, keep, kept, sha256_bytes, to_json

T = TypeVar("T")


class _Memory(msgspec.Struct, frozen=True):
    found: msgspec.Raw
    stamps: dict[str, tuple[int, int]]


def recall(
    folder: Path, what: str, question: object, kind: type[T], find: Callable[[], tuple[T, Iterable[Path]]]
) -> T:
    """Return ``find()``'s answer, from ``folder`` when every file that it rests on is unchanged.

    ``question`` is everything the answer depends on besides those files; ``find`` returns the
    answer and the files (compared by size and modification time; behind a link, of what it leads to now).
    """
    path = folder / "machine" / f"{what}-{sha256_bytes(to_json(question))[:16]}.json"
    memory = kept(path, _Memory)
    try:
        if memory and memory.stamps == {name: _stamp(Path(name)) for name in memory.stamps}:
            return from_json(memory.found, kind)
    except (OSError, ValueError):
        pass  # a file is gone, or another version of sparkbuild remembered it
    found, files = find()
    stamps = {str(f): _stamp(f) for f in files}
    keep(path, _Memory(msgspec.Raw(to_json(found)), stamps))
    return found


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
