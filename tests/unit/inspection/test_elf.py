"""readelf is the oracle: what we read off a binary is what it says."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from sparkbuild.errors import BinaryError
from sparkbuild.inspection.elf import ElfFacts, is_elf, read_elf
from sparkbuild.inspection.fatbin import device_code

_GCC = shutil.which("gcc")
_ARM = shutil.which("aarch64-linux-gnu-gcc")
_SYSTEM = [Path(p) for n in ("ls", "git", "gcc", "readelf", "tar", "ninja") if (p := shutil.which(n))]
_BINARIES = [p for p in dict.fromkeys(p.resolve() for p in (*_SYSTEM, Path(sys.executable))) if is_elf(p)]

needs_gcc = pytest.mark.skipif(not _GCC, reason="gcc is not installed")
needs_arm = pytest.mark.skipif(not _ARM, reason="aarch64-linux-gnu-gcc is not installed")
needs_readelf = pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")


def readelf(option: str, path: Path) -> str:
    command = ["readelf", "-W", option, str(path)]
    return subprocess.run(command, capture_output=True, check=True, text=True, errors="replace").stdout


def shared(path: Path) -> list[Path]:
    """Return the shared libraries that the loader gives a program."""
    said = subprocess.run(["ldd", str(path)], capture_output=True, check=False, text=True).stdout
    return [Path(p).resolve() for p in re.findall(r"=> (/\S+)", said)]


def oracle(path: Path) -> ElfFacts:
    header, dynamic, notes, versions = (readelf(o, path) for o in ("-h", "-d", "-n", "-V"))
    tags = re.findall(r"\((\w+)\)\s+.*?\[(.*)\]", dynamic)
    machine = re.search(r"Machine:\s+(.*)", header)
    asked = versions.partition("needs section")[2]
    glibc = [[int(x) for x in v.split(".")] for v in re.findall(r"Name: GLIBC_(\d[\d.]*)", asked)]
    interpreter = re.search(r"Requesting program interpreter: (\S+)\]", readelf("-l", path))
    build_id = re.search(r"Build ID: (\w+)", notes)
    return ElfFacts(
        machine={"AArch64": "aarch64", "Advanced Micro Devices X86-64": "x86_64"}[machine[1]]
        if machine
        else "",
        kind="executable" if interpreter else "library",
        soname="".join(v for k, v in tags if k == "SONAME"),
        needed=tuple(v for k, v in tags if k == "NEEDED"),
        runpath=":".join(v for k, v in tags if k in ("RUNPATH", "RPATH")),
        interpreter=interpreter[1] if interpreter else "",
        build_id=build_id[1] if build_id else "",
        glibc=".".join(map(str, max(glibc))) if glibc else "",
    )


@needs_readelf
@pytest.mark.parametrize("path", _BINARIES, ids=lambda p: p.name)
def test_programs_of_this_machine(path: Path) -> None:
    assert read_elf(path) == oracle(path)


@needs_readelf
def test_libraries_of_this_machine() -> None:
    found = {library for path in _BINARIES for library in shared(path)}
    assert found
    for library in sorted(found):
        assert read_elf(library) == oracle(library)


_LIBRARY = "int answer(void) { return 42; }\n"
_PROGRAM = '#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d", answer()); return 0; }\n'


def make(compiler: str, folder: Path) -> tuple[Path, Path]:
    """Compile a library and a program that finds it beside itself."""
    (folder / "lib.c").write_text(_LIBRARY)
    (folder / "program.c").write_text(_PROGRAM)
    so, program = folder / "libtoy.so.1", folder / "program"
    base = [compiler, "-O1", "-Wl,--build-id"]
    subprocess.run(
        [*base, "-shared", "-fPIC", "-Wl,-soname,libtoy.so.1", "lib.c", "-o", so], cwd=folder, check=True
    )
    subprocess.run(
        [*base, "program.c", so, "-Wl,--enable-new-dtags,-rpath,$ORIGIN", "-o", program],
        cwd=folder,
        check=True,
    )
    return so, program


@pytest.mark.parametrize(
    ("compiler", "machine"),
    [
        pytest.param(_GCC, "", marks=needs_gcc),
        pytest.param(_ARM, "aarch64", marks=needs_arm),
    ],
)
def test_what_was_just_built(compiler: str, machine: str, tmp_path: Path) -> None:
    so, program = make(compiler, tmp_path)
    library, tool = read_elf(so), read_elf(program)
    assert (library.kind, library.soname, library.runpath, library.interpreter) == (
        "library",
        "libtoy.so.1",
        "",
        "",
    )
    assert (tool.kind, tool.soname, tool.runpath) == ("executable", "", "$ORIGIN")
    assert tool.needed[0] == "libtoy.so.1"
    assert re.fullmatch("[0-9a-f]{40}", tool.build_id)
    assert tool.build_id != library.build_id
    assert tool.interpreter
    assert tool.machine == library.machine
    assert not machine or tool.machine == machine
    assert device_code(program) == ()


@pytest.mark.threat("binaries", "a program without section headers", "what the loader reads is read")
@needs_gcc
def test_without_section_headers_what_the_loader_reads_is_still_there(tmp_path: Path) -> None:
    _, program = make(_GCC or "", tmp_path)
    before = read_elf(program)
    data = bytearray(program.read_bytes())
    data[40:48] = bytes(8)  # e_shoff, e_shnum and e_shstrndx of ELF64 (elf(5))
    data[60:64] = bytes(4)
    program.write_bytes(data)
    after = read_elf(program)
    for name in ("machine", "kind", "needed", "runpath", "interpreter", "build_id"):
        assert getattr(after, name) == getattr(before, name)


@needs_gcc
def test_a_stripped_and_a_relocatable_file(tmp_path: Path) -> None:
    _, program = make(_GCC or "", tmp_path)
    before = read_elf(program)
    subprocess.run(["strip", program], check=True)
    assert read_elf(program) == before
    subprocess.run([_GCC or "", "-c", "lib.c", "-o", "lib.o"], cwd=tmp_path, check=True)
    assert read_elf(tmp_path / "lib.o").needed == ()


@pytest.mark.threat("binaries", "files that are not ELF", "refused (7)")
@pytest.mark.parametrize("data", [b"", b"\x7f", b"\x7fELF", b"MZ", b"\x7fELF" + b"\xff" * 100])
def test_what_is_no_elf_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    assert is_elf(path) == data.startswith(b"\x7fELF")
    for read in (read_elf, device_code):
        with pytest.raises(BinaryError) as caught:
            read(path)
        assert caught.value.exit_code == 7
        assert caught.value.where == str(path)


def field(path: Path, section: str, at: int) -> int:
    """Return where a field of a section's header is in the file (elf(5))."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        return int(elf["e_shoff"] + elf.get_section_index(section) * elf["e_shentsize"] + at)


_E_PHENTSIZE, _E_SHENTSIZE = 54, 58  # each before its e_phnum, e_shnum
_SH_SIZE, _SH_INFO = 32, 44


@pytest.mark.threat("binaries", "a file that claims to have billions of parts", "refused (7)")
@needs_gcc
@pytest.mark.parametrize("fault", ["versions", "sections", "segments"])
def test_a_file_that_goes_in_circles_is_refused(tmp_path: Path, fault: str) -> None:
    """Read as they claim to be, these files have 2 ** 32 parts and more."""
    _, program = make(_GCC or "", tmp_path)
    data = bytearray(program.read_bytes())
    if fault == "versions":
        struct.pack_into("<I", data, field(program, ".gnu.version_r", _SH_INFO), 2**32 - 1)
    elif fault == "sections":
        struct.pack_into("<Q", data, field(program, "", _SH_SIZE), 2**40)
        struct.pack_into("<HH", data, _E_SHENTSIZE, 0, 0)
    else:
        struct.pack_into("<I", data, field(program, "", _SH_INFO), 2**31)
        struct.pack_into("<HH", data, _E_PHENTSIZE, 0, 0xFFFF)
    program.write_bytes(data)
    with pytest.raises(BinaryError):
        read_elf(program)
    if fault != "versions":
        with pytest.raises(BinaryError):
            device_code(program)


@pytest.mark.parametrize("name", ["absent", "."])
def test_what_can_not_be_opened(tmp_path: Path, name: str) -> None:
    for read in (read_elf, device_code):
        with pytest.raises(BinaryError):
            read(tmp_path / name)
