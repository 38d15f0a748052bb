"""What is on this machine, what is missing for a target, and the command that mends it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Literal

import msgspec

from sparkbuild.catalog.records import CudaWheels, Toolchain
from sparkbuild.errors import SparkbuildError
from sparkbuild.files import Folders
from sparkbuild.progress import Silent
from sparkbuild.toolchain import sandbox
from sparkbuild.toolchain.compilers import Compilers, find_compilers, is_cross, target_processor
from sparkbuild.toolchain.cuda import find_cuda
from sparkbuild.toolchain.fault import try_compiler
from sparkbuild.toolchain.place import SOURCE, why_no_namespace

_NEEDED_GIB = 12  # a CUDA build with its toolkit and source


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. "not run" is neither good nor bad, and says why."""

    name: str
    verdict: Literal["ok", "missing", "faulty", "not run"]
    detail: str
    remedy: str = ""
    needed: bool = False


def examine(toolchain: Toolchain, wheels: CudaWheels, folders: Folders) -> tuple[Check, ...]:
    """Look at everything a build for ``toolchain`` needs, and at the compiler fault."""
    return tuple(_checks(toolchain, wheels, folders))


def _checks(toolchain: Toolchain, wheels: CudaWheels, folders: Folders) -> Iterator[Check]:
    yield _program("git", "apt-get install git", needed=True)
    compilers = None
    try:
        compilers = find_compilers(toolchain, folders)
        proved = ", ".join(p.feature for p in compilers.proofs) or "nothing asked"
        yield Check("compilers", "ok", f"{compilers.version}; proved: {proved}")
    except SparkbuildError as problem:
        yield Check("compilers", "missing", f"{problem.what} ({problem.where})", problem.remedy, needed=True)
    yield _native_detection(toolchain, compilers)
    yield _place()
    yield _sandbox()
    yield _program("ccache", "apt-get install ccache: else every build compiles everything", needed=False)
    yield _cuda(toolchain, wheels, compilers, folders)
    if is_cross(toolchain):
        emulator = f"qemu-{target_processor(toolchain)}"
        yield _program(emulator, "apt-get install qemu-user", needed=False)
    yield _disk(folders)


def _program(name: str, remedy: str, *, needed: bool) -> Check:
    path = shutil.which(name)
    return Check(name, "ok", path) if path else Check(name, "missing", "not on PATH", remedy, needed=needed)


def _place() -> Check:
    """Tell how a build's source comes to the path at which every build sees it."""
    reason = why_no_namespace()
    if not reason:
        return Check("namespaces", "ok", f"bubblewrap shows each build its source at {SOURCE}")
    detail = f"{reason}: the source is copied to {SOURCE}, where builds take turns"
    return Check("namespaces", "missing", detail, "apt-get install bubblewrap, and allow it user namespaces")


def _sandbox() -> Check:
    """Tell whether what is not trusted can be built here."""
    if reason := sandbox.why_not():
        return Check("sandbox", "missing", f"{reason}: build --sandbox is refused", sandbox.REMEDY)
    return Check("sandbox", "ok", "build --sandbox gives a source's own code its tools and its build folder")


def _native_detection(toolchain: Toolchain, compilers: Compilers | None) -> Check:
    """Prove or disprove, on this machine, that the compiler's native detection loses features."""
    name = "native detection"
    if compilers is None or not toolchain.proofs:
        return Check(name, "not run", "no compiler, or nothing to prove for this arch")
    try:
        trial = try_compiler(compilers.cc, toolchain)
    except SparkbuildError as problem:
        return Check(name, "not run", f"{problem.what} ({problem.where})", problem.remedy)
    if trial.fault == "proved":
        instead = " ".join(compilers.flags) or "what native means"
        return Check(name, "faulty", trial.reason, f"nothing to do: sparkbuild uses {instead}")
    return Check(name, "ok" if trial.fault == "disproved" else "not run", trial.reason)


def _cuda(toolchain: Toolchain, wheels: CudaWheels, compilers: Compilers | None, folders: Folders) -> Check:
    if compilers is None:
        return Check("CUDA", "not run", "needs a compiler first")
    try:
        cuda = find_cuda(toolchain, wheels, compilers, folders, offline=True, progress=Silent())
    except SparkbuildError as problem:
        remedy = "nothing to do: the first CUDA build downloads it from the package index"
        return Check("CUDA", "missing", problem.what, remedy)
    return Check("CUDA", "ok", f"{cuda.version}, {cuda.origin}: {cuda.root}")


def _disk(folders: Folders) -> Check:
    place = folders.cache
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free >> 30
    detail = f"{free} GiB free for {folders.cache}"
    if free < _NEEDED_GIB:
        return Check(
            "disk",
            "missing",
            detail,
            f"a CUDA build needs about {_NEEDED_GIB} GiB; set SPARKBUILD_HOME",
            needed=True,
        )
    return Check("disk", "ok", detail)
