"""Names inside a binary: symbols and strings that are looked for, tables of names, variables.

Only what a pattern asks for is kept, and string tables are read in windows, so that the memory taken
depends on neither the size of the file nor the number of its symbols. Formats: the ELF specification
(System V ABI, chapters 4 and 5) and the x86-64 and AArch64 supplements for relocations.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from elftools.elf.elffile import ELFFile

from sparkbuild.errors import BinaryError
from sparkbuild.inspection.elf import open_elf

_WINDOW, _OVERLAP = 1 << 22, 1 << 16
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("at", "<u8"), ("size", "<u8")]
)
_RELOCATION = np.dtype([("at", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_RELATIVE = {"EM_X86_64": 8, "EM_AARCH64": 1027}  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE
_RUN = re.compile(rb"(?<![^\0])(?:[a-z][a-z0-9_-]{1,40}\0{1,8}){8,}")
_ENOUGH = 2  # anchors that make a run of strings the one that is looked for
_POINTERS = (".data.rel.ro", ".data.rel.ro.local", ".data")
_ENTRY = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,20}")
_TEXT = re.compile(rb"[\x20-\x7e\n\t]{3,}(?=\0)")
_WORD = re.compile(rb"[^\0]+")
_STRIDES = range(8, 264, 8)
_TABLE = 256  # entries of a table of names, at most

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
    """Return the names in an ELF file that are looked for. Raises BinaryError."""
    try:
        with path.open("rb") as file:
            return _Reader(file, wanted).names()
    except Exception as problem:  # pyelftools raises whatever a damaged file leads it to
        raise BinaryError(
            f"its names can not be read: {problem}", where=str(path), remedy="build or fetch it again"
        ) from problem


class _Reader:
    """One open file: its sections, and where an address lies in it."""

    def __init__(self, file: IO[bytes], wanted: Wanted) -> None:
        self.file = file
        self.wanted = wanted
        self.size = file.seek(0, 2)
        self.elf: ELFFile = open_elf(file)
        self.sections: list[Any] = list(self.elf.iter_sections())
        self.loads: list[tuple[int, int, int]] = [
            (s["p_vaddr"], s["p_filesz"], s["p_offset"])
            for s in self.elf.iter_segments()
            if s["p_type"] == "PT_LOAD"
        ]

    def names(self) -> Names:
        symbols, calls, variables = self._symbols()
        strings, run, ends, first = self._strings()
        pointers = self._pointers()
        number, text = self._values(variables, pointers)
        return Names(
            symbols=symbols,
            calls=calls,
            strings=strings,
            run=run,
            ends=ends,
            table=self._table(first, pointers),
            number=number,
            text=text,
            complete=any(s["sh_type"] == "SHT_SYMTAB" for s in self.sections),
        )

    def _read(self, offset: int, size: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(max(0, min(size, self.size - offset)))

    def _windows(self, begin: int, size: int, item: int = 1) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) of a part of the file; windows of bytes overlap, those of records do not."""
        if begin + size > self.size:
            raise ValueError("a section reaches beyond the file")
        step = _WINDOW - _WINDOW % item
        overlap = _OVERLAP if item == 1 else 0
        for at in range(begin, begin + size, step):
            yield at, self._read(at, min(step + overlap, begin + size - at))

    # -- symbols ---------------------------------------------------------------------------------

    def _symbols(self) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, int]]:
        """Return the symbols that are defined and called, and the addresses of the variables."""
        variables = self.wanted.variables or ()
        pattern = _any([*self.wanted.symbols, *map(re.escape, variables)])
        defined: set[str] = set()
        called: set[str] = set()
        places: dict[str, int] = {}
        for section in self.sections:
            if pattern is None or section["sh_type"] not in ("SHT_SYMTAB", "SHT_DYNSYM"):
                continue
            for name, symbol in self._matching(section, pattern):
                (defined if symbol["section"] else called).add(name)
                if name in variables and symbol["section"]:
                    places[name] = int(symbol["at"])
        return tuple(sorted(defined)), tuple(sorted(called - defined)), places

    def _matching(self, section: Any, pattern: re.Pattern[bytes]) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
        """Yield name and row of each symbol of a table that the pattern matches."""
        names = self.elf.get_section(section["sh_link"])
        begin, size = names["sh_offset"], names["sh_size"]
        for _, data in self._windows(section["sh_offset"], section["sh_size"], _SYMBOL.itemsize):
            table = np.frombuffer(data, _SYMBOL, len(data) // _SYMBOL.itemsize)
            order = np.argsort(table["name"], kind="stable")
            offsets = table["name"][order]
            for at, text in self._windows(begin, size):
                low, high = np.searchsorted(offsets, [at - begin, at - begin + _WINDOW])
                for place, row in zip(offsets[low:high].tolist(), order[low:high].tolist(), strict=True):
                    start = place - (at - begin)
                    name = text[start : text.find(b"\0", start)]
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
        for address, offset, size in self._constants():
            for at, data in self._windows(offset, size):
                strings.update(_whole_strings(whole, data))
                places.update(at + m.start() - offset + address for m in _found(first, data))
                run |= dict.fromkeys(self._run(data))
        for _, offset, size in self._constants() if run else ():
            ended.update(m[0].decode() for _, data in self._windows(offset, size) for m in _found(ends, data))
        return tuple(sorted(strings)), tuple(run), tuple(sorted(ended)), places

    def _run(self, data: bytes) -> Iterator[str]:
        """Yield the words of every run of lower-case words that holds enough anchors."""
        anchors = {a.encode() for a in self.wanted.anchors}
        for match in _RUN.finditer(data) if anchors else ():
            words = _WORD.findall(match[0])
            if len(anchors.intersection(words)) >= _ENOUGH:
                yield from (w.decode() for w in words)

    def _constants(self) -> Iterator[tuple[int, int, int]]:
        """Yield (address, offset, size) of read-only data; of every segment where no section says."""
        found = [
            (s["sh_addr"], s["sh_offset"], s["sh_size"])
            for s in self.sections
            if s["sh_type"] == "SHT_PROGBITS" and s.name.startswith(".rodata")
        ]
        yield from found or [(address, offset, size) for address, size, offset in self.loads]

    # -- pointers, variables, tables -------------------------------------------------------------

    def _offset(self, address: int) -> int | None:
        return next((o + address - a for a, size, o in self.loads if a <= address < a + size), None)

    def _text(self, address: int) -> str:
        offset = self._offset(address)
        raw = self._read(offset, 256).partition(b"\0")[0] if offset is not None else b""
        return raw.decode() if raw.isascii() and raw.decode().isprintable() else ""

    def _pointers(self) -> dict[int, int]:
        """Return address -> what it points to: what the loader relocates, else the word in the file."""
        if not self.wanted.table and not self.wanted.variables:
            return {}
        found: dict[int, int] = {}
        low = max(1, min((a for a, _, _ in self.loads), default=1))
        high = max((a + size for a, size, _ in self.loads), default=1)
        relative = _RELATIVE.get(str(self.elf.header.e_machine))
        for section in self.sections:
            if section["sh_type"] == "SHT_RELA" and section["sh_flags"] & 2:  # allocated: the loader's own
                for _, data in self._windows(section["sh_offset"], section["sh_size"], _RELOCATION.itemsize):
                    rows = np.frombuffer(data, _RELOCATION, len(data) // _RELOCATION.itemsize)
                    rows = rows[(rows["info"] & 0xFFFFFFFF) == relative]
                    found.update(zip(rows["at"].tolist(), rows["addend"].tolist(), strict=True))
            elif section.name in _POINTERS and section["sh_type"] == "SHT_PROGBITS":
                for at, data in self._windows(section["sh_offset"], section["sh_size"], 8):
                    words = np.frombuffer(data, "<u8", len(data) // 8)
                    base = section["sh_addr"] + at - section["sh_offset"]
                    places = np.flatnonzero((words >= low) & (words < high))
                    for i in places.tolist():
                        found.setdefault(base + i * 8, int(words[i]))
        return found

    def _values(self, places: dict[str, int], pointers: dict[int, int]) -> tuple[int | None, str]:
        if not self.wanted.variables:
            return None, ""
        number, text = (places.get(name) for name in self.wanted.variables)
        offset = self._offset(number) if number is not None else None
        raw = self._read(offset, 4) if offset is not None else b""
        value = int(struct.unpack("<i", raw)[0]) if len(raw) == 4 else None  # noqa: PLR2004 - an int
        return value, self._text(pointers.get(text, 0)) if text is not None else ""

    def _table(self, first: set[int], pointers: dict[int, int]) -> tuple[str, ...]:
        """Return the names of an array of records that each begin with a pointer to a name."""
        for start in sorted(at for at, to in pointers.items() if to in first):
            for stride in _STRIDES:
                begin = [
                    self._text(pointers.get(start + i * stride, 0)) for i in range(len(self.wanted.table))
                ]
                if tuple(begin) == self.wanted.table:
                    return self._entries(start, stride, pointers)
        return ()

    def _entries(self, start: int, stride: int, pointers: dict[int, int]) -> tuple[str, ...]:
        """Return the table's names by number, up to the last one."""
        texts = [self._text(pointers.get(start + i * stride, 0)) for i in range(_TABLE)]
        names = [t if _ENTRY.fullmatch(t) else "" for t in texts]
        while names and not names[-1]:
            names.pop()
        return tuple(names)


def _any(patterns: Sequence[str], after: bytes = b"") -> re.Pattern[bytes] | None:
    """Return one pattern out of many; None for none."""
    return re.compile(b"(?:" + "|".join(patterns).encode() + b")" + after) if patterns else None


def _found(pattern: re.Pattern[bytes] | None, data: bytes) -> Iterator[re.Match[bytes]]:
    return pattern.finditer(data) if pattern else iter(())


def _whole_strings(pattern: re.Pattern[bytes] | None, data: bytes) -> Iterator[str]:
    """Yield the C strings that the pattern matches.

    A number before a string can look like text: so a mangled name may begin within one.
    """
    for text in _TEXT.findall(data) if pattern else ():
        for part in (text, text[text.rfind(b"_Z") :]):
            if pattern and pattern.fullmatch(part):
                yield part.decode()
