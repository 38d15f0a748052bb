"""A real configure step of one source, and all that is wrong with it instead of the first thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from sparkbuild import build as building
from sparkbuild.build import commands, configure
from sparkbuild.build.configure import Configured, Ran
from sparkbuild.build.tools import find_tools
from sparkbuild.catalog.records import Recipe
from sparkbuild.errors import ConfigureError
from sparkbuild.files import locked
from sparkbuild.planning import Plan
from sparkbuild.request import Session
from sparkbuild.source import declared
from sparkbuild.toolchain.sandbox import clear
from sparkbuild.updating.records import Problem
from sparkbuild.verification import Journey, Seen, follow


class Trial(msgspec.Struct, frozen=True):
    """What CMake made of a source. ``targets`` is None where it failed.

    ``programs`` are the targets that are executables; ``lost`` the flags that do not show where they
    should, of which ``required`` must.
    """

    targets: frozenset[str] | None = None
    programs: frozenset[str] = frozenset()
    deprecated: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    lost: dict[str, Problem] = {}
    required: frozenset[str] = frozenset()


def try_plan(made: Plan, recipe: Recipe, session: Session, *, sandbox: bool = False) -> Trial:
    """Configure a plan in a folder of its own and judge it; the folder stays when something is wrong."""
    where = session.folders.cache / "update" / f"{made.engine}-{made.backend}-{made.key[:12]}"
    with locked(where.with_name(f"{where.name}.lock")):
        clear(where)  # what an earlier run left is the source's own word, too
        ran = building.configure_only(made, where, session.progress, sandbox=sandbox)
        found = _judged(made, recipe, ran, session)
        if not (found.problems or found.lost):
            clear(where)
    return found


def _judged(made: Plan, recipe: Recipe, ran: Ran, session: Session) -> Trial:
    said = [
        p
        for f in recipe.failures
        for p in _caught(configure.check_output, ran.output, 0, made.backend, (f,), ran.log)
    ]
    if ran.code != 0:
        said = said or _caught(configure.check_output, ran.output, ran.code, made.backend, (), ran.log)
        return Trial(problems=tuple(said))
    configured = configure.read(ran.build_dir, ran.argv, ran.output)
    unread = configure.unused(ran.output)
    dead = {
        d.name: p
        for d in made.definitions
        for p in _caught(configure.check_definitions, (d,), configured, unread, ran.log)
    }
    gone = [p for t in made.targets for p in _caught(configure.check_targets, (t,), configured, ran.log)]
    lost, more = _flags(made, recipe, configured, ran.enter, session)
    lost = {j.flag: j for name, j in lost.items() if name not in dead}
    return Trial(
        targets=frozenset(configured.targets),
        programs=frozenset(t.name for t in configured.targets.values() if t.kind == "EXECUTABLE"),
        deprecated=configured.deprecated,
        problems=(*said, *dead.values(), *gone, *more),
        lost={name: _flag_problem(j, ran.build_dir) for name, j in lost.items()},
        required=frozenset(name for name, j in lost.items() if j.required),
    )


def _flags(
    made: Plan, recipe: Recipe, configured: Configured, enter: tuple[str, ...], session: Session
) -> tuple[dict[str, Journey], list[Problem]]:
    """Return the flags that are lost by the end of the compile commands, and what else these contradict."""
    ninja, where = find_tools().ninja, configured.build_dir
    present = msgspec.structs.replace(made, targets=tuple(t for t in made.targets if t in configured.targets))
    if not present.targets:
        return {}, []
    source = declared(made.source.path)
    seen = Seen(
        definitions=made.definitions,
        recipe=recipe,
        rules=session.catalog.features().record,
        options=source.options,
        reads=source.reads.__contains__,
        cache=configured.cache,
        commands=commands.read(ninja, where, present.targets, enter),
        compilers=made.compilers,
    )
    lost = {j.flag: j for j in follow(seen) if j.verdict == "lost"}
    if any(j.lost_at == "commands" for j in lost.values()):
        return lost, []  # the check below would say the same again
    return lost, _caught(commands.check, present, ninja, where, enter)


def _flag_problem(journey: Journey, where: Path) -> Problem:
    who, _, intent = journey.origin.partition(":")
    mend = f"; then mend 'choose' or 'shown' of intents.{intent}" if who == "recipe" else ""
    return Problem(
        f"{journey.flag}={journey.asked}: {journey.why}",
        str(where),
        f"see how the new source uses {journey.flag}{mend}",
    )


def _caught(check: Callable[..., object], *words: object) -> list[Problem]:
    try:
        check(*words)
    except ConfigureError as error:
        said = f": {error.output.strip()[:2000]}" if error.output else ""
        return [Problem(f"{error.what}{said}", error.where, error.remedy)]
    return []
