"""A flag's whole journey: asked, declared, in the cache, on the commands, proved, in the binary, at run time.

Everything here is judged from what was seen elsewhere; the stage at which a flag was first lost is
the answer to "I rebuilt with it and see no change".
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Literal

import msgspec

from sparkbuild.build.commands import Entry, capabilities
from sparkbuild.build.configure import CacheEntry, same
from sparkbuild.catalog.records import Choice, Features, Recipe, Shown
from sparkbuild.inspection.facts import FileFacts
from sparkbuild.inspection.features import State, Verdicts
from sparkbuild.inspection.live import runtime_state
from sparkbuild.inspection.report import SystemReport
from sparkbuild.planning import Definition
from sparkbuild.source import Option
from sparkbuild.toolchain import Compilers

STAGES = ("asked", "declared", "cache", "commands", "compiler", "binary", "run time")
StageName = Literal["asked", "declared", "cache", "commands", "compiler", "binary", "run time"]
# Held: seen to be so. Lost: seen not to be so. Unknown: could show it and could not be looked at.
# None: this stage can not show this flag.
StageState = Literal["held", "lost", "unknown", "none"]
_ARCH, _TYPE = "CMAKE_CUDA_ARCHITECTURES", "CMAKE_BUILD_TYPE"
_OWN = {_TYPE: Shown(command="-O3 .*-DNDEBUG|-DNDEBUG .*-O3")}
_OFF = {"OFF", "NO", "FALSE", "N", "0", "", "IGNORE", "NOTFOUND"}
_FEW = 3
_COMPILED = 5  # stages that end with the compiler
_SHOWING = ("commands", "binary", "run time")
CMAKE_OWN = ("CMAKE_", "CUDAToolkit_", "BUILD_", "GIT_")


class Stage(msgspec.Struct, frozen=True):
    """One stage of a flag's journey: what became of it there, in words."""

    name: StageName
    state: StageState
    said: str = ""


class Journey(msgspec.Struct, frozen=True):
    """A flag and its stages, in their order.

    ``verdict``: "in force" when the commands, the binary or the running program show it; "set" when
    only CMake's cache does and nothing else can; "lost" with ``lost_at``, the first stage that
    contradicts; else "unknown". A compiler that gives a feature does not show that it was asked for.
    """

    flag: str
    asked: str
    origin: str
    required: bool
    stages: tuple[Stage, ...]
    verdict: Literal["in force", "set", "lost", "unknown"]
    lost_at: str = ""

    @property
    def why(self) -> str:
        """The verdict in words, with the stage that decides it."""
        wanted = "lost" if self.verdict == "lost" else "unknown" if self.verdict == "unknown" else "held"
        stage = next((s for s in self.stages if s.state == wanted and s.name != "asked"), None)
        if self.verdict == "lost" and stage:
            return f"lost at {stage.name}: {stage.said}"
        if self.verdict == "unknown" and stage:
            return f"not known: {stage.said}"
        return self.verdict

    @property
    def failed(self) -> bool:
        """True when a required flag is not certain to be in force."""
        return self.required and self.verdict not in ("in force", "set")


class Seen(msgspec.Struct, frozen=True):
    """All that was seen of a build; what is None could not be looked at, ``why`` says the reason.

    ``environment`` is the caller's: CMake reads no option from it, though people believe it does.
    ``changed`` are files that are not the ones that were built.
    """

    definitions: tuple[Definition, ...]
    recipe: Recipe
    rules: Features
    options: Mapping[str, Option] | None = None
    reads: Callable[[str], bool] = lambda _name: False
    cache: Mapping[str, CacheEntry] | None = None
    commands: Sequence[Entry] | None = None
    compilers: Compilers | None = None
    files: Sequence[FileFacts] = ()
    verdicts: Verdicts | None = None
    system: SystemReport | None = None
    environment: Mapping[str, str] = {}
    changed: tuple[str, ...] = ()
    why: Mapping[str, str] = {}


def follow(seen: Seen, earlier: Iterable[Journey] = ()) -> tuple[Journey, ...]:
    """Return the journey of every flag of a recipe, a toolchain or a person.

    What became of a flag up to its compile commands is taken from ``earlier`` where it is there.
    """
    known = {j.flag: j.stages[:_COMPILED] for j in earlier}
    flags = (d for d in seen.definitions if d.required or d.origin != "sparkbuild")
    return tuple(_journey(d, seen, known.get(d.name, ())) for d in flags)


def failures(journeys: Sequence[Journey]) -> list[str]:
    """Return, in words, which required flags are not in force and where they were lost."""
    return [f"{j.flag}={j.asked}: {j.why}" for j in journeys if j.failed]


def _journey(flag: Definition, seen: Seen, earlier: tuple[Stage, ...]) -> Journey:
    shown = _shown(flag, seen.recipe)
    on = flag.value.upper() not in _OFF
    compiled = earlier or (
        Stage("asked", "held", flag.origin),
        _declared(flag, seen),
        _cached(flag, seen),
        _commanded(flag, shown, on, seen),
        _proved(shown, on, seen),
    )
    stages = (
        *compiled,
        _built(flag, shown, on, seen),
        _running(flag, shown, on, seen),
    )
    lost = next((s.name for s in stages if s.state == "lost"), "")
    late = [s.state for s in stages if s.name in _SHOWING and s.state != "none"]
    verdict: Literal["in force", "set", "lost", "unknown"] = "unknown"
    if lost:
        verdict = "lost"
    elif "held" in late:
        verdict = "in force"
    elif not late and stages[2].state == "held":
        verdict = "set"
    return Journey(flag.name, flag.value, flag.origin, flag.required, stages, verdict, lost)


def _shown(flag: Definition, recipe: Recipe) -> Shown:
    """Return where it shows that this flag is in force."""
    found = (i.shown for i in recipe.intents if flag.name in (c.option for c in i.choose))
    return next(found, _OWN.get(flag.name, Shown()))


def _choices(flag: Definition, recipe: Recipe) -> tuple[Choice, ...]:
    found = (i.choose for i in recipe.intents if flag.name in (c.option for c in i.choose))
    return next(found, ())


def _declared(flag: Definition, seen: Seen) -> Stage:
    if seen.options is None:
        return Stage("declared", "unknown", seen.why.get("declared", "the source is not here"))
    if flag.name in seen.options:
        return Stage("declared", "held", seen.options[flag.name].file)
    if flag.name.startswith(CMAKE_OWN):
        return Stage("declared", "held", "CMake's own")
    if seen.reads(flag.name):
        return Stage("declared", "held", "read, not declared")
    return Stage("declared", "lost", "this source neither declares nor reads it")


def _cached(flag: Definition, seen: Seen) -> Stage:
    if seen.cache is None:
        return Stage("cache", "unknown", seen.why.get("cache", "no CMake cache"))
    entry = seen.cache.get(flag.name)
    if (entry is None or not same(entry, flag.value)) and (by := _other_name(flag, seen)):
        return Stage("cache", "held", f"by its other name, {by}")
    if entry is None:
        return Stage("cache", "lost", f"not in the cache{_in_environment(flag, seen)}")
    if not same(entry, flag.value):
        return Stage("cache", "lost", f"{entry.value or 'empty'} in the cache{_in_environment(flag, seen)}")
    if entry.type != "UNINITIALIZED" or flag.name.startswith(CMAKE_OWN):
        return Stage("cache", "held", entry.value)
    return _undeclared(flag, entry, seen.options)


def _undeclared(flag: Definition, entry: CacheEntry, options: Mapping[str, Option] | None) -> Stage:
    """Judge an entry that CMake met no declaration of: it does declare what is read, or it is only read."""
    if options is None:
        return Stage("cache", "unknown", f"{entry.value}, and whether the source reads it is not known")
    if flag.name not in options:
        return Stage("cache", "held", entry.value)
    # option() declares what is set already, too; set(CACHE) often stands where nothing is set yet.
    state: StageState = "lost" if options[flag.name].kind == "BOOL" else "unknown"
    return Stage("cache", state, f"{entry.value}, but CMake met no declaration of it")


def _in_environment(flag: Definition, seen: Seen) -> str:
    """Say that somebody set a flag, by any of its names, where CMake does not look."""
    for name in (flag.name, *(c.option for c in _choices(flag, seen.recipe))):
        if (given := seen.environment.get(name)) is not None:
            subject = "it" if name == flag.name else name
            return f"; {subject} is set to {given!r} in the environment, where CMake does not look"
    return ""


def _other_name(flag: Definition, seen: Seen) -> str:
    """Return another spelling of the same intent that is in the cache as it should be."""
    for choice in _choices(flag, seen.recipe):
        entry = (seen.cache or {}).get(choice.option)
        if (
            choice.option != flag.name
            and entry
            and entry.type != "UNINITIALIZED"
            and same(entry, choice.value)
        ):
            return f"{choice.option}={entry.value}"
    return ""


# -- compile commands --------------------------------------------------------------------------------


def _commanded(flag: Definition, shown: Shown, on: bool, seen: Seen) -> Stage:
    looked = shown.march or shown.command or shown.never or flag.name == _ARCH or "cuda" in shown.features
    if not looked:
        return Stage("commands", "none")
    if seen.commands is None:
        return Stage("commands", "unknown", seen.why.get("commands", "no compile commands"))
    if flag.name == _ARCH:
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


# -- compiler, binary, run time ----------------------------------------------------------------------


def _proved(shown: Shown, on: bool, seen: Seen) -> Stage:
    if not shown.march or not on:
        return Stage("compiler", "none")
    if seen.compilers is None or not seen.compilers.proofs:
        return Stage("compiler", "unknown", seen.why.get("compiler", "not tried"))
    if lost := [p.feature for p in seen.compilers.proofs if not p.holds]:
        return Stage("compiler", "lost", f"it does not give {', '.join(lost)}")
    return Stage("compiler", "held", ", ".join(p.feature for p in seen.compilers.proofs))


def _built(flag: Definition, shown: Shown, on: bool, seen: Seen) -> Stage:
    if not shown.features and flag.name != _ARCH:
        return Stage("binary", "none")
    if seen.verdicts is None:
        return Stage("binary", "unknown", seen.why.get("binary", "nothing is built"))
    if flag.name == _ARCH:
        stage = _device(flag.value, seen.files)
    else:
        stage = _features(
            shown.features,
            on,
            {f.name: (f.state, "; ".join(f.evidence) or f.reason) for f in seen.verdicts.findings},
        )
    if seen.changed and stage.state in ("held", "unknown"):
        return Stage("binary", "lost", f"not the file that was built: {', '.join(seen.changed)}")
    return stage


def _features(names: Sequence[str], on: bool, states: Mapping[str, tuple[State, str]]) -> Stage:
    """Compare features with what they should be; one that this machine does not have is left out."""
    found = {n: states[n] for n in names if n in states}
    wrong: State = "absent" if on else "present"
    for name, (state, said) in found.items():
        if state == wrong:
            return Stage("binary", "lost", f"{name} is {state}: {said}")
    for name, (state, said) in found.items():
        if state == "unknown":
            return Stage("binary", "unknown", f"{name}: {said}")
    return Stage("binary", "held" if found else "none", ", ".join(f"{n} {s}" for n, (s, _) in found.items()))


def _device(value: str, files: Sequence[FileFacts]) -> Stage:
    codes = [d for f in files for d in f.device_code]
    found = {d.name.partition("_")[2] for d in codes}
    said = ", ".join(sorted({d.name for d in codes})) or "no device code"
    if not value[:1].isdigit():
        return Stage("binary", "held" if codes else "lost", said)
    held = capabilities(found) == capabilities(value.split(";"))
    return Stage("binary", "held" if held else "lost", said)


def _running(flag: Definition, shown: Shown, on: bool, seen: Seen) -> Stage:
    keys = {f.name: f.runtime for f in seen.rules.features if f.name in shown.features and f.runtime}
    if flag.name == _ARCH:
        keys = {}
    if not keys:
        return Stage("run time", "none")
    if seen.system is None or seen.system.ran not in ("native", "qemu"):
        reason = seen.system.reason if seen.system else seen.why.get("run time", "not run")
        return Stage("run time", "unknown", reason)
    states = {n: runtime_state(key, seen.system) for n, key in keys.items()}
    wrong: State = "absent" if on else "present"
    if bad := [n for n, s in states.items() if s == wrong]:
        return Stage("run time", "lost", f"it reports {', '.join(bad)} as {wrong}")
    told = [n for n, s in states.items() if s != "unknown"]
    if not told:
        return Stage("run time", "none", "it does not report this")
    return Stage("run time", "held", f"{', '.join(told)} ({seen.system.ran})")
