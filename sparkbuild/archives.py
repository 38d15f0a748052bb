"""Archives and wheels, unpacked into a folder and nowhere else."""

from __future__ import annotations

import contextlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

import msgspec

from sparkbuild.errors import SourceError
from sparkbuild.files import DISK_FAULTS, disk_error
from sparkbuild.trees import DEEPEST, too_deep

_BLOCK = 1 << 20
_MAX_MEMBERS = 100_000
_MAX_BYTES = 8 << 30  # an unpacked source or wheel; cuBLAS for arm64 is 0.9 GB
_MAX_EXTENSION = 1 << 16  # bytes of a long name or of PAX records: up to 1,000 are in memory at once
_MAX_TAIL = 1 << 20  # bytes of zeros that end a tar archive
ZSTD = b"(\xb5/\xfd"  # how a zstd frame begins (RFC 8878, 3.1.1)
_ZSTD_WINDOW = 128 << 20  # bytes of memory a frame may ask for, as the zstd program allows
_ZSTD_HEADER = 18  # bytes that a frame's header has at most
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]*")
_TAR_EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
# What tarfile, zipfile and the decompressors raise for damaged, encrypted or hostile bytes.
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, RuntimeError, OverflowError, MemoryError),
)


class Plain(msgspec.Struct, frozen=True):
    """What an archive must be that we wrote ourselves: a tar.zst of files below one folder.

    No links, no setuid bits, only names with nothing odd in them, nothing behind its end, and not
    more ``members`` or ``bytes`` than these.
    """

    members: int
    bytes: int


def is_plain(name: str) -> bool:
    """Return whether one part of a path is fit for an archive of ours."""
    return _PLAIN.fullmatch(name) is not None


def extract(
    archive: Path, into: Path, *, below: str = "", strip: int = 0, plain: Plain | None = None
) -> None:
    """Unpack a tar archive (as it is, or with gzip, bzip2, xz or zstd), zip or wheel into a folder only.

    ``below`` keeps only that folder's content (after ``strip`` leading components were dropped).
    Links must stay inside; devices, setuid bits, absolute or climbing names and names that differ
    only by case or repeat are refused with SourceError. So is what is not ``plain``, where that is asked.
    """
    names = _Names(archive, into, below, strip, plain)
    try:
        if plain is None and zipfile.is_zipfile(archive):
            _extract_zip(archive, names)
        else:
            _extract_tar(archive, names)
    except _BROKEN as problem:
        raise SourceError(
            f"not a whole archive: {str(problem) or 'it asks for more memory than there is'}",
            where=str(archive),
            remedy="fetch it again",
        ) from problem
    except OSError as problem:
        if problem.errno in DISK_FAULTS:
            raise disk_error(f"cannot unpack {archive.name}", into, problem) from problem
        raise SourceError(
            f"cannot unpack {archive.name}: {problem}", where=str(archive), remedy="fetch it again"
        ) from problem


class _Names:
    """Where each member of an archive goes; refuses what would leave the folder."""

    def __init__(self, archive: Path, into: Path, below: str, strip: int, plain: Plain | None) -> None:
        self.archive, self.into, self.plain = archive, Path(os.path.realpath(into)), plain
        self._below = PurePosixPath(below).parts
        self._strip = strip
        self._seen: set[str] = set()
        self._spelled: dict[str, str] = {}
        self._members = self._bytes = 0
        self._most = plain or Plain(_MAX_MEMBERS, _MAX_BYTES)

    def refuse(self, name: str, why: str) -> SourceError:
        return SourceError(
            f"refused to unpack {name[:200]!r}: {why}",
            where=str(self.archive),
            remedy="the archive is damaged or hostile; do not use it",
        )

    def place(self, name: str, size: int) -> Path | None:
        """Return where a member goes, None when it is not wanted."""
        self._members += 1
        self._bytes += size
        if self._members > self._most.members or self._bytes > self._most.bytes:
            raise self.refuse(name, "too many files or bytes")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise self.refuse(name, "its name leaves the folder")
        if self.plain:
            self._check_plain(name, path)
        if len(path.parts) > DEEPEST:
            raise too_deep(self.archive)
        parts = path.parts[self._strip :]
        if parts[: len(self._below)] != self._below:
            return None
        parts = parts[len(self._below) :]
        if not parts:
            return None
        if ".git" in (p.casefold() for p in parts):
            return None  # a repository's inside is never needed and can carry hooks
        return self.into.joinpath(*parts)

    def _check_plain(self, name: str, path: PurePosixPath) -> None:
        if not path.parts or not all(map(is_plain, path.parts)):
            raise self.refuse(name, "an odd name")
        for part in (path, *path.parents[:-1]):
            if self._spelled.setdefault(str(part).casefold(), str(part)) != str(part):
                raise self.refuse(name, "a name differs from another only by case")
        if len({s for s in self._spelled if "/" not in s}) > 1:
            raise self.refuse(name, "a second folder at the top")

    def once(self, name: str, target: Path) -> None:
        key = str(target).casefold()
        if key in self._seen:
            raise self.refuse(name, "the name comes twice, or differs from another only by case")
        self._seen.add(key)

    def link(self, name: str, target: Path, link: str) -> None:
        if PurePosixPath(link).is_absolute():
            raise self.refuse(name, "an absolute link")
        inside = Path(os.path.normpath(target.parent / link))
        if not inside.is_relative_to(self.into):
            raise self.refuse(name, "its link leaves the folder")


class _Header(tarfile.TarInfo):
    """A header of a tar archive; one that would fill the memory is refused."""

    def _proc_member(self, tar: tarfile.TarFile) -> Self | tarfile.TarInfo:
        """Go on from a header. Raises ValueError for a huge one. Newer Pythons do not call ``frombuf``."""
        if self.type in _TAR_EXTENSIONS and not 0 <= self.size <= _MAX_EXTENSION:
            raise ValueError(f"a header of {self.size} bytes")
        try:
            return super()._proc_member(tar)  # type: ignore[misc, no-any-return] # typeshed does not name it
        except tarfile.HeaderError as problem:  # of which TarFile would make an early end
            raise ValueError(str(problem)) from problem

    @staticmethod
    def _sparse(*_: object) -> None:
        """Refuse a file with holes, whose map tarfile would read into memory whatever its length."""
        raise ValueError("a sparse file")

    # What TarInfo calls for a map, in each form.
    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


@contextlib.contextmanager
def _opened(archive: Path, *, plain: bool) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, whatever compressed it; a ``plain`` one must be of zstd."""
    with archive.open("rb") as file:
        if file.read(len(ZSTD)) == ZSTD:
            import zstandard  # noqa: PLC0415 - few commands need it

            try:
                _check_frames(file)
                file.seek(0)
                unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
                with (
                    unpacker.stream_reader(file, read_across_frames=True) as stream,
                    tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar,
                ):
                    yield tar
            except zstandard.ZstdError as problem:
                raise tarfile.ReadError(str(problem)) from problem
        elif plain:
            raise tarfile.ReadError("it is not of zstd")
        else:
            with tarfile.open(archive, tarinfo=_Header) as tar:
                yield tar


def _check_frames(file: BinaryIO) -> None:
    """Raise ValueError unless zstd frames fill the file from its first to its last byte.

    The decompressor takes a file that stops early for one that ended. The format is that of RFC 8878,
    3.1.1: a header, blocks (each with its size in the upper 21 bits of three bytes), a checksum.
    """
    import zstandard  # noqa: PLC0415 - few commands need it

    size, at = os.fstat(file.fileno()).st_size, 0
    while at < size:
        file.seek(at)
        head = file.read(_ZSTD_HEADER)
        at += zstandard.frame_header_size(head)
        last = 0
        while not last:
            file.seek(at)
            block = int.from_bytes(file.read(3), "little")
            last, repeated = block & 1, block >> 1 & 3 == 1
            at += 3 + (1 if repeated else block >> 3)
            if at > size:
                break
        at += 4 if zstandard.get_frame_parameters(head).has_checksum else 0
    if at != size:
        raise ValueError("it ends early")


def _extract_tar(archive: Path, names: _Names) -> None:
    links: list[tuple[Path, str]] = []
    with _opened(archive, plain=names.plain is not None) as tar:
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined] # typeshed lacks it; else all stay in memory
            _check_sizes(tar, member)
            target = names.place(member.name, member.size)
            if names.plain:
                _check_plain(member, names)
            if target is None:
                continue
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            names.once(member.name, target)
            if member.issym():
                names.link(member.name, target, member.linkname)
                links.append((target, member.linkname))
                continue
            source = tar.extractfile(member) if member.isreg() else None
            if source is None:
                raise names.refuse(member.name, "neither a file, a folder nor a symbolic link")
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("xb") as out:
                shutil.copyfileobj(source, out, _BLOCK)
            target.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)
        _check_tail(tar)
    _make_links(links, names)


def _check_sizes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Raise ReadError for a size below zero, with which tarfile goes back, and for endless global records."""
    if member.size < 0:
        raise tarfile.ReadError(f"a file of {member.size} bytes")
    if sum(len(key) + len(value) for key, value in tar.pax_headers.items()) > _MAX_EXTENSION:
        raise tarfile.ReadError("too many global records")


def _check_plain(member: tarfile.TarInfo, names: _Names) -> None:
    if member.type not in (tarfile.REGTYPE, tarfile.DIRTYPE):
        raise names.refuse(member.name, "neither a file nor a folder")
    if member.mode & ~0o777:
        raise names.refuse(member.name, "a setuid, setgid or sticky bit")
    if member.isreg() and "/" not in member.name:
        raise names.refuse(member.name, "a file outside the one folder")


def _check_tail(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless an archive that was read has its end mark (two blocks of zeros) and no more.

    tarfile takes the first block of zeros, a damaged header and the end of the file for the end alike.
    """
    rest = tar.fileobj.read(_MAX_TAIL + 1)
    if not tarfile.BLOCKSIZE <= len(rest) <= _MAX_TAIL or rest.strip(b"\0"):
        raise tarfile.ReadError("it has no end mark, or something behind it")


def _make_links(links: list[tuple[Path, str]], names: _Names) -> None:
    """Make the links last, so that no file is ever written through one, and no link through another.

    One link after another may leave the folder where none does alone: ``a/up -> ..`` and
    ``b -> a/up/../x``. So each is followed when all are there.
    """
    places = {target for target, _ in links}
    for target, _ in links:
        if not places.isdisjoint(target.parents):
            raise names.refuse(str(target.relative_to(names.into)), "it lies below a link")
    for target, link in links:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(link)
    for target, _ in links:
        if not Path(os.path.realpath(target)).is_relative_to(names.into):
            for place in places:
                place.unlink()
            raise names.refuse(str(target.relative_to(names.into)), "its link leaves the folder")


def _extract_zip(archive: Path, names: _Names) -> None:
    with zipfile.ZipFile(archive) as pack:
        for info in pack.infolist():
            target = names.place(info.filename, info.file_size)
            if target is None:
                continue
            if info.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            names.once(info.filename, target)
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise names.refuse(info.filename, "neither a file nor a folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            with pack.open(info) as source, target.open("xb") as out:
                shutil.copyfileobj(source, out, _BLOCK)
            target.chmod(0o755 if mode & stat.S_IXUSR else 0o644)
