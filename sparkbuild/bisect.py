"""Which commit broke it: build commits between a good and a bad one, and run a command on each artifact."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild import pipeline, process
from sparkbuild.artifact.store import Stored
from sparkbuild.errors import (
    CompileError,
    ConfigureError,
    ExhaustedError,
    FindingError,
    SourceError,
    SparkbuildError,
    UsageError,
)
from sparkbuild.handover import MANIFEST
from sparkbuild.request import Request, Session
from sparkbuild.source import history
from sparkbuild.source.history import Commit
from sparkbuild.source.repository import Repository

Verdict = Literal["good", "bad", "skipped"]
_SKIP, _SIGNAL = 125, 128  # exit codes, as `git bisect run` takes them
_MISSING = (126, 127)  # a shell's codes for a command that it can not run or find
_TICK = 0.1  # seconds
# What says something of the commit and not of this machine. Both ends were built with the same request: so a
# UsageError in between is about what that commit's source declares.
_OF_THE_COMMIT = (SourceError, ConfigureError, CompileError, FindingError, UsageError)


class Asked(msgspec.Struct, frozen=True):
    """What a person wants to know: how to build (``ref`` is not looked at), the two ends, the command."""

    request: Request
    good: str
    bad: str
    command: tuple[str, ...]


class Trial(msgspec.Struct, frozen=True):
    """A commit that was tried. ``key`` is empty and ``exit_code`` None where it could not be built.

    ``fresh`` tells that it was built now, ``seconds`` what building and the command took together; ``why``
    is the reason of a skip.
    """

    commit: Commit
    verdict: Verdict
    seconds: float
    key: str = ""
    fresh: bool = False
    exit_code: int | None = None
    why: str = ""


class Bisection(msgspec.Struct, frozen=True):
    """What was found. ``first_bad`` is None when more than one of the ``candidates`` is left.

    ``between`` is the number of commits that could have been the first bad one, ``diff`` the command that
    shows what differs between the bad artifact and the last good one.
    """

    engine: str
    between: int
    first_bad: Commit | None
    candidates: tuple[Commit, ...]
    tried: tuple[Trial, ...]
    diff: str


def judge(code: int) -> Verdict | None:
    """Return what a command's exit code (negative: a signal) says of a commit; None when it says nothing."""
    if not 0 <= code < _SIGNAL:
        return None
    return "good" if code == 0 else "skipped" if code == _SKIP else "bad"


def choose(ranked: Sequence[str], bad: str, skipped: set[str]) -> str | None:
    """Return the commit to try next, None when nothing is left to try; ``ranked`` has the best first.

    Commits that can not be tried come in runs: so each skip makes the next choice twice as far from the best.
    """
    free = [commit for commit in ranked if commit != bad and commit not in skipped]
    if not free:
        return None
    if ranked[0] not in skipped:
        return free[0]
    return free[min(1 << len(skipped.intersection(ranked)) - 1, len(free)) - 1]


def trials_left(candidates: int) -> int:
    """Return how many trials find one among so many candidates, as long as each halves them."""
    return max(0, candidates - 1).bit_length()


def search(
    good: str,
    bad: str,
    ranked: Callable[[str, Sequence[str]], Sequence[str]],
    test: Callable[[str, int], Verdict],
) -> tuple[str, ...]:
    """Return the commits that may be the first bad one: a bad one, last, behind those that were skipped.

    ``ranked`` returns the candidates for a bad commit and good ones, the best to try first; ``test`` gets
    the commit to try and about how many trials are left with it.
    """
    goods, skipped = [good], set[str]()
    while True:
        left = ranked(bad, goods)
        commit = choose(left, bad, skipped)
        if commit is None:
            return (*(c for c in left if c in skipped), bad)
        match test(commit, trials_left(len(left))):
            case "good":
                goods.append(commit)
            case "bad":
                bad = commit
            case "skipped":
                skipped.add(commit)


def bisect(asked: Asked, session: Session, say: Callable[[str], None]) -> Bisection:
    """Return which commit is the first on which the command fails; ``say`` gets what the command says.

    Raises UsageError when the good end is not good, the bad one not bad, the one no ancestor of the other,
    or the command ended by a signal; what building raises for an end, and later for faults of the machine.
    """
    shelf, request = session.catalog.recipe(asked.request.engine), asked.request
    if not shutil.which(asked.command[0]):
        raise UsageError(
            "the command is not there", where=asked.command[0], remedy="name a program or script behind --"
        )
    ends = (asked.good, asked.bad)
    where = history.opened(
        shelf, session.folders, request.source, ends, offline=request.offline, progress=session.progress
    )
    with where as (here, (good, bad)):
        _check_ends(here, good, bad)
        return _Bisecting(asked, session, say, here).through(good, bad)


def _check_ends(here: Repository, good: str, bad: str) -> None:
    base = history.common(here, good, bad)
    if base == good != bad:
        return
    if good == bad:
        what, remedy = "the good and the bad commit are the same", "give two commits"
    elif base == bad:
        what, remedy = "the bad commit is older than the good one", "--good names the older, --bad the newer"
    else:
        what = "the good commit is not an ancestor of the bad one"
        remedy = f"try --good {base[:12]}, what both have" if base else "they have no common history here"
    raise UsageError(f"{what}: {good[:12]}, {bad[:12]}", where=here.where, remedy=remedy)


class _Bisecting:
    """One bisection: what was asked and what was tried so far."""

    def __init__(self, asked: Asked, session: Session, say: Callable[[str], None], here: Repository) -> None:
        self._asked = asked
        self._session = session
        self._say = say
        self._here = here
        self._tried: dict[str, Trial] = {}

    def through(self, good: str, bad: str) -> Bisection:
        """Try the ends, then what is between them."""
        between = len(self._ranked(bad, [good]))
        steps = trials_left(between)
        self._session.progress.stage(
            f"{between} commits from {good[:12]} to {bad[:12]}: about {2 + steps} to try with the two ends"
        )
        self._end("good", good, 2 + steps)
        self._end("bad", bad, 1 + steps)
        found = [self._tried[c] for c in search(good, bad, self._ranked, self._test)]
        last_good = [t for t in self._tried.values() if t.verdict == "good"][-1]
        engine = self._session.catalog.recipe(self._asked.request.engine).record.name
        keys = [f"{engine}@{t.key[:12]}" for t in (last_good, found[-1])]
        return Bisection(
            engine=engine,
            between=between,
            first_bad=found[0].commit if len(found) == 1 else None,
            candidates=tuple(t.commit for t in found),
            tried=tuple(self._tried.values()),
            diff=shlex.join(["sparkbuild", "diff", *keys]),
        )

    def _ranked(self, bad: str, goods: Sequence[str]) -> Sequence[str]:
        return history.candidates(self._here, bad, goods)

    def _end(self, name: Verdict, commit: str, left: int) -> None:
        """Try an end; it must be what it was called."""
        try:
            trial = self._try(commit, left)
        except SparkbuildError as problem:
            problem.what = f"--{name} {commit[:12]}: {problem.what}"
            raise
        if trial.verdict != name:
            code = trial.exit_code or 0
            missing = "; a shell says so of what it can not run" if code in _MISSING else ""
            raise UsageError(
                f"the {name} commit is not {name}: the command ended with exit code {code}{missing}",
                where=f"--{name} {commit[:12]}: {shlex.join(self._asked.command)}",
                remedy="0 means good, 125 skip, any other below 128 bad; or give another commit",
            )

    def _test(self, commit: str, left: int) -> Verdict:
        return self._try(commit, left, _OF_THE_COMMIT).verdict

    def _try(self, commit: str, left: int, skipping: tuple[type[SparkbuildError], ...] = ()) -> Trial:
        """Build a commit, or take it from the store, and run the command on it; ``skipping`` skip it."""
        told, progress = history.describe(self._here, commit), self._session.progress
        began, number = time.monotonic(), len(self._tried) + 1
        progress.stage(f"commit {number} of about {number + left - 1}: {commit[:12]} {told.subject}")
        request = msgspec.structs.replace(self._asked.request, ref=commit, way="git")
        try:
            built = pipeline.build(request, self._session)
        except ExhaustedError:
            raise
        except skipping as problem:
            trial = Trial(told, "skipped", time.monotonic() - began, why=f"{problem.kind}: {problem.what}")
        else:
            code = _run(self._asked.command, built.stored, commit, self._say)
            verdict = self._judged(code, commit)
            why = f"the command ended with exit code {code}" if verdict == "skipped" else ""
            seconds = time.monotonic() - began
            trial = Trial(told, verdict, seconds, built.stored.manifest.key, built.fresh, code, why)
        self._tried[commit] = trial
        progress.stage(f"{trial.verdict}: {commit[:12]} {trial.why}".rstrip())
        return trial

    def _judged(self, code: int, commit: str) -> Verdict:
        if verdict := judge(code):
            return verdict
        raise UsageError(
            f"the command on {commit[:12]}: {process.reason(code)}, which says neither good nor bad",
            where=shlex.join(self._asked.command),
            remedy="where a crash means bad: sh -c 'COMMAND || exit 1'; where nothing: || exit 125",
        )


def _run(command: Sequence[str], stored: Stored, commit: str, say: Callable[[str], None]) -> int:
    """Run the command where and as the caller would, told of the artifact; return its exit code."""
    told = {
        "SPARKBUILD_ARTIFACT": str(stored.path),
        "SPARKBUILD_BIN": str(stored.path / "bin"),
        "SPARKBUILD_MANIFEST": str(stored.path / MANIFEST),
        "SPARKBUILD_COMMIT": commit,
    }
    shown = 0
    try:
        with process.running(command, env=os.environ | told, cwd=Path.cwd()) as child:
            while (code := child.returncode) is None:
                said = child.output
                lines = said[: said.rfind("\n") + 1]  # half a line may be half a character
                say(lines[shown:])
                shown = len(lines)
                time.sleep(_TICK)
            say(child.output[shown:])
    except process.ProcessError as problem:
        raise UsageError(
            f"the command {problem.why}", where=shlex.join(command), remedy="make it a program or a script"
        ) from problem
    return code
