"""Which header an #include takes where several could be meant: what no list of dependencies tells.

A compile cache looks whether the headers that a compile read are still the same. A header that is added
and now comes first, or that ``__has_include`` finds, was not among them: ccache 4.7.5 returns the object of
before (tests/integration/test_cache.py shows it). So all such choices of a source tree are part of what
its objects are known by.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sparkbuild.build.commands import Entry
from sparkbuild.files import sha256_bytes, to_json
from sparkbuild.toolchain.place import SOURCE

_CODE = re.compile(r"\.(c|cc|cpp|cxx|cu|cuh|h|hh|hpp|hxx|inc|inl|ipp|def|m|s|S)$")
# A name after #define is one for #include MACRO. What a pattern begins with decides how fast it is.
_INCLUDE = re.compile(
    rb"#[ \t]*(?:include|include_next|import|embed|define[ \t]+\w+)[ \t]*[\"<]([^\">\n]+)[\">]"
)
_ASK = re.compile(rb"__has_(?:include|include_next|embed)[ \t]*\([ \t]*[\"<]([^\">\n]+)[\">]")
_SEARCHED = re.compile(r"(?:^| )(?:-I|-isystem|-iquote|-idirafter)[ ]?('[^']*'|\"[^\"]*\"|[^ ]+)")


class Seen(msgspec.Struct, frozen=True):
    """The SHA-256 of all choices in a tree, and whether its assembly takes in files that nothing lists."""

    digest: str
    embeds: bool


def choices(tree: Path, entries: Iterable[Entry], system: Iterable[str]) -> Seen:
    """Return all choices between headers that the commands' search paths leave in a tree.

    A choice is an include that more than one file answers, by the folder it stands in and the files it
    could be, or one that ``__has_include`` asks for. Where a file is added, moved or removed that has a part
    in one, the digest is another. ``system`` are the folders that the compilers search by themselves. Not
    seen: headers that the build generates, and those outside the tree among themselves.
    """
    read = _read(tree)
    includes = read.includes
    searched = [*_searched(entries), *system]
    outside = [f for f in searched if f.startswith("/")]
    files: dict[str, int] = Counter(posixpath.basename(p) for p in includes)

    def there(folder: str, name: str) -> list[str]:
        places = dict.fromkeys(posixpath.normpath(posixpath.join(f, name)) for f in (folder, *searched))
        return [p for p in places if p in includes or (p.startswith("/") and os.path.exists(p))]  # noqa: PTH110

    @functools.cache
    def could_be_two(name: str) -> bool:
        own = files[posixpath.basename(name)]
        return own > 1 or (own == 1 and any(os.path.exists(f"{f}/{name}") for f in outside))  # noqa: PTH110

    pairs = {(posixpath.dirname(p), n) for p, names in includes.items() for n in names if could_be_two(n)}
    found = {(f, n, *where) for f, n in pairs if len(where := there(f, n)) > 1}
    found |= {(f, n, *there(f, n)) for f, n in read.asks}
    return Seen(sha256_bytes(to_json(sorted(found))), read.embeds)


class _Read(msgspec.Struct):
    """What each file includes, by its path in the tree; what is asked for where; is ``.incbin`` anywhere."""

    includes: dict[str, set[str]] = {}
    asks: set[tuple[str, str]] = set()
    embeds: bool = False


def _read(tree: Path) -> _Read:
    """Read all code, and whatever else code includes; any file can be there or not."""
    found = _Read()
    for root, _, names in os.walk(tree):
        folder = os.path.relpath(root, tree)
        plain = (n for n in names if os.path.isfile(f"{root}/{n}"))  # noqa: PTH113 - a link may lead nowhere
        found.includes |= {posixpath.normpath(f"{folder}/{name}"): set() for name in plain}
    todo = {p for p in found.includes if _CODE.search(p)}
    done: set[str] = set()
    while todo:
        for path in todo:
            _read_one(tree, path, found)
        done |= todo
        wanted = {posixpath.basename(n) for names in found.includes.values() for n in names}
        todo = {p for p in found.includes.keys() - done if posixpath.basename(p) in wanted}
    return found


def _read_one(tree: Path, path: str, found: _Read) -> None:
    text = (tree / path).read_bytes()
    found.includes[path] = {n.decode(errors="replace") for n in _INCLUDE.findall(text)}
    if b"__has_" in text:
        found.asks |= {(posixpath.dirname(path), n.decode(errors="replace")) for n in _ASK.findall(text)}
    found.embeds = found.embeds or b".incbin" in text


def _searched(entries: Iterable[Entry]) -> list[str]:
    """Return the folders that any command searches: within the source from its top, others absolute."""
    words = {w.strip("'\"") for e in entries for w in _SEARCHED.findall(e.command)}
    top = str(SOURCE)
    folders = {posixpath.normpath(w) for w in words}
    return sorted(posixpath.relpath(f, top) if f.startswith(top) else f for f in folders)
