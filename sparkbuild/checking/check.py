"""Check an artifact, or a folder of them, against what its manifests, statements and signatures say.

What nobody signed can be changed as a whole, with every hash in it made anew: only a signature, or the
manifest's digest from elsewhere, shows that. docs/provenance.md says what each check is worth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sparkbuild.artifact.manifest import Manifest
from sparkbuild.catalog import Catalog
from sparkbuild.checking import documents, files, index, run
from sparkbuild.checking.checked import Check, differences, failed, json_of, judged
from sparkbuild.errors import BinaryError, StoreError, UsageError
from sparkbuild.evidence import signing
from sparkbuild.evidence.statements import PROBE, PROVENANCE
from sparkbuild.handover import INDEX, MANIFEST
from sparkbuild.inspection.probe import probe
from sparkbuild.progress import Progress, Silent
from sparkbuild.transport import archive

SIGNATURE, UNSIGNED = "signature", "nobody signed it"
_SIGNED = (MANIFEST, PROVENANCE, PROBE)  # what --sign signs; an SBOM says nothing beyond the manifest


class Asked(msgspec.Struct, frozen=True):
    """What is asked beyond hashes.

    ``allowed`` is an allowed signers file: with it the manifest and its statements must be signed, by
    ``signer`` where one is named, and any other signature must hold. With a ``catalog`` the binaries are
    judged again under its rules; nothing is run.
    """

    allowed: Path | None = None
    signer: str | None = None
    catalog: Catalog | None = None


_HASHES, _SILENT = Asked(), Silent()


def check(place: Path, asked: Asked = _HASHES, progress: Progress = _SILENT) -> tuple[Check, ...]:
    """Return all that was checked of an artifact's folder, its manifest.json, an archive, or a folder of all.

    Raises UsageError when there is no such place or it can not be checked so, StoreError when it is none
    of these.
    """
    if asked.signer and not asked.allowed:
        raise UsageError(
            "a signer can not be checked without knowing the key",
            where="--signer",
            remedy="give --allowed-signers FILE too",
        )
    if not place.exists():
        raise UsageError("there is no such file or folder", where=str(place))
    if place.is_file() and place.name != MANIFEST:
        with tempfile.TemporaryDirectory(prefix="sparkbuild-verify-") as room:
            archive.unpack(place, Path(room, "artifact"))
            return tuple(_artifact(Path(room, "artifact"), asked, progress))
    folder = place.parent if place.is_file() else place
    if _there(folder / MANIFEST):
        return tuple(_artifact(folder, asked, progress))
    return tuple(_all(folder, asked, progress))


def signed(checks: Sequence[Check]) -> bool:
    """Return whether every manifest that was checked has a good signature."""
    manifests = [c for c in checks if c.field == SIGNATURE and c.file.rpartition("/")[2] == MANIFEST]
    return bool(manifests) and all(c.verdict == "held" for c in manifests)


def _there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _all(root: Path, asked: Asked, progress: Progress) -> Iterator[Check]:
    folders = index.artifacts(root)
    if not folders and not _there(root / INDEX):
        raise StoreError(
            "this is no artifact, and no folder of artifacts",
            where=str(root),
            remedy=f"name a folder with {MANIFEST} or {INDEX}, or an archive of an artifact",
        )
    yield from index.index(root, folders)
    for number, folder in enumerate(folders):
        name = folder.relative_to(root).as_posix()
        progress.advance(number, len(folders), name)
        for found in (*_artifact(folder, asked, progress), *index.misplaced(folder)):
            yield msgspec.structs.replace(found, file=name if found.file == "." else f"{name}/{found.file}")


def _artifact(folder: Path, asked: Asked, progress: Progress) -> Iterator[Check]:
    """Check one artifact; the files' names are relative to its folder."""
    document, schema = documents.read(folder)
    yield schema
    if document:
        yield from documents.statements(folder, document)
        yield from documents.later(folder, document.digest)
    if document and document.manifest:
        manifest = document.manifest
        yield from run.consistent(manifest)
        yield from files.files(folder, manifest)
        yield from files.strays(folder, manifest)
        yield from _judged_again(folder, manifest, asked.catalog, progress)
    else:
        yield Check("bin", "", "not run", "its manifest does not hold")
    yield from _signatures(folder, asked)


def _signatures(folder: Path, asked: Asked) -> Iterator[Check]:
    """Check who signed each document; what was found out later may be signed by any allowed signer."""
    for name in files.DOCUMENTS:
        path = folder / name
        if not path.is_file() or path.is_symlink():
            continue
        there = _there(signing.signature_of(path))
        if not asked.allowed or not (there or name in _SIGNED):
            said = "nobody was named whose signature counts" if there else UNSIGNED
            yield Check(name, SIGNATURE, "not run", said)
            continue
        signer = None if name in documents.LATER else asked.signer
        found = signing.check(path, asked.allowed, signer)
        yield judged(name, SIGNATURE, "" if found.good else f"{found.verdict}: {found.why}", found.why)


def _judged_again(
    folder: Path, manifest: Manifest, catalog: Catalog | None, progress: Progress
) -> Iterator[Check]:
    """Compare the verdicts with what the binaries prove now.

    What a model architecture is that only a running engine could tell is left as it was.
    """
    if not catalog:
        yield Check("bin", "verdicts", "not run", "--probe judges the binaries again")
        return
    try:
        found = probe(folder / "bin", catalog, progress).verdicts
    except (BinaryError, UsageError) as problem:
        yield failed("bin", "verdicts", problem.what)
        return
    said = {m.name: m for m in manifest.verdicts.models}
    models = tuple(said.get(m.name, m) if m.state == "unknown" else m for m in found.models)
    reason = manifest.verdicts.models_reason if manifest.verdicts.models_reason == "" else found.models_reason
    found = msgspec.structs.replace(found, models=models, models_reason=reason)
    here, there = (json_of(msgspec.json.encode(v)) for v in (manifest.verdicts, found))
    wrong = differences(here, there)
    yield from (failed(MANIFEST, f"/verdicts{p}", "the binaries say something else") for p in wrong)
    if not wrong:
        yield Check("bin", "verdicts", "held", "the binaries prove what the manifest says")
