from __future__ import annotations

import io
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sparkbuild import archives
from sparkbuild.archives import extract
from sparkbuild.errors import SourceError, StoreError

_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def member(name: str, data: bytes = b"", **changes: Any) -> tuple[tarfile.TarInfo, bytes]:  # noqa: ANN401
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def link(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=to)


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=0o755)


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    if mode == "w:zst":
        plain = tar(path, *members, mode="w").read_bytes()
        path.write_bytes(zstandard.ZstdCompressor().compress(plain))
        return path
    with tarfile.open(path, mode) as out:  # type: ignore[call-overload]
        for info, data in members:
            out.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data, mode in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.external_attr = mode << 16
            out.writestr(info, data)
    return path


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Return a folder to unpack into; what gets out of it lands in tmp_path."""
    folder = tmp_path / "out" / "into"
    folder.mkdir(parents=True)
    return folder


def below(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_symlink() or not p.is_dir()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "w:zst"])
def test_a_tar_archive_comes_out_as_it_went_in(tmp_path: Path, into: Path, mode: str) -> None:
    archive = tar(
        tmp_path / "x.tar",
        folder("top"),
        member("top/plain", b"one", mode=0o644),
        member("top/sub/run.sh", b"two", mode=0o777),
        member("top/secret", b"three", mode=0o600),
        link("top/near", "plain"),
        link("top/sub/up", "../plain"),
        link("top/dangling", "nowhere"),
        link("top/loop", "loop"),
        mode=mode,
    )
    extract(archive, into)
    top = into / "top"
    assert (top / "plain").read_bytes() == b"one"
    assert (top / "sub/run.sh").read_bytes() == b"two"
    modes = {
        p.name: stat.S_IMODE(p.stat().st_mode) for p in (top / "plain", top / "sub/run.sh", top / "secret")
    }
    assert modes == {"plain": 0o644, "run.sh": 0o755, "secret": 0o644}
    assert {n: (top / n).readlink() for n in ("near", "sub/up", "dangling", "loop")} == {
        "near": Path("plain"),
        "sub/up": Path("../plain"),
        "dangling": Path("nowhere"),
        "loop": Path("loop"),
    }


def test_a_zip_comes_out_as_it_went_in(tmp_path: Path, into: Path) -> None:
    archive = zipped(
        tmp_path / "x.whl",
        ("a/", b"", 0o40755),
        ("a/plain", b"one", 0o644),
        ("a/run", b"two", 0o100755),
        ("b", b"", 0),
    )
    extract(archive, into)
    assert below(into) == {"a/plain", "a/run", "b"}
    assert (into / "a/run").stat().st_mode & 0o777 == 0o755
    assert (into / "b").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("strip", "inside", "found"),
    [
        (0, "", {"p-1/a/x", "p-1/a/b/y", "p-1/z"}),
        (1, "", {"a/x", "a/b/y", "z"}),
        (1, "a", {"x", "b/y"}),
        (0, "p-1/a/b", {"y"}),
        (2, "", {"x", "b/y"}),
        (0, "p-1/absent", set()),
        (0, "p-1/z", set()),
    ],
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_below_and_strip(
    tmp_path: Path, into: Path, kind: str, strip: int, inside: str, found: set[str]
) -> None:
    names = ["p-1/a/x", "./p-1/a/b/y", "p-1/z"]
    if kind == "tar":
        archive = tar(tmp_path / "x.tar", *(member(n, b"x") for n in names))
    else:
        archive = zipped(tmp_path / "x.zip", *((n, b"x", 0o644) for n in names))
    extract(archive, into, below=inside, strip=strip)
    assert below(into) == found


@pytest.mark.threat("archives", ".git and .GIT folders with hooks and settings", "left out")
def test_a_repositorys_inside_is_left_out(tmp_path: Path, into: Path) -> None:
    names = [".git/hooks/post-checkout", "sub/.GIT/config", "a", ".gitignore", "sub/.github/x"]
    extract(tar(tmp_path / "x.tar", *(member(n, b"x") for n in names)), into)
    assert below(into) == {"a", ".gitignore", "sub/.github/x"}


_HOSTILE_TAR = {
    "climbs": [member("../x", b"x")],
    "climbs in the middle": [member("a/../../x", b"x")],
    "absolute": [member("/x", b"x")],
    "backslash": [member("..\\x", b"x")],
    "link climbs": [link("a", "../../x")],
    "link is absolute": [link("a", "/etc/passwd")],
    "link to the parent": [link("a", "..")],
    "link climbs out of a folder": [link("d/e/a", "../../../x")],
    "hard link": [member("x", b"x"), member("a", type=tarfile.LNKTYPE, linkname="x")],
    "hard link climbs": [member("a", type=tarfile.LNKTYPE, linkname="../../x")],
    "character device": [member("a", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [member("a", type=tarfile.BLKTYPE, devmajor=8)],
    "pipe": [member("a", type=tarfile.FIFOTYPE)],
    "the same name twice": [member("a", b"1"), member("a", b"2")],
    "the same name in another spelling": [member("a", b"1"), member("./a", b"2")],
    "a name that differs by case": [member("dir/Name", b"1"), member("dir/nAME", b"2")],
    "a name that differs by the case of its folder": [member("dir/a", b"1"), member("DIR/a", b"2")],
    "a link, then a file of its name": [link("a", "b"), member("a", b"x")],
    "a file through a link": [link("a", "b"), member("a/x", b"x")],
    "a file, then one below it": [member("a", b"x"), member("a/x", b"x")],
    "a link below a link": [folder("d/e"), link("a", "d/e"), link("a/x", "d")],
    "a link below a link that leaves there": [
        folder("d/e/f"),
        link("d/e/f/p", "../../.."),
        link("d/e/f/p/x", "../../../x"),
    ],
    "links that leave together": [folder("a/b"), link("a/b/up", "../.."), link("out", "a/b/up/../x")],
    "links that leave together, the first one last": [
        folder("a/b"),
        link("out", "a/b/up/../x"),
        link("a/b/up", "../.."),
    ],
    "a name too long for a file": [member("x" * 300, b"x")],
}


@pytest.mark.threat(
    "archives",
    "tar: `../`, absolute, repeated names, links and chains of them that leave, hard links, devices",
    "refused (4); nothing outside",
)
@pytest.mark.parametrize("members", _HOSTILE_TAR.values(), ids=_HOSTILE_TAR.keys())
@pytest.mark.parametrize("mode", ["w:gz", "w:zst"])
def test_a_hostile_tar_archive_is_refused(
    tmp_path: Path, into: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str
) -> None:
    archive = tar(tmp_path / "x.tar.gz", *members, mode=mode)
    with pytest.raises(SourceError) as caught:
        extract(archive, into)
    assert caught.value.exit_code == 4
    assert str(archive) in caught.value.where
    assert caught.value.remedy
    assert below(tmp_path) <= {"x.tar.gz"} | {f"out/into/{n}" for n in below(into)}
    assert not any(p.is_symlink() and not p.resolve().is_relative_to(into) for p in tmp_path.rglob("*"))
    assert all(p.is_dir() or p.is_symlink() or p.is_file() for p in into.rglob("*"))


@pytest.mark.threat("archives", "setuid and setgid bits", "dropped")
def test_setuid_bits_do_not_come_out(tmp_path: Path, into: Path) -> None:
    extract(tar(tmp_path / "x.tar", member("a", b"x", mode=0o6755)), into)
    assert stat.S_IMODE((into / "a").stat().st_mode) == 0o755


@pytest.mark.threat("archives", "one header of 8 MB of names or records", "refused (4)")
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME], ids=["records", "name"])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:zst"])
def test_a_header_that_would_fill_the_memory_is_refused(
    tmp_path: Path, into: Path, mode: str, kind: bytes
) -> None:
    archive = tar(tmp_path / "x", member("x", bytes(8 << 20), type=kind), member("a", b"x"), mode=mode)
    with pytest.raises(SourceError, match="a header of 8388608 bytes"):
        extract(archive, into)


_END = bytes(1024)


def header(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> bytes:
    """Return a member as its bytes, whatever tarfile would say to it."""
    info, _ = member(name, data, type=kind, linkname=to)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def records(kind: bytes = tarfile.XHDTYPE, **pairs: str) -> bytes:
    """Return PAX records (POSIX.1-2001, pax) for the next member, or with "g" for all that follow."""
    return header("pax", b"".join(_record(k.replace("_", "."), v) for k, v in pairs.items()), kind)


def _record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest) + len(str(len(rest) + len(str(len(rest)))))
    return str(length).encode() + rest


def changed(head: bytes, at: int, field: bytes) -> bytes:
    """Return a header with other bytes in one place, and the sum that it then needs."""
    head = head[:at] + field + head[at + len(field) :]
    head = head[:148] + b" " * 8 + head[156:]
    return head[:148] + b"%06o\0 " % sum(head[:512]) + head[156:]


_RECORDS = {
    "a path that climbs": records(path="../x") + header("a"),
    "an absolute path for all": records(b"g", path="/x") + header("a"),
    "a link's place": records(linkpath="../../x") + header("a", kind=tarfile.SYMTYPE, to="b"),
    "a size below zero, which reads it again": records(size="-512") + header("a"),
    "a size below zero that hides the next": records(size="-1024") + header("a") + header("b"),
    "a size below zero in what is left out": records(size="-1536") + header(".git/a"),
    "a size of thirty digits": records(size="9" * 30) + header("a"),
    "a size with every bit set": changed(header("a"), 124, b"\xff" * 12),
    "a size beyond the archive": changed(header("a"), 124, b"00000077777\0"),
    "holes in a small file": records(GNU_sparse_map="0,1,2,3", GNU_sparse_size="8000000000") + header("a"),
    "holes under another name": records(GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_name="../x")
    + header("a", b"1\n0\n1\n"),
    "holes, the old way": header("a", kind=tarfile.GNUTYPE_SPARSE),
    "a long name that climbs": header("././@LongLink", b"x/" * 100 + b"../" * 200 + b"x\0", b"L")
    + header("a"),
    "records upon records": records(comment="x") * 2000 + header("a"),
}


@pytest.mark.threat(
    "archives",
    "PAX and GNU headers: paths that leave, negative, huge and false sizes, sparse maps, endless chains",
    "refused (4); nothing outside",
)
@pytest.mark.parametrize("data", _RECORDS.values(), ids=_RECORDS.keys())
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "zstd"])
def test_hostile_headers_are_refused(tmp_path: Path, into: Path, data: bytes, packed: bool) -> None:
    whole = data + _END
    (tmp_path / "x.tar").write_bytes(zstandard.ZstdCompressor().compress(whole) if packed else whole)
    with pytest.raises(SourceError) as caught:
        extract(tmp_path / "x.tar", into)
    assert caught.value.remedy
    assert below(tmp_path) <= {"x.tar"} | {f"out/into/{n}" for n in below(into)}
    assert sum(p.stat().st_size for p in into.rglob("*")) < 1 << 20


_CHILD = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]), int(sys.argv[3])))
from sparkbuild.archives import extract
from sparkbuild.errors import SourceError
try:
    extract(Path(sys.argv[1]), Path(sys.argv[2]))
except SourceError as refused:
    print(refused.what)
"""


def in_a_small_room(archive: Path, into: Path, limit: int) -> str:
    """Unpack in a child with so many bytes of memory; return why it refused."""
    words: list[str | Path] = [sys.executable, "-c", _CHILD, archive, into, str(limit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


_FILLERS = {
    "records": [records(comment="x" * 60_000) + header(".git/x")],
    "records for all": [records(b"g", **{f"c{i}": "x" * 60_000}) + header(".git/x") for i in range(64)],
    "long names": [header("././@LongLink", b".git/" + b"a" * 60_000, b"L") + header("x")],
    "a sparse map": [
        changed(header("a", kind=tarfile.GNUTYPE_SPARSE), 482, b"\1"),
        (b"%011o\0%011o\0" % (0, 1)) * 21 + b"\1" + bytes(7),
    ],
}


@pytest.mark.threat(
    "archives",
    "a bomb of headers: a small file that unpacks to names, records or maps without end",
    "refused, or read in a bounded memory",
)
@pytest.mark.parametrize("parts", _FILLERS.values(), ids=_FILLERS.keys())
def test_headers_do_not_fill_the_memory(tmp_path: Path, into: Path, parts: list[bytes]) -> None:
    pack = zstandard.ZstdCompressor().compress
    frames = [pack(part) for part in parts]
    (tmp_path / "x.tar").write_bytes(b"".join(frames * (3_000 // len(frames))) + pack(_END))
    in_a_small_room(tmp_path / "x.tar", into, 200 << 20)
    assert not list(into.iterdir())


@pytest.mark.threat(
    "archives",
    "a tar archive cut between two members, a damaged header in its middle, something behind its end",
    "refused (4): tar itself takes each for the end",
)
@pytest.mark.parametrize("damage", ["cut", "header", "behind"])
def test_a_tar_archive_that_stops_early_is_refused(tmp_path: Path, into: Path, damage: str) -> None:
    one, two = header("a", b"1"), header("b", b"2")
    data = {
        "cut": one,
        "header": one + b"\xff" + two[1:] + _END,
        "behind": one + _END + two + _END,
    }[damage]
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(SourceError, match="no end mark"):
        extract(tmp_path / "x.tar", into)


@pytest.mark.threat("archives", "an archive in an archive", "left as the file that it is")
def test_a_nested_archive_stays_packed(tmp_path: Path, into: Path) -> None:
    inner = tar(tmp_path / "inner.tar.gz", member("x", bytes(1 << 20))).read_bytes()
    extract(tar(tmp_path / "x.tar.gz", member("top/inner.tar.gz", inner)), into)
    assert (into / "top/inner.tar.gz").read_bytes() == inner
    assert below(into) == {"top/inner.tar.gz"}


_HOSTILE_ZIP = {
    "climbs": [("../x", b"x", 0o644)],
    "absolute": [("/x", b"x", 0o644)],
    "climbs in the middle": [("a/../../x", b"x", 0o644)],
    "backslash": [("..\\x", b"x", 0o644)],
    "a link": [("a", b"../../x", 0o120777)],
    "a device": [("a", b"", 0o20666)],
    "the same name twice": [("a", b"1", 0o644), ("./a", b"2", 0o644)],
    "a name that differs by case": [("a/x", b"1", 0o644), ("A/X", b"2", 0o644)],
    "a file, then one below it": [("a", b"1", 0o644), ("a/b", b"2", 0o644)],
}


@pytest.mark.threat(
    "archives",
    "zip and wheel: `../`, absolute names, links, devices, names that repeat or differ by case",
    "refused (4); nothing outside",
)
@pytest.mark.parametrize("members", _HOSTILE_ZIP.values(), ids=_HOSTILE_ZIP.keys())
def test_a_hostile_zip_is_refused(tmp_path: Path, into: Path, members: list[tuple[str, bytes, int]]) -> None:
    with pytest.raises(SourceError):
        extract(zipped(tmp_path / "x.zip", *members), into)
    assert below(tmp_path) <= {"x.zip"} | {f"out/into/{n}" for n in below(into)}


@pytest.mark.threat(
    "archives",
    "a zip whose members have other names in front of their bytes, or ask for 4 GB to be unpacked",
    "refused (4)",
)
@pytest.mark.parametrize("lie", ["name", "memory"])
def test_a_zip_that_is_at_odds_with_itself_is_refused(tmp_path: Path, into: Path, lie: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as pack:
        pack.writestr("aaaa", b"x" * 1000)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    if lie == "name":
        data[30:34] = b"../x"  # of the local header (APPNOTE.TXT 4.3.7)
    else:
        struct.pack_into("<I", data, 30 + 4 + 5, 2**32 - 1)  # LZMA's dictionary (APPNOTE.TXT 5.8.8)
    (tmp_path / "x.zip").write_bytes(data)
    said = in_a_small_room(tmp_path / "x.zip", into, 1 << 30)
    assert said.startswith("not a whole archive: ")
    assert below(tmp_path) <= {"x.zip", "out/into/aaaa"}


@pytest.mark.threat("archives", "an encrypted zip, an unknown compression", "refused (4)")
def test_an_encrypted_zip_and_an_unknown_compression_are_refused(tmp_path: Path, into: Path) -> None:
    whole = zipped(tmp_path / "x.zip", ("a", b"x" * 100, 0o644)).read_bytes()
    local, central = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")
    for at, value in ((6, 1), (8, 77)):  # general purpose flags, compression method (APPNOTE.TXT 4.3.7)
        data = bytearray(whole)
        struct.pack_into("<H", data, local + at, value)
        struct.pack_into("<H", data, central + at + 2, value)
        (tmp_path / "y.zip").write_bytes(data)
        with pytest.raises(SourceError):
            extract(tmp_path / "y.zip", into)


@pytest.mark.threat(
    "archives",
    "too many members or bytes (limits lowered for the test)",
    "refused (4) before more than the limit is written",
)
@pytest.mark.parametrize(
    ("limit", "value"), [("_MAX_BYTES", 1 << 20), ("_MAX_MEMBERS", 20)], ids=["bytes", "members"]
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_bomb_is_refused_before_it_is_large(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch, kind: str, limit: str, value: int
) -> None:
    monkeypatch.setattr(archives, limit, value)  # the real limits are gigabytes
    count, size = (2, 1 << 20) if limit == "_MAX_BYTES" else (30, 1)
    names = [f"f{i}" for i in range(count)]
    if kind == "tar":
        archive = tar(tmp_path / "x.tar.gz", *(member(n, bytes(size)) for n in names))
    else:
        archive = zipped(tmp_path / "x.zip", *((n, bytes(size), 0o644) for n in names))
    with pytest.raises(SourceError, match="too many"):
        extract(archive, into)
    assert sum(p.stat().st_size for p in into.iterdir()) <= 1 << 20
    assert len(list(into.iterdir())) <= 20


@pytest.mark.threat(
    "archives", "a zip whose directory lies about a size", "refused (4); no more than it said is written"
)
def test_a_zip_that_lies_about_its_sizes_gives_no_more_than_it_says(tmp_path: Path, into: Path) -> None:
    data = bytearray(zipped(tmp_path / "x.zip", ("a", bytes(1 << 20), 0o644)).read_bytes())
    central = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, central + 24, 10)  # uncompressed size
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(SourceError):
        extract(tmp_path / "x.zip", into)
    assert all(p.stat().st_size <= 10 for p in into.iterdir())


Make = Callable[[Path], Path]


def _some(path: Path, mode: str) -> Path:
    noise = bytes(range(256)) * 40
    if mode == "zip":
        return zipped(path, *((f"f{i}", noise, 0o644) for i in range(5)))
    return tar(path, *(member(f"f{i}", noise) for i in range(5)), mode=mode)


@pytest.mark.threat("archives", "archives cut at several places, of every compression", "refused (4)")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "w:zst", "zip"])
def test_a_truncated_archive_is_a_source_error(tmp_path: Path, into: Path, mode: str, share: float) -> None:
    archive = _some(tmp_path / "x", mode)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SourceError):
        extract(archive, into)


@pytest.mark.threat("archives", "files that are no archive", "refused (4)")
@pytest.mark.parametrize(
    "data", [b"", b"x", b"PK\x03\x04", b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh9", bytes(512)]
)
def test_what_is_no_archive_is_a_source_error(tmp_path: Path, into: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(SourceError):
        extract(tmp_path / "x", into)
    assert not list(into.iterdir())


def test_an_archive_without_members_is_one(tmp_path: Path, into: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1024))
    extract(tmp_path / "x", into)
    assert not list(into.iterdir())


def test_an_absent_archive_is_a_source_error(tmp_path: Path, into: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        extract(tmp_path / "absent.tar.gz", into)


def test_unpacking_where_nothing_can_be_written_is_no_fault_of_the_archive(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:  # a full disk can not be had here
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(StoreError, match="No space left"):
        extract(tar(tmp_path / "x.tar", member("a", b"x")), into)


def test_a_relative_folder_and_one_behind_a_link_will_do(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tar(tmp_path / "x.tar", member("a/f", b"x"), link("l", "a/f"))
    (tmp_path / "via").symlink_to(into)
    monkeypatch.chdir(tmp_path)
    extract(archive, Path("via/one"))
    extract(archive, Path("out/../out/into/two"))
    assert (into / "one/l").read_bytes() == (into / "two/l").read_bytes() == b"x"
