"""From a plan to built files: a hermetic environment, a checked configure, ninja."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sparkbuild import process
from sparkbuild.build import cache as caching
from sparkbuild.build import commands, configure, jobs, ninja
from sparkbuild.build.builders import Builders, forget, spread, status, was_spread
from sparkbuild.build.costs import Costs, Measured, Timeline, learned, machine_pace, timings
from sparkbuild.build.jobs import Shared
from sparkbuild.build.leftover import drop_damaged
from sparkbuild.build.tools import Tools, find_tools
from sparkbuild.catalog.records import Recipe
from sparkbuild.errors import MissingError
from sparkbuild.files import Folders, keep, kept
from sparkbuild.planning import Plan
from sparkbuild.progress import Progress
from sparkbuild.toolchain.place import BUILD, SOURCE, Isolation, Place, Way, placed
from sparkbuild.toolchain.sandbox import View


class Surroundings(msgspec.Struct, frozen=True):
    """What may differ between two builds of one plan and must not change a byte of the result.

    ``environment`` is added to the build's own; ``jobs`` is a number, or None for what this machine
    bears; ``shared`` are jobs that builds at the same time share; a ``cache`` gives what would be compiled,
    and other machines' ``builders`` compile what it has not. In a ``sandbox`` the source's code has nothing
    but its tools and its build folder.
    """

    jobs: int | None = None
    shared: Shared | None = None
    cache: caching.Cache | None = None
    builders: Builders | None = None
    isolation: Isolation = Isolation()
    environment: dict[str, str] = {}
    umask: int = 0o022
    sandbox: bool = False


class Built(msgspec.Struct, frozen=True):
    """A finished build: its folder, what CMake made of the plan, what was compiled, how long.

    ``cache`` is what came from the compile cache, None where there was none; ``distributed`` says that
    other machines may have compiled, too.
    ``place`` is how the source came to the path at which every build sees it.
    """

    build_dir: Path
    place: Way
    command: tuple[str, ...]
    configured: configure.Configured
    entries: tuple[commands.Entry, ...]
    timeline: Timeline
    jobs: jobs.Jobs
    environment: dict[str, str]
    configure_seconds: float
    compile_seconds: float
    cpu_seconds: float
    cache: caching.Used | None
    distributed: bool


def environment(plan: Plan, work: Path) -> dict[str, str]:
    """Return the build's whole environment; nothing of the caller's is passed on.

    Git is kept from finding a repository around the source; HOME and TMPDIR are the build's own.
    """
    home, temp = work / "home", work / "tmp"
    for folder in (home, temp):
        folder.mkdir(parents=True, exist_ok=True)
    return plan.environment | {
        "PATH": process.SYSTEM_PATH,
        "HOME": str(home),
        "TMPDIR": str(temp),
        "GIT_CEILING_DIRECTORIES": str(SOURCE.parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "CMAKE_COLOR_DIAGNOSTICS": "OFF",
    }


def build_dir(plan: Plan, folders: Folders) -> Path:
    """Return the folder in which a plan is built; the same plan goes on in the same folder."""
    return folders.cache / "build" / f"{plan.engine}-{plan.arch}-{plan.backend}-{plan.key[:12]}"


class Ready(msgspec.Struct, frozen=True):
    """What a configure step is run with; the source is at its place for as long as this is held.

    ``compiling`` is what the environment of the compiles has beside ``env``.
    """

    tools: Tools
    env: dict[str, str]
    place: Place
    argv: tuple[str, ...]
    compiling: dict[str, str]


@contextlib.contextmanager
def _ready(
    plan: Plan, where: Path, around: Surroundings, progress: Progress, folders: Folders | None = None
) -> Iterator[Ready]:
    tools = find_tools()
    env = environment(plan, where / ".env") | around.environment
    _point(where / ".env" / "source", plan.source.path)
    isolation, compiling = isolated(plan, around, where, tools), {}
    if around.builders and folders:
        elsewhere = spread(around.builders, plan, folders, where)
        isolation = msgspec.structs.replace(isolation, shown=elsewhere.shown)
        compiling = elsewhere.environment
        progress.note(status(around.builders, where))
    if around.sandbox:  # what it makes belongs to this user, and may be set-user-ID
        where.chmod(0o700)
    more = caching.definitions(around.cache, plan) if around.cache else {}
    argv = configure.command(plan, tools.cmake, tools.ninja, BUILD, more)
    try:
        with _umask(around.umask), placed(plan.source.path, where, isolation, progress) as place:
            progress.stage(f"configure {plan.title} for {plan.arch}, {plan.backend}")
            yield Ready(tools, env, place, argv, compiling)
    finally:
        forget(where)
        caching.forget(where, counts=around.cache is None)  # without it all is compiled anew


def configure_only(plan: Plan, where: Path, progress: Progress, *, sandbox: bool = False) -> configure.Ran:
    """Run the configure step of a plan as ``build`` does, in a folder of the caller's; judge nothing."""
    with _ready(plan, where, Surroundings(sandbox=sandbox), progress) as ready:
        return configure.run(ready.argv, where, ready.env, ready.place.enter)


def build(plan: Plan, recipe: Recipe, folders: Folders, around: Surroundings, progress: Progress) -> Built:
    """Configure, check and compile a plan.

    Raises ConfigureError or CompileError. What was built stays, so that a second call goes on.
    """
    where = build_dir(plan, folders)
    with _ready(plan, where, around, progress, folders) as ready:
        tools, env, place = ready.tools, ready.env, ready.place
        began, before = time.monotonic(), _children_cpu()
        configured = configure.configure(plan, recipe.failures, ready.argv, where, env, place.enter)
        configure_seconds = time.monotonic() - began
        for warning in configured.deprecated:
            progress.note(f"deprecated: {warning}")
        entries = commands.check(plan, tools.ninja, where, place.enter)
        count = jobs.share_jobs(recipe.steps.memory(plan.backend), around.shared, asked=around.jobs)
        for_cache = caching.prepare(around.cache, plan, entries, where) if around.cache else {}
        if dropped := drop_damaged(where):
            progress.note(f"cut short in an earlier run and made again: {', '.join(dropped)}"[:500])
        progress.stage(f"compile {len(plan.targets)} targets, {count.count} jobs at once ({count.why})")
        learning = timings(plan.engine, plan.backend, folders)
        began, before_it, earlier = time.monotonic(), ninja.timeline(where), kept(learning, Measured)
        line = ninja.build(
            tools.ninja,
            where,
            plan.targets,
            at=BUILD,
            jobs=count.count,
            shared=around.shared,
            env=env | for_cache | ready.compiling,
            enter=place.enter,
            costs=Costs(recipe.steps, earlier, machine_pace(folders)),
            progress=progress,
        )
    used, sources = caching.used(around.cache, where) if around.cache else (None, frozenset())
    cached = frozenset(e.output for e in entries if e.file in sources)
    keep(learning, learned(earlier, line, cached, recipe.steps, before_it))
    command = ninja.command(tools.ninja, BUILD, plan.targets)
    command += () if around.shared else ("-j", str(count.count))
    return Built(
        build_dir=where,
        place=place.way,
        command=command,
        configured=configured,
        entries=entries,
        timeline=line,
        jobs=count,
        environment=env,
        configure_seconds=configure_seconds,
        compile_seconds=time.monotonic() - began,
        cpu_seconds=_children_cpu() - before,
        cache=used,
        distributed=was_spread(where),
    )


def isolated(plan: Plan, around: Surroundings, where: Path, tools: Tools) -> Isolation:
    """Return what a build in the folder ``where`` sees of the machine.

    Raises MissingError where a sandbox would have to show a person's own folder, for the sake of a compiler
    in it.
    """
    if not around.sandbox:
        return around.isolation
    prefixes = {c.resolve().parent.parent for c in (plan.compilers.cc, plan.compilers.cxx)}
    prefixes |= {plan.cuda.root} if plan.cuda else set()
    # Path raises for a user without a home. Keyrings and the store are below .local/share.
    private = {os.path.realpath(f) for f in (where, os.path.expanduser("~/.local/share"))}  # noqa: PTH111
    if bad := [p for p in prefixes if any(Path(f).is_relative_to(p.resolve()) for f in private)]:
        raise MissingError(
            f"a compiler is installed in {bad[0]}, which the sandbox would have to show",
            where=str(plan.compilers.cc),
            remedy="install it in a folder of its own, or put one in /usr/bin first on PATH",
        )
    view = View((tools.cmake.parent.parent, tools.ninja, *sorted(prefixes)), (where,))
    return msgspec.structs.replace(around.isolation, view=view)


def _children_cpu() -> float:
    """Return the CPU seconds of all finished child processes."""
    times = os.times()
    return times.children_user + times.children_system


def _point(link: Path, tree: Path) -> None:
    """Leave in a build folder where its source really lies, for who looks at the folder later."""
    link.unlink(missing_ok=True)
    link.symlink_to(tree)


@contextlib.contextmanager
def _umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)
