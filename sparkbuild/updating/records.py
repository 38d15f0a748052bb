"""What becomes of a recipe when its pin moves, as frozen records."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild.catalog.records import Backend, Revision
from sparkbuild.source.patches import Fitting

Verdict = Literal["nothing to do", "provable", "refused"]


class Problem(msgspec.Struct, frozen=True):
    """One thing that would be lost, where it shows and what to do; empty ``backends``: for all."""

    what: str
    where: str
    remedy: str
    backends: tuple[Backend, ...] = ()


class OptionChange(msgspec.Struct, frozen=True):
    """A declared option that is new, gone or has another default; ``intent``: who asks for it."""

    name: str
    change: Literal["added", "removed", "default"]
    before: str = ""
    after: str = ""
    intent: str = ""


class IntentChange(msgspec.Struct, frozen=True):
    """Which spelling of an intent held before and holds now, as NAME=VALUE; empty: none.

    ``near`` is the new source's option that looks most like a lost one.
    """

    intent: str
    required: bool
    change: Literal["same", "renamed", "lost", "found", "none"]
    before: str
    after: str
    near: str = ""


class Tried(msgspec.Struct, frozen=True):
    """What a real configure step of old and new shows for one backend.

    ``gone`` and ``new`` are programs that CMake knows, ``targets_gone`` the recipe's own targets;
    ``deprecated`` is what CMake warns of now and did not before.
    """

    backend: Backend
    state: Literal["proved", "failed", "not proved", "not tried"]
    why: str = ""
    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    targets_gone: tuple[str, ...] = ()
    deprecated: tuple[str, ...] = ()


class Changes(msgspec.Struct, frozen=True):
    """All that differs between the old pin and the new one.

    ``ahead`` is the number of commits that only the new one has, ``behind`` of those only the old has.
    """

    ahead: int
    behind: int
    options: tuple[OptionChange, ...]
    intents: tuple[IntentChange, ...]
    patches: tuple[Fitting, ...]
    backends: tuple[Tried, ...]


class Update(msgspec.Struct, frozen=True):
    """What was asked, what was found and what came of it; ``written``: the recipe's file was changed."""

    engine: str
    recipe: Path
    ref: str
    old: Revision
    new: Revision
    verdict: Verdict
    changes: Changes | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    written: bool = False
