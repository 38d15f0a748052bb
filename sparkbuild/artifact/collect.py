"""Gather what an artifact holds: the tools, every library of the build that they need, the facts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from sparkbuild.artifact.manifest import File
from sparkbuild.build.configure import Configured
from sparkbuild.errors import CompileError
from sparkbuild.files import inside, sha256_file
from sparkbuild.inspection.elf import ElfFacts, read_elf
from sparkbuild.inspection.fatbin import device_code

_RUNPATH = "$ORIGIN"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # as handover.BinPath has it


def collect(
    configured: Configured, targets: Iterable[str], roles: Mapping[str, str], processor: str, into: Path
) -> tuple[File, ...]:
    """Copy the targets and their libraries to ``into`` and describe each file.

    A library is copied under its soname, the name by which it is looked for. What is in the build folder,
    CMake's own reply too, was written by the source's code: it may name any file, and a soname may be any
    text. Raises CompileError when a file is missing or not of the build, has a name that is none, is for
    another machine, or would not find its libraries.
    """
    role_of = {target: role for role, target in roles.items()}
    libraries = _libraries(configured)
    into.mkdir(parents=True)
    files: dict[str, File] = {}
    queue = [(t, _artifact(configured, t)) for t in targets]
    while queue:
        name, path = queue.pop(0)
        if name in files:
            continue
        facts = read_elf(path)
        _check(name, path, facts, processor)
        shutil.copyfile(path, into / name)
        (into / name).chmod(0o755)
        files[name] = describe(into / name, facts, role_of.get(name, ""), libraries)
        queue += [(n, libraries[n]) for n in facts.needed if n in libraries]
    return tuple(files[n] for n in sorted(files))


def _artifact(configured: Configured, target: str) -> Path:
    made = configured.targets[target].artifacts
    path = configured.build_dir / made[0] if made else configured.build_dir
    if found := inside(configured.build_dir, path):
        return found
    raise CompileError(
        f"{target} was not made in the build folder although ninja reported success",
        where=str(path),
        remedy="see build.log: a compiler exits 0 and writes nothing, or the project puts files elsewhere",
    )


def _libraries(configured: Configured) -> dict[str, Path]:
    """Return the shared libraries that were built, by soname."""
    found = {}
    for target in configured.targets.values():
        made = target.artifacts if target.kind in ("SHARED_LIBRARY", "MODULE_LIBRARY") else ()
        if made and (path := inside(configured.build_dir, made[0])):
            found[read_elf(path).soname or Path(made[0]).name] = path
    return found


def _check(name: str, path: Path, facts: ElfFacts, processor: str) -> None:
    if not _NAME.fullmatch(name):
        raise CompileError(
            f"{path.name} calls itself {name!r}, which is no name for a file of an artifact",
            where=str(path),
            remedy="mend the soname that the project sets",
        )
    if facts.machine != processor:
        raise CompileError(
            f"{path.name} is for {facts.machine}, not {processor}",
            where=str(path),
            remedy="the toolchain was not used; see configure.log",
        )
    if facts.runpath != _RUNPATH:
        raise CompileError(
            f"{path.name} looks for libraries in {facts.runpath or 'no folder of its own'}, not {_RUNPATH}",
            where=str(path),
            remedy="the project sets an RPATH of its own; see configure.log",
        )


def describe(path: Path, facts: ElfFacts, role: str, inside: Container[str]) -> File:
    """Return what is known of one file of an artifact; ``inside`` are the names of its libraries.

    Raises BinaryError when its device code can not be read.
    """
    return File(
        path=f"bin/{path.name}",
        sha256=sha256_file(path),
        size=path.stat().st_size,
        machine=facts.machine,
        role=role or ("tool" if facts.interpreter else "library"),
        build_id=facts.build_id,
        runpath=facts.runpath,
        glibc=facts.glibc,
        needed=facts.needed,
        external=tuple(n for n in facts.needed if n not in inside),
        device_code=device_code(path),
    )
