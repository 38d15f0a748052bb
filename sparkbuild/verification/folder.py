"""Look at a build folder that anybody made: its cache, its compile commands, its binaries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from sparkbuild.build.commands import Entry, read_database
from sparkbuild.build.configure import CacheEntry
from sparkbuild.build.ninja import replaced
from sparkbuild.catalog import Catalog
from sparkbuild.catalog.records import Backend, Recipe, Shelf, Toolchain
from sparkbuild.errors import BinaryError, MissingError, SparkbuildError, UsageError
from sparkbuild.files import read_plain
from sparkbuild.inspection.live import How
from sparkbuild.inspection.probe import Probe, probe
from sparkbuild.planning import Definition, Inputs, from_recipe
from sparkbuild.process import ProcessError
from sparkbuild.progress import Progress
from sparkbuild.source import Declared, Option, SourceTree, scan
from sparkbuild.toolchain import Compilers, describe, gpu_arch
from sparkbuild.verification import CMAKE_OWN, Seen

_CACHE_LINE = re.compile(r"(?P<name>[^:=#/\s][^:=]*):(?P<type>[A-Z]+)=(?P<value>.*)")


class Looked(msgspec.Struct, frozen=True):
    """A build folder as it was found, and for which engine it was taken."""

    seen: Seen
    engine: str
    source: Path
    notes: tuple[str, ...]


def look(
    build_dir: Path,
    catalog: Catalog,
    toolchain: Shelf[Toolchain],
    *,
    engine: str | None,
    backend: Backend,
    ninja: Path,
    environment: Mapping[str, str],
    how: How,
    progress: Progress,
) -> Looked:
    """Return what can be seen in a build folder, and what a recipe wants of it.

    ``engine`` is guessed from what the source declares where it is not given. Raises UsageError for a
    folder that CMake did not configure to the end, or whose source fits no recipe.
    """
    cache = read_cache(build_dir / "CMakeCache.txt")
    if not any((build_dir / name).is_file() for name in ("build.ninja", "Makefile")):
        raise UsageError(
            "CMake did not finish configuring this folder: it holds no build.ninja or Makefile",
            where=str(build_dir),
            remedy="configure again and see why CMake stops",
        )
    source = _source(build_dir, cache)
    why = {"asked": "a build folder does not record what was typed"}
    declared = scan(source) if source.is_dir() else None
    if declared is None:
        why["declared"] = f"its source {source} is not here"
    recipe = catalog.recipe(engine) if engine else _guess(catalog, declared, cache)
    compilers = _compilers(cache, toolchain.record, why)
    wanted = _wanted(recipe, toolchain, backend, source, declared, cache, compilers)
    commands = _commands(ninja, build_dir, recipe.record.targets[backend], why)
    found = _binaries(build_dir, catalog, why, how, progress)
    seen = Seen(
        definitions=(*wanted, *_typed(cache, wanted, declared)),
        recipe=recipe.record,
        rules=catalog.features().record,
        options=declared.options if declared else None,
        reads=(lambda name: name in declared.reads) if declared else (lambda _name: False),
        cache=cache,
        commands=commands,
        compilers=compilers,
        files=found.files if found else (),
        verdicts=found.verdicts if found else None,
        system=found.said.system if found and found.said else None,
        environment=environment,
        changed=_replaced(build_dir, why) if found else (),
        why=why,
    )
    return Looked(seen, recipe.record.name, source, tuple(f"{k}: {v}" for k, v in why.items()))


def read_cache(path: Path) -> dict[str, CacheEntry]:
    """Read a CMakeCache.txt. Raises UsageError when it is none."""
    try:
        lines = re.split("\r\n?|\n", read_plain(path).decode(errors="replace"))
    except (OSError, ValueError) as problem:
        raise UsageError(
            "not a folder that CMake configured",
            where=str(path),
            remedy="name a build folder with --build-dir",
        ) from problem
    found = (_CACHE_LINE.fullmatch(line) for line in lines)
    return {m["name"]: CacheEntry(m["name"], m["type"], m["value"]) for m in found if m}


def _source(build_dir: Path, cache: Mapping[str, CacheEntry]) -> Path:
    """Return where a folder's source lies: sparkbuild's own folders point to it, CMake's cache names it."""
    if (own := build_dir / ".env" / "source").is_symlink():
        return own.resolve()
    return Path(cache["CMAKE_HOME_DIRECTORY"].value) if "CMAKE_HOME_DIRECTORY" in cache else build_dir


def _guess(catalog: Catalog, declared: Declared | None, cache: Mapping[str, CacheEntry]) -> Shelf[Recipe]:
    """Return the recipe whose options this source declares, or else its cache holds, best."""
    names = set(declared.options) | set(declared.reads) if declared else set(cache)
    fits = []
    for shelf in catalog.recipes().values():
        intents = shelf.record.intents
        known = [any(c.option in names for c in i.choose) for i in intents]
        first = sum(i.choose[0].option in names for i in intents)
        if all(k for k, i in zip(known, intents, strict=True) if i.required):
            fits.append((sum(known) / len(known), first, shelf))
    if not fits:
        raise UsageError(
            "its source declares what no recipe asks for", where="--build-dir", remedy="name the engine, too"
        )
    return max(fits, key=lambda f: f[:2])[2]


def _compilers(
    cache: Mapping[str, CacheEntry], toolchain: Toolchain, why: dict[str, str]
) -> Compilers | None:
    cc, cxx = (cache.get(f"CMAKE_{x}_COMPILER") for x in ("C", "CXX"))
    if not cc or not cxx:
        why["compiler"] = "the cache names no compilers"
        return None
    try:
        return describe(Path(cc.value), Path(cxx.value), toolchain)[0]
    except (MissingError, ProcessError, OSError) as problem:
        why["compiler"] = f"{cc.value} can not be asked: {problem}"
        return None


def _wanted(
    recipe: Shelf[Recipe],
    toolchain: Shelf[Toolchain],
    backend: Backend,
    source: Path,
    declared: Declared | None,
    cache: Mapping[str, CacheEntry],
    compilers: Compilers | None,
) -> list[Definition]:
    """Return what the recipe and the toolchain require of a build; how it was asked is not known."""
    flags = (f"-march={toolchain.record.cpu_arch}",) if toolchain.record.cpu_arch else ()
    nothing = Compilers(Path(), Path(), "", "", cross=False, digest="", flags=flags)
    known = Inputs(
        recipe=recipe,
        toolchain=toolchain,
        backend=backend,
        source=SourceTree(
            way="local", location=str(source), ref="", tree="", engine="", path=source, patched_tree=""
        ),
        options=declared.options if declared else {n: Option(n, "variable", "", "", "") for n in cache},
        reads=lambda name: name in (declared.reads if declared else cache),
        compilers=compilers or nothing,
        cuda=None,
        cuda_arch="",
        cmake="",
        cache=Path(),
        user={},
    )
    own = [Definition("CMAKE_BUILD_TYPE", "Release", "optimised", "recipe", required=True)]
    if backend == "cuda":
        arch = gpu_arch(toolchain.record)
        own.append(Definition("CMAKE_CUDA_ARCHITECTURES", arch, "the GPU", "toolchain", required=True))
    return own + [d for d in from_recipe(known)[0] if d.required]


def _typed(
    cache: Mapping[str, CacheEntry], wanted: Iterable[Definition], declared: Declared | None
) -> list[Definition]:
    """Return what somebody certainly typed: what is in the cache without that anything declared it.

    It is required to change something, but for what the source reads and never declares: that shows
    nowhere.
    """
    known = {d.name for d in wanted}
    only_read = set(declared.reads) - declared.options.keys() if declared else set()
    why = "typed, and no project declared it"
    return [
        Definition(e.name, e.value, why, "user", required=e.name not in only_read)
        for e in cache.values()
        if e.type == "UNINITIALIZED" and e.name not in known and not e.name.startswith(CMAKE_OWN)
    ]


def _commands(
    ninja: Path, build_dir: Path, targets: tuple[str, ...], why: dict[str, str]
) -> tuple[Entry, ...] | None:
    try:
        return read_database(ninja, build_dir, targets)
    except SparkbuildError as problem:
        why["commands"] = f"{problem.what}; {problem.remedy}"
        return None


def _replaced(build_dir: Path, why: dict[str, str]) -> tuple[str, ...]:
    if not (build_dir / ".ninja_log").is_file():
        why["changed"] = "whether a file was replaced after the build: only ninja's log could tell"
    return replaced(build_dir)


def _binaries(
    build_dir: Path, catalog: Catalog, why: dict[str, str], how: How, progress: Progress
) -> Probe | None:
    """Probe what is built, and run it: CMake ran this project's code before."""
    try:
        return probe(build_dir, catalog, progress, how)
    except BinaryError as problem:
        why["binary"] = problem.what
        return None
