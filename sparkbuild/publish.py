"""Hand artifacts over: to a folder with an index, as an archive, to an OCI registry.

What is handed over is the artifact with what a stranger needs to judge it: its provenance and the probe's
findings as in-toto statements, an SBOM on request, signatures, and the verdicts that came later.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild.artifact import index, store
from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.store import Stored
from sparkbuild.errors import FindingError, StoreError, UsageError
from sparkbuild.evidence import sbom, signing, statements
from sparkbuild.files import (
    disk_error,
    from_json,
    locked,
    sha256_file,
    to_json,
    whole_folder,
    write_whole,
)
from sparkbuild.handover import MANIFEST, plain_bytes
from sparkbuild.progress import Progress
from sparkbuild.rooms import room
from sparkbuild.source.names import redact
from sparkbuild.transport import archive, registry

ARCHIVE = ".tar.zst"
SIGNED = (MANIFEST, statements.PROVENANCE, statements.PROBE)
LATER = ("reproduction.json", "smoke.json", "timeline.json")
PUBLISHED: Literal["published.json"] = "published.json"


class With(msgspec.Struct, frozen=True):
    """What goes with an artifact: a signature by ``key``, an SBOM. ``plain_http`` is for a registry."""

    key: Path | None = None
    sbom: bool = False
    plain_http: bool = False


class Published(msgspec.Struct, frozen=True):
    """The sidecar that says where an artifact was published."""

    schema: Literal["sparkbuild/published/1"]
    places: tuple[str, ...]


class Handed(msgspec.Struct, frozen=True):
    """What was handed over where.

    ``digest`` is the SHA-256 of the manifest that lies there; ``blob`` of the archive, or of the registry's
    image manifest. ``fresh`` is False where the same bytes were there already.
    """

    name: str
    place: str
    digest: str
    fresh: bool
    signed: bool
    blob: str = ""


def publish(found: Stored, dest: str, extra: With, progress: Progress, *, remember: bool = True) -> Handed:
    """Hand an artifact over to ``dest``: a folder, FILE.tar.zst, or oci://HOST/REPOSITORY[:TAG].

    What is remembered to be published stays when the store is cleaned up.
    Raises UsageError for a place that can not be, StoreError when the artifact is not what its manifest
    describes, when other bytes lie under its key already, or for what the disk refuses; FindingError for one
    that a compile cache had a part in, until a rebuild without it gave the same bytes.
    """
    progress.stage(f"publish {found.name} to {redact(dest)}")
    path = Path(os.path.realpath(found.path))
    _check_place(Stored(path, found.manifest), dest)
    with told_of(redact(dest)), locked(store.lock_of(path)):
        found = store.opened(path)  # as it is now, whatever a build or gc did meanwhile
        if wrong := [f.path for f in found.manifest.files if not _holds(path / f.path, f.sha256)]:
            raise StoreError(
                f"{found.name} is not what its manifest describes: {', '.join(wrong)}",
                where=str(path),
                remedy="build it again with --rebuild",
            )
        if remember:
            _check_cached(found, path)
        if dest.startswith("oci://"):
            handed = _to_registry(found, dest, extra)
        elif dest.endswith(ARCHIVE):
            handed = _to_archive(found, Path(dest), extra)
        else:
            with _readable():
                handed = _to_folder(found, Path(dest).absolute(), extra)
        if remember:
            _remember(found, handed.place)
    return handed


def _check_cached(found: Stored, path: Path) -> None:
    """Raise FindingError where not all was compiled here and now, and no rebuild proved the same bytes."""
    build = found.manifest.build
    doubt = "may have been compiled on other machines, too" if build.distributed else ""
    if build.cache and build.cache.hits:
        doubt = f"has {build.cache.hits} objects from the compile cache"
    if doubt and index.verdicts(path, sha256_file(path / MANIFEST))[0] != "identical":
        raise FindingError(
            f"{found.name} {doubt}, and no rebuild proved it yet",
            where=str(path),
            remedy=f"sparkbuild reproduce {found.name}; or build it here, with --rebuild --no-cache",
        )


def _check_place(found: Stored, dest: str) -> None:
    """Raise UsageError for an empty place, another scheme than oci://, or a place in the artifact itself."""
    if not dest or ("://" in dest and not dest.startswith("oci://")):
        raise UsageError(
            "not a place to publish to",
            where=repr(redact(dest)),
            remedy=f"a folder, FILE{ARCHIVE} or oci://...",
        )
    root = Path(os.path.realpath(dest))
    if root.is_relative_to(found.path) or _place(found, root) == found.path:
        raise UsageError(
            f"{found.name} would be published into itself", where=dest, remedy="name a folder elsewhere"
        )


def _place(found: Stored, root: Path) -> Path:
    return root / found.manifest.engine.name / found.manifest.key[: index.NAME]


@contextlib.contextmanager
def told_of(where: str) -> Iterator[None]:
    """Turn what a disk or a folder refuses into the error a person can act on."""
    try:
        yield
    except OSError as problem:
        raise disk_error("cannot read or write", Path(problem.filename or where), problem) from problem


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Let others read what is made, whatever the umask: it is made for them."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def _to_archive(found: Stored, path: Path, extra: With) -> Handed:
    with _dressed(found, extra) as folder:
        blob = archive.pack(folder, path, top=f"{found.manifest.engine.name}-{found.manifest.key[:12]}")
        return _handed(found, str(path.absolute()), folder, extra, blob)


def _to_registry(found: Stored, dest: str, extra: With) -> Handed:
    host, _, repository = dest.removeprefix("oci://").partition("/")
    tagged = ":" in repository
    tag = f":{found.manifest.engine.name}-{found.manifest.key[:12]}"
    place = dest if tagged else f"oci://{host}/{repository}{tag}"
    with _dressed(found, extra) as folder:
        blob = registry.push(folder, place, plain_http=extra.plain_http)
        return _handed(found, place, folder, extra, blob)


def _to_folder(found: Stored, root: Path, extra: With) -> Handed:
    """Publish to a folder; the artifact is whole there before the index names it.

    What a run that was killed left behind goes when the same artifact is published next.
    """
    place = _place(found, root)
    if link := next((p for p in (place, place.parent) if p.is_symlink()), None):
        raise StoreError(
            "a symbolic link, and nothing is published through one", where=str(link), remedy=f"rm {link}"
        )
    with locked(place.with_name(f".{place.name}.lock")):
        fresh = not place.exists()
        if fresh:
            with whole_folder(place, flush=True) as temp:
                _dress(found, temp, extra)
        else:
            _refresh(found, place, extra)
        index.update(root)
    return _handed(found, str(place), place, extra, fresh=fresh)


def _refresh(found: Stored, place: Path, extra: With) -> None:
    """Bring what came later to an artifact that is published already; its manifest and bytes stay.

    A build of the same key at another time has another manifest: results name the one that was published
    first, so that one stays, with the same bytes. It is not signed: what else it says, who can write there
    may have changed.
    """
    there = manifests.read(place / MANIFEST)
    files = sums(found.manifest)
    if sums(there) != files:
        raise StoreError(
            f"other bytes are published under the key of {found.name}",
            where=str(place),
            remedy="'sparkbuild diff' tells the two apart; one of them was not made from what its key says",
        )
    if wrong := [p for p, digest in files.items() if not _holds(place / p, digest)]:
        raise StoreError(
            f"what is published is damaged: {', '.join(wrong)}",
            where=str(place),
            remedy=f"remove it and publish again: rm -r {place}",
        )
    same = sha256_file(found.path / MANIFEST) == sha256_file(place / MANIFEST)
    if extra.key and not same:
        raise StoreError(
            f"the manifest that is published is not the one of {found.name}, so it is not signed",
            where=str(place),
            remedy=f"publish without --sign, or publish this one in its place: rm -r {place}",
        )
    for left in place.glob(".*"):  # of a run that was killed
        left.unlink()
    with room(place) as own:
        _documents(Stored(place, there), own, extra)
        new = {p.name: p for p in [*sorted(own.iterdir()), *(_later(found.path) if same else [])]}
        for name, path in new.items():
            if not _holds(place / name, sha256_file(path)):
                if f"{name}.sig" not in new:  # it was of other bytes
                    signing.signature_of(place / name).unlink(missing_ok=True)
                write_whole(place / name, path.read_bytes())


def sums(manifest: manifests.Manifest) -> dict[str, str]:
    """Return the SHA-256 of each file."""
    return {f.path: f.sha256 for f in manifest.files}


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_file(path) == digest


@contextlib.contextmanager
def _dressed(found: Stored, extra: With) -> Iterator[Path]:
    """Give a folder with all that is handed over; on the artifact's own disk, to link files, not copy."""
    with room(found.path) as own:
        _dress(found, own, extra, link=True)
        yield own


def _dress(found: Stored, into: Path, extra: With, *, link: bool = False) -> None:
    put_bin(found, into, link=link)
    _documents(found, into, extra)
    for path in _later(found.path):
        shutil.copyfile(path, into / path.name)


def put_bin(found: Stored, into: Path, *, link: bool = False) -> None:
    """Copy or link an artifact's files into a folder, with the modes that they are handed over with."""
    (into / "bin").mkdir()
    for file in found.manifest.files:
        source, target = found.path / file.path, into / file.path
        if link:
            with contextlib.suppress(OSError):  # a disk without links, or another user's file
                target.hardlink_to(source)
                continue
        shutil.copyfile(source, target)
        target.chmod(0o755)


def _documents(found: Stored, into: Path, extra: With) -> None:
    """Write manifest, statements and signatures.

    What was signed before stays as it is, for its signature's sake, where it is not signed anew.
    """
    shutil.copyfile(found.path / MANIFEST, into / MANIFEST)
    digest = sha256_file(into / MANIFEST)
    (into / statements.PROVENANCE).write_bytes(statements.provenance(found.manifest, digest))
    (into / statements.PROBE).write_bytes(statements.probe_statement(found.manifest, digest))
    if extra.sbom:
        (into / sbom.SBOM).write_bytes(sbom.sbom(found.manifest, digest))
    for name in SIGNED:
        signature = signing.signature_of(found.path / name)
        if extra.key:
            signing.sign(into / name, extra.key)
        elif signature.is_file():
            shutil.copyfile(found.path / name, into / name)
            shutil.copyfile(signature, into / signature.name)


def _later(folder: Path) -> list[Path]:
    """Return what came later, and its signatures."""
    names = [n for name in LATER for n in (name, f"{name}.sig")]
    return [folder / name for name in names if (folder / name).is_file()]


def _handed(
    found: Stored, place: str, folder: Path, extra: With, blob: str = "", *, fresh: bool = True
) -> Handed:
    digest = sha256_file(folder / MANIFEST)
    return Handed(found.name, place, digest, fresh, extra.key is not None, blob)


def _remember(found: Stored, place: str) -> None:
    """Note where an artifact was published: gc then leaves it alone."""
    try:
        known = from_json(plain_bytes(found.path / PUBLISHED), Published).places
    except (OSError, ValueError, RecursionError):
        known = ()
    places = Published("sparkbuild/published/1", tuple(sorted({*known, place})))
    store.add_sidecar(found, PUBLISHED, to_json(places))
