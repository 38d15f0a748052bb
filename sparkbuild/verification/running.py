"""The last stages: what the linked files have, and what the running engine says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparkbuild.build.commands import capabilities
from sparkbuild.catalog.records import Shown
from sparkbuild.inspection.features import State
from sparkbuild.inspection.live import runtime_state
from sparkbuild.planning import Definition
from sparkbuild.verification.records import ARCH, Seen, Stage

if TYPE_CHECKING:
    from sparkbuild.inspection.facts import FileFacts


def built(flag: Definition, shown: Shown, on: bool, seen: Seen) -> Stage:
    """Compare a flag with what is in the linked files."""
    if not shown.features and flag.name != ARCH:
        return Stage("binary", "none")
    if seen.verdicts is None:
        return Stage("binary", "unknown", seen.why.get("binary", "nothing is built"))
    if flag.name == ARCH:
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


def running(flag: Definition, shown: Shown, on: bool, seen: Seen) -> Stage:
    """Compare a flag with what the running engine reports."""
    keys = {f.name: f.runtime for f in seen.rules.features if f.name in shown.features and f.runtime}
    if flag.name == ARCH:
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
