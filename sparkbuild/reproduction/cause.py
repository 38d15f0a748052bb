"""Why two build folders differ: the first output that does, what differs in it, and what cures that."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from sparkbuild import process
from sparkbuild.build import ninja
from sparkbuild.files import inside, sha256_file
from sparkbuild.inspection.runtime import printable
from sparkbuild.reproduction.kinds import kinds
from sparkbuild.reproduction.records import Cause, Kind

Replay = Literal["differs each time", "the same each time", "not run"]
# What CMake writes when it configures again, and what is read by compilers only, never linked.
_NOT_BUILT = (".ninja", ".cmake", ".gch", "CMakeCache.txt")
_SECOND = 1.1  # C's __TIME__ counts seconds: two compiles within one would agree by chance
_LINES = 200  # of diffoscope's text
_PATIENCE = 300.0  # seconds

_EPOCH = (
    "SOURCE_DATE_EPOCH in the build's environment; where it is set, take the time out of the source that "
    "the build generates"
)
_SEED = (
    "nvcc --frandom-seed=X, and the source at the same absolute path (a bind mount; a symbolic link does "
    "not do)"
)
# What cures a kind of difference, and whether in what nvcc made. Where no sure cure is known there is none.
CURES: dict[tuple[Kind, bool], str] = {
    ("time stamp", False): _EPOCH,
    ("time stamp", True): _EPOCH,
    ("embedded path", False): "-ffile-prefix-map=SOURCE=.",
    ("embedded path", True): "nvcc -Xcompiler=-ffile-prefix-map=SOURCE=. for host code; for device code the "
    "source at the same absolute path",
    ("FILE symbol", True): "nvcc -objtemp",
    ("module id", True): _SEED,
    ("module id", False): "-frandom-seed=X",
    ("device code", True): _SEED,
    ("build id", False): "-Wl,--build-id=sha1, a hash of the rest",
    ("build id", True): "-Wl,--build-id=sha1, a hash of the rest",
}


def find_cause(
    before: Path, after: Path, command_of: Callable[[str], str], run: Callable[[str], object] | None
) -> Cause | None:
    """Return the first output of a build that differs from an earlier build's, and why; None for none.

    ``command_of`` gives the command that made an output, "" where it is not known. ``run`` runs one
    shell command in the ``after`` folder and the build's environment and raises ProcessError when it
    fails; None when nothing may be run. ``after`` is as it was when this returns.
    """
    output = first_difference(before, after)
    if output is None:
        return None
    command = command_of(output)
    pair = before / output, after / output
    found, detail = kinds(*pair), _detail(*pair)  # before the command runs: it may put anything there
    return Cause(
        output=output,
        command=command,
        kinds=tuple(kind for kind, _ in found),
        samples=tuple(sample for _, sample in found),
        replay=_replay(command, after / output, run) if command and run else "not run",
        cure=_cure(output, (kind for kind, _ in found)),
        detail=detail,
    )


def first_difference(before: Path, after: Path) -> str | None:
    """Return the first output that differs of what ninja made in both folders, in the order it was made.

    A step ends before one begins that needs it: so an object comes before what is linked from it. The
    path is relative to the folders; only regular files below them count.
    """
    for output in ninja.timeline(after).steps:
        pair = before / output, after / output
        if output.endswith(_NOT_BUILT) or any(p.is_symlink() for p in pair):
            continue
        found = inside(before, output), inside(after, output)
        if found[0] and found[1] and not filecmp.cmp(found[0], found[1], shallow=False):
            return output
    return None


def _replay(command: str, output: Path, run: Callable[[str], object]) -> Replay:
    """Return whether a command makes the same file twice.

    The file itself is moved aside meanwhile, and what else the command leaves beside it is removed.
    The command is the source's own: a link that it puts in place of the file or its folder is not followed.
    """
    output = output.resolve()
    aside, made = output.with_name(f"{output.name}.aside"), []
    there = set(output.parent.iterdir())
    try:
        output.replace(aside)
        for pause in (0, _SECOND):
            time.sleep(pause)
            output.unlink(missing_ok=True)
            run(command)
            if not _is_itself(output):
                return "not run"
            made.append(sha256_file(output))
    except (process.ProcessError, OSError):
        return "not run"
    finally:
        with contextlib.suppress(OSError):  # no folder any more, or one in place of the file
            _put_back(aside, output, there)
    return "the same each time" if made[0] == made[1] else "differs each time"


def _put_back(aside: Path, output: Path, there: set[Path]) -> None:
    if not _is_itself(output.parent):
        return
    if aside.exists():
        aside.replace(output)
    for left in set(output.parent.iterdir()) - there:
        if not left.is_dir():
            left.unlink()  # as the dependency file, which ninja would have read and removed


def _is_itself(path: Path) -> bool:
    """Return whether a resolved path still leads to a plain file or a folder without any link."""
    return os.path.realpath(path) == str(path) and (path.is_file() or path.is_dir())


def _cure(output: str, found: Iterable[Kind]) -> str:
    """Return what cures each kind. A build id follows from the rest, so it counts only when it is alone."""
    cuda = ".cu." in Path(output).name
    listed = list(found)
    cures = [
        CURES[kind, cuda]
        for kind in listed
        if (kind, cuda) in CURES and (kind != "build id" or len(listed) == 1)
    ]
    return "; ".join(dict.fromkeys(cures))


def _detail(before: Path, after: Path) -> str:
    """Return the beginning of what diffoscope says where it is installed, else nothing."""
    tool = shutil.which("diffoscope")
    if not tool:
        return ""
    try:
        done = process.run([tool, "--no-progress", before, after], check=False, timeout=_PATIENCE)
    except process.ProcessError:
        return ""
    return printable("\n".join(done.output.splitlines()[:_LINES]), "\n\t")
