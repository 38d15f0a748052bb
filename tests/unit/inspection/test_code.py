"""Where code lies in a file, and what is in whole files; an assembler is the judge, see assembler.py."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkbuild.errors import BinaryError
from sparkbuild.inspection import code
from sparkbuild.inspection.code import count_instructions
from sparkbuild.inspection.tellable import TELLABLE
from tests.unit.inspection.assembler import NEEDS, find, needs_tools, run

_LOOPS = """
int mixed(const unsigned char *a, const signed char *b, int n)
{ int s = 0; for (int i = 0; i < n; i++) s += a[i] * b[i]; return s; }
int dot(const signed char *a, const signed char *b, int n)
{ int s = 0; for (int i = 0; i < n; i++) s += a[i] * b[i]; return s; }
void axpy(float *y, const float *x, float a, int n) { for (int i = 0; i < n; i++) y[i] += a * x[i]; }
void mean(unsigned char *y, const unsigned char *x, int n)
{ for (int i = 0; i < n; i++) y[i] = (y[i] + x[i] + 1) >> 1; }
void pick(int *y, const int *x, int n) { for (int i = 0; i < n; i++) if (x[i] > 3) y[i] = x[i] << (i & 7); }
void half(_Float16 *y, const _Float16 *x, int n) { for (int i = 0; i < n; i++) y[i] = y[i] * x[i] + x[i]; }
unsigned long shift(unsigned long x, int n) { return x << n | x >> (n / 2); }
"""
_COMPILED = [
    ("aarch64", "-march=armv8-a", ""),
    ("aarch64", "-march=armv8.2-a+dotprod", "dotprod"),
    ("aarch64", "-march=armv8.2-a+dotprod+fp16", "dotprod fp16"),
    ("aarch64", "-march=armv8.6-a+fp16", "dotprod fp16 i8mm"),
    ("aarch64", "-march=armv8.2-a+sve", "sve"),
    ("aarch64", "-march=armv9-a+i8mm", "i8mm sve sve2"),
    ("x86_64", "-march=x86-64", ""),
    ("x86_64", "-mavx", "avx"),
    ("x86_64", "-mavx2 -mfma -mf16c", "avx avx2 f16c fma"),
    ("x86_64", "-march=haswell", "avx avx2 bmi2 f16c fma"),
    ("x86_64", "-march=haswell -mavxvnni", "avx avx2 avx_vnni bmi2 f16c fma"),
    ("x86_64", "-march=icelake-server -mprefer-vector-width=512", "avx avx512_vnni avx512bw avx512f fma"),
    ("x86_64", "-march=sapphirerapids", "avx avx512_fp16 avx512bw avx512f avx512vl"),
]


@pytest.mark.parametrize(
    ("machine", "flags", "features"),
    [pytest.param(*c, marks=needs_tools(c[0]), id=f"{c[0]} {c[1]}") for c in _COMPILED],
)
def test_compiled_code(tmp_path: Path, machine: str, flags: str, features: str) -> None:
    source, path = tmp_path / "x.c", tmp_path / "x.o"
    source.write_text(_LOOPS)
    options = ["-O3", "-ffast-math", "-ffunction-sections", *flags.split()]
    run([find(machine, "gcc"), *options, "-c", str(source), "-o", str(path)])
    found = count_instructions(path)
    assert found == NEEDS[machine](path)
    assert {*features.split()} <= found.keys()
    assert features or not found


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        pytest.param(machine, name, marks=needs_tools(machine))
        for machine in TELLABLE
        for name in ("libc.so.6", "libm.so.6", "libgomp.so.1", "libgcc_s.so.1")
    ],
)
def test_libraries_of_this_machine(machine: str, name: str) -> None:
    path = Path(run([find(machine, "gcc"), f"-print-file-name={name}"]).strip())
    if not path.is_absolute():
        pytest.skip(f"{name} for {machine} is not installed")
    assert count_instructions(path) == NEEDS[machine](path)


_A64_MACHINE, _X86_MACHINE = 183, 62  # e_machine (elf(5))
_CODE = (1, 6)  # type SHT_PROGBITS, flags SHF_ALLOC and SHF_EXECINSTR
_SDOT = bytes.fromhex("2094824e")
_A64_NOP = bytes.fromhex("1f2003d5")
_FMA = bytes.fromhex("c4e275b8d0")

Section = tuple[int, int, int, int]  # type, flags, offset from the code, size


def elf(machine: int, content: bytes, *sections: Section) -> bytes:
    """Return a file of a header, some bytes and section headers, or one executable segment instead."""
    tail = 64 + len(content)
    counts = (0, tail, 0, 64, 56, 0, 64, len(sections)) if sections else (tail, 0, 0, 64, 56, 1, 64, 0)
    head = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 3, machine, 1, 0, *counts, 0)
    table = struct.pack("<IIQQQQQQ", 1, 5, 64, 0, 0, len(content), len(content), 4)  # PT_LOAD; PF_R, PF_X
    if sections:
        table = b"".join(
            struct.pack("<IIQQQQIIQQ", 0, k, f, 0, 64 + at, n, 0, 0, 4, 0) for k, f, at, n in sections
        )
    return head + content + table


def told(folder: Path, data: bytes) -> dict[str, int]:
    (folder / "x").write_bytes(data)
    return count_instructions(folder / "x")


def test_executable_sections_only(tmp_path: Path) -> None:
    sections = [(*_CODE, 0, 4), (1, 2, 4, 4), (*_CODE, 8, 8), (8, 6, 0, 1 << 40)]
    assert told(tmp_path, elf(_A64_MACHINE, _SDOT * 4, *sections)) == {"dotprod": 3}


def test_without_section_headers_executable_segments(tmp_path: Path) -> None:
    assert told(tmp_path, elf(_A64_MACHINE, _SDOT * 4)) == {"dotprod": 4}
    assert told(tmp_path, elf(_X86_MACHINE, _FMA * 3)) == {"fma": 3}


def test_of_another_machine_nothing_is_told(tmp_path: Path) -> None:
    assert told(tmp_path, elf(40, _SDOT * 4)) == {}


def test_no_byte_counts_twice(tmp_path: Path) -> None:
    sections = [(*_CODE, 0, 8), (*_CODE, 0, 16), (*_CODE, 4, 4), (*_CODE, 12, 8), (*_CODE, 20, 0)]
    assert told(tmp_path, elf(_A64_MACHINE, _SDOT * 6, *sections)) == {"dotprod": 5}
    assert told(tmp_path, elf(_X86_MACHINE, _FMA * 1000, *[(*_CODE, 0, 5000)] * 20000)) == {"fma": 1000}


@pytest.mark.parametrize("place", [(0, 1 << 20), (1 << 40, 4), (2**64 - 65, 4), (0, 2**64 - 1)])
def test_code_beyond_the_file_is_refused(tmp_path: Path, place: tuple[int, int]) -> None:
    with pytest.raises(BinaryError, match="beyond the file") as caught:
        told(tmp_path, elf(_A64_MACHINE, _SDOT, (*_CODE, *place)))
    assert caught.value.where == str(tmp_path / "x")


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\2\1\1" + b"\xff" * 100])
def test_what_is_no_elf_file_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BinaryError):
        told(tmp_path, data)
    with pytest.raises(BinaryError):
        count_instructions(tmp_path)


@pytest.mark.parametrize("before", range(5))
def test_instructions_across_blocks(tmp_path: Path, before: int) -> None:
    """More than two blocks, whose ends fall on every byte of an instruction."""
    count = 2 * code._BLOCK // len(_FMA) + 100
    assert told(tmp_path, elf(_X86_MACHINE, b"\x90" * before + _FMA * count)) == {"fma": count}
    assert told(tmp_path, elf(_A64_MACHINE, _A64_NOP * before + _SDOT * count)) == {"dotprod": count}


def test_an_instruction_does_not_reach_into_the_next_section(tmp_path: Path) -> None:
    sections = [(*_CODE, 0, 3), (*_CODE, 5, 5)]
    assert told(tmp_path, elf(_X86_MACHINE, _FMA * 2, *sections)) == {"fma": 1}
    assert told(tmp_path, elf(_A64_MACHINE, _SDOT * 2, (*_CODE, 0, 7))) == {"dotprod": 1}


_ANY_MACHINE = st.sampled_from([_A64_MACHINE, _X86_MACHINE])
_PIECES = st.sampled_from([_SDOT, _FMA, _A64_NOP, b"\x90", b"\x62", b"\xc4", b"\x67\x66", bytes(4)])
_BYTES = st.binary(max_size=300) | st.lists(_PIECES | st.binary(max_size=4), max_size=60).map(b"".join)


@given(_ANY_MACHINE, _BYTES, st.sampled_from([4, 16, 60, 256]))
def test_any_bytes_are_counted_and_blocks_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, machine: int, data: bytes, block: int
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    whole = told(folder, elf(machine, data))
    assert sum(whole.values()) <= 3 * len(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "_BLOCK", block)
        assert told(folder, elf(machine, data)) == whole


_WILD = st.sampled_from([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1])


@settings(max_examples=150)
@given(_ANY_MACHINE, st.booleans(), st.integers(0, 27), _WILD | st.integers(0, 2**64 - 1), st.integers(1, 8))
@example(_X86_MACHINE, True, 5, 0, 8)
def test_any_field_may_be_wrong(
    tmp_path_factory: pytest.TempPathFactory, machine: int, sections: bool, field: int, value: int, width: int
) -> None:
    """Change up to eight bytes of a header: counts, or a BinaryError that names the file."""
    content = _SDOT * 8 + _FMA * 8
    data = bytearray(elf(machine, content, *[(*_CODE, 0, 32), (*_CODE, 32, 40)] if sections else ()))
    at = field * 8 if field < 8 else 64 + len(content) + (field - 8) * 8
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    folder = tmp_path_factory.mktemp("mutant")
    try:
        told(folder, bytes(data))
    except BinaryError as problem:
        assert problem.where == str(folder / "x")  # noqa: PT017 - either way is right
