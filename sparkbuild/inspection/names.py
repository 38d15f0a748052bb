"""Names inside a binary: symbols and strings that are looked for, tables of names, variables.

Only what a pattern asks for is kept, so that the memory taken does not depend on the number of symbols.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import numpy as np
from elftools.elf.elffile import ELFFile

from sparkbuild.errors import BinaryError
from sparkbuild.inspection import layout
from sparkbuild.inspection.elf import Section, open_elf
from sparkbuild.inspection.layout import Layout

T = TypeVar("T")
# A hostile file can hold what is looked for without end. No real one has more, or longer names.
_MOST, _LONGEST = 1 << 15, 1 << 12
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("at", "<u8"), ("size", "<u8")]
)
_RUN = re.compile(rb"(?<![^\0])(?:[a-z][a-z0-9_-]{1,40}\0{1,8}){8,2000}")
_ENOUGH = 2  # anchors that make a run of strings the one that is looked for
_ENTRY = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,20}")
# Begins where printable bytes begin and never goes back: else a long text is read again for each byte.
_TEXT = re.compile(rb"(?<![\x20-\x7e\n\t])[\x20-\x7e\n\t]{3,4096}+(?=\0)")
_WORD = re.compile(rb"[^\0]+")
_STRIDES = range(8, 264, 8)
_TABLE = 256  # entries of a table of names, at most
_TABLES = 64  # places that may be the beginning of the table, at most

Span = tuple[int, int]


class Wanted(msgspec.Struct, frozen=True):
    """What is looked for: regular expressions over whole symbols and over whole C strings.

    ``anchors`` are strings that lie only among the names of a run, ``ends`` strings that may be the
    end of another one; ``table`` are the names that a table begins with, ``variables`` the symbols of
    an int and of a pointer to a string.
    """

    symbols: tuple[str, ...] = ()
    strings: tuple[str, ...] = ()
    anchors: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    variables: tuple[str, str] | None = None


class Names(msgspec.Struct, frozen=True):
    """What was found of it.

    ``symbols`` are defined here, ``calls`` come from elsewhere. ``run`` are the strings that lie
    together with two anchors or more, in order; ``ends`` the strings that are there at all (linkers
    keep one copy, perhaps as the end of a longer one); ``table`` the names of a table by number,
    empty where an entry has none. ``number`` and ``text`` are the variables' values. ``complete`` is
    False where the file keeps only the symbols that it exports.
    """

    symbols: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    strings: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    number: int | None = None
    text: str = ""
    complete: bool = False


def read_names(path: Path, wanted: Wanted) -> Names:
    """Return the names in an ELF file that are looked for. Raises BinaryError.

    Only 64-bit little-endian files are read; in others nothing is found, and nothing is complete.
    """
    try:
        with path.open("rb") as file:
            elf = open_elf(file)
            if elf.elfclass != 64 or not elf.little_endian:  # noqa: PLR2004 - bits
                return Names()
            return _Reader(file, elf, wanted).names()
    except Exception as problem:  # pyelftools raises whatever a damaged file leads it to
        raise BinaryError(
            f"its names can not be read: {problem}", where=str(path), remedy="build or fetch it again"
        ) from problem


class _Reader(Layout):
    """One open file, and what is looked for in it."""

    def __init__(self, file: IO[bytes], elf: ELFFile, wanted: Wanted) -> None:
        super().__init__(file, elf)
        self.wanted = wanted

    def names(self) -> Names:
        symbols, calls, variables = self._symbols()
        strings, run, ends, first = self._strings()
        starts = self._starts(first)
        length = _TABLE * _STRIDES[-1]
        pointers = self._pointers(
            [*((at, at + 1) for at in variables.values()), *((at, at + length) for at in starts)]
        )
        number, text = self._values(variables, pointers)
        return Names(
            symbols=symbols,
            calls=calls,
            strings=strings,
            run=run,
            ends=ends,
            table=self._table(starts, pointers),
            number=number,
            text=text,
            complete=any(s.type == "SHT_SYMTAB" for s in self.sections),
        )

    # -- symbols ---------------------------------------------------------------------------------

    def _symbols(self) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, int]]:
        """Return the symbols that are defined and called, and the addresses of the variables."""
        variables = self.wanted.variables or ()
        pattern = _any([*self.wanted.symbols, *map(re.escape, variables)])
        defined: set[str] = set()
        called: set[str] = set()
        places: dict[str, int] = {}
        if pattern is None:
            return (), (), places
        tables = [s for s in self.sections if s.type in ("SHT_SYMTAB", "SHT_DYNSYM")]
        if len({s.type for s in tables}) != len(tables):
            raise ValueError("it has two symbol tables of one kind")
        for section in tables:
            for name, symbol in self._matching(section, pattern):
                _add(defined if symbol["section"] else called, [name])
                if name in variables and symbol["section"]:
                    places[name] = int(symbol["at"])
        return tuple(sorted(defined)), tuple(sorted(called - defined)), places

    def _matching(self, section: Section, pattern: re.Pattern[bytes]) -> Iterator[tuple[str, Any]]:
        """Yield name and row of each symbol of a table that the pattern matches."""
        names = self.sections[section.link]
        for _, data in self.windows(section.offset, section.size, _SYMBOL.itemsize):
            table = np.frombuffer(data, _SYMBOL, len(data) // _SYMBOL.itemsize)
            order = np.argsort(table["name"], kind="stable")
            offsets = table["name"][order]
            for at, text in self.windows(names.offset, names.size):
                begin = at - names.offset
                low, high = np.searchsorted(offsets, [begin, begin + layout.WINDOW])
                for place, row in zip(offsets[low:high].tolist(), order[low:high].tolist(), strict=True):
                    start = place - begin
                    name = text[start : text.find(b"\0", start, start + _LONGEST)]
                    if pattern.fullmatch(name):
                        yield name.decode("utf-8", "backslashreplace"), table[row]

    # -- strings ---------------------------------------------------------------------------------

    def _strings(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], set[int]]:
        """Return the strings, the run of names, the ends, and the addresses of the table's first name."""
        whole = _any(self.wanted.strings)
        ends = _any([re.escape(e) for e in self.wanted.ends], rb"(?=\0)")
        first = _any([re.escape(e) for e in self.wanted.table[:1]], rb"(?=\0)")
        strings: set[str] = set()
        ended: set[str] = set()
        run: dict[str, None] = {}
        places: set[int] = set()
        for address, offset, size in self.constants():
            for at, data in self._texts(offset, size):
                _add(strings, _whole_strings(whole, data))
                _add(places, (at + m.start() - offset + address for m in _found(first, data)))
                run |= dict.fromkeys(self._run(data))
                _check(run)
        for _, offset, size in self.constants() if run else ():
            for _, data in self._texts(offset, size):
                ended.update(m[0].decode() for m in _found(ends, data))
        return tuple(sorted(strings)), tuple(run), tuple(sorted(ended)), places

    def _texts(self, begin: int, size: int) -> Iterator[tuple[int, bytes]]:
        """Yield windows that begin with a whole string: the window before has seen the cut one."""
        whole = True
        for at, data in self.windows(begin, size):
            skip = 0 if whole else data.find(b"\0") + 1
            yield at + skip, data[skip:]
            whole = data[layout.WINDOW - 1 : layout.WINDOW] == b"\0"

    def _run(self, data: bytes) -> Iterator[str]:
        """Yield the words of every run of lower-case words that holds enough anchors."""
        anchors = {a.encode() for a in self.wanted.anchors}
        for match in _RUN.finditer(data) if anchors else ():
            words = _WORD.findall(match[0])
            if len(anchors.intersection(words)) >= _ENOUGH:
                yield from (w.decode() for w in words)

    # -- pointers, variables, tables -------------------------------------------------------------

    def _starts(self, first: set[int]) -> list[int]:
        """Return the places that point to the table's first name, the first ones of many."""
        found: set[int] = set()
        names = np.array(sorted(first), np.uint64)
        for _, places, targets in self.links() if first else ():
            found.update(places[np.isin(targets, names)][:_TABLES].tolist())
        return sorted(found)[:_TABLES]

    def _pointers(self, near: list[Span]) -> dict[int, int]:
        """Return address -> what it points to, of the aligned addresses within the spans."""
        found: dict[int, int] = {}
        for sure, places, targets in self.links() if near else ():
            keep = np.zeros(len(places), bool)
            for low, high in near:
                keep |= (places >= low) & (places < high)
            keep &= places % 8 == 0
            pairs = dict(zip(places[keep].tolist(), targets[keep].tolist(), strict=True))
            found = found | pairs if sure else pairs | found
        return found

    def _values(self, places: dict[str, int], pointers: dict[int, int]) -> tuple[int | None, str]:
        if not self.wanted.variables:
            return None, ""
        number, text = (places.get(name) for name in self.wanted.variables)
        offset = self.offset(number) if number is not None else None
        raw = self.read(offset, 4) if offset is not None else b""
        value = int(struct.unpack("<i", raw)[0]) if len(raw) == 4 else None  # noqa: PLR2004 - an int
        return value, self.text(pointers.get(text, 0)) if text is not None else ""

    def _table(self, starts: list[int], pointers: dict[int, int]) -> tuple[str, ...]:
        """Return the names of an array of records that each begin with a pointer to a name."""
        for start in starts:
            for stride in _STRIDES:
                begin = [
                    self.text(pointers.get(start + i * stride, 0)) for i in range(len(self.wanted.table))
                ]
                if tuple(begin) == self.wanted.table:
                    return self._entries(start, stride, pointers)
        return ()

    def _entries(self, start: int, stride: int, pointers: dict[int, int]) -> tuple[str, ...]:
        """Return the table's names by number, up to the last one."""
        texts = [self.text(pointers.get(start + i * stride, 0)) for i in range(_TABLE)]
        names = [t if _ENTRY.fullmatch(t) else "" for t in texts]
        while names and not names[-1]:
            names.pop()
        return tuple(names)


def _any(patterns: Sequence[str], after: bytes = b"") -> re.Pattern[bytes] | None:
    """Return one pattern out of many; None for none."""
    return re.compile(b"(?:" + "|".join(patterns).encode() + b")" + after) if patterns else None


def _found(pattern: re.Pattern[bytes] | None, data: bytes) -> Iterator[re.Match[bytes]]:
    return pattern.finditer(data) if pattern else iter(())


def _add(found: set[T], more: Iterable[T]) -> None:
    for item in more:
        found.add(item)
        _check(found)


def _check(found: Collection[object]) -> None:
    if len(found) > _MOST:
        raise ValueError("it holds more of the names that are looked for than any real file")


def _whole_strings(pattern: re.Pattern[bytes] | None, data: bytes) -> Iterator[str]:
    """Yield the C strings that the pattern matches.

    A number before a string can look like text: so a mangled name may begin within one.
    """
    for text in _TEXT.findall(data) if pattern else ():
        for part in (text, text[max(0, text.find(b"_Z")) :]):
            if pattern and pattern.fullmatch(part):
                yield part.decode()
