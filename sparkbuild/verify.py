"""Look again: are the flags of an artifact, or of anybody's build folder, in force."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sparkbuild.artifact import store
from sparkbuild.artifact.store import Stored
from sparkbuild.build.tools import find_tools
from sparkbuild.catalog import Catalog
from sparkbuild.catalog.records import Backend
from sparkbuild.errors import UsageError
from sparkbuild.files import Folders, sha256_file
from sparkbuild.inspection.live import How
from sparkbuild.inspection.probe import probe
from sparkbuild.planning import Definition
from sparkbuild.progress import Progress
from sparkbuild.request import Session
from sparkbuild.toolchain import runners, runtime_dirs, sandbox
from sparkbuild.verification import Journey, Seen, follow
from sparkbuild.verification.folder import look


class Verified(msgspec.Struct, frozen=True):
    """A build's flags and what could not be known of it. ``name`` is ENGINE@KEY, or a folder."""

    name: str
    flags: tuple[Journey, ...]
    notes: tuple[str, ...] = ()


def verify_stored(engine: str | None, session: Session) -> list[Verified]:
    """Return the flags of an artifact (ENGINE[@KEY]), or of each engine's newest one.

    Raises UsageError when there is none.
    """
    folders, catalog = session.folders, session.catalog
    aliases = catalog.aliases()
    chosen = [store.pick(n, folders, aliases) for n in ([engine] if engine else _engines(folders))]
    if not chosen:
        raise UsageError(
            "nothing is built yet",
            where=str(folders.store),
            remedy="build an engine first, or give --build-dir DIR or --compiler CC",
        )
    return [Verified(s.name, _again(s, catalog, session.progress)) for s in chosen]


def _engines(folders: Folders) -> list[str]:
    return sorted({e.engine for e in store.entries(folders)[0]})


def verify_folder(
    build_dir: Path, engine: str | None, arch: str, backend: Backend, session: Session
) -> Verified:
    """Return the flags of a build folder that anybody configured; what can not be known is in the notes."""
    found = look(
        build_dir,
        session.catalog,
        session.catalog.toolchain(arch),
        engine=engine,
        backend=backend,
        ninja=find_tools().ninja,
        environment=os.environ,
        how=How(*runners(session.folders), tools=False),
        progress=session.progress,
    )
    return Verified(f"{build_dir} (taken for {found.engine})", follow(found.seen), found.notes)


def _again(stored: Stored, catalog: Catalog, progress: Progress) -> tuple[Journey, ...]:
    """Return each flag's journey: up to the compiler as it was built, the binary and the run as it is now."""
    manifest = stored.manifest
    machine, cuda = manifest.target.processor, manifest.cuda
    libraries = runtime_dirs(Path(cuda.root), machine) if cuda else ()
    view = () if manifest.build.place == "sandbox" else None
    if view is not None:
        sandbox.check()
    how = How({machine: (manifest.compilers.cc,)}, libraries, tools=False, view=view)
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
        changed=_changed(stored),
    )
    return follow(seen, manifest.flags)


def _changed(stored: Stored) -> tuple[str, ...]:
    """Return the files of an artifact that are gone, or not the ones that the manifest describes."""
    return tuple(
        f.path
        for f in stored.manifest.files
        if not (stored.path / f.path).is_file() or sha256_file(stored.path / f.path) != f.sha256
    )
