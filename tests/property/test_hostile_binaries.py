"""Whatever the bytes are: facts, or a BinaryError; nothing else comes out of the readers."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkbuild.errors import BinaryError
from sparkbuild.inspection.elf import ElfFacts, read_elf
from sparkbuild.inspection.fatbin import device_code

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("objcopy"), reason="gcc and objcopy are not installed"
)

_FATBIN = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 68) + struct.pack(
    "<HHIQ12xI8xQ", 2, 1, 64, 4, 121, 0
).ljust(68)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a small library with a dynamic section, notes, versions and a fat binary."""
    folder = tmp_path_factory.mktemp("elf")
    (folder / "x.c").write_text('#include <stdio.h>\nvoid x(void) { puts("x"); }\n')
    (folder / "fat").write_bytes(_FATBIN)
    flags = ["-shared", "-fPIC", "-Wl,--build-id,-rpath,$ORIGIN,-soname,libx.so.1", "-Wl,-z,noseparate-code"]
    subprocess.run(["gcc", *flags, "x.c", "-o", "x.so"], cwd=folder, check=True)
    subprocess.run(["strip", "x.so"], cwd=folder, check=True)
    subprocess.run(["objcopy", "--add-section", ".nv_fatbin=fat", "x.so", "y.so"], cwd=folder, check=True)
    return (folder / "y.so").read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants") / "x.so"


def survive(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for read in (read_elf, device_code):
        try:
            found = read(path)
        except BinaryError as problem:
            assert problem.where == str(path)  # noqa: PT017 - either way is right
        else:
            assert isinstance(found, (ElfFacts, tuple))


_WILD = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1])
_NUMBERS = _WILD | st.integers(0, 2**64 - 1)


@settings(max_examples=150)
@given(st.floats(0, 1, exclude_max=True), _NUMBERS, st.sampled_from([1, 2, 4, 8]))
@example(0.0, 0, 1)
def test_one_number_changed(whole: bytes, place: Path, where: float, value: int, width: int) -> None:
    at = int(where * (len(whole) - width))
    data = bytearray(whole)
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    survive(place, bytes(data))


@pytest.mark.threat(
    "binaries",
    "any eight bytes of a header changed, in a library with device code",
    "read or refused (7), never a crash",
)
@settings(max_examples=150)
@given(st.integers(0, 15), st.integers(0, 40), _NUMBERS, st.integers(0, 7))
def test_a_field_of_a_header_changed(
    whole: bytes, place: Path, field: int, index: int, value: int, table: int
) -> None:
    """Change eight bytes of the file header, of a program header or of a section header (elf(5))."""
    (programs,) = struct.unpack_from("<Q", whole, 32)
    (sections,) = struct.unpack_from("<Q", whole, 40)
    base = (16, programs + index * 56, sections + index * 64)[min(table, 2)]
    at = min(base + field % 8 * 8, len(whole) - 8)
    data = bytearray(whole)
    struct.pack_into("<Q", data, at, value)
    survive(place, bytes(data))


@given(st.floats(0, 1))
@example(1.0)
def test_cut_anywhere(whole: bytes, place: Path, where: float) -> None:
    survive(place, whole[: int(where * len(whole))])


@given(st.binary(max_size=200))
def test_anything_behind_the_magic(place: Path, data: bytes) -> None:
    survive(place, b"\x7fELF" + data)
    survive(place, b"\x7fELF\x02\x01\x01" + data)


def test_the_unchanged_file_is_read(whole: bytes, place: Path) -> None:
    place.write_bytes(whole)
    facts = read_elf(place)
    assert (facts.soname, facts.runpath) == ("libx.so.1", "$ORIGIN")
    assert [c.name for c in device_code(place)] == ["sm_121"]
