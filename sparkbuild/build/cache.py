"""Objects that were compiled before: taken from ccache where that gives what a compile would give.

docs/cache.md says what was tried. ccache must prove itself with a machine's compilers before its first use
(proof.py), is set so that it is right (ccache.py), and what it does not look at is in the name under which
objects are kept (``_identity``).
"""

from __future__ import annotations

import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from sparkbuild import process
from sparkbuild.build import ccache, proof
from sparkbuild.build.commands import Entry
from sparkbuild.build.shadows import choices
from sparkbuild.errors import CompileError, UsageError
from sparkbuild.files import Folders, make_folder, sha256_bytes, to_json
from sparkbuild.planning import Plan
from sparkbuild.toolchain.memory import recall

FOLDER = "ccache"  # in the cache folder
_FORMAT = 2  # of what an identity and a proof are made from
_MAP = re.compile(r"""-f\w+-prefix-map=(?:'[^']*'|"[^"]*"|[^\s'"])+""")  # quoted for a shell, maybe twice
_LAUNCHERS = tuple(f"CMAKE_{language}_COMPILER_LAUNCHER" for language in ("C", "CXX", "CUDA"))
_FAULTS = frozenset({"remote_storage_error", "remote_storage_timeout"})
_NO_OBJECTS = frozenset({"called_for_link", "called_for_preprocessing", "compile_failed"})
_STORAGES = ("redis", "http", "file")


class Cache(msgspec.Struct, frozen=True):
    """A ccache that proved itself: the program, its version, its folder, and a storage to share.

    ``storage`` is ccache's remote_storage, such as redis://HOST or http://HOST/PATH; empty for none.
    """

    program: Path
    version: str
    folder: Path
    storage: str = ""


class Used(msgspec.Struct, frozen=True):
    """What a build took from the cache, in compiles: found there, compiled and kept, or not for a cache.

    All runs that made its build folder count, since what a stopped one made is not made again.
    ``shared`` of the hits came from the shared storage, which gave no answer ``faults`` times; ``storage`` is
    its kind, such as redis, or empty.
    """

    tool: str
    hits: int
    misses: int
    uncached: int
    storage: str = ""
    shared: int = 0
    faults: int = 0


def check_storage(storage: str) -> None:
    """Raise UsageError for what is no storage of ccache's: with it every compile would fail."""
    try:
        parts = urlsplit(storage.partition("|")[0])
        wrong = bool(parts.scheme not in _STORAGES or parts.fragment or parts.port == 0)
        wrong |= parts.scheme != "file" and not parts.hostname
    except ValueError:
        wrong = True
    if storage and (wrong or not storage.isprintable()):  # it may hold a password, and is not repeated
        raise UsageError(
            "this is no storage that ccache knows",
            where="--cache-storage",
            remedy="redis://HOST, http://HOST/PATH or file:/FOLDER; in a password write %23 for #, %2F for /",
        )


def find_cache(plan: Plan, folders: Folders, storage: str = "") -> tuple[Cache | None, str]:
    """Return the compile cache for a plan on this machine; None, and why, when there is none."""
    if own := next((n for n in _LAUNCHERS if plan.value(n)), ""):
        return None, f"{own} is given, so sparkbuild's own compile cache is not used"
    found = shutil.which("ccache", path=process.SYSTEM_PATH)
    if not found:
        return None, "ccache is not installed, so every file is compiled: apt-get install ccache"
    program, nvcc = Path(found), plan.cuda and plan.cuda.root / "bin/nvcc"

    def prove() -> tuple[str, list[Path]]:
        said = process.run([program, "--version"]).output.partition("\n")[0]
        if faults := proof.faults(program, plan):
            raise ValueError(faults[0])
        return said.replace(" version", ""), [program]

    question = [_FORMAT, found, plan.compilers.digest, str(nvcc), plan.cuda.digest if plan.cuda else ""]
    folder = folders.cache / FOLDER
    try:
        version = recall(folders.cache, "ccache", question, str, prove)
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):  # it fails every compile where it can not write
            pass
    except (ValueError, OSError, process.ProcessError) as problem:
        return None, f"ccache is not right here, so every file is compiled: {problem}"
    return Cache(program, version, folder, storage), ""


def definitions(cache: Cache, plan: Plan) -> dict[str, str]:
    """Return the CMake definitions that put the cache before every compile."""
    return {n: str(cache.program) for n in _LAUNCHERS if plan.cuda or "CUDA" not in n}


def prepare(cache: Cache, plan: Plan, entries: Iterable[Entry], where: Path) -> dict[str, str]:
    """Make ready for a build in ``where``, whose commands are known now; return its environment."""
    identity = _identity(cache, plan, tuple(entries))
    return ccache.configure(_settings(where), cache.folder, identity, _log(where), cache.storage)


def forget(where: Path, *, counts: bool) -> None:
    """Remove the settings from a build folder, which may hold a password, and maybe what was counted."""
    for path in (_settings(where), *((_log(where),) if counts else ())):
        path.unlink(missing_ok=True)


def _identity(cache: Cache, plan: Plan, entries: tuple[Entry, ...]) -> str:
    """Return what objects are known by beside what ccache hashes itself.

    It hashes the compiler that it starts, but not the programs that this one starts. Nor does it hash prefix
    maps (of sparkbuild's own, the cache folder is in no object) and an object's name, which nvcc writes into
    it: CMake names it as its source, else it is told here. For the choices between headers see there.
    """
    given = {re.sub("['\"]", "", m) for e in entries for m in _MAP.findall(e.command)}
    maps = sorted({m.replace(str(cache.folder.parent), "") for m in given})
    names = {(e.file, Path(e.output).name) for e in entries if e.is_cuda}
    others = sorted((file, name) for file, name in names if name != f"{Path(file).name}.o")
    toolchain = [plan.compilers.digest, plan.cuda.digest if plan.cuda else ""]
    seen = choices(plan.source.path, entries, _searched_by_itself(plan))
    embedded = plan.source.patched_tree if seen.embeds else ""
    return sha256_bytes(to_json([_FORMAT, *toolchain, maps, others, seen.digest, embedded]))


def _searched_by_itself(plan: Plan) -> tuple[str, ...]:
    """Return the folders in which the compilers look for headers without being told."""
    env = process.clean_env(LC_ALL="C")
    said = process.run([plan.compilers.cxx, "-E", "-x", "c++", "-v", "/dev/null"], env=env).errors
    block = said.partition("#include <...>")[2].partition("End of search list")[0]
    own = [posixpath.normpath(line.strip()) for line in block.splitlines()[1:]]
    return (*own, str(plan.cuda.target_dir / "include")) if plan.cuda else tuple(own)


def _settings(where: Path) -> Path:
    return where / ".env" / "ccache.conf"


def _log(where: Path) -> Path:
    return where / ".env" / "ccache.log"


def used(cache: Cache, where: Path) -> tuple[Used, frozenset[str]]:
    """Return what the build in ``where`` took from the cache, and the sources whose objects were there.

    Raises CompileError where that is not known.
    """
    try:
        calls = ccache.calls(_log(where))
    except OSError as problem:
        raise CompileError(
            f"ccache did not leave word of what it gave: {problem.strerror}",
            where=str(_log(where)),
            remedy="run the same command again, with --rebuild",
        ) from problem
    compiles = [(s, words) for s, words in calls if not words & _NO_OBJECTS]
    hits = [(s, words) for s, words in compiles if "direct_cache_hit" in words]
    misses = sum("cache_miss" in words for _, words in compiles)
    counts = Used(
        tool=cache.version,
        hits=len(hits),
        misses=misses,
        uncached=len(compiles) - len(hits) - misses,
        storage=cache.storage.partition(":")[0],
        shared=sum("remote_storage_hit" in words for _, words in hits),
        faults=sum(bool(words & _FAULTS) for _, words in compiles),
    )
    return counts, frozenset(s for s, _ in hits)
