"""The fault in GCC's native detection: proved or disproved for one compiler and one CPU.

Where a machine has kinds of core that GCC does not know, -march=native and -mcpu=native are accepted
and quietly mean less than the CPU has (GCC's PR target/113257; docs/compilers.md tells it in full).
"""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild import process
from sparkbuild.catalog.records import Proof, Toolchain
from sparkbuild.errors import MissingError, UsageError
from sparkbuild.toolchain.compilers import (
    FeatureProof,
    compiles,
    cpu_flags,
    first_line,
    is_cross,
    prove,
    target_processor,
)

Verdict = Literal["good", "lost", "lies", "refused", "not run"]
Fault = Literal["proved", "disproved", "not shown"]
_NATIVE = ("-march=native", "-mcpu=native")
_UPSTREAM = "GCC 13.4, 14.3 and 15.1 have the upstream fix (PR target/113257)"


class FlagTrial(msgspec.Struct, frozen=True):
    """What a compiler made of one flag.

    ``wanted`` are the features that count: those of the CPU for a native flag, those that the
    toolchain asks for under its own. "lost": the flag is accepted and a wanted macro is missing; "lies":
    the macros are there, and code that uses them does not compile. ``said`` is the compiler's first
    error or warning for an empty file.
    """

    flags: str
    verdict: Verdict
    accepted: bool = False
    said: str = ""
    wanted: tuple[str, ...] = ()
    proofs: tuple[FeatureProof, ...] = ()

    @property
    def missing(self) -> str:
        """The wanted features that are not proved."""
        return ", ".join(p.feature for p in self.proofs if p.feature in self.wanted and not p.holds)


class CompilerTrial(msgspec.Struct, frozen=True):
    """Whether native detection loses features with a compiler, and what to do.

    ``cpu`` are the features that the CPU has; ``trials`` are the native flags, then the toolchain's.
    "not shown" is neither proved nor disproved; ``reason`` says why.
    """

    cc: Path
    version: str
    target: str
    cpuinfo: str
    cpu: tuple[str, ...]
    trials: tuple[FlagTrial, ...]
    fault: Fault
    reason: str
    remedy: str

    @property
    def finding(self) -> str:
        """What is bad, or nothing: the fault, or a fix that this compiler does not prove."""
        if bad := [t.flags for t in self.trials if t.flags not in _NATIVE and t.verdict != "good"]:
            return f"{self.cc.name} does not prove {bad[0]}"
        return f"{self.cc.name}: native detection loses CPU features" if self.fault == "proved" else ""


def try_compiler(
    cc: Path, toolchain: Toolchain, cpuinfo: Path | None = None, proofs: Iterable[Proof] = ()
) -> CompilerTrial:
    """Try the native flags and the toolchain's own with every proof (default: the toolchain's).

    ``cpuinfo`` is a file like /proc/cpuinfo that stands for this machine's: GCC for aarch64 reads the
    one that GCC_CPUINFO names (gcc/config/aarch64/driver-aarch64.cc). Raises MissingError for what
    does not work as a compiler, UsageError for one of another processor or an unreadable cpuinfo.
    """
    path = Path(shutil.which(cc) or cc).absolute()
    proofs = tuple(proofs) or toolchain.proofs
    env = process.clean_env(**({"GCC_CPUINFO": str(cpuinfo.absolute())} if cpuinfo else {}))
    with _answers(path):
        version, target = first_line([path, "--version"]), first_line([path, "-dumpmachine"])
        _check_compiler(path, target, toolchain, env)
        words = _cpu_words(cpuinfo or Path("/proc/cpuinfo"))
        cpu = tuple(p.feature for p in proofs if p.cpuinfo and words.issuperset(p.cpuinfo))
        why_not = _why_not_native(toolchain, version, cpuinfo, cpu)
        flags = _NATIVE if target_processor(toolchain) == "aarch64" else _NATIVE[:1]
        native = [
            FlagTrial(flag, "not run", wanted=cpu) if why_not else _try_flag(path, flag, cpu, proofs, env)
            for flag in flags
        ]
        asked = tuple(p.feature for p in toolchain.proofs)
        own = [_try_flag(path, flag, asked, proofs, env) for flag in cpu_flags(toolchain)]
    fault, reason = _judge(native, why_not)
    return CompilerTrial(
        cc=path,
        version=version,
        target=target,
        cpuinfo=cpuinfo.name if cpuinfo else "this machine",
        cpu=cpu,
        trials=(*native, *own),
        fault=fault,
        reason=reason,
        remedy=_remedy(fault, own),
    )


@contextlib.contextmanager
def _answers(cc: Path) -> Iterator[None]:
    """Turn a compiler that hangs or can not be started into a MissingError."""
    try:
        yield
    except process.ProcessError as problem:
        raise MissingError(f"{cc} does not work: {problem.why}", remedy="name another compiler") from problem


def _check_compiler(cc: Path, target: str, toolchain: Toolchain, env: Mapping[str, str]) -> None:
    works, said = compiles(cc, (), "", env)
    if not works:
        raise MissingError(
            f"{cc} does not compile an empty file", where=said, remedy="name a C compiler that works"
        )
    wanted = target_processor(toolchain)
    if target.partition("-")[0] != wanted:
        raise UsageError(
            f"{cc} makes code for {target}, not for {wanted}",
            remedy=f"name a compiler for {wanted}, or another --arch than {toolchain.name}",
        )


def _cpu_words(path: Path) -> frozenset[str]:
    """Return the first core's features as the kernel names them: Features on Arm, flags on x86."""
    try:
        text = path.read_text(errors="replace")
    except OSError as problem:
        raise UsageError(f"cannot read a cpuinfo: {problem.strerror}", where=str(path)) from problem
    found = re.search(r"^(?:Features|flags)[ \t]*:(.*)$", text, re.MULTILINE)
    if not found:
        raise UsageError(
            "no CPU's features in it", where=str(path), remedy="name a copy of a machine's /proc/cpuinfo"
        )
    return frozenset(found[1].split())


def _why_not_native(toolchain: Toolchain, version: str, cpuinfo: Path | None, cpu: tuple[str, ...]) -> str:
    """Return why native flags can say nothing here, or nothing."""
    processor = target_processor(toolchain)
    if cpuinfo is None and is_cross(toolchain):
        here = platform.machine()
        return f"this machine is {here}, where native flags of {processor} mean nothing; name a cpuinfo"
    if cpuinfo and (processor != "aarch64" or "clang" in version.lower()):
        return "only GCC for aarch64 can be given another machine's cpuinfo"
    if not cpu:
        return f"the CPU has no feature that a toolchain for {processor} proves"
    return ""


def _try_flag(
    cc: Path, flags: str, wanted: tuple[str, ...], proofs: tuple[Proof, ...], env: Mapping[str, str]
) -> FlagTrial:
    accepted, said = compiles(cc, (flags,), "", env)
    if not accepted:
        return FlagTrial(flags, "refused", said=said, wanted=wanted)
    found = prove(cc, (flags,), proofs, env)
    counted = [p for p in found if p.feature in wanted]
    holds, macros = all(p.holds for p in counted), all(p.macro for p in counted)
    verdict: Verdict = "good" if holds else "lies" if macros else "lost"
    return FlagTrial(flags, verdict, accepted=True, said=said, wanted=wanted, proofs=found)


def _judge(native: list[FlagTrial], why_not: str) -> tuple[Fault, str]:
    """Return the fault and its reason from the native flags, if they were tried."""
    if why_not:
        return "not shown", why_not
    told = {"lost": "loses", "lies": "claims, and can not compile,"}
    if bad := [f"{t.flags} {told[t.verdict]} {t.missing}" for t in native if t.verdict in told]:
        return "proved", "; ".join(bad)
    if good := [t for t in native if t.verdict == "good"]:
        return "disproved", f"{' and '.join(t.flags for t in good)} keep {', '.join(good[0].wanted)}"
    return "not shown", "; ".join(f"{t.flags} is refused: {t.said}" for t in native)


def _remedy(fault: Fault, own: list[FlagTrial]) -> str:
    if bad := [t for t in own if t.verdict != "good"]:
        return (
            f"another compiler: this one does not prove {bad[0].missing or 'anything'} under {bad[0].flags}"
        )
    if fault != "proved":
        return "nothing to do"
    instead = [f"give {t.flags} instead, which this compiler proves" for t in own]
    return "; ".join([*instead, f"or take a newer compiler: {_UPSTREAM}"])
