"""What the machine refuses, in words: a disk, a name that is too long, a tool that failed unforeseen."""

from __future__ import annotations

from sparkbuild.errors import MissingError, SparkbuildError
from sparkbuild.files import DISK_FAULTS, NAME_FAULTS, disk_error
from sparkbuild.process import ProcessError


def refused(problem: Exception) -> SparkbuildError | None:
    """Return what is to be said of an exception that nobody foresaw; None for a bug of ours."""
    if isinstance(problem, ProcessError):
        return MissingError(
            f"a tool failed: {problem}",
            where=problem.done.command[:2000],
            remedy="run the same command again; 'sparkbuild doctor' checks the tools",
            output=(problem.done.output + problem.done.errors)[-3000:],
        )
    faults = DISK_FAULTS | NAME_FAULTS
    if isinstance(problem, OSError) and problem.errno in faults and problem.filename:
        return disk_error("cannot read or write", str(problem.filename), problem)
    return None
