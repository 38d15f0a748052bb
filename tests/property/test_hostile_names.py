"""Mutated real files through all that a probe reads: facts or a BinaryError, in bounded memory."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.errors import BinaryError, UsageError
from sparkbuild.inspection.facts import FileFacts, file_facts, wanted_names
from sparkbuild.inspection.gather import elf_files

_ARM = shutil.which("aarch64-linux-gnu-gcc")
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "objcopy", "ar"))), reason="gcc and binutils are not installed"
)
_CATALOG = Catalog((shipped_root(),))
_RULES = _CATALOG.features().record
_WANTED = wanted_names(_RULES, [shelf.record for shelf in _CATALOG.recipes().values()])

_FATBIN = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 68) + struct.pack(
    "<HHIQ12xI8xQ", 2, 1, 64, 4, 121, 0
).ljust(68)
_ANCHORS = "\\0".join(_RULES.models.anchors)
_TYPES = ", ".join(f'{{"{name}", 1}}' for name in _RULES.tensor_types)
_CODE = f"""
#include <stdio.h>
#include <stdlib.h>
int {_RULES.version.number} = 7;
const char *{_RULES.version.commit} = "0123abc";
const char run[] = "\\0{_ANCHORS}\\0\\0--ctx-size";
const struct {{ const char *name; long size; }} types[] = {{ {_TYPES} }};
const char *{_RULES.asked.library}(void) {{ puts(getenv("x")); return types[atoi(run)].name; }}
"""


def library(folder: Path, compiler: str) -> bytes:
    """Return a small library with a symbol of each kind, a table, a run and a fat binary."""
    (folder / "x.c").write_text(_CODE)
    (folder / "fat").write_bytes(_FATBIN)
    flags = ["-shared", "-fPIC", "-Wl,-z,noseparate-code,--hash-style=both,--build-id"]
    if compiler.startswith("aarch64"):
        flags.append("-Wl,-z,max-page-size=4096")
    subprocess.run([compiler, *flags, "x.c", "-o", "x.so"], cwd=folder, check=True)
    objcopy = compiler.removesuffix("gcc") + "objcopy"
    subprocess.run([objcopy, "--add-section", ".nv_fatbin=fat", "x.so", "y.so"], cwd=folder, check=True)
    return (folder / "y.so").read_bytes()


@pytest.fixture(
    scope="module",
    params=[
        "gcc",
        pytest.param(
            "aarch64-linux-gnu-gcc",
            marks=pytest.mark.skipif(not _ARM, reason="aarch64-linux-gnu-gcc is not installed"),
        ),
        "object",
    ],
)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("elf")
    if request.param != "object":
        return library(folder, request.param)
    (folder / "x.c").write_text(_CODE)
    (folder / "fat").write_bytes(_FATBIN)
    subprocess.run(["gcc", "-c", "x.c", "-o", "x.o"], cwd=folder, check=True)
    subprocess.run(["objcopy", "--add-section", ".nv_fatbin=fat", "x.o", "y.o"], cwd=folder, check=True)
    return (folder / "y.o").read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants") / "x.so"


def survive(path: Path, data: bytes | bytearray) -> FileFacts | None:
    path.write_bytes(data)
    try:
        facts = file_facts("x.so", path, _WANTED)
    except BinaryError as problem:
        assert problem.where == str(path)  # noqa: PT017 - either way is right
        return None
    texts = (facts.elf.soname, facts.elf.runpath, facts.elf.interpreter, *facts.elf.needed)
    assert all(text.isprintable() for text in texts)
    return facts


# --- random changes ------------------------------------------------------------------------------

_WILD = [0, 1, 7, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
_NUMBERS = st.sampled_from(_WILD) | st.integers(0, 2**64 - 1)
_FIELDS = {  # of a section header (elf(5)): where, and how wide
    "sh_name": (0, 4),
    "sh_type": (4, 4),
    "sh_flags": (8, 8),
    "sh_addr": (16, 8),
    "sh_offset": (24, 8),
    "sh_size": (32, 8),
    "sh_link": (40, 4),
    "sh_info": (44, 4),
    "sh_entsize": (56, 8),
}


def tables(data: bytes) -> tuple[int, int, int, int]:
    """Return where the program headers and the section headers begin, and how many there are."""
    programs, sections = struct.unpack_from("<QQ", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    (number,) = struct.unpack_from("<H", data, 60)
    return programs, count, sections, number


def put(data: bytearray, at: int, width: int, value: int) -> None:
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


def test_the_unchanged_file_is_read(whole: bytes, place: Path) -> None:
    facts = survive(place, whole)
    assert facts
    assert _RULES.asked.library in facts.names.symbols
    assert "--ctx-size" in facts.names.strings
    assert set(_RULES.models.anchors) == set(facts.names.run)
    assert [c.name for c in facts.device_code] == ["sm_121"]
    linked = struct.unpack_from("<H", whole, 16)[0] == 3
    assert facts.names.number == (7 if linked else None)
    assert facts.names.text == ("0123abc" if linked else "")
    assert facts.names.table[:4] == (_RULES.tensor_types if linked else ())


@pytest.mark.threat(
    "binaries", "any field of any section header changed", "read or refused (7), never a crash"
)
@settings(max_examples=250)
@given(st.integers(0, 63), st.sampled_from(sorted(_FIELDS)), _NUMBERS)
def test_a_section_header_changed(whole: bytes, place: Path, index: int, field: str, value: int) -> None:
    _, _, sections, number = tables(whole)
    data = bytearray(whole)
    at, width = _FIELDS[field]
    put(data, sections + index % number * 64 + at, width, value)
    survive(place, data)


@pytest.mark.threat(
    "binaries",
    "overlapping sections, links to what is no table, wrong types",
    "read or refused (7), never a crash",
)
@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 63), st.sampled_from(sorted(_FIELDS)), st.integers(0, 63)), max_size=8)
)
def test_section_headers_mixed(whole: bytes, place: Path, swaps: list[tuple[int, str, int]]) -> None:
    """Fields taken from other sections: overlaps, links to what is no string table, wrong types."""
    _, _, sections, number = tables(whole)
    data = bytearray(whole)
    for index, field, other in swaps:
        at, width = _FIELDS[field]
        source = sections + other % number * 64 + at
        target = sections + index % number * 64 + at
        data[target : target + width] = whole[source : source + width]
    survive(place, data)


@pytest.mark.threat(
    "binaries", "any field of any program header changed", "read or refused (7), never a crash"
)
@settings(max_examples=100)
@given(st.integers(0, 15), st.integers(0, 6), _NUMBERS)
def test_a_program_header_changed(whole: bytes, place: Path, index: int, field: int, value: int) -> None:
    programs, count, _, _ = tables(whole)
    data = bytearray(whole)
    at = programs + index % count * 56 + field * 8 if count else 16
    put(data, at, 8, value)
    survive(place, data)


@pytest.mark.threat("binaries", "wild numbers anywhere in a file", "read or refused (7), never a crash")
@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), _NUMBERS, st.sampled_from([1, 2, 4, 8])), max_size=6
    )
)
def test_numbers_changed_anywhere(whole: bytes, place: Path, changes: list[tuple[float, int, int]]) -> None:
    data = bytearray(whole)
    for where, value, width in changes:
        put(data, int(where * (len(data) - width)), width, value)
    survive(place, data)


@pytest.mark.threat(
    "binaries", "a file cut anywhere, with and without section headers", "read or refused (7), never a crash"
)
@settings(max_examples=60)
@given(st.floats(0, 1), st.booleans())
@example(1.0, True)
def test_cut_anywhere(whole: bytes, place: Path, where: float, sections: bool) -> None:
    data = bytearray(whole[: int(where * len(whole))])
    if not sections and len(data) >= 64:
        put(data, 40, 8, 0)
        put(data, 60, 4, 0)
    survive(place, data)


@pytest.mark.threat("binaries", "a file truncated at every header", "read or refused (7), never a crash")
def test_cut_at_each_header(whole: bytes, place: Path) -> None:
    programs, count, sections, number = tables(whole)
    edges = [64, *(programs + i * 56 for i in range(count + 1)), *(sections + i * 64 for i in range(number))]
    for edge in edges:
        for at in (edge - 1, edge, edge + 1):
            survive(place, whole[:at])


@pytest.mark.threat(
    "binaries",
    "any bytes behind the magic, 32 and 64 bits, both endiannesses",
    "read or refused (7), never a crash",
)
@given(st.binary(max_size=300), st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2)]))
def test_anything_behind_the_magic(place: Path, data: bytes, kind: tuple[int, int]) -> None:
    survive(place, b"\x7fELF" + bytes(kind) + b"\x01" + data)


@pytest.mark.threat(
    "binaries",
    "a file that says it has 32 bits or the other endianness",
    "read or refused (7), never a crash",
)
@settings(max_examples=50)
@given(st.integers(0, 15), _NUMBERS, st.sampled_from([(4, 1), (5, 2)]))
def test_headers_of_32_bits_or_big_endian(
    whole: bytes, place: Path, field: int, value: int, kind: tuple[int, int]
) -> None:
    data = bytearray(whole)
    data[kind[0]] = kind[1]
    put(data, 16 + field * 3, 4, value)
    survive(place, data)


@pytest.mark.threat(
    "binaries", "a static library with any bytes changed in its headers", "read or refused (7), never a crash"
)
@settings(max_examples=60)
@given(st.binary(max_size=120), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=12))
def test_a_static_library_changed(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, tail: bytes, where: float, change: bytes
) -> None:
    folder = tmp_path_factory.mktemp("ar")
    member = struct.pack("16s12s6s6s8s10s2s", b"x.o/", b"0", b"0", b"0", b"644", b"%d" % len(whole), b"`\n")
    data = bytearray(
        b"!<arch>\n" + (member + whole + b"\n" * (len(whole) % 2)).replace(b"\0", b" ", 56) + tail
    )
    at = 8 + int(where * 60)
    data[at : at + len(change)] = change
    (folder / "x.a").write_bytes(data)
    try:
        found = elf_files(folder / "x.a", folder)
    except (BinaryError, UsageError):
        return
    assert found


# --- files that are made to take all memory, or all time -----------------------------------------

_MIB = 1 << 20
_LIMIT = 500  # MiB of address space beyond what the interpreter and its libraries have
_CHILD = """
import resource, sys
from pathlib import Path
from tests.property.test_hostile_names import _WANTED
from sparkbuild.errors import BinaryError
from sparkbuild.inspection.facts import file_facts

before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = before + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
try:
    facts = file_facts("x", Path(sys.argv[1]), _WANTED)
    print("read", facts.names.number, facts.names.text, len(facts.device_code))
except BinaryError as problem:
    print("refused", problem)
# Not ru_maxrss: that one a program inherits from whoever started it.
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


def in_a_small_room(path: Path, limit: int = _LIMIT) -> tuple[str, int]:
    """Read a file in a child with so many MiB to spend; return what it said and the peak in MiB."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", _CHILD, str(path), str(limit)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said, peak = done.stdout.splitlines()
    assert "memory" not in said.lower()
    return said, int(peak)


def header_of(data: bytes, section: str) -> int:
    elf = ELFFile(io.BytesIO(data))
    return int(elf["e_shoff"] + elf.get_section_index(section) * elf["e_shentsize"])


def grown(data: bytes, section: str, kind: int, body: Callable[[Path], int], path: Path) -> Path:
    """Append a body and let a section of a library be it, of another type perhaps."""
    place = header_of(data, section)
    path.write_bytes(data + bytes(-len(data) % 16))
    begin = path.stat().st_size
    size = body(path)
    header = bytearray(data[place : place + 64])
    put(header, 4, 4, kind)
    put(header, 24, 8, begin)
    put(header, 32, 8, size)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(header)
    return path


def repeated(block: bytes, times: int) -> Callable[[Path], int]:
    def body(path: Path) -> int:
        with path.open("ab") as file:
            for _ in range(times):
                file.write(block)
        return len(block) * times

    return body


def numbered(line: bytes, times: int) -> Callable[[Path], int]:
    def body(path: Path) -> int:
        with path.open("ab") as file:
            return sum(file.write(line % i) for i in range(times))

    return body


_PROGBITS, _RELA, _HASH, _SYMTAB = 1, 4, 5, 2
_OTHER_ARCH = b"".join(struct.pack("<HHIQ12xI8xQ", 2, 1, 64, 0, arch, 0).ljust(64) for arch in range(100_000))
_HUGE = {
    # 4.4 million relocations, all of the right type, of nothing that is looked for
    "relocations": (".rela.dyn", _RELA, repeated(struct.pack("<QQQ", 0x4000, 8, 0x2000) * 43_700, 100)),
    # a word that could be an address, 13 million times
    "pointers": (".data", _PROGBITS, repeated(struct.pack("<Q", 0x2000) * (_MIB // 8), 100)),
    # the first name of the table of types, 25 million times
    "first names": (".rodata", _PROGBITS, repeated(b"f32\0" * (_MIB // 4), 100)),
    "options": (".rodata", _PROGBITS, numbered(b"--option-%07x\0", 4_000_000)),
    "one endless text": (".rodata", _PROGBITS, repeated(b"a" * _MIB, 20)),
    "texts that never end": (".rodata", _PROGBITS, repeated(b"a" * 65_535 + b"\x80", 320)),
    "runs": (
        ".rodata",
        _PROGBITS,
        numbered(b"gptj\0gptneox\0aa%07x\0bb\0cc\0dd\0ee\0ff\0gg\0hh\0", 1_500_000),
    ),
    "symbols": (".symtab", _SYMTAB, repeated(struct.pack("<IBBHQQ", 1, 1, 0, 1, 0, 0) * 43_700, 40)),
    "a hash table": (".hash", _HASH, repeated(struct.pack("<I", 12_000_000) * (_MIB // 4), 100)),
    "kinds of device code": (
        ".nv_fatbin",
        _PROGBITS,
        repeated(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(_OTHER_ARCH)) + _OTHER_ARCH, 16),
    ),
}


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return library(tmp_path_factory.mktemp("native"), "gcc")


@pytest.mark.threat(
    "binaries",
    "millions of symbols, relocations, texts, options, kinds of device code",
    "below 300 MB of memory",
)
@pytest.mark.parametrize("kind", _HUGE)
def test_a_file_that_would_fill_the_memory(native: bytes, tmp_path: Path, kind: str) -> None:
    section, type_, body = _HUGE[kind]
    path = grown(native, section, type_, body, tmp_path / "huge.so")
    said, peak = in_a_small_room(path)
    assert peak < 300, said


@pytest.mark.threat("binaries", "a file of 600 MB", "read below 200 MB of memory")
@pytest.mark.parametrize("section", [".comment", ".nv_fatbin"])
def test_a_file_of_600_megabytes(native: bytes, tmp_path: Path, section: str) -> None:
    """A sparse one: zeros take no room on the disk. Below 200 MiB, interpreter and numpy included."""

    def body(path: Path) -> int:
        with path.open("r+b") as file:
            file.truncate(600 * _MIB)
        return 500 * _MIB

    said, peak = in_a_small_room(grown(native, section, _PROGBITS, body, tmp_path / "large.so"))
    assert said.startswith("read 7 0123abc")
    assert peak < 200


@pytest.mark.threat("binaries", "60,000 sections that are each the whole file", "refused (7)")
def test_sections_that_are_all_the_whole_file(native: bytes, tmp_path: Path) -> None:
    """60000 symbol tables, relocations and texts, each of them all of 20 MB."""
    path = tmp_path / "x.so"
    data = bytearray(native + bytes(20 * _MIB))
    begin, size = len(native), 20 * _MIB
    rows = [struct.pack("<IIQQQQIIQQ", 1, kind, 2, 0, begin, size, 1, 0, 1, 24) for kind in (1, 2, 3, 4, 11)]
    put(data, 40, 8, len(data))
    put(data, 60, 2, 60_000)
    path.write_bytes(bytes(data) + b"".join(rows) * 12_000)
    assert in_a_small_room(path)[0].startswith("refused")


@pytest.mark.threat(
    "binaries", "sections that claim to be beyond the file", "refused (7), or read without them"
)
@pytest.mark.parametrize(
    ("field", "value"), [("sh_size", 1 << 40), ("sh_offset", 1 << 50), ("sh_link", 9999)]
)
@pytest.mark.parametrize("section", [".data.rel.ro", ".symtab", ".rela.dyn", ".rodata", ".dynsym"])
def test_a_claim_beyond_the_file(native: bytes, tmp_path: Path, section: str, field: str, value: int) -> None:
    data = bytearray(native)
    at, width = _FIELDS[field]
    put(data, header_of(native, section) + at, width, value)
    (tmp_path / "x").write_bytes(data)
    said, _ = in_a_small_room(tmp_path / "x")
    assert said.startswith("refused" if field != "sh_link" or "sym" in section else "read")
