"""The C and C++ compilers for a target, proved before they are trusted.

A compiler that accepts a flag proves nothing: GCC drops -mcpu=native in silence, and defines macros
whose intrinsics it then refuses. So each feature is proved twice, by its macro and by its code.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from sparkbuild import process
from sparkbuild.catalog.records import Proof, Toolchain
from sparkbuild.errors import MissingError
from sparkbuild.files import Folders, sha256_bytes, sha256_file
from sparkbuild.toolchain.memory import recall

_VERSIONS = ("", "-15", "-14", "-13", "-12")
_PARTS = ("cc1", "cc1plus", "as", "ld")
_LIBRARIES = ("crt1.o", "libc.so.6", "libgcc.a", "libstdc++.so", "libgomp.so")


class FeatureProof(msgspec.Struct, frozen=True):
    """Whether one CPU feature is on: its macro is defined, its intrinsic compiles."""

    feature: str
    macro: bool
    code: bool
    error: str = ""

    @property
    def holds(self) -> bool:
        """True when both say so."""
        return self.macro and self.code


class Compilers(msgspec.Struct, frozen=True):
    """A pair of compilers, what they are, and what they proved.

    ``digest`` covers the compilers, their assembler, linker and run-time libraries, whatever the
    folder they are in; for a native build also what -march=native means on this machine.
    """

    cc: Path
    cxx: Path
    version: str
    target: str
    cross: bool
    digest: str
    flags: tuple[str, ...] = ()
    proofs: tuple[FeatureProof, ...] = ()


def target_processor(toolchain: Toolchain) -> str:
    """Return the target's processor as CMake and ``uname -m`` call it."""
    return platform.machine() if toolchain.processor == "host" else toolchain.processor


def is_cross(toolchain: Toolchain) -> bool:
    """Return whether the target's processor is not this machine's."""
    return target_processor(toolchain) != platform.machine()


def cpu_flags(toolchain: Toolchain) -> tuple[str, ...]:
    """Return the compiler flags that the toolchain asks for."""
    return (f"-march={toolchain.cpu_arch}",) if toolchain.cpu_arch else ()


def find_compilers(toolchain: Toolchain, folders: Folders) -> Compilers:
    """Return the first pair of GCC compilers for the target that proves every feature.

    The answer is remembered until a compiler changes. Raises MissingError naming what each
    candidate lacks, with the command that mends it.
    """
    candidates = _candidates(toolchain)
    question = [toolchain, platform.machine(), candidates, _this_cpu() if not toolchain.cpu_arch else ""]
    return recall(folders.cache, "compilers", question, Compilers, lambda: _find(toolchain, candidates))


def _find(toolchain: Toolchain, candidates: list[tuple[Path, Path]]) -> tuple[Compilers, list[Path]]:
    rejected = []
    for cc, cxx in candidates:
        try:
            found, files = describe(cc, cxx, toolchain)
        except (MissingError, process.ProcessError) as problem:
            rejected.append(f"{cc}: {problem}")
            continue
        if lost := [p.feature for p in found.proofs if not p.holds]:
            rejected.append(f"{cc}: {' '.join(found.flags)} does not give {', '.join(lost)}")
        else:
            return found, files
    prefix = _prefix(toolchain)
    package = f"g++-{prefix.rstrip('-')}" if prefix else "g++"
    raise MissingError(
        f"no C++ compiler for {target_processor(toolchain)} that proves what {toolchain.name} asks for",
        where="; ".join(rejected) or f"{prefix}gcc is not on PATH",
        remedy=f"apt-get install {package}  (or a newer version of it)",
    )


def describe(cc: Path, cxx: Path, toolchain: Toolchain) -> tuple[Compilers, list[Path]]:
    """Return what a pair of compilers is and proves under the toolchain's flags, and its files.

    The files are named as the compilers name them: a link may lead to another one tomorrow.
    """
    flags = cpu_flags(toolchain)
    files = _parts(cc, cxx)
    lines = [f"{sha256_file(path)}  {path.resolve().name}" for path in files]
    if not flags:
        lines.append(_native_means(cc))
    compilers = Compilers(
        cc=cc,
        cxx=cxx,
        version=first_line([cc, "--version"]),
        target=first_line([cc, "-dumpmachine"]),
        cross=is_cross(toolchain),
        digest=sha256_bytes("\n".join(lines).encode()),
        flags=flags,
        proofs=prove(cc, flags, toolchain.proofs),
    )
    return compilers, files


def prove(
    cc: Path, flags: Iterable[str], proofs: Iterable[Proof], env: Mapping[str, str] | None = None
) -> tuple[FeatureProof, ...]:
    """Ask a compiler for each feature's macro and compile each feature's code under ``flags``."""
    wanted = tuple(proofs)
    if not wanted:
        return ()
    flags = tuple(flags)
    command: list[process.Word] = [cc, *flags, "-dM", "-E", "-x", "c", "/dev/null"]
    macros = process.run(command, env=env, check=False).output
    defined = set(re.findall(r"^#define (\w+)", macros, re.MULTILINE))
    return tuple(_prove_one(cc, flags, proof, defined, env) for proof in wanted)


def _prove_one(
    cc: Path, flags: tuple[str, ...], proof: Proof, defined: set[str], env: Mapping[str, str] | None
) -> FeatureProof:
    compiled, said = compiles(cc, flags, proof.code, env)
    return FeatureProof(proof.feature, proof.macro in defined, compiled, "" if compiled else said)


def compiles(
    cc: Path, flags: Iterable[str], code: str, env: Mapping[str, str] | None = None
) -> tuple[bool, str]:
    """Return whether a compiler makes an object of C code, and its first error, or else warning."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "probe.o")
        command: list[process.Word] = [cc, *flags, "-O2", "-c", "-x", "c", "-", "-o", out]
        done = process.run(command, stdin=code, env=env, cwd=Path(folder), check=False)
        compiled = done.returncode == 0 and out.is_file()
    lines = done.errors.splitlines()
    said = [line for word in ("error:", "warning:") for line in lines if word in line]
    silence = "" if compiled else f"no object file, {process.reason(done.returncode)}"
    return compiled, said[0] if said else silence


def _prefix(toolchain: Toolchain) -> str:
    return f"{target_processor(toolchain)}-linux-gnu-" if is_cross(toolchain) else ""


def _candidates(toolchain: Toolchain) -> list[tuple[Path, Path]]:
    prefix = _prefix(toolchain)
    named = [(f"{prefix}gcc{v}", f"{prefix}g++{v}") for v in _VERSIONS]
    found = [(shutil.which(cc), shutil.which(cxx)) for cc, cxx in named]
    return [(Path(cc), Path(cxx)) for cc, cxx in found if cc and cxx]


def first_line(command: list[str | Path]) -> str:
    """Return the first line that a compiler says. Raises MissingError where it says nothing or fails."""
    try:
        return process.run(command).output.splitlines()[0].strip()
    except (process.ProcessError, IndexError) as problem:
        raise MissingError(f"{command[0]} does not work: {problem}", remedy="install it again") from problem


def _native_means(cc: Path) -> str:
    """Return the options that GCC makes of -march=native here."""
    done = process.run([cc, "-march=native", "-###", "-E", "-x", "c", "/dev/null"], check=False)
    words = [w.strip('"') for w in done.errors.split()]
    return " ".join(w for w in words if w.startswith(("-m", "--param", "l1-", "l2-")))


def _this_cpu() -> str:
    """Return what /proc/cpuinfo says of the first core's kind."""
    wanted = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU")
    lines = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(wanted) and "MHz" not in line)


def _parts(cc: Path, cxx: Path) -> list[Path]:
    """Return the programs and libraries whose bytes reach an object or an executable."""
    files = [cc, cxx]
    for option, names in (("-print-prog-name", _PARTS), ("-print-file-name", _LIBRARIES)):
        for name in names:
            answer = process.run([cxx, f"{option}={name}"], check=False).output.strip()
            files.append(Path(shutil.which(answer) or answer))
    return [path for path in files if path.is_file()]
