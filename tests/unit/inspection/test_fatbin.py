"""Fat binaries made by hand from the layout in fatbin.py, put into a real object by objcopy."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from sparkbuild.errors import BinaryError
from sparkbuild.inspection.fatbin import device_code, device_code_digest
from sparkbuild.inspection.records import DeviceCode

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("objcopy"), reason="gcc and objcopy are not installed"
)

_PTX, _CUBIN = 1, 2
_A, _F = 0x100000, 0x200000


def entry(
    kind: int, arch: int, flags: int = 0, payload: bytes = b"code", *, header: int = 64, size: int = -1
) -> bytes:
    size = len(payload) if size < 0 else size
    head = struct.pack("<HHIQ12xI8xQ", kind, 0x101, header, size, arch, flags)
    return head.ljust(64, b"\0") + payload


def fatbin(*entries: bytes, header: int = 16, size: int = -1) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, header, len(body) if size < 0 else size) + body


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("object")
    (folder / "x.c").write_text("int x;\n")
    subprocess.run(["gcc", "-c", "x.c", "-o", "x.o"], cwd=folder, check=True)
    return folder / "x.o"


def holding(plain: Path, folder: Path, **sections: bytes) -> Path:
    options = []
    for name, data in sections.items():
        (folder / name).write_bytes(data)
        section = {"fat": ".nv_fatbin", "rel": "__nv_relfatbin"}[name]
        options += ["--add-section", f"{section}={folder / name}"]
    subprocess.run(["objcopy", *options, plain, folder / "y.o"], check=True)
    return folder / "y.o"


@pytest.mark.threat(
    "binaries",
    "entries of each kind in a fat binary, an unknown one among them",
    "named; the unknown one by its number",
)
@pytest.mark.parametrize(
    ("kind", "arch", "flags", "name"),
    [
        (_CUBIN, 121, 0, "sm_121"),
        (_CUBIN, 121, _A, "sm_121a"),
        (_CUBIN, 120, _F, "sm_120f"),
        (_CUBIN, 90, 0x11 | _A, "sm_90a"),
        (_PTX, 121, 0, "compute_121"),
        (_PTX, 121, _A, "compute_121a"),
        (77, 121, 0, "kind77_121"),
    ],
)
def test_one_entry(plain: Path, tmp_path: Path, kind: int, arch: int, flags: int, name: str) -> None:
    path = holding(plain, tmp_path, fat=fatbin(entry(kind, arch, flags)))
    assert device_code(path) == (DeviceCode(name, 1),)


def test_entries_are_counted_over_all_fat_binaries_and_sections(plain: Path, tmp_path: Path) -> None:
    one = fatbin(entry(_CUBIN, 121, _A), entry(_PTX, 121, _A, b"ptx" * 7))
    padded = one + bytes(24) + fatbin(entry(_CUBIN, 121, _A), entry(_CUBIN, 90)) + bytes(8)
    path = holding(plain, tmp_path, fat=padded, rel=one)
    assert device_code(path) == (
        DeviceCode("sm_121a", 3),
        DeviceCode("compute_121a", 2),
        DeviceCode("sm_90", 1),
    )


def test_a_payload_may_hold_what_looks_like_a_header(plain: Path, tmp_path: Path) -> None:
    path = holding(plain, tmp_path, fat=fatbin(entry(_CUBIN, 121, 0, fatbin(entry(_CUBIN, 90)))))
    assert device_code(path) == (DeviceCode("sm_121", 1),)


@pytest.mark.parametrize("data", [b"garbage", bytes(1000), fatbin(), b"\x50\xed\x55"])
def test_a_section_without_entries_holds_none(plain: Path, tmp_path: Path, data: bytes) -> None:
    assert device_code(holding(plain, tmp_path, fat=data)) == ()


def test_a_binary_without_the_section_holds_none(plain: Path) -> None:
    assert device_code(plain) == ()


_HOSTILE = {
    "a payload beyond the fat binary": fatbin(entry(_CUBIN, 121, size=1 << 20)),
    "a payload size that wraps around": fatbin(entry(_CUBIN, 121, size=2**64 - 64)),
    "an entry header of no size": fatbin(entry(_CUBIN, 121, header=0)),
    "an entry header of huge size": fatbin(entry(_CUBIN, 121, header=2**32 - 1)),
    "a fat binary beyond the section": fatbin(entry(_CUBIN, 121), size=1 << 40),
    "a fat binary header of no size": fatbin(entry(_CUBIN, 121), header=0),
    "a cut fat binary": fatbin(entry(_CUBIN, 121))[:-1],
    "a cut header": fatbin(entry(_CUBIN, 121))[:10],
    "a cut entry": fatbin(entry(_CUBIN, 121)[:20]),
    "a second one that is cut": fatbin(entry(_CUBIN, 121)) + fatbin(entry(_CUBIN, 121))[:-1],
}


@pytest.mark.threat("binaries", "fat binaries with wild sizes, cut headers and entries", "refused (7)")
@pytest.mark.parametrize("data", _HOSTILE.values(), ids=_HOSTILE.keys())
def test_a_hostile_section_is_refused(plain: Path, tmp_path: Path, data: bytes) -> None:
    path = holding(plain, tmp_path, fat=data)
    with pytest.raises(BinaryError, match="device code can not be read") as caught:
        device_code(path)
    assert caught.value.where == str(path)


def test_the_digest_is_of_the_device_code_alone(plain: Path, tmp_path: Path) -> None:
    one, other = fatbin(entry(_CUBIN, 121)), fatbin(entry(_CUBIN, 121, 0, b"edoc"))
    digest = device_code_digest(holding(plain, tmp_path, fat=one))
    subprocess.run(
        ["objcopy", "--add-section", f".x={plain}", tmp_path / "y.o", tmp_path / "z.o"], check=True
    )
    assert device_code_digest(tmp_path / "z.o") == digest
    assert device_code_digest(holding(plain, tmp_path, fat=other)) != digest
    assert device_code_digest(holding(plain, tmp_path, rel=one)) != digest
    assert device_code_digest(plain) == ""


def test_no_digest_of_what_can_not_be_read(tmp_path: Path, plain: Path) -> None:
    whole = holding(plain, tmp_path, fat=fatbin(entry(_CUBIN, 121)))
    (tmp_path / "cut.o").write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(BinaryError, match="device code can not be read"):
        device_code_digest(tmp_path / "cut.o")
