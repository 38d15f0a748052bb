"""What a person asked for, and the plan of it: recipe and toolchain -> source -> tools -> plan."""

from __future__ import annotations

import os
import re
from typing import Literal

import msgspec

from sparkbuild.build.builders import Builders
from sparkbuild.build.jobs import Shared
from sparkbuild.build.tools import cmake_version
from sparkbuild.catalog import Catalog
from sparkbuild.catalog.records import Backend, Recipe, Shelf
from sparkbuild.errors import UsageError
from sparkbuild.files import Folders, disk_faults
from sparkbuild.planning import Inputs, Plan, make_plan
from sparkbuild.progress import Progress
from sparkbuild.source import SourceTree, checkout, declared_options, reads_variable
from sparkbuild.toolchain import Compilers, CudaToolkit, find_compilers, find_cuda, gpu_arch


class Request(msgspec.Struct, frozen=True):
    """What a person asked for.

    ``cache_storage`` is where a compile cache is shared, as ccache names it; ``builders`` are other
    machines to compile on.
    """

    engine: str
    arch: str
    backend: Backend = "cuda"
    ref: str | None = None
    source: str | None = None
    way: Literal["auto", "git", "sdist"] = "auto"
    define: dict[str, str] = {}
    jobs: int | None = None
    offline: bool = False
    rebuild: bool = False
    sandbox: bool = False
    cache: bool = True
    cache_storage: str = ""
    builders: Builders | None = None


class Session(msgspec.Struct, frozen=True):
    """Where to look, where to put, whom to tell; ``shared`` are jobs that builds at the same time share."""

    catalog: Catalog
    folders: Folders
    progress: Progress
    shared: Shared | None = None


def plan(request: Request, session: Session) -> Plan:
    """Return what would be built and why. Fetches the source where needed; builds nothing."""
    with disk_faults(session.folders.cache):
        return _plan(request, session)


class Tools(msgspec.Struct, frozen=True):
    """What a plan is built with: compilers, and for CUDA its toolkit and the GPU's architecture."""

    compilers: Compilers
    cuda: CudaToolkit | None = None
    cuda_arch: str = ""


def _plan(request: Request, session: Session) -> Plan:
    recipe = session.catalog.recipe(request.engine)
    check_backend(recipe, request.backend)
    tools = find_tools(request, session)
    source = checkout(
        recipe,
        session.folders,
        ref=request.ref,
        source=request.source,
        way=request.way,
        offline=request.offline,
        progress=session.progress,
    )
    for name in sorted(declared_options(source.path).keys() & os.environ):
        session.progress.note(
            f"{name} is set in the environment, where CMake does not look; give it as -D {name}=..."
        )
    return plan_of(recipe, source, tools, request, session)


def check_backend(recipe: Shelf[Recipe], backend: Backend) -> None:
    """Raise UsageError when a recipe has no targets for a backend."""
    if backend not in recipe.record.targets:
        raise UsageError(
            f"{recipe.record.name} has no {backend} backend",
            where=f"{recipe.path}: targets",
            remedy=f"--backend {' or '.join(recipe.record.targets)}",
        )


def find_tools(request: Request, session: Session) -> Tools:
    """Return what a request is built with. Raises MissingError for what this machine lacks."""
    toolchain = session.catalog.toolchain(request.arch).record
    compilers = find_compilers(toolchain, session.folders)
    if request.backend != "cuda":
        return Tools(compilers)
    wheels = session.catalog.cuda_wheels(toolchain.cuda.wheels).record
    cuda = find_cuda(
        toolchain, wheels, compilers, session.folders, offline=request.offline, progress=session.progress
    )
    return Tools(compilers, cuda, request.define.get("CMAKE_CUDA_ARCHITECTURES") or gpu_arch(toolchain))


def plan_of(
    recipe: Shelf[Recipe], source: SourceTree, tools: Tools, request: Request, session: Session
) -> Plan:
    """Return the plan of a recipe for a source that is here."""
    return make_plan(
        Inputs(
            recipe=recipe,
            toolchain=session.catalog.toolchain(request.arch),
            backend=request.backend,
            source=source,
            options=declared_options(source.path),
            reads=lambda name: reads_variable(source.path, name),
            compilers=tools.compilers,
            cuda=tools.cuda,
            cuda_arch=tools.cuda_arch,
            cmake=cmake_version(),
            cache=session.folders.cache,
            user=request.define,
        )
    )


def parse_definitions(words: tuple[str, ...]) -> dict[str, str]:
    """Turn NAME=VALUE words into definitions. Raises UsageError for anything else."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not value.isprintable():
            raise UsageError(
                f"not a definition: {word!r}", where="-D", remedy="write -D NAME=VALUE, on one line"
            )
        found[name] = value
    return found
