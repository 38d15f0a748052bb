"""Put a manifest together from what a build planned, did and found."""

from __future__ import annotations

import datetime as dt
import platform

import msgspec

from sparkbuild import __version__, handover
from sparkbuild import build as building
from sparkbuild.artifact import manifest as manifests
from sparkbuild.build.commands import summarise
from sparkbuild.build.tools import find_tools
from sparkbuild.catalog.records import Recipe
from sparkbuild.inspection.probe import Probe
from sparkbuild.inspection.report import SystemReport
from sparkbuild.inspection.runtime import VersionReport
from sparkbuild.planning import Plan
from sparkbuild.verification import Journey


class Finished(msgspec.Struct, frozen=True):
    """A build that is done. ``started`` is in seconds since 1970, ``seconds`` how long it took."""

    plan: Plan
    recipe: Recipe
    built: building.Built
    files: tuple[manifests.File, ...]
    version: VersionReport
    found: Probe
    flags: tuple[Journey, ...]
    run: handover.Run
    started: float
    seconds: float


def compose(done: Finished) -> manifests.Manifest:
    """Return the manifest of a build that is done."""
    plan, found = done.plan, done.found
    source = {f: getattr(plan.source, f) for f in manifests.Source.__struct_fields__}
    cuda, recipe = plan.cuda, done.recipe
    return manifests.Manifest(
        schema=manifests.SCHEMA,
        sparkbuild=__version__,
        key=plan.key,
        engine=manifests.Engine(plan.engine, plan.title, recipe.homepage, plan.state, plan.recipe_digest),
        target=_target(done),
        source=manifests.Source(**source),
        compilers=_compilers(plan),
        cuda=manifests.CudaUsed(cuda.version, cuda.origin, str(cuda.root), cuda.digest) if cuda else None,
        definitions=_definitions(done),
        skipped=plan.skipped,
        targets=plan.targets,
        build=_build(done),
        run=done.run,
        version=done.version,
        flags=done.flags,
        verdicts=found.verdicts,
        system=found.said.system if found.said else SystemReport("not run", "nothing asked it"),
        files=done.files,
    )


def _target(done: Finished) -> manifests.Target:
    plan = done.plan
    arch = plan.value("CMAKE_CUDA_ARCHITECTURES") or ""
    processor, flags = done.run.needs.processor, plan.compilers.flags
    return manifests.Target(plan.arch, plan.backend, processor, flags, arch, plan.toolchain_digest)


def _compilers(plan: Plan) -> manifests.CompilersUsed:
    used = plan.compilers
    return manifests.CompilersUsed(
        str(used.cc), str(used.cxx), used.version, used.target, used.digest, used.proofs
    )


def _definitions(done: Finished) -> tuple[manifests.DefinitionUsed, ...]:
    cache = done.built.configured.cache
    return tuple(
        manifests.DefinitionUsed(
            d.name, d.value, cache[d.name].value, cache[d.name].type, d.origin, d.why, d.required, d.local
        )
        for d in done.plan.definitions
    )


def _build(done: Finished) -> manifests.Build:
    built, tools = done.built, find_tools()
    return manifests.Build(
        started=dt.datetime.fromtimestamp(done.started, dt.UTC),
        host=f"{platform.system()} {platform.release()} {platform.machine()}",
        cmake=tools.cmake_version,
        ninja=tools.ninja_version,
        configure=built.configured.command,
        build=built.command,
        environment=built.environment,
        place=built.place,
        jobs=built.jobs.count,
        steps=len(built.timeline.steps),
        compile_commands=summarise(built.entries),
        wall_seconds=round(done.seconds, 3),
        configure_seconds=round(built.configure_seconds, 3),
        compile_seconds=round(built.compile_seconds, 3),
        cpu_seconds=round(built.cpu_seconds, 3),
        deprecated=built.configured.deprecated,
        cache=built.cache,
        distributed=built.distributed,
    )
