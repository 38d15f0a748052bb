"""Facts of one ELF file: what machine it is for, what it needs, where it looks for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import msgspec
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import Section as ElfSection
from elftools.elf.segments import InterpSegment, NoteSegment

from sparkbuild.errors import BinaryError
from sparkbuild.inspection.runtime import printable

T = TypeVar("T")
# Counts and links inside a hostile file can make a reader go in circles for years. No real file has
# more of anything.
_MOST_SEGMENTS = 256
_MOST = 1 << 16
_MOST_BYTES = 1 << 26  # of headers, names and tags that are read of one file
_MACHINES = {"EM_AARCH64": "aarch64", "EM_X86_64": "x86_64"}


class ElfFacts(msgspec.Struct, frozen=True):
    """What an ELF file says of itself, with nothing in it that could steer a terminal.

    ``glibc`` is the highest GLIBC_x.y version among its symbols: the oldest glibc that runs it.
    """

    machine: str
    kind: str
    soname: str = ""
    needed: tuple[str, ...] = ()
    runpath: str = ""
    interpreter: str = ""
    build_id: str = ""
    glibc: str = ""


class Section(msgspec.Struct, frozen=True):
    """A section's header: ``type`` is pyelftools' name of it, an int where it has none."""

    name: str
    type: str | int
    flags: int
    address: int
    offset: int
    size: int
    link: int


def is_elf(path: Path) -> bool:
    """Return whether a file begins as an ELF file does."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def read_elf(path: Path) -> ElfFacts:
    """Read a file's facts. Raises BinaryError when it is no readable ELF file."""
    try:
        with path.open("rb") as file:
            return _facts(open_elf(file))
    except Exception as problem:  # pyelftools raises whatever a damaged file leads it to
        raise BinaryError(
            f"not a readable ELF file: {problem}", where=str(path), remedy="build or fetch it again"
        ) from problem


def open_elf(file: IO[bytes]) -> ELFFile:
    """Return a file's reader. Raises ValueError when it claims more parts than any real file has."""
    elf = _Elf(cast("IO[bytes]", _Frugal(file)))
    if elf.num_segments() > _MOST_SEGMENTS or elf.num_sections() > _MOST:
        raise ValueError(f"it claims {elf.num_segments()} segments and {elf.num_sections()} sections")
    return elf


def sections(elf: ELFFile) -> list[Section]:
    """Return a file's sections. Raises ValueError when they overlap, which they never may (System V ABI)."""
    fields = ("sh_type", "sh_flags", "sh_addr", "sh_offset", "sh_size", "sh_link")
    found = [Section(s.name, *(s[f] for f in fields)) for s in elf.iter_sections()]
    if sum(s.size for s in found if s.type not in ("SHT_NOBITS", "SHT_NULL")) > elf.stream_len:
        raise ValueError("its sections overlap, or reach beyond the file")
    return found


class _Elf(ELFFile):
    """A reader that leaves hash tables alone: pyelftools keeps every number of them."""

    def _make_section(self, header: Any) -> ElfSection:  # noqa: ANN401 - theirs
        if header["sh_type"] in ("SHT_HASH", "SHT_GNU_HASH"):
            return ElfSection(header, self._get_section_name(header), self)
        return super()._make_section(header)


class _Frugal:
    """A file that can be read up to a limit: one name in it may be as long as the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, _MOST_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("its headers take more bytes than those of any real file")
        return data


def _facts(elf: ELFFile) -> ElfFacts:
    words: dict[str, list[str]] = {}
    segments = list(elf.iter_segments())  # what the loader reads; sections may be stripped
    for tag in _bounded(t for s in segments if isinstance(s, DynamicSegment) for t in s.iter_tags()):
        name = tag.entry.d_tag
        if name in ("DT_NEEDED", "DT_SONAME", "DT_RUNPATH", "DT_RPATH"):
            words.setdefault(name, []).append(getattr(tag, name.removeprefix("DT_").lower()))
    notes = _bounded(n for s in segments if isinstance(s, NoteSegment) for n in s.iter_notes())
    build_id = next((n.n_desc for n in notes if n.n_type == "NT_GNU_BUILD_ID"), "")
    interpreter = next((s.get_interp_name() for s in segments if isinstance(s, InterpSegment)), "")
    glibc = _newest(list(_bounded(_version_names(elf))))
    machine = elf.header.e_machine
    return ElfFacts(
        machine=_MACHINES.get(machine, str(machine)),
        kind="executable" if interpreter else "library",
        soname=printable("".join(words.get("DT_SONAME", []))),
        needed=tuple(printable(n) for n in words.get("DT_NEEDED", [])),
        runpath=printable(":".join(words.get("DT_RUNPATH", []) + words.get("DT_RPATH", []))),
        interpreter=printable(interpreter),
        build_id=build_id,
        glibc=glibc.removeprefix("GLIBC_"),
    )


def _version_names(elf: ELFFile) -> Iterator[str]:
    """Yield the names of the libraries and versions that are needed."""
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for library, versions in section.iter_versions():
                yield library.name or ""
                yield from (version.name or "" for version in versions)


def _bounded(items: Iterable[T]) -> Iterator[T]:
    for number, item in enumerate(items):
        if number == _MOST:
            raise ValueError("its tables go in circles")
        yield item


def _newest(names: list[str]) -> str:
    found = [n for n in names if re.fullmatch(r"GLIBC_\d+(\.\d+)+", n)]
    return max(found, key=lambda n: [int(x) for x in n.removeprefix("GLIBC_").split(".")], default="")
