"""Rebuild what a manifest describes, elsewhere and in other surroundings, and say how near it came."""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import itertools
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sparkbuild import __version__, process
from sparkbuild import build as building
from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact import store
from sparkbuild.artifact.collect import collect
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.build.tools import find_tools
from sparkbuild.catalog.records import Recipe
from sparkbuild.errors import StoreError, UsageError, did_you_mean
from sparkbuild.files import Folders, disk_faults, locked, sha256_file, to_json
from sparkbuild.inspection.probe import probe
from sparkbuild.making import check_source
from sparkbuild.planning import Plan
from sparkbuild.reproduction.cause import find_cause
from sparkbuild.reproduction.compare import compare_files, find_normaliser, judge
from sparkbuild.reproduction.inputs import differences
from sparkbuild.reproduction.records import (
    LADDER,
    Cause,
    InputDifference,
    Rebuild,
    Reproduction,
    Variation,
)
from sparkbuild.reproduction.variations import VARIATIONS, vary
from sparkbuild.request import Request, Session, plan
from sparkbuild.toolchain.place import placed
from sparkbuild.toolchain.sandbox import clear

_PATIENCE = 3600.0  # seconds for one compile or link
_NO_CAUSE = "no cause: the build folder of the original is not here, or the same files are in it"
_SHARED = ("downloads", "git", "src", "cuda", "machine")  # parts of the cache that hold inputs and no results


class Asked(msgspec.Struct, frozen=True):
    """What a person wants reproduced: the artifact, what to vary, where the source is.

    ``trust`` allows what the author of a manifest chose and no recipe: see ``check_trust``.
    """

    what: str
    vary: tuple[tuple[str, ...], ...]
    source: str | None = None
    jobs: int | None = None
    offline: bool = False
    trust: bool = False


class Recorded(msgspec.Struct, frozen=True):
    """A manifest, where it lies, and whether it is of this machine's own store."""

    path: Path
    manifest: Manifest
    ours: bool


def sets_of_variations(text: str) -> tuple[tuple[str, ...], ...]:
    """Return what each rebuild varies: "all" is one with everything, "a,b" one each, "none" one of the path.

    The path of the build folder differs in every rebuild. Raises UsageError.
    """
    if text in ("all", "none"):
        return (tuple(VARIATIONS) if text == "all" else (),)
    names = text.split(",")
    for name in names:
        if name != "path" and name not in VARIATIONS:
            known = ["path", *VARIATIONS]
            raise UsageError(
                f"nothing to vary is named {name!r}",
                where="--vary",
                remedy=did_you_mean(name, known) + f"Known: all, none, {', '.join(known)}",
            )
    return tuple(() if name == "path" else (name,) for name in names)


def reproduce(asked: Asked, session: Session) -> Reproduction:
    """Return the report on an artifact.

    When an input is not the recorded one nothing is built and the verdict is "not comparable". Raises
    what planning and building raise.
    """
    recorded, started = find_manifest(asked.what, session), dt.datetime.now(dt.UTC)
    manifest, digest = recorded.manifest, sha256_file(recorded.path)  # now: a build may replace it meanwhile
    recipe = session.catalog.recipe(manifest.engine.name).record
    check_trust(recorded, recipe, asked)
    missing = check_files(recorded)
    rebuilds: list[Rebuild] = []
    notes: list[str] = []
    inputs: tuple[InputDifference, ...] = ()
    with disk_faults(session.folders.cache):
        for names in asked.vary:
            around, varied, said = vary(names, manifest, asked.jobs)
            # Whoever built it did not trust the source.
            around = msgspec.structs.replace(around, sandbox=manifest.build.place == "sandbox")
            notes += said
            with _elsewhere(manifest, session) as there:
                made = plan(_request(manifest, recipe, asked), there)
                if inputs := differences(manifest, made):
                    break
                rebuilds.append(_rebuild(recorded, made, around, varied, there, session))
    if any(r.level != "identical" and not r.cause for r in rebuilds):
        notes.append(_NO_CAUSE)
    if missing and any(r.level != "identical" for r in rebuilds):
        notes.append(f"not beside the manifest, so only known by hash: {', '.join(missing)}")
    normaliser = find_normaliser(made.compilers.cc)
    return Reproduction(
        schema="sparkbuild/reproduction/1",
        sparkbuild=__version__,
        engine=manifest.engine.name,
        title=manifest.engine.title,
        key=manifest.key,
        arch=manifest.target.arch,
        backend=manifest.target.backend,
        manifest=digest,
        commit=manifest.source.commit,
        built_on=manifest.build.host,
        rebuilt_on=f"{platform.system()} {platform.release()} {platform.machine()}",
        rebuilt_by=f"{_user()}@{platform.node()}",
        started=started,
        verdict="not comparable" if inputs else max((r.level for r in rebuilds), key=LADDER.index),
        inputs=inputs,
        rebuilds=tuple(rebuilds),
        normaliser=normaliser.name if normaliser else "",
        notes=tuple(dict.fromkeys(notes)),
    )


def keep(report: Reproduction, folders: Folders) -> None:
    """Lay a report beside the manifest it is about, where the store has that. Raises StoreError."""
    place = store.folder(report.engine, report.key, folders)
    path = place / "manifest.json"
    if report.verdict != "not comparable" and path.is_file() and sha256_file(path) == report.manifest:
        store.add_sidecar(store.opened(place), "reproduction.json", to_json(report) + b"\n")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def find_manifest(what: str, session: Session) -> Recorded:
    """Return the manifest that a path (of it, or of its folder) or ENGINE[@KEY] names."""
    path = Path(what)
    if os.path.isdir(what):  # noqa: PTH112 - Path raises for a name that is too long
        path /= "manifest.json"
    if os.path.isfile(path):  # noqa: PTH113
        path = path.resolve()
        ours = path.is_relative_to(session.folders.store.resolve())
        return Recorded(path, manifests.read(path), ours)
    stored = store.pick(what, session.folders, session.catalog.aliases())
    return Recorded(stored.path / "manifest.json", stored.manifest, ours=True)


def check_files(recorded: Recorded) -> list[str]:
    """Return which recorded files do not lie beside the manifest.

    Raises StoreError for one that does and is not the recorded one: a verdict on the recorded hashes
    would be taken for one on it.
    """
    missing = []
    for file in recorded.manifest.files:
        path = recorded.path.parent / file.path
        if not path.is_file():
            missing.append(file.path)
        elif sha256_file(path) != file.sha256:
            raise StoreError(
                f"{file.path} beside the manifest is not the recorded one",
                where=str(path),
                remedy="take the artifact anew from where it came, or the manifest alone to another folder",
            )
    return missing


def check_trust(recorded: Recorded, recipe: Recipe, asked: Asked) -> None:
    """Raise UsageError where a manifest from elsewhere would have other code run than the recipe's.

    To build is to run what the source and the definitions say: any commit of any repository, any
    program named as a compiler's launcher.
    """
    if recorded.ours or asked.trust:
        return
    source = recorded.manifest.source
    chosen = [f"-D {name}={value}" for name, value in _own_definitions(recorded.manifest).items()]
    if not asked.source and not _pinned(source, recipe):
        chosen.append(f"the source {source.location} at {source.commit or source.tree}")
    if chosen:
        raise UsageError(
            f"this manifest's author chose what is built: {'; '.join(chosen)}",
            where=str(recorded.path),
            remedy="--trust, if you trust who wrote it: building runs what these say",
        )


def _own_definitions(manifest: Manifest) -> dict[str, str]:
    return {d.name: d.asked.removeprefix(d.local) for d in manifest.definitions if d.origin == "user"}


def _pinned(source: manifests.Source, recipe: Recipe) -> bool:
    pins = {"git": recipe.git.commit, "sdist": recipe.sdist.commit if recipe.sdist else ""}
    return bool(source.commit) and source.commit == pins.get(source.way)


def _request(manifest: Manifest, recipe: Recipe, asked: Asked) -> Request:
    """Return what must be asked for to get the plan that a manifest records.

    A folder or archive is taken as it is, of a repository the recorded commit.
    """
    source, target = manifest.source, manifest.target
    given = source.way == "sdist" or _pinned(source, recipe)  # by the recipe
    where = asked.source or (None if given else source.location)
    by_commit = source.way != "sdist" and bool(source.ref)
    if asked.source:
        by_commit = not os.path.exists(asked.source)  # noqa: PTH110 - Path raises for a name that is too long
    return Request(
        engine=manifest.engine.name,
        arch=target.arch,
        backend=target.backend,
        ref=source.commit if by_commit else None,
        source=where,
        way="auto" if where or source.way == "git" else "sdist",
        define=_own_definitions(manifest),
        offline=asked.offline,
    )


@contextlib.contextmanager
def _elsewhere(manifest: Manifest, session: Session) -> Iterator[Session]:
    """Give a session whose build folder is new; what holds inputs, checked by their hashes, it shares.

    What differs stays there to be looked at, until this artifact is rebuilt again.
    """
    cache = session.folders.cache / "reproduce" / f"{manifest.engine.name}-{manifest.key[:12]}"
    with locked(cache.with_name(f"{cache.name}.lock")):
        clear(cache)
        cache.mkdir(parents=True)
        for part in _SHARED:
            (session.folders.cache / part).mkdir(parents=True, exist_ok=True)
            (cache / part).symlink_to(session.folders.cache / part)
        yield msgspec.structs.replace(session, folders=msgspec.structs.replace(session.folders, cache=cache))


def _rebuild(
    recorded: Recorded,
    made: Plan,
    around: building.Surroundings,
    varied: tuple[Variation, ...],
    there: Session,
    session: Session,
) -> Rebuild:
    """Build a plan in another folder and compare; what does not differ is not kept."""
    began, manifest, cache = time.monotonic(), recorded.manifest, there.folders.cache
    recipe = session.catalog.recipe(made.engine).record
    original = building.build_dir(made, session.folders)
    check_source(made.source)
    built = building.build(made, recipe, there.folders, around, session.progress)
    session.progress.stage("compare the binaries")
    processor = manifest.target.processor
    collect(built.configured, made.targets, recipe.roles, processor, cache / "bin")
    normaliser = find_normaliser(made.compilers.cc)
    files = compare_files(manifest.files, recorded.path.parent, cache, normaliser)
    same = all(f.level == "identical" for f in files)
    verdicts = manifest.verdicts if same else probe(cache / "bin", session.catalog, session.progress).verdicts
    level, files = judge(files, manifest, verdicts)
    cause = None
    if same:
        clear(cache)
    elif recorded.ours:
        cause = _cause(original, made, built, around, there)
    return Rebuild(
        varied=(Variation("path", str(original), str(built.build_dir)), *varied),
        level=level,
        files=files,
        wall_seconds=round(time.monotonic() - began, 3),
        cause=cause,
    )


def _cause(
    original: Path, made: Plan, built: building.Built, around: building.Surroundings, there: Session
) -> Cause | None:
    """Return why the rebuild's folder differs from the original's; None when that is not here any more."""
    if not (original / ".ninja_log").is_file():
        return None
    there.progress.stage("look for the first file that differs, and make it twice more")
    tools = find_tools()
    ninja: list[str | Path] = [tools.ninja, "-C", built.build_dir, "-t", "commands", "-s"]
    times = itertools.count(1)
    isolation = building.isolated(made, around, built.build_dir, tools)
    with placed(made.source.path, built.build_dir, isolation, there.progress) as place:
        return find_cause(
            original,
            built.build_dir,
            command_of=lambda output: process.run([*place.enter, *ninja, output], check=False).output.strip(),
            # In a namespace processes are numbered from 1: an idle one first gives nvcc another number.
            run=lambda command: process.run(
                [*place.enter, "/bin/sh", "-c", f"{'(:); ' * next(times)}{command}; exit $?"],
                env=built.environment,
                cwd=built.build_dir,
                timeout=_PATIENCE,
            ),
        )
