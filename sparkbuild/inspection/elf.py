"""Facts of one ELF file: what machine it is for, what it needs, where it looks for it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.segments import InterpSegment, NoteSegment

from sparkbuild.errors import BinaryError

_MACHINES = {"EM_AARCH64": "aarch64", "EM_X86_64": "x86_64"}


class ElfFacts(msgspec.Struct, frozen=True):
    """What an ELF file says of itself.

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


def is_elf(path: Path) -> bool:
    """Return whether a file begins as an ELF file does."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def read_elf(path: Path) -> ElfFacts:
    """Read a file's facts. Raises BinaryError when it is no readable ELF file."""
    try:
        with path.open("rb") as file:
            return _facts(ELFFile(file))
    except Exception as problem:  # pyelftools raises whatever a damaged file leads it to
        raise BinaryError(
            f"not a readable ELF file: {problem}", where=str(path), remedy="build or fetch it again"
        ) from problem


def _facts(elf: ELFFile) -> ElfFacts:
    words: dict[str, list[str]] = {}
    interpreter = build_id = ""
    for segment in elf.iter_segments():  # what the loader reads; sections may be stripped
        if isinstance(segment, DynamicSegment):
            for tag in segment.iter_tags():
                name = tag.entry.d_tag
                if name in ("DT_NEEDED", "DT_SONAME", "DT_RUNPATH", "DT_RPATH"):
                    words.setdefault(name, []).append(getattr(tag, name.removeprefix("DT_").lower()))
        elif isinstance(segment, NoteSegment):
            ids = [n.n_desc for n in segment.iter_notes() if n.n_type == "NT_GNU_BUILD_ID"]
            build_id = "".join(ids[:1]) or build_id
        elif isinstance(segment, InterpSegment):
            interpreter = segment.get_interp_name()
    needs = [s for s in elf.iter_sections() if isinstance(s, GNUVerNeedSection)]
    glibc = _newest([aux.name for s in needs for _, auxes in s.iter_versions() for aux in auxes])
    machine = elf.header.e_machine
    return ElfFacts(
        machine=_MACHINES.get(machine, str(machine)),
        kind="executable" if interpreter else "library",
        soname="".join(words.get("DT_SONAME", [])),
        needed=tuple(words.get("DT_NEEDED", [])),
        runpath=":".join(words.get("DT_RUNPATH", []) + words.get("DT_RPATH", [])),
        interpreter=interpreter,
        build_id=build_id,
        glibc=glibc.removeprefix("GLIBC_"),
    )


def _newest(names: list[str]) -> str:
    found = [n for n in names if re.fullmatch(r"GLIBC_\d+(\.\d+)+", n)]
    return max(found, key=lambda n: [int(x) for x in n.removeprefix("GLIBC_").split(".")], default="")
