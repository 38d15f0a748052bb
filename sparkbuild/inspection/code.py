"""Which CPU features the machine code of an ELF file uses, told by its instructions.

Names, flags and build options say what was wanted; the instructions say what a CPU must have to run
them. Executable sections are swept from their first byte to their last. Data in between is taken for
instructions, as a disassembler takes it that has no symbols: a handful of instructions in a large
file is a hint, not a proof.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import iced_x86
import numpy as np
import numpy.typing as npt
from elftools.common.utils import struct_parse
from elftools.elf.constants import P_FLAGS, SH_FLAGS
from elftools.elf.elffile import ELFFile

from sparkbuild.errors import BinaryError
from sparkbuild.inspection import a64
from sparkbuild.inspection.elf import open_elf
from sparkbuild.inspection.tellable import TELLABLE

_BLOCK = 1 << 20  # bytes that are read at once
_WORD = 4  # bytes of an A64 instruction
_LONGEST = 15  # bytes of an x86 instruction (Intel SDM volume 2, 2.3.11)
_Place = tuple[int, int]  # offsets in the file: begin, end


def count_instructions(path: Path) -> dict[str, int]:
    """Return how many instructions of a file's executable code need each feature, those that occur only.

    An instruction that needs two features counts for both. Of a machine that is not in TELLABLE
    nothing is told. Memory does not grow with the file. Raises BinaryError.
    """
    try:
        with path.open("rb") as file:
            elf = open_elf(file)
            count = _COUNTERS.get(elf["e_machine"])
            found = count(file, _code(elf, os.fstat(file.fileno()).st_size)) if count else Counter()
    except Exception as problem:  # pyelftools raises whatever a damaged file leads it to
        raise BinaryError(
            f"its machine code can not be read: {problem}", where=str(path), remedy="build or fetch it again"
        ) from problem
    return {feature: found[feature] for feature in sorted(found) if found[feature]}


def _code(elf: ELFFile, size: int) -> list[_Place]:
    """Return where executable code lies in a file of ``size`` bytes, no byte twice, in file order.

    Headers are parsed without names, whose reading a hostile file can make endless. Raises ValueError
    for code beyond the file's end.
    """
    places, done = [], 0
    for begin, length in sorted(_sections(elf) if elf.num_sections() else _segments(elf)):
        end = begin + length
        if end > size:
            raise ValueError(f"code at offset {begin} reaches beyond the file")
        if end > done:
            places.append((max(begin, done), end))
            done = end
    return places


def _sections(elf: ELFFile) -> Iterator[_Place]:
    for number in range(elf.num_sections()):
        place = elf["e_shoff"] + number * elf["e_shentsize"]
        header = struct_parse(elf.structs.Elf_Shdr, elf.stream, stream_pos=place)
        if header.sh_flags & SH_FLAGS.SHF_EXECINSTR and header.sh_type != "SHT_NOBITS":
            yield header.sh_offset, header.sh_size


def _segments(elf: ELFFile) -> Iterator[_Place]:
    for number in range(elf.num_segments()):
        place = elf["e_phoff"] + number * elf["e_phentsize"]
        header = struct_parse(elf.structs.Elf_Phdr, elf.stream, stream_pos=place)
        if header.p_flags & P_FLAGS.PF_X and header.p_type == "PT_LOAD":
            yield header.p_offset, header.p_filesz


def _blocks(file: IO[bytes], place: _Place) -> Iterator[bytes]:
    begin, end = place
    for at in range(begin, end, _BLOCK):
        file.seek(at)
        yield file.read(min(_BLOCK, end - at))


def _count_a64(file: IO[bytes], places: list[_Place]) -> Counter[str]:
    """Count the words that match a row; instructions are little endian whatever the data is."""
    found: Counter[str] = Counter()
    for words in _words(file, places):
        for feature, mask, value in a64.ROWS:
            found[feature] += int(np.count_nonzero((words & mask) == value))
    return found


def _words(file: IO[bytes], places: list[_Place]) -> Iterator[npt.NDArray[np.uint32]]:
    """Yield whole words, those of many small places together: the rows cost the same for few words."""
    waiting = bytearray()
    for place in places:
        for block in _blocks(file, place):
            waiting += block[: len(block) // _WORD * _WORD]
            if len(waiting) >= _BLOCK:
                yield np.frombuffer(waiting, dtype="<u4")
                waiting = bytearray()
    yield np.frombuffer(waiting, dtype="<u4")


def _count_x86(file: IO[bytes], places: list[_Place]) -> Counter[str]:
    """Count what a linear sweep of each place decodes, without a Python step for each instruction."""
    codes: Counter[Any] = Counter()  # numbers when it runs, an enum in iced's stubs
    for place in places:
        rest = b""
        for block in _blocks(file, place):
            data = rest + block
            decoder = iced_x86.Decoder(64, data)
            while whole := (len(data) - decoder.position) // _LONGEST:  # so many are surely complete
                codes.update(map(_code_of, islice(decoder, whole)))
            rest = data[decoder.position :]
        codes.update(map(_code_of, iced_x86.Decoder(64, rest)))
    found: Counter[str] = Counter()
    instruction = iced_x86.Instruction()
    for instruction.code, count in codes.items():
        needs = (_X86_NAMES[f] for f in instruction.cpuid_features() if f in _X86_NAMES)
        found.update(dict.fromkeys(needs, count))
    return found


_code_of = attrgetter("code")
_X86_NAMES = {getattr(iced_x86.CpuidFeature, name.upper()): name for name in TELLABLE["x86_64"]}
_COUNTERS = {"EM_AARCH64": _count_a64, "EM_X86_64": _count_x86}
