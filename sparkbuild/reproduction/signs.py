"""What gives away why two pieces of a build differ: moments, paths and names that one run made up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import get_args

import numpy as np

from sparkbuild.inspection.runtime import printable
from sparkbuild.reproduction.records import Kind

Sign = tuple[Kind, bytes]
ORDER: tuple[Kind, ...] = get_args(Kind)
_MOST = 1 << 18  # texts of one side that are compared
_LONGEST = 120  # characters of each side of a sample
_LEAD = 40  # of them, what both sides have before they differ
_SHORTEST = 6  # bytes of a text in a binary
_READABLE = np.array([0x20 <= b <= 0x7E for b in range(256)], np.int8)  # noqa: PLR2004 - ASCII
# nvcc's names hold a checksum of the source's real path (8 digits), the source's name, and the id of a
# symbol, of a process or of the seed; GCC's sections of an object for -flto a random number. The moments
# are as C's macros, ISO 8601 and time(2) write them. What comes before stands behind the first character:
# so a pattern is tried where that one is, and not at each byte.
_PATTERNS: tuple[tuple[Kind, re.Pattern[bytes]], ...] = (
    ("module id", re.compile(rb"_(?:GLOBAL__N__|INTERNAL_)[0-9a-f]\w{0,512}")),
    ("module id", re.compile(rb"\.gnu\.lto_[\w.]{0,255}\.[0-9a-f]{6,16}(?!\w)")),
    ("FILE symbol", re.compile(rb"tmpxft_[\w.-]{1,255}")),
    ("time stamp", re.compile(rb"\d(?<!\d\d)\d:\d\d:\d\d(?!\d)")),
    ("time stamp", re.compile(rb"\d(?<!\d\d)\d{3}-\d\d-\d\d(?!\d)")),
    ("time stamp", re.compile(rb"1(?<!\d1)[4-9]\d{8}(?!\d)")),
    ("time stamp", re.compile(rb"[JFMASOND][a-z]{2} [ \d]\d \d{4}(?!\d)")),
    ("embedded path", re.compile(rb"[\w.+@/-]{6,4096}+")),  # if it is one
)
_PATH = re.compile(rb"/[^/]+(?:/[^/]+)+|[^/]+(?:/[^/]+)+\.(?:cuh?|cc?|cpp|cxx|hh?|hpp|inc)")


def signs(data: bytes) -> Iterator[Sign]:
    """Yield the signs in a text, as often as they occur."""
    return ((kind, match[0]) for kind, match in _matches(data))


def _matches(text: bytes) -> Iterator[tuple[Kind, re.Match[bytes]]]:
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            if kind != "embedded path" or (b"/" in match[0] and _PATH.fullmatch(match[0])):
                yield kind, match


def signs_of_binary(data: bytes, *, first: bool, last: bool) -> Iterator[Sign]:
    """Yield the signs in a piece of a binary, ``first`` or ``last`` of it or in between.

    What touches an edge that is not the binary's own may be cut, and is left out.
    """
    text = _readable(data)
    for kind, match in _matches(text):
        if (first or match.start()) and (last or match.end() < len(text)):
            yield kind, match[0]


def _readable(data: bytes) -> bytes:
    """Return the runs of readable bytes, a NUL between them and where the edges are not readable.

    Compressed device code is noise in which a pattern would begin to match at every second byte.
    """
    plain = np.zeros(len(data) + 2, np.int8)
    plain[1:-1] = _READABLE[np.frombuffer(data, np.uint8)]
    edges = np.flatnonzero(np.diff(plain))
    keep = edges[1::2] - edges[::2] >= _SHORTEST
    runs = zip(edges[::2][keep].tolist(), edges[1::2][keep].tolist(), strict=True)
    return (
        (b"" if plain[1:2].any() else b"\0")
        + b"\0".join(data[a:b] for a, b in runs)
        + (b"" if plain[-2:-1].any() else b"\0")
    )


def changed(old: Iterable[Sign], new: Iterable[Sign]) -> Iterator[tuple[Kind, str]]:
    """Yield each kind of which the two sides have different texts, with the first of each: "OLD -> NEW".

    Nothing is told of sides with more than 262144 texts: what is left out of one may be in the other.
    """
    mine, theirs = _kept(old), _kept(new)
    if max(len(mine), len(theirs)) > _MOST:
        return
    for kind in ORDER:
        sides = [sorted(t for k, t in side if k == kind) for side in (mine - theirs, theirs - mine)]
        if any(sides):
            yield kind, between(*(s[0].decode(errors="replace") if s else "nothing" for s in sides))


def _kept(texts: Iterable[Sign]) -> set[Sign]:
    found: set[Sign] = set()
    for text in texts:
        found.add(text)
        if len(found) > _MOST:
            break
    return found


def between(old: str, new: str) -> str:
    """Return two texts as "OLD -> NEW", cut to where they differ when they are long."""
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    start = max(0, same - _LEAD) if max(len(old), len(new)) > _LONGEST else 0
    return " -> ".join(("..." if start else "") + shown(text[start:]) for text in (old, new))


def shown(text: str) -> str:
    """Return the beginning of a text, with nothing in it that could steer a terminal."""
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


def kind_of(name: bytes, other: Kind) -> Kind:
    """Return the kind of a name that one run made up, else ``other``."""
    found: Iterable[Kind] = (kind for kind, _ in signs(name) if kind in ("module id", "FILE symbol"))
    return next(iter(found), other)
