"""Whether the files of an artifact are the ones that its manifest describes, and nothing else is there."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sparkbuild.artifact.collect import describe
from sparkbuild.artifact.manifest import File, Manifest
from sparkbuild.checking.checked import Check, failed, judged, oddity
from sparkbuild.checking.documents import LATER, MADE
from sparkbuild.errors import BinaryError
from sparkbuild.evidence.signing import signature_of
from sparkbuild.files import sha256_file
from sparkbuild.handover import MANIFEST
from sparkbuild.inspection.elf import read_elf

_BIN = "bin"
DOCUMENTS = (MANIFEST, *MADE, *LATER)  # of this manifest; each may have a signature
_NOTES = ("timeline.json", "published.json")  # may lie there too; nothing depends on them
_PLAIN_ROLES = ("tool", "library")  # what a file is called whose recipe gives it no role
_COUNTED = ("path", "sha256", "size")


def files(folder: Path, manifest: Manifest) -> Iterator[Check]:
    """Check each file that the manifest speaks of: kind, size, hash, mode and what can be read from it."""
    if (folder / _BIN).is_symlink():
        yield failed(_BIN, "", "it is a symbolic link")
        return
    inside = {f.path.rpartition("/")[2] for f in manifest.files}
    for file in manifest.files:
        if why := oddity(folder / file.path):
            yield failed(file.path, "", why)
            continue
        try:
            yield from list(_file(folder / file.path, file, inside))
        except OSError as problem:
            yield failed(file.path, "", f"it can not be read: {problem.strerror}")


def _file(path: Path, file: File, inside: set[str]) -> Iterator[Check]:
    found = path.stat()
    size = "" if found.st_size == file.size else f"it has {found.st_size} bytes, not {file.size}"
    yield judged(file.path, "size", size)
    yield judged(file.path, "mode", _mode(stat.S_IMODE(found.st_mode)))
    unread = ""
    try:
        facts = read_elf(path)
        role = file.role if facts.interpreter and file.role not in _PLAIN_ROLES else ""
        here = msgspec.structs.asdict(describe(path, facts, role, inside))
    except BinaryError as problem:
        here, unread = {"sha256": sha256_file(path)}, problem.what
    digest = "" if here["sha256"] == file.sha256 else f"it is {here['sha256']}, not {file.sha256}"
    yield judged(file.path, "sha256", digest)
    if digest:
        yield Check(file.path, "facts", "not run", "its bytes are not the ones that were described")
    elif unread:
        yield failed(file.path, "facts", unread)
    else:
        yield from _facts(file, here)


def _facts(file: File, here: dict[str, object]) -> Iterator[Check]:
    """Compare what a manifest says of a file with what stands in the file."""
    for name, said in msgspec.structs.asdict(file).items():
        if name not in _COUNTED:
            wrong = f"the file has {here[name]!r}, the manifest {said!r}"[:300] if here[name] != said else ""
            yield judged(file.path, name, wrong)


def _mode(mode: int) -> str:
    """Return what is wrong with a file's mode: it must run, for who owns it, and be nobody else's."""
    if mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
        return f"it is {mode:04o}: special bits are set"
    if mode & stat.S_IWOTH:
        return f"it is {mode:04o}: everybody may write it"
    return "" if mode & stat.S_IXUSR else f"it is {mode:04o}: its owner can not run it"


def strays(folder: Path, manifest: Manifest) -> Iterator[Check]:
    """Name what lies in an artifact's folder and is neither one of its files nor a known document."""
    known = {f.path for f in manifest.files} | {n for n in _NOTES if not oddity(folder / n)}
    for name in DOCUMENTS:
        if (folder / name).exists():
            known.add(name)
            signature = signature_of(folder / name)
            known |= {signature.name} if not oddity(signature) else set()
    found = [p for p in sorted(folder.iterdir()) if p.name != _BIN]
    place = folder / _BIN
    if place.is_dir() and not place.is_symlink():
        found += sorted(place.iterdir())
    strange = [name for p in found if (name := p.relative_to(folder).as_posix()) not in known]
    yield from (failed(name, "", "no manifest speaks of it") for name in strange)
    if not strange:
        yield Check(".", "other files", "held", "there are none")
