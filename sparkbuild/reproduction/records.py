"""What a reproduction says, as frozen records: the ladder, each file, the cause, the whole report."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from sparkbuild.catalog.records import Backend, Record
from sparkbuild.packages import Sha256

Level = Literal["identical", "stripped", "device code", "features", "different"]
# From the best to the worst; each holds whatever the ones after it hold.
LADDER: tuple[Level, ...] = ("identical", "stripped", "device code", "features", "different")

# Causes first, what may follow from them after that: a build id is a hash of all the rest.
Kind = Literal[
    "time stamp",
    "embedded path",
    "FILE symbol",
    "module id",
    "symbols",
    "text",
    "read-only data",
    "device code",
    "code",
    "layout",
    "build id",
]


class InputDifference(Record, frozen=True):
    """An input of the build that is not the recorded one: what the manifest says, what is here."""

    name: str
    recorded: str
    here: str


class FileComparison(Record, frozen=True):
    """One file of the artifact: ``recorded`` and ``rebuilt`` are SHA-256, empty on the side that lacks it."""

    path: str
    recorded: str
    rebuilt: str
    level: Level


class Cause(Record, frozen=True):
    """The first file of the build that differs, in the order in which it was built.

    ``output`` is relative to the build folder; ``command`` made it. ``kinds`` are what differs, causes
    first, with a sample of each in ``samples``; ``replay`` says whether the command alone, run twice in
    the same place, gives two results. ``cure`` is empty where none is known; ``detail`` is diffoscope's.
    """

    output: str
    command: str
    kinds: tuple[Kind, ...]
    samples: tuple[str, ...]
    replay: Literal["differs each time", "the same each time", "not run"]
    cure: str
    detail: str = ""


class Variation(Record, frozen=True):
    """One thing that the rebuild did differently: what it was, what it became."""

    name: str
    was: str
    became: str


class Rebuild(Record, frozen=True):
    """One rebuild and how near it came. ``wall_seconds`` is all of it."""

    varied: tuple[Variation, ...]
    level: Level
    files: tuple[FileComparison, ...]
    wall_seconds: float
    cause: Cause | None = None


class Reproduction(Record, frozen=True):
    """The whole report. ``manifest`` is the SHA-256 of the manifest file that was reproduced.

    ``verdict`` is the worst rebuild's level, or "not comparable" with the ``inputs`` that differ, and
    then nothing was built. ``normaliser`` names what "stripped" means; ``notes`` are what could not be
    done here.
    """

    schema: Literal["sparkbuild/reproduction/1"]
    sparkbuild: str
    engine: str
    title: str
    key: Sha256
    arch: str
    backend: Backend
    manifest: Sha256
    commit: str
    built_on: str
    rebuilt_on: str
    rebuilt_by: str
    started: dt.datetime
    verdict: Literal["identical", "stripped", "device code", "features", "different", "not comparable"]
    inputs: tuple[InputDifference, ...]
    rebuilds: tuple[Rebuild, ...]
    normaliser: str
    notes: tuple[str, ...] = ()

    def reaches(self, wanted: Level) -> bool:
        """Return whether it came at least as near as ``wanted``."""
        return self.verdict != "not comparable" and LADDER.index(self.verdict) <= LADDER.index(wanted)
