"""An artifact as one file: a tar.zst whose bytes depend on nothing but the content.

The tar archive is of the ustar form (POSIX.1-1988: no extension headers, so nothing but names, modes,
sizes and bytes), its members sorted by name below one folder, owned by nobody in particular and of one
time. The zstd frame is made by one thread at a fixed level, with a checksum. Its bytes are those of one
version of libzstd, which comes with the zstandard package; the tar archive inside is always the same.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sparkbuild.archives import Plain, extract, is_plain
from sparkbuild.errors import SourceError, StoreError
from sparkbuild.files import disk_error, sha256_file, sync_folder
from sparkbuild.rooms import room

MOST = Plain(members=2_000, bytes=8 << 30)  # a real one has some twenty files and 1 GB
_LEVEL = 6  # 95 MB of CUDA code: 61.3, 60.8, 60.4 MB and 0.8, 1.0, 1.5 s at the levels 3, 6 and 9
_TIME = 0  # seconds since 1970


def pack(folder: Path, into: Path, *, top: str) -> str:
    """Write a folder as the archive ``into``, below the folder name ``top``, and return its SHA-256.

    The archive is there whole or not at all; what a killed run left beside it goes. Raises StoreError for
    what is neither file nor folder, for an odd name, for more than `MOST`, and when it can not be written.
    """
    members = list(_members(folder, top))
    size = sum(path.stat().st_size for _, path in members if path.is_file())
    if len(members) > MOST.members or size > MOST.bytes:
        raise _refused(folder, f"{len(members)} files and folders of {size >> 20} MiB are too many")
    try:
        with room(into) as own:
            temp = own / into.name
            with temp.open("xb") as file:
                _write(members, file)
                file.flush()
                os.fsync(file.fileno())
            digest = sha256_file(temp)
            temp.chmod(0o644)
            temp.replace(into)
        sync_folder(into.parent)
    except OSError as problem:
        raise disk_error(f"cannot write {into.name}", into, problem) from problem
    return digest


def unpack(path: Path, into: Path) -> None:
    """Unpack an archive that `pack` wrote into an empty folder, without its top folder.

    Everything else is refused with StoreError, and the folder is empty again: names that leave it, links,
    devices, setuid bits, names that repeat or differ by case, a second top folder, more than `MOST`, a
    frame that asks for more than 128 MiB of memory, an archive that is cut short or goes on.
    """
    into.mkdir(parents=True, exist_ok=True)
    if any(into.iterdir()):
        raise _refused(into, "the folder to unpack into is not empty")
    try:
        extract(path, into, strip=1, plain=MOST)
    except BaseException as problem:
        _empty(into)
        if isinstance(problem, SourceError):
            raise StoreError(problem.what, where=problem.where, remedy=problem.remedy) from problem
        raise


def _members(folder: Path, top: str) -> Iterator[tuple[str, Path]]:
    """Yield (name in the archive, path) of a folder and all below it, sorted as bytes."""
    below = sorted((f"{top}/{path.relative_to(folder).as_posix()}", path) for path in folder.rglob("*"))
    for name, path in [(top, folder), *below]:
        if not all(map(is_plain, name.split("/"))) or len(name) > tarfile.LENGTH_NAME:
            raise _refused(path, f"{name!r} is no name for a file of an artifact")
        if not stat.S_ISDIR(kind := path.lstat().st_mode) and not stat.S_ISREG(kind):
            raise _refused(path, "neither a file nor a folder")
        yield name, path


def _write(members: list[tuple[str, Path]], file: BinaryIO) -> None:
    import zstandard  # noqa: PLC0415 - few commands need it

    packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, threads=0)
    with (
        packer.stream_writer(file, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, path in members:
            info = tarfile.TarInfo(name)
            info.mtime = _TIME
            if path.is_dir():
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                continue
            with path.open("rb") as source:
                found = os.fstat(source.fileno())
                info.size = found.st_size
                info.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
                tar.addfile(info, source)


def _refused(path: Path, why: str) -> StoreError:
    return StoreError(why, where=str(path), remedy="an artifact has plain files only; build it again")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
