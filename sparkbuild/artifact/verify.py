"""Look again at an artifact in the store: are its files the built ones, are its flags still in force."""

from __future__ import annotations

from pathlib import Path

from sparkbuild.artifact.store import Stored
from sparkbuild.catalog import Catalog
from sparkbuild.files import sha256_file
from sparkbuild.inspection.live import How
from sparkbuild.inspection.probe import probe
from sparkbuild.planning import Definition
from sparkbuild.progress import Progress
from sparkbuild.toolchain import runtime_dirs
from sparkbuild.verification import Journey, Seen, follow


def verify(stored: Stored, catalog: Catalog, progress: Progress) -> tuple[Journey, ...]:
    """Return each flag's journey: up to the compiler as it was built, the binary and the run as it is now."""
    manifest = stored.manifest
    machine, cuda = manifest.target.processor, manifest.cuda
    how = How({machine: (manifest.compilers.cc,)}, runtime_dirs(Path(cuda.root), machine) if cuda else ())
    found = probe(stored.path / "bin", catalog, progress, how)
    seen = Seen(
        definitions=tuple(
            Definition(d.name, d.asked, d.why, d.origin, required=d.required) for d in manifest.definitions
        ),
        recipe=catalog.recipe(manifest.engine.name).record,
        rules=catalog.features().record,
        files=found.files,
        verdicts=found.verdicts,
        system=found.said.system if found.said else None,
        changed=changed(stored),
    )
    return follow(seen, manifest.flags)


def changed(stored: Stored) -> tuple[str, ...]:
    """Return the files of an artifact that are gone, or not the ones that the manifest describes."""
    return tuple(
        f.path
        for f in stored.manifest.files
        if not (stored.path / f.path).is_file() or sha256_file(stored.path / f.path) != f.sha256
    )
