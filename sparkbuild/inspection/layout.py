"""Where things lie in an open ELF file: its parts in windows, its addresses, what points where.

A file is never read whole: so the memory taken does not depend on its size. Formats: the ELF
specification (System V ABI, chapters 4 and 5) and the x86-64 and AArch64 supplements for relocations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
import numpy.typing as npt
from elftools.elf.elffile import ELFFile

from sparkbuild.inspection.elf import sections

WINDOW, _OVERLAP = 1 << 22, 1 << 16
_RELOCATION = np.dtype([("at", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_RELATIVE = {"EM_X86_64": 8, "EM_AARCH64": 1027}  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE
_POINTERS = (".data.rel.ro", ".data.rel.ro.local", ".data", ".rodata")  # the last where nothing moves

Addresses = npt.NDArray[np.uint64]


class Layout:
    """One open file: its sections, and where an address lies in it."""

    def __init__(self, file: IO[bytes], elf: ELFFile) -> None:
        self.file = file
        self.size = file.seek(0, 2)
        self.relative = _RELATIVE.get(str(elf.header.e_machine))
        self.sections = sections(elf)
        self.loads: list[tuple[int, int, int]] = [
            (s["p_vaddr"], s["p_filesz"], s["p_offset"])
            for s in elf.iter_segments()
            if s["p_type"] == "PT_LOAD"
        ]

    def read(self, offset: int, size: int) -> bytes:
        """Return a part of the file, as much of it as there is."""
        self.file.seek(offset)
        return self.file.read(max(0, min(size, self.size - offset)))

    def windows(self, begin: int, size: int, item: int = 1) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) of a part of the file; windows of bytes overlap, those of records do not."""
        if begin + size > self.size:
            raise ValueError("a section reaches beyond the file")
        step = WINDOW - WINDOW % item
        overlap = _OVERLAP if item == 1 else 0
        for at in range(begin, begin + size, step):
            yield at, self.read(at, min(step + overlap, begin + size - at))

    def constants(self) -> Iterator[tuple[int, int, int]]:
        """Yield (address, offset, size) of read-only data; of every segment where no section says."""
        found = [
            (s.address, s.offset, s.size)
            for s in self.sections
            if s.type == "SHT_PROGBITS" and s.name.startswith(".rodata")
        ]
        if not self.sections and sum(size for _, size, _ in self.loads) > self.size:
            raise ValueError("its segments overlap, or reach beyond the file")
        yield from found or [(address, offset, size) for address, size, offset in self.loads]

    def offset(self, address: int) -> int | None:
        """Return where an address lies in the file; None where it does not."""
        return next((o + address - a for a, size, o in self.loads if a <= address < a + size), None)

    def text(self, address: int) -> str:
        """Return the printable string at an address; empty where there is none."""
        offset = self.offset(address)
        raw = self.read(offset, 256).partition(b"\0")[0] if offset is not None else b""
        return raw.decode() if raw.isascii() and raw.decode().isprintable() else ""

    def links(self) -> Iterator[tuple[bool, Addresses, Addresses]]:
        """Yield places and what they point to, in pieces; and whether the loader itself writes it there.

        Else it is the word in the file, where that can be an address.
        """
        low = max(1, min((a for a, _, _ in self.loads), default=1))
        high = max((a + size for a, size, _ in self.loads), default=1)
        for s in self.sections:
            if s.type == "SHT_RELA" and s.flags & 2 and self.relative:  # allocated: the loader's own
                for _, data in self.windows(s.offset, s.size, _RELOCATION.itemsize):
                    rows = np.frombuffer(data, _RELOCATION, len(data) // _RELOCATION.itemsize)
                    rows = rows[(rows["info"] & 0xFFFFFFFF) == self.relative]
                    yield True, rows["at"], rows["addend"].view("<u8")
            elif s.name in _POINTERS and s.type == "SHT_PROGBITS":
                for at, data in self.windows(s.offset, s.size, 8):
                    words = np.frombuffer(data, "<u8", len(data) // 8)
                    places = np.flatnonzero((words >= low) & (words < high))
                    base = s.address + at - s.offset
                    yield False, places.astype(np.uint64) * 8 + base, words[places]
