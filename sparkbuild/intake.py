"""Take artifacts in: an archive, one in a registry, or a folder becomes an artifact of the store."""

from __future__ import annotations

import shutil
from pathlib import Path

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact import store
from sparkbuild.artifact.gc import TAKEN
from sparkbuild.artifact.store import Stored
from sparkbuild.checking import check
from sparkbuild.errors import StoreError, UsageError
from sparkbuild.files import Folders
from sparkbuild.handover import MANIFEST
from sparkbuild.progress import Progress
from sparkbuild.publish import ARCHIVE, PUBLISHED, put_bin, sums, told_of
from sparkbuild.rooms import room
from sparkbuild.source.names import redact
from sparkbuild.transport import archive, registry


def take_in(
    source: str, folders: Folders, asked: check.Asked, progress: Progress, *, plain_http: bool = False
) -> Stored:
    """Take an artifact into the store: FILE.tar.zst, oci://..., or an artifact's folder.

    All that is checked of it must hold, signatures too where ``asked`` names whose count. Raises StoreError.
    """
    progress.stage(f"take in {redact(source)}")
    with told_of(redact(source)):
        return _take_in(source, folders, asked, progress, plain_http=plain_http)


def _take_in(
    source: str, folders: Folders, asked: check.Asked, progress: Progress, *, plain_http: bool
) -> Stored:
    with room(folders.store / TAKEN) as own:
        folder = unpacked(source, own, plain_http=plain_http)
        checks = check.check(folder, asked, progress)
        if failed := [c for c in checks if c.verdict == "failed"]:
            raise StoreError(
                f"not taken in: {failed[0].what}: {failed[0].said}",
                where=redact(source),
                remedy=f"'sparkbuild verify {redact(source)}' tells all {len(failed)} that do not hold",
            )
        manifest = manifests.read(folder / MANIFEST)
        engine, key = manifest.engine.name, manifest.key
        with store.reserved(engine, key, folders):
            if there := store.find(engine, key, folders):
                if sums(there.manifest) != sums(manifest):
                    raise StoreError(
                        f"the store has other bytes under the key of {there.name}",
                        where=redact(source),
                        remedy="one of the two was not made from what its key says; remove that one",
                    )
                return there
            with store.adding(engine, key, folders) as temp:
                put_bin(Stored(folder, manifest), temp)
                for path in folder.iterdir():
                    if path.is_file() and path.name != PUBLISHED:  # that is about another store
                        shutil.copyfile(path, temp / path.name)
        return Stored(store.folder(engine, key, folders), manifest)


def unpacked(source: str, room: Path, *, plain_http: bool = False) -> Path:
    """Return the folder of an artifact that may be an archive or in a registry; ``room`` is for its files."""
    if source.startswith("oci://"):
        registry.pull(source, room / "pulled", plain_http=plain_http)
        return room / "pulled"
    if source.endswith(ARCHIVE) and Path(source).is_file():
        archive.unpack(Path(source), room / "unpacked")
        return room / "unpacked"
    if not (Path(source) / MANIFEST).is_file():
        raise UsageError(
            "no artifact there", where=redact(source), remedy="name FILE.tar.zst, oci://... or a folder"
        )
    return Path(source)
