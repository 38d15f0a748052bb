"""The stages of compiling: what every command says, and what the compiler proves under it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from pathlib import PurePath

from sparkbuild.build.commands import Entry, capabilities
from sparkbuild.catalog.records import Shown
from sparkbuild.planning import Definition
from sparkbuild.verification.records import ARCH, Seen, Stage

_FEW = 3


def commanded(flag: Definition, shown: Shown, on: bool, seen: Seen) -> Stage:
    """Compare a flag with the compile commands."""
    looked = shown.march or shown.command or shown.never or flag.name == ARCH or "cuda" in shown.features
    if not looked:
        return Stage("commands", "none")
    if seen.commands is None:
        return Stage("commands", "unknown", seen.why.get("commands", "no compile commands"))
    if flag.name == ARCH:
        return _archs(flag.value, seen.commands)
    if "cuda" in shown.features:
        count = sum(e.is_cuda for e in seen.commands)
        held = bool(count) == on
        return Stage("commands", "held" if held else "lost", f"{count} CUDA sources are compiled")
    if shown.march:
        return _march(flag, seen.commands)
    files = [e for e in seen.commands if fnmatch.fnmatch(PurePath(e.file).name, shown.files)]
    return _pattern(shown, on, files)


def _pattern(shown: Shown, on: bool, entries: Sequence[Entry]) -> Stage:
    if not entries:
        return Stage("commands", "lost" if on else "held", f"no {shown.files} is compiled")
    if shown.never and not on:
        bad = [e for e in entries if re.search(shown.never, e.command)]
        said = f"{_names(bad)}: {_hit(shown.never, bad[0])}" if bad else f"on none of {len(entries)}"
        return Stage("commands", "lost" if bad else "held", said)
    if not shown.command:
        return Stage("commands", "none")
    bad = [e for e in entries if bool(re.search(shown.command, e.command)) != on]
    if bad:
        return Stage(
            "commands", "lost", f"{'missing' if on else 'there'} on {_names(bad)}, of {len(entries)}"
        )
    return Stage("commands", "held", f"{'on all' if on else 'on none'} of {len(entries)}")


def _hit(pattern: str, entry: Entry) -> str:
    match = re.search(pattern, entry.command)
    return match[0] if match else ""


def _march(flag: Definition, entries: Sequence[Entry]) -> Stage:
    """Compare the last -march of each command, which wins; nvcc hands its own to the host compiler."""
    wanted = flag.value.removeprefix("-march=")
    other = [e for e in entries if e.march and e.march != wanted]
    if other:
        return Stage("commands", "lost", f"{other[0].march} wins on {_names(other)}, of {len(entries)}")
    count = sum(e.march == wanted for e in entries)
    if not count:
        return Stage("commands", "lost", f"on none of {len(entries)} commands")
    return Stage("commands", "held", f"the last on {count}, no other on {len(entries) - count}")


def _archs(value: str, entries: Sequence[Entry]) -> Stage:
    sources = [e for e in entries if e.is_cuda]
    if not sources:
        return Stage("commands", "lost", "no CUDA source is compiled")
    if not value[:1].isdigit():
        return Stage("commands", "none", "decided by nvcc on this machine")
    wanted = capabilities(value.split(";"))
    if other := [e for e in sources if capabilities(e.cuda_archs) != wanted]:
        found = ", ".join(sorted(other[0].cuda_archs)) or "nvcc's default"
        return Stage("commands", "lost", f"{found} on {_names(other)}, of {len(sources)}")
    names = sorted({a for e in sources for a in e.cuda_archs})
    return Stage("commands", "held", f"{', '.join(names)} on all of {len(sources)}")


def _names(entries: Sequence[Entry]) -> str:
    few = ", ".join(PurePath(e.file).name for e in entries[:_FEW])
    return f"{few} and {len(entries) - _FEW} more" if len(entries) > _FEW else few


def proved(shown: Shown, on: bool, seen: Seen) -> Stage:
    """Return what macros and intrinsics proved of the CPU flags."""
    if not shown.march or not on:
        return Stage("compiler", "none")
    if seen.compilers is None or not seen.compilers.proofs:
        return Stage("compiler", "unknown", seen.why.get("compiler", "not tried"))
    if lost := [p.feature for p in seen.compilers.proofs if not p.holds]:
        return Stage("compiler", "lost", f"it does not give {', '.join(lost)}")
    return Stage("compiler", "held", ", ".join(p.feature for p in seen.compilers.proofs))
