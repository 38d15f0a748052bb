"""Move a recipe's pin to another commit, when a real configure step proves that nothing gets lost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

import msgspec

from sparkbuild.catalog.records import Backend, Recipe, Revision, Shelf
from sparkbuild.errors import MissingError
from sparkbuild.files import disk_faults
from sparkbuild.request import Request, Session, check_backend, find_tools, plan_of
from sparkbuild.source import Declared, SourceTree, checkout, declared, patches
from sparkbuild.source.checkout import scratch_folder
from sparkbuild.source.history import Step, step
from sparkbuild.source.patches import Fitting
from sparkbuild.source.records import Origin
from sparkbuild.toolchain import sandbox
from sparkbuild.updating import compare, pin
from sparkbuild.updating.records import Changes, IntentChange, Problem, Tried, Update
from sparkbuild.updating.trial import Trial, try_plan


class Asked(msgspec.Struct, frozen=True):
    """What a person asked for; empty ``backends``: all of the recipe."""

    engine: str
    arch: str = "gb10"
    ref: str = "HEAD"
    source: str | None = None
    backends: tuple[Backend, ...] = ()
    offline: bool = False
    dry_run: bool = False
    sandbox: bool = False


class Side(msgspec.Struct, frozen=True):
    """One of the two commits: its source with the patches that fit it, and what it declares.

    ``recipe`` is the recipe as far as this source can follow it: without the patches that do not fit and
    without the intents that it can not spell, so that everything else can be tried nevertheless.
    """

    recipe: Shelf[Recipe]
    source: SourceTree
    declared: Declared
    fittings: tuple[Fitting, ...]


def update(asked: Asked, session: Session) -> Update:
    """Try another commit for a recipe, and write it into the recipe when nothing gets lost.

    What would be lost is in the answer's ``problems``. Raises UsageError for a bad argument or a recipe that
    may not be written, MissingError without network or git, SourceError for a ref that is not there.
    """
    with disk_faults(session.folders.cache):
        shelf = session.catalog.recipe(asked.engine)
        if asked.sandbox:
            sandbox.check()
        for backend in asked.backends:
            check_backend(shelf, backend)
        way = step(
            shelf,
            session.folders,
            ref=asked.ref,
            source=asked.source,
            offline=asked.offline,
            progress=session.progress,
        )
        found = Update(
            engine=shelf.record.name,
            recipe=shelf.path,
            ref=asked.ref,
            old=_revision(way.old),
            new=_revision(way.new),
            verdict="nothing to do",
        )
        if way.new.commit == way.old.commit:
            return found
        if not asked.dry_run:
            pin.check_writable(shelf.path)
        found = _tried(found, way, asked, shelf, session)
        if found.verdict == "provable" and not asked.dry_run:
            pin.move(shelf, found.new)
            found = msgspec.structs.replace(found, written=True)
        return found


def _revision(origin: Origin) -> Revision:
    return Revision(origin.commit, origin.tree, origin.build_number, origin.commit_time)


def _tried(found: Update, way: Step, asked: Asked, shelf: Shelf[Recipe], session: Session) -> Update:
    old, new = (_side(shelf, o.commit, asked, session) for o in (way.old, way.new))
    spelled = compare.intents(shelf.record.intents, old.declared, new.declared)
    problems = compare.spelling_losses(spelled, str(shelf.path))
    problems += compare.patch_losses(new.fittings, str(shelf.patches[0].parent) if shelf.patches else "")
    notes = _notes(way, asked, shelf.record)
    rows = []
    for backend in shelf.record.targets:
        lacking = _lacking(backend, spelled, new.fittings, shelf.record)
        row, bad, said = _backend(backend, (old, new), lacking, asked, session)
        rows.append(row)
        problems += bad
        notes += said
    changes = Changes(
        ahead=way.ahead,
        behind=way.behind,
        options=compare.options(old.declared.options, new.declared.options, shelf.record.intents),
        intents=spelled,
        patches=new.fittings,
        backends=tuple(rows),
    )
    return msgspec.structs.replace(
        found,
        verdict="refused" if problems else "provable",
        changes=changes,
        problems=compare.merged(problems),
        notes=tuple(dict.fromkeys(notes)),
    )


def _side(shelf: Shelf[Recipe], commit: str, asked: Asked, session: Session) -> Side:
    def tree(patched: Shelf[Recipe]) -> SourceTree:
        return checkout(
            patched,
            session.folders,
            ref=commit,
            source=asked.source,
            way="git",
            offline=asked.offline,
            progress=session.progress,
        )

    fittings: tuple[Fitting, ...] = ()
    if shelf.patches:
        bare = tree(msgspec.structs.replace(shelf, patches=()))
        with scratch_folder(session.folders) as room:
            fittings = patches.fittings(shelf.patches, bare.path, room)
    fit = {f.name for f in fittings if f.fit == "applies"}
    shelf = msgspec.structs.replace(shelf, patches=tuple(p for p in shelf.patches if p.name in fit))
    source = tree(shelf)
    said = declared(source.path)
    lost = {c.intent for c in compare.intents(shelf.record.intents, said, said) if c.change == "none"}
    spelled = tuple(i for i in shelf.record.intents if i.name not in lost)
    record = msgspec.structs.replace(shelf.record, intents=spelled)
    return Side(msgspec.structs.replace(shelf, record=record), source, said, fittings)


def _lacking(
    backend: Backend, spelled: Iterable[IntentChange], fittings: Iterable[Fitting], recipe: Recipe
) -> list[str]:
    """Return the names of what a backend's trial has to do without."""
    concerned = {i.name for i in recipe.intents if backend in i.backends}
    return [c.intent for c in spelled if c.intent in concerned and compare.unspelled(c)] + [
        f.name for f in fittings if f.fit == "does not apply"
    ]


def _backend(
    backend: Backend, sides: tuple[Side, Side], lacking: Sequence[str], asked: Asked, session: Session
) -> tuple[Tried, list[Problem], list[str]]:
    """Return what both sides' configure steps show, what that loses, and what a person should know."""
    if asked.backends and backend not in asked.backends:
        return (
            Tried(backend, "not tried", "left out with --backend"),
            [],
            [f"{backend} was not tried: --backend left it out"],
        )
    try:
        before, after = _trials(backend, sides, asked, session)
    except MissingError as missing:
        problem = Problem(
            f"{backend} is not proved: {missing.what}",
            missing.where,
            f"{missing.remedy}; or leave it out and say so, with --backend",
            (backend,),
        )
        return Tried(backend, "not proved", missing.what), [problem], []
    notes = [f"the old pin itself, {backend}: {p.what.splitlines()[0]}" for p in before.problems]
    notes += [f"lost with the old pin already, {backend}: {p.what}" for p in before.lost.values()]
    targets = sides[1].recipe.record.targets[backend]
    return (
        compare.tried(backend, targets, before, after, lacking),
        compare.problems(backend, before, after),
        notes,
    )


def _trials(
    backend: Backend, sides: tuple[Side, Side], asked: Asked, session: Session
) -> tuple[Trial, Trial]:
    request = Request(asked.engine, asked.arch, backend, offline=asked.offline)
    tools = find_tools(request, session)

    def trial(side: Side) -> Trial:
        made = plan_of(side.recipe, side.source, tools, request, session)
        return try_plan(made, side.recipe.record, session, sandbox=asked.sandbox)

    return trial(sides[0]), trial(sides[1])


def _notes(way: Step, asked: Asked, recipe: Recipe) -> list[str]:
    notes = [*way.new.notes]
    if way.behind:
        how = "goes back" if not way.ahead else "is on another line: no descendant of the pin"
        notes.append(f"{way.new.commit[:12]} {how}; {way.behind} commits of the pin are not in it")
    if asked.source:
        notes.append(
            f"from {way.new.location}; whether the recipe's own repository has this commit was not checked"
        )
    if recipe.sdist and recipe.sdist.commit != way.new.commit:
        age = "older" if recipe.sdist.commit_time < way.new.commit_time else "newer"
        when = dt.datetime.fromtimestamp(recipe.sdist.commit_time, dt.UTC)
        notes.append(
            f"the sdist stays at {recipe.sdist.commit[:12]} of {when:%Y-%m-%d}, {age} than the new pin"
        )
    notes.append("version_pattern can not be tried without a build: the next build proves it")
    return notes
