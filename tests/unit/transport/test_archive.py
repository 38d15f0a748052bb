from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sparkbuild.archives import Plain
from sparkbuild.errors import StoreError
from sparkbuild.files import sha256_bytes, sha256_file
from sparkbuild.transport import archive
from sparkbuild.transport.archive import pack, unpack

Member = tuple[tarfile.TarInfo, bytes]


def filled(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "manifest.json").write_bytes(b"{}\n")
    (folder / "bin" / "toy-server").write_bytes(bytes(range(256)) * 5000)
    (folder / "bin" / "toy-server").chmod(0o755)
    (folder / "bin" / "libtoy.so.0").write_bytes(b"library")
    (folder / "bin" / "libtoy+cuda.so.0").write_bytes(b"")
    return folder


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return each file's bytes and mode, by name."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), stat.S_IMODE(p.stat().st_mode))
        for p in folder.rglob("*")
        if p.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def inside(packed: Path) -> bytes:
    with packed.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        return stream.read()


def member(name: str, data: bytes = b"", **changes: Any) -> Member:  # noqa: ANN401 - any field
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def tar_of(*members: Member, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def written(path: Path, tar: bytes) -> Path:
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(tar))
    return path


def test_an_artifact_comes_out_as_it_went_in(tmp_path: Path) -> None:
    folder = filled(tmp_path / "artifact")
    packed = tmp_path / "to" / "toy.tar.zst"
    assert pack(folder, packed, top="toy@0123456789ab") == sha256_file(packed)
    assert names(packed.parent) == ["toy.tar.zst"]
    unpack(packed, tmp_path / "out")
    assert content(tmp_path / "out") == content(folder)
    assert content(folder)["bin/toy-server"][1] == 0o755


def test_others_can_read_it(tmp_path: Path) -> None:
    packed = tmp_path / "toy.tar.zst"
    pack(filled(tmp_path / "artifact"), packed, top="toy")
    with tarfile.open(fileobj=io.BytesIO(inside(packed))) as tar:
        members = {m.name: (m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in tar}
        assert tar.pax_headers == {}
    assert list(members) == [
        *("toy", "toy/bin", "toy/bin/libtoy+cuda.so.0", "toy/bin/libtoy.so.0"),
        *("toy/bin/toy-server", "toy/manifest.json"),
    ]
    assert {m[1:] for m in members.values()} == {(0, 0, "", "", 0)}
    assert {n: oct(m[0]) for n, m in members.items() if m[0] != 0o644} == {
        "toy": "0o755",
        "toy/bin": "0o755",
        "toy/bin/toy-server": "0o755",
    }


def test_the_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    one = filled(tmp_path / "one")
    first = pack(one, tmp_path / "one.tar.zst", top="toy")
    other = filled(tmp_path / "an other place" / "two")
    for number, path in enumerate(sorted(other.rglob("*"), reverse=True)):
        path.chmod(0o700 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o600)
        os.utime(path, (number, number))
        if os.geteuid() == 0:
            os.chown(path, 12345, 54321)
    code = "import sys; from pathlib import Path; from sparkbuild.transport.archive import pack\n"
    code += "print(pack(Path(sys.argv[1]), Path(sys.argv[2]), top='toy'))"
    words: list[str | Path] = [sys.executable, "-c", code, other, tmp_path / "two.tar.zst"]
    env = dict(os.environ, PYTHONPATH=str(Path(archive.__file__).parents[2]), TZ="Asia/Tokyo")
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=env, umask=0o077)
    assert done.stdout.strip() == first
    assert (tmp_path / "one.tar.zst").read_bytes() == (tmp_path / "two.tar.zst").read_bytes()
    assert stat.S_IMODE((tmp_path / "two.tar.zst").stat().st_mode) == 0o644
    (other / "bin" / "libtoy.so.0").chmod(0o700)
    assert pack(other, tmp_path / "two.tar.zst", top="toy") != first


def test_the_tar_archive_inside_is_pinned(tmp_path: Path) -> None:
    """What another version of libzstd must not change: who changes this changes every artifact's digest."""
    pack(filled(tmp_path / "artifact"), tmp_path / "toy.tar.zst", top="toy")
    assert (
        sha256_bytes(inside(tmp_path / "toy.tar.zst"))
        == "a1ab15d15f524347dc51a8aa48a359eb1d4475bd18f37a1875d16e95e50c8235"
    )


def _link(folder: Path) -> None:
    (folder / "bin" / "libtoy.so").symlink_to("libtoy.so.0")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "bin" / "pipe")


def _newline(folder: Path) -> None:
    (folder / "bin" / "a\nb").touch()


def _hidden(folder: Path) -> None:
    (folder / ".lock").touch()


def _long(folder: Path) -> None:
    (folder / ("x" * 120)).touch()


@pytest.mark.parametrize("change", [_link, _pipe, _newline, _hidden, _long])
def test_what_no_artifact_holds_is_not_packed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = filled(tmp_path / "artifact")
    change(folder)
    with pytest.raises(StoreError) as caught:
        pack(folder, tmp_path / "toy.tar.zst", top="toy")
    assert caught.value.exit_code == 8
    assert names(tmp_path) == ["artifact"]


@pytest.mark.parametrize("top", ["", "..", "a/../b", "/", "a b", "x" * 101])
def test_an_odd_top_folder_is_refused(tmp_path: Path, top: str) -> None:
    with pytest.raises(StoreError):
        pack(filled(tmp_path / "artifact"), tmp_path / "toy.tar.zst", top=top)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filled(tmp_path / "artifact")
    packed = tmp_path / "toy.tar.zst"
    packed.write_bytes(b"old")

    def fail(*_: object) -> None:  # a full disk can not be had here
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="No space left"):
            pack(folder, packed, top="toy")
    assert packed.read_bytes() == b"old"
    assert names(tmp_path) == ["artifact", "toy.tar.zst"]


@pytest.mark.parametrize("most", [Plain(4, 1 << 30), Plain(100, 1 << 20)], ids=["files", "bytes"])
def test_more_than_the_limit_is_neither_packed_nor_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: Plain
) -> None:
    folder = filled(tmp_path / "artifact")
    pack(folder, tmp_path / "toy.tar.zst", top="toy")
    monkeypatch.setattr(archive, "MOST", most)  # the real one is gigabytes
    with pytest.raises(StoreError, match="too many"):
        pack(folder, tmp_path / "other.tar.zst", top="toy")
    with pytest.raises(StoreError, match="too many"):
        unpack(tmp_path / "toy.tar.zst", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


_TOP = member("a", type=tarfile.DIRTYPE, mode=0o755)
_FILE = member("a/x", b"x")
_HOSTILE: dict[str, list[Member]] = {
    "climbs": [_TOP, member("../x", b"x")],
    "climbs out of the top": [_TOP, member("a/../../x", b"x")],
    "climbs in the middle": [_TOP, member("a/b/../x", b"x")],
    "absolute": [member("/x", b"x")],
    "absolute below its top": [member("//a/x", b"x")],
    "backslash": [member("a/..\\x", b"x")],
    "a control character": [member("a/x\x1b[2J", b"x")],
    "a hidden file": [member("a/.x", b"x")],
    "a repository's inside": [member("a/.git/hooks/x", b"x")],
    "an option for a name": [member("a/-rf", b"x")],
    "not ASCII": [member("a/\u212aey", b"x")],
    "a symbolic link": [member("a/l", type=tarfile.SYMTYPE, linkname="x")],
    "a symbolic link to outside": [member("a/l", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "a link for the top": [member("a", type=tarfile.SYMTYPE, linkname="/etc")],
    "a hard link": [_FILE, member("a/l", type=tarfile.LNKTYPE, linkname="a/x")],
    "a hard link to outside": [member("a/l", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "a character device": [member("a/d", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "a block device": [member("a/d", type=tarfile.BLKTYPE, devmajor=8)],
    "a pipe": [member("a/d", type=tarfile.FIFOTYPE)],
    "a contiguous file": [member("a/d", b"x", type=tarfile.CONTTYPE)],
    "an unknown kind": [member("a/d", type=b"Z")],
    "setuid": [member("a/x", b"x", mode=0o4755)],
    "setgid": [member("a/x", b"x", mode=0o2755)],
    "a sticky folder": [member("a", type=tarfile.DIRTYPE, mode=0o1777)],
    "the same file twice": [_FILE, _FILE],
    "the same file in another spelling": [_FILE, member("a/./x", b"y")],
    "files that differ by case": [_FILE, member("a/X", b"y")],
    "folders that differ by case": [member("a/b/x", b"x"), member("a/B/y", b"y")],
    "tops that differ by case": [_FILE, member("A/y", b"y")],
    "a file, then one below it": [_FILE, member("a/x/y", b"y")],
    "a file, then a folder": [_FILE, member("a/x", type=tarfile.DIRTYPE)],
    "two tops": [_FILE, member("b/x", b"x")],
    "a file at the top": [_FILE, member("b", b"x")],
    "only a file": [member("x", b"x")],
    "no name": [member("", b"x")],
    "a dot": [member(".", type=tarfile.DIRTYPE), _FILE],
    "a name too long for a file": [member("a/" + "x" * 300, b"x")],
}


@pytest.mark.threat(
    "archives",
    "an exported artifact with odd, climbing, hidden, repeated names, links, devices, special bits",
    "refused (8); the folder stays empty",
)
@pytest.mark.parametrize("members", _HOSTILE.values(), ids=_HOSTILE.keys())
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_a_hostile_archive_is_refused(tmp_path: Path, members: list[Member], form: int) -> None:
    into = tmp_path / "out" / "into"
    path = written(tmp_path / "x.tar.zst", tar_of(*members, form=form))
    with pytest.raises(StoreError) as caught:
        unpack(path, into)
    assert caught.value.exit_code == 8
    assert caught.value.where == str(path)
    assert caught.value.remedy
    assert caught.value.what.isprintable()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["into", "out", "x.tar.zst"]


_GOOD = tar_of(_TOP, _FILE, member("a/y", b"y" * 2000))


def _zstd(tar: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(tar)


def _extension(kind: bytes, form: int) -> bytes:
    """Return a tar archive whose first header announces 64 MiB of name or PAX records."""
    return tar_of(member("././@LongLink", bytes(64 << 20), type=kind), _FILE, form=form)


def _window() -> bytes:
    options = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=options).compressobj()
    return packer.compress(_GOOD) + packer.flush()


_BROKEN = {
    "nothing": lambda: b"",
    "no archive": lambda: b"text",
    "not of zstd": lambda: _GOOD,
    "zstd, not of tar": lambda: _zstd(b"text" * 1000),
    "an empty frame": lambda: _zstd(b""),
    "bytes behind the frame": lambda: _zstd(_GOOD) + b"x",
    "a second frame": lambda: _zstd(_GOOD) + _zstd(b"x"),
    "a second archive": lambda: _zstd(_GOOD) + _zstd(_GOOD),
    "bytes behind the end mark": lambda: _zstd(_GOOD + b"x"),
    "no end mark": lambda: _zstd(_GOOD[: _GOOD.rindex(b"y") // 512 * 512 + 512]),
    "half an end mark": lambda: _zstd(_GOOD[: _GOOD.rindex(b"y") // 512 * 512 + 1024]),
    "a tail of zeros": lambda: _zstd(_GOOD + bytes(8 << 20)),
    "a damaged header": lambda: _zstd(_GOOD.replace(b"a/y", b"a/z")),
    "a long name": lambda: _zstd(_extension(tarfile.GNUTYPE_LONGNAME, tarfile.GNU_FORMAT)),
    "a long link": lambda: _zstd(_extension(tarfile.GNUTYPE_LONGLINK, tarfile.GNU_FORMAT)),
    "long records": lambda: _zstd(_extension(tarfile.XHDTYPE, tarfile.GNU_FORMAT)),
    "long records for all": lambda: _zstd(_extension(tarfile.XGLTYPE, tarfile.GNU_FORMAT)),
    "a huge window": _window,
}


@pytest.mark.threat(
    "archives",
    "an exported artifact that is cut, doubled, goes on behind its end, or asks for memory",
    "refused (8); the folder stays empty",
)
@pytest.mark.parametrize("make", _BROKEN.values(), ids=_BROKEN.keys())
def test_a_broken_archive_is_refused(tmp_path: Path, make: Callable[[], bytes]) -> None:
    path = tmp_path / "x.tar.zst"
    path.write_bytes(make())
    with pytest.raises(StoreError):
        unpack(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.threat("archives", "an exported artifact cut at each byte", "refused (8)")
def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = _zstd(tar_of(_TOP, _FILE))
    path = tmp_path / "x.tar.zst"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError):
            unpack(path, tmp_path / "out")
    path.write_bytes(whole)
    unpack(path, tmp_path / "out")


@pytest.mark.threat("archives", "an exported artifact with any bit flipped", "refused (8), or the same files")
@given(place=st.integers(0, len(_zstd(_GOOD)) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_changes_a_file(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    data = bytearray(_zstd(_GOOD))
    data[place] ^= 1 << bit
    (folder / "x.tar.zst").write_bytes(data)
    try:
        unpack(folder / "x.tar.zst", folder / "out")
    except StoreError:
        assert list((folder / "out").iterdir()) == []
    else:  # a bit that means nothing, such as a reserved one
        assert content(folder / "out") == {"x": (b"x", 0o644), "y": (b"y" * 2000, 0o644)}


@pytest.mark.threat("archives", "an exported artifact that is a bomb", "refused (8) before it is large")
def test_a_bomb_is_refused_before_it_is_large(tmp_path: Path) -> None:
    info, _ = member("a/zeros")
    info.size = archive.MOST.bytes + 1
    packer = zstandard.ZstdCompressor().compressobj()
    data = packer.compress(info.tobuf(tarfile.GNU_FORMAT))
    data += b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    (tmp_path / "x.tar.zst").write_bytes(data)
    assert len(data) < 1 << 16
    with pytest.raises(StoreError, match="too many"):
        unpack(tmp_path / "x.tar.zst", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_the_folder_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:  # a full disk can not be had here
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(StoreError, match="No space left"):
        unpack(written(tmp_path / "x.tar.zst", _GOOD), tmp_path / "out")
    assert names(tmp_path / "out") == []


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "x.tar.zst", _GOOD)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(StoreError, match="not empty"):
        unpack(path, tmp_path / "out")
    assert names(tmp_path / "out") == ["mine"]


@pytest.mark.parametrize("where", ["absent", "artifact"])
def test_what_is_not_there_or_no_file(tmp_path: Path, where: str) -> None:
    filled(tmp_path / "artifact")
    with pytest.raises(StoreError):
        unpack(tmp_path / where, tmp_path / "out")


_MEMORY = """
import sys
from pathlib import Path
from sparkbuild.transport.archive import pack, unpack

here = Path(sys.argv[1])
pack(here / "artifact", here / "x", top="a")
unpack(here / "x", here / "out")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(status["VmHWM"].split()[0])
"""


def test_memory_stays_small(tmp_path: Path) -> None:
    with (filled(tmp_path / "artifact") / "bin" / "large").open("wb") as file:
        file.truncate(256 << 20)
    env = dict(os.environ, PYTHONPATH=str(Path(archive.__file__).parents[2]))
    words: list[str | Path] = [sys.executable, "-c", _MEMORY, tmp_path]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=env)
    assert int(done.stdout) < 100 << 10  # KiB; the file alone has 256 << 10
    assert (tmp_path / "out" / "bin" / "large").stat().st_size == 256 << 20
