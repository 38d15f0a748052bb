"""Archives and wheels, unpacked into a folder and nowhere else."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from sparkbuild.errors import SourceError
from sparkbuild.files import DISK_FAULTS, disk_error

_BLOCK = 1 << 20
_MAX_MEMBERS = 100_000
_MAX_BYTES = 8 << 30  # an unpacked source or wheel; cuBLAS for arm64 is 0.9 GB
# What tarfile, zipfile and the decompressors raise for damaged, encrypted or hostile bytes.
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, RuntimeError, OverflowError),
)


def extract(archive: Path, into: Path, *, below: str = "", strip: int = 0) -> None:
    """Unpack a tar archive, zip or wheel into a folder, and nothing outside it.

    ``below`` keeps only that folder's content (after ``strip`` leading components were dropped).
    Links must stay inside; devices, setuid bits, absolute or climbing names and names that differ
    only by case or repeat are refused with SourceError.
    """
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, _Names(archive, into, below, strip))
        else:
            _extract_tar(archive, _Names(archive, into, below, strip))
    except _BROKEN as problem:
        raise SourceError(
            f"not a whole archive: {problem}", where=str(archive), remedy="fetch it again"
        ) from problem
    except OSError as problem:
        if problem.errno in DISK_FAULTS:
            raise disk_error(f"cannot unpack {archive.name}", into, problem) from problem
        raise SourceError(
            f"cannot unpack {archive.name}: {problem}", where=str(archive), remedy="fetch it again"
        ) from problem


class _Names:
    """Where each member of an archive goes; refuses what would leave the folder."""

    def __init__(self, archive: Path, into: Path, below: str, strip: int) -> None:
        self.archive, self.into = archive, Path(os.path.realpath(into))
        self._below = PurePosixPath(below).parts
        self._strip = strip
        self._seen: set[str] = set()
        self._members = self._bytes = 0

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
        if self._members > _MAX_MEMBERS or self._bytes > _MAX_BYTES:
            raise self.refuse(name, "too many files or bytes")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise self.refuse(name, "its name leaves the folder")
        parts = path.parts[self._strip :]
        if parts[: len(self._below)] != self._below:
            return None
        parts = parts[len(self._below) :]
        if not parts:
            return None
        if ".git" in (p.casefold() for p in parts):
            return None  # a repository's inside is never needed and can carry hooks
        return self.into.joinpath(*parts)

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


def _extract_tar(archive: Path, names: _Names) -> None:
    links: list[tuple[Path, str]] = []
    with tarfile.open(archive) as tar:
        for member in tar:
            target = names.place(member.name, member.size)
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
    _make_links(links, names)


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
