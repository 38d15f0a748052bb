"""One thing that was checked of an artifact, and how it is read: plain files only, whole or not at all."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from sparkbuild.artifact.manifest import unique
from sparkbuild.evidence.statements import escaped

_MOST = 64 << 20  # bytes of a document
_DEEPEST = 64  # levels of it; a real one has ten
_SHOWN = 12  # of the differences of one document

Verdict = Literal["held", "failed", "not run"]


class Check(msgspec.Struct, frozen=True):
    """One thing and whether it holds.

    ``file`` is relative to what was checked, ``field`` says what of it: a JSON pointer in a document, a
    word such as "size" of a file, "" for all of it. ``said`` says why, in words.
    """

    file: str
    field: str
    verdict: Verdict
    said: str = ""

    @property
    def what(self) -> str:
        """The file and what of it, for a sentence."""
        return f"{self.file} {self.field}".strip()


def failed(file: str, field: str, said: str) -> Check:
    """Return a check that failed."""
    return Check(file, field, "failed", said)


def judged(file: str, field: str, wrong: str, right: str = "") -> Check:
    """Return a check that failed when there are words for what is wrong, and else held."""
    return failed(file, field, wrong) if wrong else Check(file, field, "held", right)


def oddity(path: Path) -> str:
    """Return why there is no plain file at a path, "" where there is one."""
    try:
        mode = path.lstat().st_mode
    except OSError as problem:
        return "it is missing" if isinstance(problem, FileNotFoundError) else f"{problem.strerror}"
    if stat.S_ISLNK(mode):
        return "it is a symbolic link"
    return "" if stat.S_ISREG(mode) else "it is no plain file"


def bytes_of(path: Path) -> bytes:
    """Return a document's bytes. Raises ValueError, with the reason in words, where it is none."""
    if why := oddity(path):
        raise ValueError(why)
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as problem:
        raise ValueError(problem.strerror) from problem
    if len(data) > _MOST:
        raise ValueError(f"it has more than {_MOST >> 20} MiB")
    return data


def json_of(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return JSON in which no key is there twice. Raises ValueError."""
    try:
        found = json.loads(data, object_pairs_hook=unique)
    except RecursionError as problem:
        raise ValueError("it is nested too deep") from problem
    level = [found]
    for _ in range(_DEEPEST):
        if not level:
            return found
        level = [inner for part in level for inner in _inside(part)]
    raise ValueError("it is nested too deep")


def _inside(part: object) -> Iterable[object]:
    return part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()


def differences(here: object, expected: object) -> list[str]:
    """Return the JSON pointers at which two documents differ, as deep as can be, a dozen at most."""
    found: list[str] = []
    for pointer in _differences("", here, expected):
        if len(found) == _SHOWN:
            return [*found, "and more"]
        found.append(pointer or "/")
    return found


def _differences(pointer: str, one: Any, two: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if isinstance(one, dict) and isinstance(two, dict):
        for name in sorted(one.keys() | two.keys()):
            below = f"{pointer}/{escaped(name)}"
            if name in one and name in two:
                yield from _differences(below, one[name], two[name])
            else:
                yield below
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for number, pair in enumerate(zip(one, two, strict=True)):
            yield from _differences(f"{pointer}/{number}", *pair)
    elif type(one) is not type(two) or one != two:
        yield pointer
