"""What differs between two files of a build: which sections, and what in them gives the reason away.

Files are read in windows, so the memory taken does not depend on their size.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import IO

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Symbol, SymbolTableSection

from sparkbuild.inspection import gather
from sparkbuild.inspection.elf import Section, is_elf, open_elf
from sparkbuild.inspection.fatbin import SECTIONS as DEVICE_CODE
from sparkbuild.inspection.layout import WINDOW, Layout
from sparkbuild.inspection.runtime import printable
from sparkbuild.reproduction.records import Kind
from sparkbuild.reproduction.signs import (
    ORDER,
    Sign,
    between,
    changed,
    kind_of,
    shown,
    signs,
    signs_of_binary,
)

Found = tuple[Kind, str]
_INDEX = ("/", "//", "/SYM64/")  # of symbols and of long names: what it says follows from the members
_LINE = 1 << 16  # bytes of a line of text
_NAMES = ("SHT_SYMTAB", "SHT_DYNSYM", "SHT_STRTAB")
_DATA = re.compile(r"\.rodata.*|\.comment|\.data(?!\.rel).*")
_BUILD_ID = ".note.gnu.build-id"
_NOTE_HEADER = 16  # bytes before the id: three sizes and "GNU" (System V ABI, note section)


def kinds(before: Path, after: Path) -> tuple[Found, ...]:
    """Return what differs between two files, causes first, each once with a sample: "OLD -> NEW".

    Empty when they are the same. Of two static libraries it is what differs in the first member that
    does. A file that can not be read counts as "layout".
    """
    found: dict[Kind, str] = {}
    try:
        for kind, sample in _differences(before, after):
            found.setdefault(kind, sample)
    except Exception as problem:  # noqa: BLE001 - pyelftools raises whatever a damaged file leads it to
        found.setdefault("layout", printable(f"it can not be read whole: {problem}"))
    return tuple((kind, found[kind]) for kind in ORDER if kind in found)


def _differences(before: Path, after: Path) -> Iterator[Found]:
    at = _first_difference(before, after)
    if at is None:
        return
    if is_elf(before) and is_elf(after):
        with before.open("rb") as old, after.open("rb") as new:
            found = list(_of_elf(old, new))
            yield from found or [("layout", f"headers or padding at offset {at}")]
    elif gather.is_library(before) and gather.is_library(after):
        yield from _of_library(before, after)
    elif _is_text(before) and _is_text(after):
        yield from _of_text(before, after)
    else:
        yield "layout", f"bytes from offset {at}"


def _first_difference(before: Path, after: Path) -> int | None:
    with before.open("rb") as old, after.open("rb") as new:
        return _offset(_blocks(old), _blocks(new))


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(WINDOW), b"")


def _offset(old: Iterable[bytes], new: Iterable[bytes]) -> int | None:
    """Return how far two streams of equally large blocks are the same; None when they are to the end."""
    at = 0
    for one, other in zip_longest(old, new, fillvalue=b""):
        if one != other:
            differ = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
            return at + next(differ, min(len(one), len(other)))
        at += len(one)
    return None


# -- ELF files -----------------------------------------------------------------------------------


def _of_elf(old: IO[bytes], new: IO[bytes]) -> Iterator[Found]:
    elfs = open_elf(old), open_elf(new)
    layouts = Layout(old, elfs[0]), Layout(new, elfs[1])
    mine, theirs = (_numbered(layout.sections) for layout in layouts)
    yield from changed(_section_names(mine), _section_names(theirs))
    names = False
    for key in mine:
        if key not in theirs or key[0] == ".shstrtab":  # what it holds was compared a moment ago
            continue
        pair = mine[key], theirs[key]
        at = _offset(*(_parts(layout, s) for layout, s in zip(layouts, pair, strict=True)))
        if at is not None and pair[0].type in _NAMES:
            names = True
        elif at is not None:
            yield from _of_sections(layouts, pair, at)
    if names:
        found = list(changed(*(_symbols(elf) for elf in elfs)))
        yield from found or [("layout", "addresses or order of symbols")]


def _numbered(sections: list[Section]) -> dict[tuple[str, int], Section]:
    """Return the sections that have bytes by name and number: in an object, many may have one name."""
    found: dict[tuple[str, int], Section] = {}
    count: dict[str, int] = {}
    for section in sections:
        if section.type not in ("SHT_NULL", "SHT_NOBITS"):
            number = count[section.name] = count.get(section.name, -1) + 1
            found[section.name, number] = section
    return found


def _section_names(numbered: Iterable[tuple[str, int]]) -> set[Sign]:
    names = ((name.encode(errors="replace"), number) for name, number in numbered)
    return {
        (kind_of(name, "layout"), b"section %b" % name + b" again" * bool(number)) for name, number in names
    }


def _parts(layout: Layout, section: Section) -> Iterator[bytes]:
    return (data[:WINDOW] for _, data in layout.windows(section.offset, section.size))


def _of_sections(layouts: tuple[Layout, Layout], pair: tuple[Section, Section], at: int) -> Iterator[Found]:
    section = pair[0]
    where = f"{shown(section.name)} from byte {at}"
    sides = list(zip(layouts, pair, strict=True))
    if section.name == _BUILD_ID:
        yield (
            "build id",
            between(*(layout.read(s.offset, s.size)[_NOTE_HEADER:].hex() for layout, s in sides)),
        )
    elif section.flags & SH_FLAGS.SHF_EXECINSTR:
        yield "code", where
    elif section.type != "SHT_PROGBITS":
        yield "layout", where
    else:
        found = list(changed(*(_signs_of(layout, s) for layout, s in sides)))
        yield from found
        if section.name in DEVICE_CODE:
            yield "device code", where
        elif not found:
            yield ("read-only data" if _DATA.fullmatch(section.name) else "layout"), where


def _signs_of(layout: Layout, section: Section) -> Iterator[Sign]:
    """Yield the signs in a section; what a window's edge cuts is whole in the window beside it."""
    begin, end = section.offset, section.offset + section.size
    for at, data in layout.windows(begin, section.size):
        yield from dict.fromkeys(signs_of_binary(data, first=at == begin, last=at + len(data) == end))


def _symbols(elf: ELFFile) -> Iterator[Sign]:
    tables = (t for t in elf.iter_sections() if isinstance(t, SymbolTableSection))
    return (_symbol(symbol) for table in tables for symbol in table.iter_symbols())


def _symbol(symbol: Symbol) -> Sign:
    name = symbol.name.encode()
    return ("FILE symbol" if symbol["st_info"]["type"] == "STT_FILE" else kind_of(name, "symbols")), name


# -- other files ---------------------------------------------------------------------------------


def _of_library(before: Path, after: Path) -> Iterator[Found]:
    """Yield what differs in the first member that does; else it is the index or a header (ar(5))."""
    minor: list[Found] = []
    for old, new in zip_longest(gather.members(before), gather.members(after)):
        if not old or not new:
            yield "layout", "one has more members"
            return
        name = shown(old[0][:16].decode(errors="replace").strip())
        found = _of_members((before, *old[1:]), (after, *new[1:]))
        if found and name not in _INDEX:
            yield from ((kind, f"{name}: {sample}") for kind, sample in found)
            return
        minor += [("layout", "the index")] * bool(found)
        dates = [head[16:28].decode(errors="replace").strip() for head, _, _ in (old, new)]
        if old[0] != new[0]:
            minor.append(
                ("time stamp", f"{name}: {between(*dates)}") if dates[0] != dates[1] else ("layout", name)
            )
    yield from minor


def _of_members(old: tuple[Path, int, int], new: tuple[Path, int, int]) -> tuple[Found, ...]:
    with tempfile.TemporaryDirectory(prefix="sparkbuild-member-") as work:
        pair = Path(work, "old"), Path(work, "new")
        gather.unpack(*old, pair[0])
        gather.unpack(*new, pair[1])
        return kinds(*pair)


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(_LINE)


def _of_text(before: Path, after: Path) -> Iterator[Found]:
    with before.open("rb") as old, after.open("rb") as new:
        lines = (iter(partial(file.readline, _LINE), b"") for file in (old, new))
        for one, other in zip_longest(*lines, fillvalue=b""):
            if one != other:
                texts = [line.decode(errors="replace").strip() for line in (one, other)]
                found = list(changed(signs(one), signs(other)))
                yield from found or [("text", between(*texts))]
