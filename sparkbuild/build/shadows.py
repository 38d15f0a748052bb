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


def choices(tree: Path, entries: Iterable[Entry]) -> str:
    """Return the SHA-256 of all choices between headers that the commands' search paths leave in a tree.

    A choice is an include that more than one file answers, by the folder it stands in and the files it
    could be, or one that ``__has_include`` asks for. Where a file is added, moved or removed that has a part
    in one, the digest is another. Not seen: headers that the build generates, and the system's among
    themselves.
    """
    includes, asks = _read(tree)
    searched = _searched(entries)
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
    found |= {(f, n, *there(f, n)) for f, n in asks}
    return sha256_bytes(to_json(sorted(found)))


def _read(tree: Path) -> tuple[dict[str, set[str]], set[tuple[str, str]]]:
    """Return what each file of code includes, by its path in the tree, and what is asked for where."""
    includes: dict[str, set[str]] = {}
    asks: set[tuple[str, str]] = set()
    for root, _, names in os.walk(tree):
        folder = os.path.relpath(root, tree)
        for name in filter(_CODE.search, names):
            path = posixpath.normpath(f"{folder}/{name}")
            if not os.path.isfile(f"{root}/{name}"):  # noqa: PTH113 - a link that leads nowhere
                continue
            text = Path(root, name).read_bytes()
            includes[path] = {n.decode(errors="replace") for n in _INCLUDE.findall(text)}
            if b"__has_" in text:
                asks |= {(posixpath.dirname(path), n.decode(errors="replace")) for n in _ASK.findall(text)}
    return includes, asks


def _searched(entries: Iterable[Entry]) -> list[str]:
    """Return the folders that any command searches: within the source from its top, others absolute."""
    words = {w.strip("'\"") for e in entries for w in _SEARCHED.findall(e.command)}
    top = str(SOURCE)
    folders = {posixpath.normpath(w) for w in words}
    return sorted(posixpath.relpath(f, top) if f.startswith(top) else f for f in folders)
