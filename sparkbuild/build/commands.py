"""What the compile commands really say: the last -march, and the GPU architectures.

CMake's cache shows what was asked; ninja's compile commands show what every compiler is told. Only
the commands of the wanted targets count: a project may hold others that set flags of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sparkbuild import process
from sparkbuild.errors import ConfigureError
from sparkbuild.files import read_plain
from sparkbuild.planning import Plan

_MARCH = re.compile(r"-m(arch|cpu)=([^\s,'\"]+)")
_CUDA_ARCH = re.compile(r"(?:compute|sm)_(\d+[af]?)")


class Entry(msgspec.Struct, frozen=True):
    """One entry of a compilation database (Clang's JSON Compilation Database format)."""

    directory: str
    file: str
    command: str
    output: str = ""

    @property
    def target(self) -> str:
        """The CMake target that it belongs to; empty where the output does not tell."""
        found = re.search(r"CMakeFiles/([^/]+)\.dir/", self.output)
        return found[1] if found else ""

    @property
    def is_cuda(self) -> bool:
        """True for a CUDA source."""
        return self.file.endswith(".cu")

    @property
    def march(self) -> str:
        """The last -march, else the last -mcpu, which is what counts; empty when there is none.

        GCC's documentation of -mcpu: a -march takes precedence, whichever comes first.
        """
        found: dict[str, str] = dict(_MARCH.findall(self.command))
        return found.get("arch") or found.get("cpu", "")

    @property
    def cuda_archs(self) -> frozenset[str]:
        """The compute capabilities that nvcc is told to compile for, such as 121a."""
        return frozenset(_CUDA_ARCH.findall(self.command))


def capabilities(archs: Iterable[str]) -> frozenset[str]:
    """Return compute capabilities alone: 121 for 121, 121a and 121a-real alike."""
    return frozenset(a.partition("-")[0].rstrip("af") for a in archs)


class Commands(msgspec.Struct, frozen=True):
    """A summary of all compile commands: how many name which -march, which GPU architecture."""

    total: int
    cuda: int
    march: dict[str, int]
    cuda_archs: dict[str, int]


def read(
    ninja: Path, build_dir: Path, targets: tuple[str, ...], enter: tuple[str, ...] = ()
) -> tuple[Entry, ...]:
    """Return the compile commands of the targets and all they need (ninja 1.13's compdb-targets).

    Raises ConfigureError when ninja does not know them.
    """
    try:
        done = process.run([*enter, ninja, "-C", build_dir, "-t", "compdb-targets", *targets])
        entries = msgspec.json.decode(
            done.output.partition("[")[1] + done.output.partition("[")[2], type=list[Entry]
        )
    except (process.ProcessError, ValueError, RecursionError) as problem:
        raise ConfigureError(
            "ninja lists no compile commands", where=str(build_dir), remedy="configure again"
        ) from problem
    return tuple(e for e in entries if e.output.endswith(".o"))


def read_database(ninja: Path, build_dir: Path, targets: tuple[str, ...]) -> tuple[Entry, ...]:
    """Return the compile commands of a folder that anybody configured, of these targets if it can be told.

    With ninja's build file they come from ninja; else from compile_commands.json, less what is linked
    into a program that is not among the targets. Raises ConfigureError when there is neither.
    """
    if (build_dir / "build.ninja").is_file():
        known = process.run([ninja, "-C", build_dir, "-t", "targets", "all"], check=False).output
        there = {line.partition(":")[0] for line in known.splitlines()}
        if wanted := tuple(t for t in targets if t in there):
            return read(ninja, build_dir, wanted)
    path = build_dir / "compile_commands.json"
    try:
        entries = msgspec.json.decode(read_plain(path), type=list[Entry])
    except (OSError, ValueError, RecursionError) as problem:  # a DecodeError is a ValueError
        raise ConfigureError(
            "there are no compile commands to read",
            where=str(path),
            remedy="configure with -G Ninja or -DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        ) from problem
    other = {name for e in entries if (name := e.target) not in targets and _is_program(build_dir, e)}
    return tuple(e for e in entries if e.target not in other)


def _is_program(build_dir: Path, entry: Entry) -> bool:
    """Return whether an entry's target is linked into a program, as CMake's Makefiles tell."""
    link = build_dir / entry.output.partition(".dir/")[0]
    try:
        words = read_plain(link.with_name(f"{link.name}.dir") / "link.txt").decode(errors="replace")
    except (OSError, ValueError):  # ValueError: a name that is none
        return False
    return "-shared" not in words and not re.search(r"\bar\b", words)


def summarise(entries: tuple[Entry, ...]) -> Commands:
    """Count the -march values and GPU architectures over all commands."""
    march: dict[str, int] = {}
    archs: dict[str, int] = {}
    for entry in entries:
        march[entry.march] = march.get(entry.march, 0) + 1
        for arch in entry.cuda_archs:
            archs[arch] = archs.get(arch, 0) + 1
    return Commands(len(entries), sum(e.is_cuda for e in entries), march, archs)


def check(plan: Plan, ninja: Path, build_dir: Path, enter: tuple[str, ...] = ()) -> tuple[Entry, ...]:
    """Raise ConfigureError when a compile command contradicts the plan; return the commands.

    The wanted -march must be there, and no other may win anywhere; every CUDA source must be
    compiled for the wanted compute capability, its architecture-specific form included.
    """
    entries = read(ninja, build_dir, plan.targets, enter)
    found = summarise(entries)
    wanted = {f.removeprefix("-march=") for f in plan.compilers.flags}
    for entry in entries if wanted else ():
        if entry.march and entry.march not in wanted:
            raise _contradiction(f"-march={entry.march} wins over -march={min(wanted)}", entry)
    if wanted and not wanted & found.march.keys():
        raise ConfigureError(
            f"-march={min(wanted)} is on no compile command at all",
            where=str(build_dir),
            remedy="the recipe's arm_arch intent does not reach the compiler",
        )
    archs = (plan.value("CMAKE_CUDA_ARCHITECTURES") or "").split(";")
    for entry in entries if plan.cuda and archs[0][:1].isdigit() else ():
        if entry.is_cuda and capabilities(entry.cuda_archs) != capabilities(archs):
            raise _contradiction(f"compiled for {sorted(entry.cuda_archs)}, not {', '.join(archs)}", entry)
    if plan.cuda and not found.cuda:
        raise ConfigureError(
            "the CUDA backend was asked for and no CUDA source is compiled",
            where=str(build_dir),
            remedy="the project turned CUDA off; see configure.log",
        )
    return entries


def _contradiction(what: str, entry: Entry) -> ConfigureError:
    return ConfigureError(
        f"{Path(entry.file).name}: {what}",
        where=" ".join(entry.command.split())[:2000],
        remedy="something in the project overrides the toolchain's flag",
    )
