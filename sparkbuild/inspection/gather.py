"""The ELF files of whatever a person points at: a file, a folder, a wheel, a tar or a static library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sparkbuild.archives import ZSTD, extract
from sparkbuild.errors import BinaryError, SourceError, UsageError
from sparkbuild.inspection.elf import is_elf

_LINKED = (2, 3)  # ET_EXEC, ET_DYN: what a linker made; a build folder's objects are in it anyway
_TYPE_AT = 16
_AR = b"!<arch>\n"
_AR_HEADER = 60  # bytes: name 16, time 12, owner 6, group 6, mode 8, size 10, end 2; see ar(5)
_MOST_MEMBERS = 100_000
_BLOCK = 1 << 20
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", ZSTD)
_TAR = (257, b"ustar")


def elf_files(path: Path, work: Path) -> list[tuple[str, Path]]:
    """Return (name, file) of each ELF file that ``path`` is or holds, sorted by name.

    Names are relative to ``path``, with nothing in them that could steer a terminal. Archives are
    unpacked into ``work``. Of a folder only linked files count, each once however many links name it.
    Raises UsageError when there is no such path, BinaryError when it holds none or can not be read.
    """
    try:
        if not path.exists():
            raise UsageError(
                "no such file or folder", where=str(path), remedy="name a file, folder or archive"
            )
        found = sorted((shown(name), file) for name, file in _find(path, work))
    except SourceError as problem:  # an archive's
        raise BinaryError(problem.what, where=problem.where, remedy=problem.remedy) from problem
    except OSError as problem:
        raise BinaryError(
            f"cannot read: {problem.strerror}", where=str(problem.filename or path)
        ) from problem
    if not found:
        raise BinaryError(
            "no ELF executable or library here",
            where=str(path),
            remedy="name a binary, or the folder, wheel or archive that holds one",
        )
    return found


def _find(path: Path, work: Path) -> Iterator[tuple[str, Path]]:
    if path.is_dir():
        yield from _walk(path)
    elif not path.is_file():  # a pipe would be waited for
        raise BinaryError("neither a file nor a folder", where=str(path), remedy="name a file or a folder")
    elif is_elf(path):
        yield path.name, path
    elif is_library(path):
        yield from _members(path, work)
    else:
        if not (any(_begins(path, 0, m) for m in _ARCHIVES) or _begins(path, *_TAR)):
            raise BinaryError(
                "neither an ELF file nor a wheel, zip or tar archive", where=str(path), remedy="name one"
            )
        extract(path, work)
        yield from _walk(work)


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    seen = set()
    for folder, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "CMakeFiles"]  # its own trials
        for name in sorted(names):
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file() and _is_linked(path):
                stat = path.stat()
                if (same := (stat.st_dev, stat.st_ino)) not in seen:
                    seen.add(same)
                    yield str(path.relative_to(root)), path


def _refuse(problem: OSError) -> None:
    raise problem


def shown(name: str) -> str:
    """Return a file's name as text that can not steer a terminal, whatever bytes it has."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_linked(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_TYPE_AT + 2)
    if head[:4] != b"\x7fELF" or len(head) < _TYPE_AT + 2:
        return False
    return int.from_bytes(head[_TYPE_AT:], "little" if head[5] == 1 else "big") in _LINKED


def _begins(path: Path, at: int, magic: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(len(magic)) == magic


def is_library(path: Path) -> bool:
    """Return whether a file begins as a static library does; a thin one, which holds no members, does not."""
    return _begins(path, 0, _AR)


def members(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield each member of a static library: its header, as ar(5) has it, its offset and its size.

    Raises BinaryError.
    """
    with path.open("rb") as file:
        at, number, size = len(_AR), 0, path.stat().st_size
        while at < size:
            file.seek(at)
            head = file.read(_AR_HEADER)
            if head[58:] != b"`\n" or not head[48:58].strip().isdigit():
                raise BinaryError(f"not a whole static library: bad member at offset {at}", where=str(path))
            length = int(head[48:58])
            if at + _AR_HEADER + length > size:
                raise BinaryError("not a whole static library: it ends in a member", where=str(path))
            if number > _MOST_MEMBERS:
                raise BinaryError("not a real static library: it has too many members", where=str(path))
            yield head, at + _AR_HEADER, length
            at, number = at + _AR_HEADER + length + length % 2, number + 1


def unpack(path: Path, offset: int, length: int, target: Path) -> None:
    """Copy a part of a file to a file of its own."""
    with path.open("rb") as file, target.open("wb") as out:
        file.seek(offset)
        while block := file.read(min(length, _BLOCK)):
            out.write(block)
            length -= len(block)


def _members(path: Path, work: Path) -> Iterator[tuple[str, Path]]:
    """Unpack the ELF members of a static library; their names may repeat, so they get numbers."""
    for number, (_, offset, length) in enumerate(members(path)):
        if _begins(path, offset, b"\x7fELF"):
            member = work / f"{number}.o"
            unpack(path, offset, length, member)
            yield f"{path.name}({number})", member
