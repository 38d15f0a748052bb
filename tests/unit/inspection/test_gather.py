"""Whatever a person points at: real binaries in files, folders and archives, and what is none of them."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import socket
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from sparkbuild.errors import BinaryError, UsageError
from sparkbuild.inspection.gather import elf_files

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("ar"), reason="gcc and ar are not installed"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a library, a program and an object."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "x.c").write_text("int x(void) { return 1; }\n")
    (folder / "main.c").write_text("int main(void) { return 0; }\n")
    for words in ("-shared -fPIC x.c -o libx.so", "main.c -o tool", "-c x.c -o x.o"):
        subprocess.run(["gcc", *words.split()], cwd=folder, check=True)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def names(path: Path, work: Path) -> list[str]:
    return [name for name, _ in elf_files(path, work)]


# --- files and folders ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["libx.so", "tool", "x.o"])
def test_a_file_is_itself(built: Path, work: Path, name: str) -> None:
    assert elf_files(built / name, work) == [(name, built / name)]


def test_of_a_folder_what_was_linked(built: Path, work: Path, place: Path) -> None:
    (place / "bin").mkdir()
    shutil.copy(built / "tool", place / "bin")
    shutil.copy(built / "libx.so", place / "libx.so.1")
    shutil.copy(built / "x.o", place)
    (place / "notes.txt").write_text("\x7fELF is how they begin")
    (place / "empty").touch()
    for trial in (".cache", "CMakeFiles/3.5", "bin/CMakeFiles"):
        (place / trial).mkdir(parents=True)
        shutil.copy(built / "tool", place / trial / "a.out")
    assert elf_files(place, work) == [
        ("bin/tool", place / "bin/tool"),
        ("libx.so.1", place / "libx.so.1"),
    ]


def test_a_file_counts_once_however_many_links_name_it(built: Path, work: Path, place: Path) -> None:
    shutil.copy(built / "libx.so", place / "libx.so.1.2")
    (place / "libx.so.1").symlink_to("libx.so.1.2")
    (place / "libx.so").symlink_to("libx.so.1")
    (place / "libx.so.1.3").hardlink_to(place / "libx.so.1.2")
    (place / "around").symlink_to(".")
    (place / "nowhere").symlink_to("gone")
    assert names(place, work) == ["libx.so.1.2"]


def test_a_link_that_is_named_is_followed(built: Path, work: Path, place: Path) -> None:
    (place / "tool").symlink_to(built / "tool")
    (place / "folder").symlink_to(built)
    assert names(place / "tool", work) == ["tool"]
    assert names(place / "folder", work) == ["libx.so", "tool"]


@pytest.mark.threat("binaries", "pipes and sockets in a folder to be probed", "passed over")
def test_pipes_and_sockets_in_a_folder_are_not_waited_for(built: Path, work: Path, place: Path) -> None:
    shutil.copy(built / "tool", place)
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(place / "socket"))
        assert names(place, work) == ["tool"]


@pytest.mark.threat("binaries", "a pipe or a device to be probed", "refused (7), never waited for")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_pipe_or_device_is_refused(work: Path, place: Path, make: object) -> None:
    assert callable(make)
    make(place / "odd")
    with pytest.raises(BinaryError, match="neither a file nor a folder"):
        elf_files(place / "odd", work)


@pytest.mark.threat(
    "binaries", "file names with escape codes, line breaks, no UTF-8, dashes", "shown spelled out"
)
def test_names_cannot_steer_a_terminal(built: Path, work: Path, place: Path) -> None:
    odd = ["a b", "é", "\x1b[31mred", "new\nline", os.fsdecode(b"\xff"), "--help"]
    for name in odd:
        (place / name).mkdir()
        shutil.copy(built / "tool", place / name / "tool")
    found = dict(elf_files(place, work))
    assert set(found) == {
        *("a b/tool", "é/tool", "\\x1b[31mred/tool", "new\\nline/tool", "\\xff/tool", "--help/tool")
    }
    assert all(path.is_file() for path in found.values())


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", ["tool", "below"])
def test_what_may_not_be_read_is_said(built: Path, work: Path, place: Path, name: str) -> None:
    (place / "below").mkdir()
    shutil.copy(built / "tool", place)
    (place / name).chmod(0)
    try:
        with pytest.raises(BinaryError, match="cannot read: Permission denied") as caught:
            elf_files(place, work)
    finally:
        (place / name).chmod(0o700)
    assert caught.value.where == str(place / name)


@pytest.mark.parametrize("name", ["gone", "gone/below", "gone\0"])
def test_no_such_path_is_a_wrong_call(work: Path, place: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        elf_files(place / name, work)


def test_a_name_longer_than_any_is_an_error_not_a_bug(work: Path, place: Path) -> None:
    with pytest.raises(BinaryError, match="File name too long"):
        elf_files(place / ("x" * 300), work)


@pytest.mark.threat("binaries", "files that are neither ELF nor an archive", "refused (7)")
@pytest.mark.parametrize("data", [b"", b"text\n", b"#!/bin/sh\n", b"\x7fEL", b"MZ" + bytes(100), bytes(600)])
def test_a_file_that_is_nothing_of_the_kind(work: Path, place: Path, data: bytes) -> None:
    (place / "x").write_bytes(data)
    with pytest.raises(BinaryError, match="neither an ELF file nor") as caught:
        elf_files(place / "x", work)
    assert (caught.value.exit_code, caught.value.where) == (7, str(place / "x"))


def test_an_empty_folder(work: Path, place: Path) -> None:
    with pytest.raises(BinaryError, match="no ELF executable or library here"):
        elf_files(place, work)


# --- archives ------------------------------------------------------------------------------------


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, data in members.items():
            pack.writestr(name, data)
    return path


def tar(path: Path, members: dict[str, bytes], mode: str) -> Path:
    with tarfile.open(path, f"w{mode}") as pack:  # type: ignore[call-overload] # the mode is a literal there
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            pack.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", ["whl", "tar", "tar.gz", "tar.xz", "tar.bz2", "tar.zst"])
def test_archives(built: Path, work: Path, place: Path, kind: str) -> None:
    members = {
        "toy/lib/libx.so": (built / "libx.so").read_bytes(),
        "toy/__init__.py": b"import ctypes\n",
        "toy.data/scripts/tool": (built / "tool").read_bytes(),
    }
    path = place / f"toy.{kind}"
    if kind == "whl":
        wheel(path, members)
    elif kind == "tar.zst":
        path.write_bytes(zstandard.ZstdCompressor().compress(tar(path, members, "").read_bytes()))
    else:
        tar(path, members, kind.removeprefix("tar").replace(".", ":"))
    found = elf_files(path, work)
    assert [name for name, _ in found] == ["toy.data/scripts/tool", "toy/lib/libx.so"]
    assert [file.read_bytes() for _, file in found] == [
        members["toy.data/scripts/tool"],
        members["toy/lib/libx.so"],
    ]


def test_an_archive_without_a_binary(work: Path, place: Path) -> None:
    with pytest.raises(BinaryError, match="no ELF executable or library here"):
        elf_files(wheel(place / "toy.whl", {"toy.py": b""}), work)


def linked(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as pack:
        info = tarfile.TarInfo("tool")
        info.type, info.linkname = tarfile.SYMTYPE, "../../../etc/passwd"
        pack.addfile(info)
    return path


def cut(path: Path) -> Path:
    tar(path, {"x": os.urandom(100_000)}, ":gz")
    path.write_bytes(path.read_bytes()[:50_000])
    return path


def bomb(path: Path) -> Path:
    """Write a zip whose directory claims 2 ** 34 bytes (the 32-bit fields full, more in the extra field)."""
    info = zipfile.ZipInfo("zeros")
    wheel(path, {"zeros": bytes(1 << 20)})
    data = path.read_bytes()
    place = data.index(b"PK\x01\x02")
    extra = b"\x01\x00\x08\x00" + (1 << 34).to_bytes(8, "little")
    entry = bytearray(data[place : place + 46 + len(info.filename)])
    entry[24:28], entry[30:32] = b"\xff" * 4, len(extra).to_bytes(2, "little")
    end = bytearray(data[place + len(entry) :])
    end[12:16] = (len(entry) + len(extra)).to_bytes(4, "little")
    path.write_bytes(data[:place] + bytes(entry) + extra + bytes(end))
    return path


_HOSTILE = {
    "climbs": lambda p: wheel(p, {"../out": b"x"}),
    "absolute": lambda p: tar(p, {"/out": b"x"}, ":gz"),
    "twice": lambda p: wheel(p, {"Tool": b"x", "tool": b"y"}),
    "link": linked,
    "cut": cut,
    "bomb": bomb,
    "no tar": lambda p: (p.write_bytes(gzip.compress(b"text")), p)[1],
    "zstd": lambda p: (p.write_bytes(b"(\xb5/\xfd" + bytes(100)), p)[1],
    "no zip": lambda p: (p.write_bytes(b"PK\x03\x04" + bytes(100)), p)[1],
}


@pytest.mark.threat(
    "archives",
    "a wheel or archive to be probed: climbing, links, a zip64 bomb, cut, none",
    "refused (7); nothing outside",
)
@pytest.mark.parametrize("make", _HOSTILE.values(), ids=_HOSTILE.keys())
def test_a_hostile_or_broken_archive_is_exit_code_7(work: Path, place: Path, make: object) -> None:
    assert callable(make)
    path = make(place / "archive")
    with pytest.raises(BinaryError) as caught:
        elf_files(path, work)
    assert caught.value.exit_code == 7
    assert caught.value.where == str(path)
    assert caught.value.remedy
    assert not (work.parent / "out").exists()


# --- static libraries ----------------------------------------------------------------------------


@pytest.fixture
def static(built: Path, place: Path) -> Path:
    """Return a library with two members of one name, one of a long name, and a text."""
    long = "a_name_that_does_not_fit_into_sixteen_bytes.o"
    shutil.copy(built / "x.o", place / long)
    (place / "odd.txt").write_text("odd")
    (place / "other").mkdir()
    shutil.copy(built / "x.o", place / "other")
    members: list[str | Path] = [built / "x.o", "odd.txt", "other/x.o", long]
    subprocess.run(["ar", "qc", "libx.a", *members], cwd=place, check=True)
    return place / "libx.a"


def test_a_static_library_has_each_member(built: Path, static: Path, work: Path) -> None:
    found = elf_files(static, work)
    assert [name.partition("(")[0] for name, _ in found] == ["libx.a"] * 3
    assert len({name for name, _ in found}) == 3
    assert {file.read_bytes() for _, file in found} == {(built / "x.o").read_bytes()}


def test_a_cut_static_library_is_refused(static: Path, work: Path) -> None:
    """Cut it everywhere: between two members it is a smaller library, else it is broken."""
    whole = static.read_bytes()
    refused = 0
    for size in range(9, len(whole) - 1, 31):
        static.write_bytes(whole[:size])
        try:
            found = elf_files(static, work)
        except BinaryError as problem:
            refused += 1
            assert problem.where == str(static)  # noqa: PT017 - either way is right
        else:
            assert len(found) < 4
    assert refused > len(whole) // 31 * 0.98


@pytest.mark.threat("binaries", "a static library with wild members", "refused (7)")
@pytest.mark.parametrize(
    "size", [b"-1        ", b"9999999999", b"          ", b"1e3       ", b"\xb2         "]
)
def test_a_wild_member_is_refused(static: Path, work: Path, size: bytes) -> None:
    data = bytearray(static.read_bytes())
    data[8 + 48 : 8 + 58] = size
    static.write_bytes(data)
    with pytest.raises(BinaryError, match="not a whole static library"):
        elf_files(static, work)
