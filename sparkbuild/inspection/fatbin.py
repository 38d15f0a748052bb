"""The device code inside a binary: which cubins and which PTX, for which architecture.

nvcc puts one fat binary a translation unit into the section .nv_fatbin (__nv_relfatbin for
relocatable device code): a header of 16 bytes (magic, version, header size, payload size), then
entries, each with its own header. The layout is not documented by NVIDIA; what is used here was
read off the output of nvcc 13.0 and compared with cuobjdump's listing of the same files.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sparkbuild.errors import BinaryError
from sparkbuild.inspection.elf import open_elf

_SECTIONS = (".nv_fatbin", "__nv_relfatbin")
_MAGIC = 0xBA55ED50
_HEADER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQ12xI8xQ")  # kind, version, header size, payload size, arch, flags
_PREFIX = {1: "compute_", 2: "sm_"}  # PTX, cubin
_SUFFIX = {0x100000: "a", 0x200000: "f"}
_COMPRESSED = 0xA000  # 0x2000 and 0x8000: two ways of it, seen with and without -compress-mode


class DeviceCode(msgspec.Struct, frozen=True):
    """One kind of device code: SASS as ``sm_121a`` or PTX as ``compute_121a``.

    ``entries`` says how many there are, one for each translation unit as a rule, ``compressed`` how
    many of them nvcc compressed.
    """

    name: str
    entries: int
    compressed: int = 0


def device_code(path: Path) -> tuple[DeviceCode, ...]:
    """Return the device code of a binary, most frequent first; none when it has no fat binary.

    The file is mapped, not read: only entry headers are touched. Raises BinaryError.
    """
    try:
        with path.open("rb") as file:
            sections = [s for s in open_elf(file).iter_sections() if s.name in _SECTIONS]
            if not sections:
                return ()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                places = [(s["sh_offset"], s["sh_offset"] + s["sh_size"]) for s in sections]
                found = Counter(entry for begin, end in places for entry in _entries(data, begin, end))
    except Exception as problem:  # pyelftools raises whatever a damaged file leads it to
        raise BinaryError(
            f"its device code can not be read: {problem}", where=str(path), remedy="build or fetch it again"
        ) from problem
    total: Counter[str] = Counter()
    for (name, _), count in found.items():
        total[name] += count
    return tuple(
        DeviceCode(name, count, found[name, True])
        for name, count in sorted(total.items(), key=lambda i: (-i[1], i[0]))
    )


def _entries(data: mmap.mmap, begin: int, end: int) -> Iterator[tuple[str, bool]]:
    """Yield name and whether compressed of each entry between two offsets. Raises ValueError."""
    if end > len(data):
        raise ValueError("a section reaches beyond the file")
    at = data.find(_MAGIC.to_bytes(4, "little"), begin, end)
    while at >= 0:
        _, _, header, size = _HEADER.unpack_from(data, at)
        stop = at + header + size
        if header < _HEADER.size or stop > end:
            raise ValueError(f"a fat binary at offset {at} reaches beyond its section")
        yield from _entries_of_one(data, at + header, stop)
        at = data.find(_MAGIC.to_bytes(4, "little"), stop, end)


def _entries_of_one(data: mmap.mmap, at: int, stop: int) -> Iterator[tuple[str, bool]]:
    while at < stop:
        kind, _, header, size, arch, flags = _ENTRY.unpack_from(data, at)
        if header < _ENTRY.size or at + header + size > stop:
            raise ValueError(f"an entry at offset {at} reaches beyond its fat binary")
        suffix = "".join(text for bit, text in _SUFFIX.items() if flags & bit)
        yield f"{_PREFIX.get(kind, f'kind{kind}_')}{arch}{suffix}", bool(flags & _COMPRESSED)
        at += header + size
