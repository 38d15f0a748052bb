"""Every failure a person can meet, each with the exit code that scripts rely on.

A finding (1) is an answer, not a crash: the tool worked and what it found is bad.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean X? " with the known name that looks most like ``name``, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""


class SparkbuildError(Exception):
    """What failed (the message), where, and what to do about it.

    ``where`` names a file and key, or a command and its log. ``remedy`` is an instruction,
    as short as can be.
    """

    exit_code: ClassVar[int] = 101
    kind: ClassVar[str] = "bug"

    def __init__(self, what: str, *, where: str = "", remedy: str = "", output: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy
        self.output = output

    def as_dict(self) -> dict[str, object]:
        """Return the error as the ``error`` member of a JSON answer."""
        parts = {"what": self.what, "where": self.where, "remedy": self.remedy, "output": self.output}
        return {"kind": self.kind, "exit_code": self.exit_code} | {k: v for k, v in parts.items() if v}


class FindingError(SparkbuildError):
    """The tool worked and what it found is bad: a flag not in force, a build not reproducible."""

    exit_code = 1
    kind = "finding"


class UsageError(SparkbuildError):
    """A wrong argument, or an input file (recipe, toolchain, manifest) that does not hold."""

    exit_code = 2
    kind = "usage"


class MissingError(SparkbuildError):
    """The machine lacks something: a compiler, CUDA, a command, memory, the network."""

    exit_code = 3
    kind = "missing"


class SourceError(SparkbuildError):
    """The source could not be had, is not what it should be, or a patch does not apply."""

    exit_code = 4
    kind = "source"


class ConfigureError(SparkbuildError):
    """CMake failed, or did not do what it was asked to do."""

    exit_code = 5
    kind = "configure"


class CompileError(SparkbuildError):
    """A compile or link step failed, or made something else than was asked."""

    exit_code = 6
    kind = "compile"


class ExhaustedError(CompileError):
    """A compile or link step for which this machine lacked memory or room: it says nothing of the source."""


class BinaryError(SparkbuildError):
    """A binary could not be read."""

    exit_code = 7
    kind = "binary"


class StoreError(SparkbuildError):
    """An artifact could not be stored or published."""

    exit_code = 8
    kind = "store"


class InterruptedRunError(SparkbuildError):
    """Stopped by a signal; running the same command again goes on from there."""

    exit_code = 130
    kind = "interrupted"
