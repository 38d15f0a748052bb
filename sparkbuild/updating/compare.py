"""What differs between two source trees for one recipe: pure, from what was seen of each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec

from sparkbuild.catalog.records import Backend, Choice, Intent
from sparkbuild.planning import declared_choice
from sparkbuild.source import Declared, Option
from sparkbuild.source.patches import Fitting
from sparkbuild.updating.records import IntentChange, OptionChange, Problem, Tried
from sparkbuild.updating.trial import Trial

_ALIKE = 0.6  # of difflib's ratio, from which on a name may be another's new one


def options(
    old: Mapping[str, Option], new: Mapping[str, Option], intents: Iterable[Intent]
) -> tuple[OptionChange, ...]:
    """Return the declared options that came, went or have another default, by name."""
    read_by = {c.option: i.name for i in intents for c in i.choose}
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = (side[name].default if name in side else "" for side in (old, new))
        change: Literal["added", "removed", "default"]
        if name not in old:
            change = "added"
        elif name not in new:
            change = "removed"
        elif before != after:
            change = "default"
        else:
            continue
        found.append(OptionChange(name, change, before, after, read_by.get(name, "")))
    return tuple(found)


def intents(wanted: Sequence[Intent], old: Declared, new: Declared) -> tuple[IntentChange, ...]:
    """Return what became of each intent's spelling."""
    named = {c.option for i in wanted for c in i.choose}
    return tuple(_intent(i, old, new, named) for i in wanted)


def _intent(intent: Intent, old: Declared, new: Declared, named: set[str]) -> IntentChange:
    before, after = (_spelled(intent, side) for side in (old, new))
    was, now = (f"{c.option}={c.value}" if c else "" for c in (before, after))
    change: Literal["same", "renamed", "lost", "found", "none"]
    if before and after:
        change = "same" if before == after else "renamed"
    else:
        change = "lost" if before else "found" if after else "none"
    lost = before or (intent.choose[0] if intent.required and not after else None)
    near = _near(lost.option, old.options.keys(), new.options.keys() - named) if lost and not after else ""
    return IntentChange(intent.name, intent.required, change, was, now, near)


def _spelled(intent: Intent, side: Declared) -> Choice | None:
    return declared_choice(intent, side.options, side.reads.__contains__)


def _near(name: str, old: AbstractSet[str], new: AbstractSet[str]) -> str:
    """Return the option that may be a lost one's new name: one that came, else any that looks like it."""
    for known in (new - old, new):
        if found := difflib.get_close_matches(name, sorted(known), n=1, cutoff=_ALIKE):
            return found[0]
    return ""


def spelling_losses(changes: Iterable[IntentChange], recipe: str) -> list[Problem]:
    """Return a problem for each intent that has no spelling any more, or is required and has none."""
    return [
        Problem(
            f"{c.intent}: the new source does not know {c.before.partition('=')[0] or 'any spelling of it'}",
            f"{recipe}: intents.{c.intent}",
            (f"did you mean {c.near}? " if c.near else "")
            + f"add the new spelling to the intent's 'choose'{'' if c.required else ', or drop the intent'}",
        )
        for c in changes
        if unspelled(c)
    ]


def unspelled(change: IntentChange) -> bool:
    """Return whether an intent has lost its spelling, or is required and has none."""
    return change.change == "lost" or (change.change == "none" and change.required)


def patch_losses(fittings: Iterable[Fitting], folder: str) -> list[Problem]:
    """Return a problem for each patch that does not go onto the new source."""
    said = {
        "in the source already": ("is in the source already", "remove the patch from the recipe's folder"),
        "does not apply": ("no longer applies", "adapt the patch to the new commit"),
    }
    return [
        Problem(f"{f.name} {said[f.fit][0]}{f': {f.said}' if f.said else ''}", folder, said[f.fit][1])
        for f in fittings
        if f.fit != "applies"
    ]


def tried(
    backend: Backend, targets: Iterable[str], old: Trial, new: Trial, without: Sequence[str] = ()
) -> Tried:
    """Return what a configure step of each source shows; ``without`` which the new one had to be tried."""
    lacking = f"tried without {', '.join(without)}" if without else ""
    if new.targets is None:
        return Tried(backend, "failed", "; ".join(filter(None, ("CMake failed", lacking))))
    before = old.programs if old.targets is not None else new.programs
    bad = problems(backend, old, new)
    return Tried(
        backend,
        "failed" if bad or without else "proved",
        "; ".join(filter(None, (bad[0].what.splitlines()[0] if bad else "", lacking))),
        gone=tuple(sorted(before - new.programs)),
        new=tuple(sorted(new.programs - before)),
        targets_gone=tuple(t for t in targets if t not in new.targets),
        deprecated=tuple(d for d in new.deprecated if d not in old.deprecated),
    )


def problems(backend: Backend, old: Trial, new: Trial) -> list[Problem]:
    """Return what is wrong with the new source: all that a build refuses, and each flag that gets lost."""
    lost = [p for name, p in new.lost.items() if name not in old.lost or name in new.required]
    return [msgspec.structs.replace(p, backends=(backend,)) for p in (*new.problems, *lost)]


def merged(found: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return problems that several backends have in common once."""
    by_what: dict[tuple[str, str], Problem] = {}
    for problem in found:
        key = (problem.what, problem.remedy)
        first = by_what.setdefault(key, problem)
        names = tuple(dict.fromkeys((*first.backends, *problem.backends)))
        by_what[key] = msgspec.structs.replace(first, backends=names)
    return tuple(by_what.values())
