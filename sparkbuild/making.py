"""A plan becomes an artifact: preflight -> configure and compile -> collect -> judge -> store."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from sparkbuild import build as building
from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact import store
from sparkbuild.artifact import timeline as timelines
from sparkbuild.artifact.collect import collect
from sparkbuild.artifact.compose import Finished, compose
from sparkbuild.build import cache as caching
from sparkbuild.build.jobs import available_cores
from sparkbuild.build.tools import cmake_version
from sparkbuild.catalog.records import Recipe
from sparkbuild.errors import CompileError, FindingError, SourceError, SparkbuildError
from sparkbuild.files import locked, write_whole
from sparkbuild.inspection.help import help_question
from sparkbuild.inspection.live import How
from sparkbuild.inspection.probe import Probe, probe
from sparkbuild.inspection.runtime import Question, VersionReport, asking, version_of
from sparkbuild.planning import Plan
from sparkbuild.request import Request, Session, find_tools
from sparkbuild.serving.part import run_part
from sparkbuild.source import SourceTree, declared_options, intact, reads_variable
from sparkbuild.toolchain import preflight, sandbox, target_processor
from sparkbuild.verification import Journey, Seen, failures, follow


def make(made: Plan, recipe: Recipe, request: Request, session: Session) -> store.Stored:
    """Build a plan now, ask the binaries, and put them into the store.

    Raises CompileError, ConfigureError, FindingError, MissingError or SourceError: then nothing is stored.
    """
    folders, progress = session.folders, session.progress
    started = (time.time(), time.monotonic())
    where = building.build_dir(made, folders)
    with locked(where.with_name(f"{where.name}.lock")):
        if request.rebuild or request.sandbox:  # else ninja would find nothing to do, or what a stranger left
            sandbox.clear(where)
        if made.cuda:
            arch = made.value("CMAKE_CUDA_ARCHITECTURES") or ""
            preflight(made.cuda, made.compilers, arch, where / ".preflight", folders.cache, progress)
        check_source(made.source)
        cache = _cache(made, request, session)
        around = building.Surroundings(
            request.jobs, session.shared, cache, request.builders, sandbox=request.sandbox
        )
        try:
            built = building.build(made, recipe, folders, around, progress)
        except BaseException:
            with contextlib.suppress(SparkbuildError):  # what it cleared is what counts
                check_tools(made, request, session, where)
            raise
        check_tools(made, request, session, where)
        progress.stage("collect, check and ask the binaries")
        with store.adding(made.engine, made.key, folders) as temp:
            done = _collected(made, recipe, built, temp / "bin", started, session)
            write_whole(temp / timelines.NAME, timelines.encode(_timeline(built)))
            store.finish(temp, done)
    stored = store.find(made.engine, made.key, folders)
    if stored is None:  # pragma: no cover - it was written a moment ago, under our lock
        raise CompileError("the artifact vanished from the store", where=str(folders.store))
    return stored


def _cache(made: Plan, request: Request, session: Session) -> caching.Cache | None:
    """Return the compile cache that a build may use: what is not trusted would write to it, too."""
    if not request.cache or request.sandbox:
        return None
    cache, why = caching.find_cache(made, session.folders, request.cache_storage)
    if why:
        session.progress.note(why)
    return cache


def _timeline(built: building.Built) -> timelines.Timeline:
    return timelines.Timeline(timelines.SCHEMA, built.jobs.count, available_cores(), built.timeline.steps)


def _collected(
    made: Plan,
    recipe: Recipe,
    built: building.Built,
    into: Path,
    started: tuple[float, float],
    session: Session,
) -> manifests.Manifest:
    """Fill an artifact's bin folder and return all that is known of it."""
    toolchain = session.catalog.toolchain(made.arch).record
    processor = target_processor(toolchain)
    files = collect(built.configured, made.targets, recipe.roles, processor, into)
    libraries = made.cuda.runtime_dirs if made.cuda else ()
    view = (into,) if built.place == "sandbox" else None
    tools = {role: into / target for role, target in recipe.roles.items() if (into / target).is_file()}
    asked = (Question(into / recipe.version_target, ("--version",)), *map(help_question, tools.values()))
    how = How({processor: (made.compilers.cc,)}, libraries, tools=False, view=view)
    with asking(asked, processor, libraries, view=view) as answers:
        found = probe(into, session.catalog, session.progress, how)
        said, *helps = answers()
    version = version_of(said, recipe.version_pattern)
    check_version(version, made, built.build_dir)
    flags = check_flags(_seen(made, recipe, built, found, session), built.build_dir)
    by_role = dict(zip(tools, helps, strict=True))
    run = run_part(files, by_role, found.verdicts, recipe, toolchain, session.catalog)
    seconds = time.monotonic() - started[1]  # the clock may go back meanwhile
    return compose(Finished(made, recipe, built, files, version, found, flags, run, started[0], seconds))


def _seen(made: Plan, recipe: Recipe, built: building.Built, found: Probe, session: Session) -> Seen:
    return Seen(
        definitions=made.definitions,
        recipe=recipe,
        rules=session.catalog.features().record,
        options=declared_options(made.source.path),
        reads=lambda name: reads_variable(made.source.path, name),
        cache=built.configured.cache,
        commands=built.entries,
        compilers=made.compilers,
        files=found.files,
        verdicts=found.verdicts,
        system=found.said.system if found.said else None,
    )


def check_source(source: SourceTree) -> None:
    """Raise SourceError when a tree no longer holds what was checked out."""
    if not intact(source):
        raise SourceError(
            "the checked-out source was changed after it was checked",
            where=str(source.path),
            remedy=f"remove it and run again: rm -r {source.path.parent}",
        )


def check_tools(made: Plan, request: Request, session: Session, where: Path) -> None:
    """Raise CompileError when a compiler, CUDA or CMake is not the one any more that the key names.

    What was built with two of them goes, and all of the compile cache: it may hold such objects.
    """
    tools = find_tools(request, session)
    now = {
        "compilers": (made.compilers.digest, tools.compilers.digest),
        "CUDA toolkit": (made.cuda and made.cuda.digest, tools.cuda and tools.cuda.digest),
        "CMake": (made.cmake, cmake_version()),
    }
    if changed := [name for name, (before, after) in now.items() if before != after]:
        for folder in (where, session.folders.cache / caching.FOLDER):
            sandbox.clear(folder)
        raise CompileError(
            f"changed while this was built: {', '.join(changed)}; it is of two makes and is not stored",
            where=str(where),
            remedy="run the same command again: it begins anew with what is here now",
        )


def check_flags(seen: Seen, where: Path) -> tuple[Journey, ...]:
    """Return each flag's journey. Raises FindingError when a required one is not in force."""
    journeys = follow(seen)
    if bad := failures(journeys):
        raise FindingError(
            f"{len(bad)} required flags are not in force; the build is not stored",
            where=str(where),
            remedy="see 'sparkbuild verify-flags --build-dir' on that folder, if you trust what was built",
            output="\n".join(bad),
        )
    return journeys


def check_version(report: VersionReport, made: Plan, where: Path) -> None:
    """Raise CompileError when a tool ran and named another build number or commit than the plan's."""
    if report.ran == "failed":
        raise CompileError(
            f"the built tool does not answer --version ({report.reason})",
            where=str(where),
            remedy="the recipe's version_pattern may be out of date",
            output=report.output,
        )
    source = made.source
    wrong_number = source.build_number and report.number is not None and report.number != source.build_number
    wrong_commit = source.commit and report.commit and not source.commit.startswith(report.commit)
    if wrong_number or wrong_commit:
        raise CompileError(
            f"the built tool says build {report.number}, commit {report.commit}; "
            f"the source is build {source.build_number}, commit {source.commit[:9]}",
            where=str(where),
            remedy="the build_number and build_commit intents do not reach this source",
        )
