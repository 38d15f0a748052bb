"""A flag's whole journey: asked, declared, in the cache, on the commands, proved, in the binary, at run time.

Everything here is judged from what was seen elsewhere; the stage at which a flag was first lost is
the answer to "I rebuilt with it and see no change".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from sparkbuild.build.configure import is_boolean, is_off
from sparkbuild.catalog.records import Recipe, Shown
from sparkbuild.planning import Definition
from sparkbuild.verification.compiled import commanded, proved
from sparkbuild.verification.configured import cached, declared
from sparkbuild.verification.records import BUILD_TYPE, CMAKE_OWN, STAGES, Journey, Seen, Stage
from sparkbuild.verification.running import built, running

__all__ = ["CMAKE_OWN", "STAGES", "Journey", "Seen", "Stage", "failures", "follow"]

_OWN = {BUILD_TYPE: Shown(command="-O3 .*-DNDEBUG|-DNDEBUG .*-O3")}
_COMPILED = 5  # stages that end with the compiler
_SHOWING = ("commands", "binary", "run time")


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
    on = not is_off(flag.value)
    compiled = earlier or (
        Stage("asked", "held", flag.origin),
        declared(flag, seen),
        cached(flag, seen),
        commanded(flag, shown, on, seen),
        proved(shown, on, seen),
    )
    stages = (
        *compiled,
        built(flag, shown, on, seen),
        running(flag, shown, on, seen),
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
    """Return where it shows that this flag is in force.

    A recipe's marks are those of its own value. Of another value that is neither on nor off, such as a list
    of a person's own where the recipe says "all", nothing shows: it is set, and that is all that is known.
    """
    for intent in recipe.intents:
        for choice in intent.choose:
            if choice.option == flag.name:
                named = "{" not in choice.value and not is_boolean(choice.value)
                another = named and flag.value != choice.value and not is_off(flag.value)
                return Shown() if another else intent.shown
    return _OWN.get(flag.name, Shown())
