"""The device code inside a binary: which cubins and which PTX, for which architecture.

nvcc puts one fat binary a translation unit into the section .nv_fatbin (__nv_relfatbin for
relocatable device code): a header of 16 bytes (magic, version, header size, payload size), then
entries, each with its own header. The layout is not documented by NVIDIA; what is used here was
read off the output of nvcc 13.0 and compared with cuobjdump's listing of the same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sparkbuild.errors import BinaryError
from sparkbuild.inspection.elf import Section, open_elf, sections
from sparkbuild.inspection.records import DeviceCode

SECTIONS = (".nv_fatbin", "__nv_relfatbin")
_MAGIC = (0xBA55ED50).to_bytes(4, "little")
_WINDOW = 1 << 20  # bytes that are searched at once
_MOST = 1 << 12  # different names
_HEADER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQ12xI8xQ")  # kind, version, header size, payload size, arch, flags
_PREFIX = {1: "compute_", 2: "sm_"}  # PTX, cubin
_SUFFIX = {0x100000: "a", 0x200000: "f"}
_COMPRESSED = 0xA000  # 0x2000 and 0x8000: two ways of it, seen with and without -compress-mode


def device_code(path: Path) -> tuple[DeviceCode, ...]:
    """Return the device code of a binary, most frequent first; none when it has no fat binary.

    Only headers, and what lies between fat binaries, are read. Raises BinaryError.
    """
    found: Counter[tuple[str, bool]] = Counter()
    with _damaged(path), path.open("rb") as file:
        for section in _device_sections(file):
            for entry in _entries(file, section.offset, section.offset + section.size):
                found[entry] += 1
                if len(found) > _MOST:
                    raise ValueError("it claims more kinds of device code than there are")
    total: Counter[str] = Counter()
    for (name, _), count in found.items():
        total[name] += count
    return tuple(
        DeviceCode(name, count, found[name, True])
        for name, count in sorted(total.items(), key=lambda i: (-i[1], i[0]))
    )


def device_code_digest(path: Path) -> str:
    """Return the SHA-256 of the sections that hold device code, wherever they lie; empty without any.

    Raises BinaryError.
    """
    digest, any_ = hashlib.sha256(), False
    with _damaged(path), path.open("rb") as file:
        for section in _device_sections(file):
            any_ = True
            digest.update(f"{section.name} {section.size}\n".encode())
            file.seek(section.offset)
            left = section.size
            while left:
                block = file.read(min(left, _WINDOW))
                if not block:
                    raise ValueError("a section reaches beyond the file")
                digest.update(block)
                left -= len(block)
    return digest.hexdigest() if any_ else ""


def _device_sections(file: IO[bytes]) -> list[Section]:
    return [s for s in sections(open_elf(file)) if s.name in SECTIONS]


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as problem:  # pyelftools raises whatever a damaged file leads it to
        raise BinaryError(
            f"its device code can not be read: {problem}", where=str(path), remedy="build or fetch it again"
        ) from problem


def _entries(file: IO[bytes], begin: int, end: int) -> Iterator[tuple[str, bool]]:
    """Yield name and whether compressed of each entry between two offsets. Raises ValueError."""
    if end > os.fstat(file.fileno()).st_size:
        raise ValueError("a section reaches beyond the file")
    while (at := _find(file, begin, end)) >= 0:
        _, _, header, size = _read(file, at, _HEADER)
        begin = at + header + size
        if header < _HEADER.size or begin > end:
            raise ValueError(f"a fat binary at offset {at} reaches beyond its section")
        yield from _entries_of_one(file, at + header, begin)


def _entries_of_one(file: IO[bytes], at: int, stop: int) -> Iterator[tuple[str, bool]]:
    while at < stop:
        kind, _, header, size, arch, flags = _read(file, at, _ENTRY)
        if header < _ENTRY.size or at + header + size > stop:
            raise ValueError(f"an entry at offset {at} reaches beyond its fat binary")
        suffix = "".join(text for bit, text in _SUFFIX.items() if flags & bit)
        yield f"{_PREFIX.get(kind, f'kind{kind}_')}{arch}{suffix}", bool(flags & _COMPRESSED)
        at += header + size


def _find(file: IO[bytes], at: int, end: int) -> int:
    """Return the offset of the next fat binary, -1 for none. The next is near, as a rule."""
    step = 1 << 10
    while at + len(_MAGIC) <= end:
        file.seek(at)
        block = file.read(min(step, end - at))
        place = block.find(_MAGIC)
        if place >= 0:
            return at + place
        at += len(block) - len(_MAGIC) + 1
        step = min(2 * step, _WINDOW)
    return -1


def _read(file: IO[bytes], at: int, layout: struct.Struct) -> tuple[int, ...]:
    file.seek(at)
    return layout.unpack(file.read(layout.size))
