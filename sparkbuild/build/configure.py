"""Run CMake's configure step and compare what was asked with what CMake made of it.

CMake goes on where a person would stop: an option that no project declares is a warning at the end,
a missing CUDA a line among hundreds. Here each of them is an error that says which and why.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from sparkbuild import process
from sparkbuild.catalog.records import Failure
from sparkbuild.errors import ConfigureError, did_you_mean
from sparkbuild.files import read_plain, write_whole
from sparkbuild.planning import Definition, Plan
from sparkbuild.toolchain.place import SOURCE

_REPLY = ".cmake/api/v1/reply"
_UNUSED = re.compile(r"Manually-specified variables were not used by the project:\n((?:\s*\n|[ \t]+\S+\n)+)")
_DEPRECATED = re.compile(r"\b([A-Z][A-Z0-9_]{3,})\b[^\n]{0,40}\bis deprecated\b[^\n]*")
_TRUE, _FALSE = {"ON", "YES", "TRUE", "Y", "1"}, {"OFF", "NO", "FALSE", "N", "0", "", "IGNORE", "NOTFOUND"}


class Target(msgspec.Struct, frozen=True):
    """A CMake target and the files it makes, relative to the build folder."""

    name: str
    kind: str
    artifacts: tuple[str, ...]


class CacheEntry(msgspec.Struct, frozen=True):
    """One entry of CMake's cache. Type UNINITIALIZED means that no project declared it."""

    name: str
    type: str
    value: str
    help: str = ""


class Configured(msgspec.Struct, frozen=True):
    """A configured build folder: the command, the cache, the targets and CMake's warnings."""

    build_dir: Path
    command: tuple[str, ...]
    cache: dict[str, CacheEntry]
    targets: dict[str, Target]
    deprecated: tuple[str, ...]


def command(
    plan: Plan, cmake: Path, ninja: Path, build_dir: Path, more: dict[str, str] | None = None
) -> tuple[str, ...]:
    """Return the configure command; a definition is one argument, no shell ever sees it.

    ``more`` are definitions that change no byte. ninja is not to configure again: it would do so without
    end where a clock went back.
    """
    pairs = {d.name: d.value for d in plan.definitions} | (more or {})
    given = tuple(f"-D{name}={value}" for name, value in pairs.items())
    base = (str(cmake), "-S", str(SOURCE), "-B", str(build_dir), "-G", "Ninja")
    return (*base, f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DCMAKE_SUPPRESS_REGENERATION=ON", *given)


class Ran(msgspec.Struct, frozen=True):
    """A finished configure step, not judged yet: where, the command, what CMake said, its exit code.

    ``enter`` are the words that stand before a command that looks at what it left.
    """

    build_dir: Path
    argv: tuple[str, ...]
    output: str
    code: int
    enter: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """The file that holds the output."""
        return self.build_dir / "configure.log"


def configure(
    plan: Plan,
    failures: Iterable[Failure],
    argv: tuple[str, ...],
    build_dir: Path,
    env: Mapping[str, str],
    enter: tuple[str, ...] = (),
) -> Configured:
    """Configure and check. Raises ConfigureError; CMake's output is in configure.log."""
    ran = run(argv, build_dir, env, enter)
    check_output(ran.output, ran.code, plan.backend, failures, ran.log)
    configured = read(build_dir, argv, ran.output)
    check_definitions(plan.definitions, configured, unused(ran.output), ran.log)
    check_targets(plan.targets, configured, ran.log)
    return configured


def run(argv: tuple[str, ...], build_dir: Path, env: Mapping[str, str], enter: tuple[str, ...] = ()) -> Ran:
    """Configure; nothing is judged.

    CMake's cache, what it found out of the compilers and its file API reply are made anew: cut short by a
    crash they would stop every later run, and values of an earlier one would linger. What was compiled stays.
    """
    from scikit_build_core.file_api.query import stateless_query  # noqa: PLC0415 - see find_tools

    build_dir.mkdir(parents=True, exist_ok=True)
    (build_dir / "CMakeCache.txt").unlink(missing_ok=True)
    for old in (build_dir / _REPLY, *build_dir.glob("CMakeFiles/[0-9]*")):
        shutil.rmtree(old, ignore_errors=True)
    stateless_query(build_dir)
    with process.stream((*enter, *argv), env=env, cwd=build_dir) as running:
        output = "\n".join(running) + "\n"
    ran = Ran(build_dir, argv, output, running.returncode or 0, enter)
    write_whole(ran.log, output.encode())
    return ran


def read(build_dir: Path, argv: tuple[str, ...] = (), output: str = "") -> Configured:
    """Read a configured folder through CMake's file API.

    The project's own code can have written that reply. Raises ConfigureError for one that is not whole.
    """
    from scikit_build_core.file_api.reply import load_reply_dir  # noqa: PLC0415 - see find_tools

    try:
        _check_reply(build_dir)
        reply = load_reply_dir(build_dir / _REPLY).reply
        if reply.cache_v2 is None or reply.codemodel_v2 is None:
            raise ConfigureError(
                "CMake's file API reply lacks its cache or its targets", where=str(build_dir)
            )
        cache = {
            e.name: CacheEntry(
                e.name, e.type, e.value, next((p.value for p in e.properties if p.name == "HELPSTRING"), "")
            )
            for e in reply.cache_v2.entries
        }
        targets = {
            t.name: Target(t.name, t.type, tuple(str(a.path) for a in t.artifacts))
            for t in reply.codemodel_v2.configurations[0].targets
        }
    except (OSError, ValueError, TypeError, LookupError, RecursionError, ExceptionGroup) as problem:
        raise ConfigureError(
            "CMake left no readable file API reply", where=str(build_dir), remedy="run it again"
        ) from problem
    deprecated = tuple(dict.fromkeys(m[0].strip() for m in _DEPRECATED.finditer(output)))
    return Configured(build_dir, argv, cache, targets, deprecated)


def _check_reply(build_dir: Path) -> None:
    """Raise OSError or ValueError for a reply that is not made of plain files of its own folder.

    CMake's index and its code model name the other files, each by "jsonFile".
    """
    folder = build_dir / _REPLY
    if folder.resolve() != build_dir.resolve() / _REPLY:
        raise ValueError("a link leads to it")
    for path in folder.iterdir():
        json.loads(read_plain(path), object_pairs_hook=_beside)


def _beside(pairs: list[tuple[str, object]]) -> dict[str, object]:
    for name, value in pairs:
        if name == "jsonFile" and "/" in str(value):
            raise ValueError(f"it names a file elsewhere: {value}")
    return dict(pairs)


def unused(output: str) -> tuple[str, ...]:
    """Return the definitions that CMake says nobody read."""
    return tuple(name for block in _UNUSED.findall(output) for name in block.split())


def check_output(output: str, code: int, backend: str, failures: Iterable[Failure], log: Path) -> None:
    """Raise ConfigureError when CMake failed or said a line that the recipe knows to mean failure."""
    for failure in failures:
        line = next((x for x in output.splitlines() if re.search(failure.pattern, x)), None)
        if line is not None and backend in failure.backends:
            raise ConfigureError(
                f"{failure.meaning} (CMake said: {line.strip()})", where=str(log), remedy=failure.remedy
            )
    if code != 0:
        start = output.find("CMake Error")
        shown = output[start:] if start >= 0 else output
        raise ConfigureError(
            f"CMake failed with exit code {code}",
            where=str(log),
            remedy="see its own words above; 'sparkbuild doctor' checks the tools",
            output=shown[-4000:] if start < 0 else shown[:4000],
        )


def check_definitions(
    definitions: Iterable[Definition], configured: Configured, unread: Iterable[str], log: Path
) -> None:
    """Raise ConfigureError for a definition that nobody declared, or that did not keep its value."""
    dead = set(unread)
    known = [e.name for e in configured.cache.values() if e.type not in ("UNINITIALIZED", "INTERNAL")]
    for definition in definitions:
        where = f"-D {definition.name}={definition.value} ({definition.origin}); {log}"
        entry = configured.cache.get(definition.name)
        if definition.name in dead and definition.origin != "sparkbuild":
            raise ConfigureError(
                f"the project does not declare or read {definition.name}: it would change nothing",
                where=where,
                remedy=did_you_mean(definition.name, known) + "a dead definition must go",
            )
        if entry is None or not same(entry, definition.value):
            found = "is gone from the cache" if entry is None else f"became {entry.value!r}"
            raise ConfigureError(
                f"{definition.name} was asked to be {definition.value!r} and {found}",
                where=where,
                remedy="something in the project overrides it; see configure.log",
            )


def is_off(value: str) -> bool:
    """Return whether CMake takes a value for false (cmake-commands(7), "if")."""
    return value.upper() in _FALSE or value.upper().endswith("-NOTFOUND")


def is_boolean(value: str) -> bool:
    """Return whether CMake takes a value for true or false."""
    return value.upper() in _TRUE or is_off(value)


def same(entry: CacheEntry, asked: str) -> bool:
    """Return whether a cache entry holds what was asked; booleans have many spellings."""
    if entry.value == asked:
        return True
    found, wanted = entry.value.upper(), asked.upper()
    if entry.type == "BOOL":
        return (found in _TRUE) == (wanted in _TRUE) and {found, wanted} <= _TRUE | _FALSE
    if entry.type in ("FILEPATH", "PATH"):
        return Path(entry.value) == Path(asked)
    return False


def check_targets(wanted: Iterable[str], configured: Configured, log: Path) -> None:
    """Raise ConfigureError when a target of the recipe does not exist here."""
    for target in wanted:
        if target not in configured.targets:
            raise ConfigureError(
                f"this source has no target {target!r}",
                where=str(log),
                remedy=did_you_mean(target, configured.targets) + "mend the recipe's targets",
            )
