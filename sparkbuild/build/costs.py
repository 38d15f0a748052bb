"""What a build costs: what each step took here, what is expected of the next build, how long is left.

A cost is the seconds for which a step keeps one job busy. A machine that has built an engine knows its
steps; else the recipe's weights stand in, times this machine's pace: what other engines' steps took
here, of what their recipes say.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Collection, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild.catalog.records import Backend, Steps
from sparkbuild.files import Folders, kept

_TOLD = 0.1  # of a build must have been compiled here for it to tell the machine's pace
_PRIOR = 0.1  # of a build: what is believed beforehand counts as much as that much of what was seen
_MOST = 20_000  # steps that are remembered of an engine; a real build has some hundred


class Timeline(msgspec.Struct, frozen=True):
    """When each step ran: milliseconds of its start and end by output file.

    A step with several outputs is there once for each of them.
    """

    steps: dict[str, tuple[int, int]]

    @property
    def cpu_like_seconds(self) -> float:
        """The sum of all steps' wall seconds: close to CPU seconds when jobs do not exceed cores."""
        return sum(end - start for start, end in set(self.steps.values())) / 1000


class Measured(msgspec.Struct, frozen=True):
    """What the builds of an engine and backend cost on this machine.

    ``steps`` are milliseconds by output file; ``seconds`` is the sum over all steps of the latest build;
    ``pace`` is what was measured over what the recipe's weights say, 0 where too little was compiled.
    """

    steps: dict[str, int]
    seconds: float
    pace: float


class Expected(msgspec.Struct, frozen=True):
    """What compiling is expected to take: ``seconds`` with ``jobs`` jobs, ``job_seconds`` with one."""

    seconds: float
    job_seconds: float
    jobs: int
    basis: Literal["an earlier build here", "the recipe's weights"]


class Costs:
    """Seconds that a step is expected to take: as measured earlier, else by the recipe's weights."""

    def __init__(self, steps: Steps, earlier: Measured | None = None, pace: float = 1.0) -> None:
        self._steps = steps
        self._earlier = earlier.steps if earlier else {}
        self._pace = (earlier.pace if earlier else 0.0) or pace

    def of(self, output: str) -> float:
        """Return the seconds expected of the step that makes ``output``."""
        if output in self._earlier:
            return self._earlier[output] / 1000
        return weight(self._steps, output) * self._pace


def weight(steps: Steps, output: str) -> float:
    """Return the seconds that a recipe gives a step: those of the first pattern that fits."""
    name = Path(output).name.removesuffix(".o")
    guesses = (seconds for pattern, seconds in steps.seconds.items() if fnmatch(name, pattern))
    return next(guesses, steps.default_seconds)


def learned(
    earlier: Measured | None,
    line: Timeline,
    cached: Collection[str],
    steps: Steps,
    before: Timeline | None = None,
) -> Measured:
    """Return what is known of an engine's costs after a build.

    ``cached`` are outputs that came from a compile cache: what they took is not what they cost, so what
    was known stays. So it does for what ninja did not make again: ``before`` is its log as it was.
    """
    known = earlier.steps if earlier else {}
    old = before.steps if before else {}
    took = {o: max(0, end - start) for o, (start, end) in line.steps.items() if o not in cached}
    for output in took.keys() & known.keys():
        if old.get(output) == line.steps[output]:
            took[output] = known[output]
    once = list({span: output for output, span in line.steps.items()}.values())
    compiled = [o for o in once if o in took]
    weighed = sum(weight(steps, o) for o in compiled)
    every = sum(weight(steps, o) for o in once)
    told = bool(weighed) and weighed >= _TOLD * every
    pace = sum(took[o] for o in compiled) / 1000 / weighed if told else earlier.pace if earlier else 0.0
    merged = dict([*took.items(), *((o, ms) for o, ms in known.items() if o not in took)][:_MOST])
    costs = Costs(steps, Measured(merged, 0.0, pace))
    return Measured(merged, sum(map(costs.of, once)), pace)


def timings(engine: str, backend: Backend, folders: Folders) -> Path:
    """Return where the costs of an engine's builds are kept."""
    return folders.cache / "timings" / f"{engine}-{backend}.json"


def machine_pace(folders: Folders) -> float:
    """Return how much longer steps take here than recipes say; 1 where nothing was built yet."""
    found = (kept(path, Measured) for path in sorted((folders.cache / "timings").glob("*.json")))
    return statistics.median([m.pace for m in found if m and m.pace > 0] or [1.0])


def expected(steps: Steps, backend: Backend, engine: str, folders: Folders, jobs: int) -> Expected | None:
    """Return what compiling all of an engine is expected to take; None where nobody can tell."""
    if (earlier := kept(timings(engine, backend, folders), Measured)) and earlier.pace:
        return _expected(earlier.seconds, earlier.steps.values(), jobs, "an earlier build here")
    if weights := steps.job_seconds.get(backend):
        return _expected(weights * machine_pace(folders), (), jobs, "the recipe's weights")
    return None


def _expected(
    work: float,
    milliseconds: Iterable[int],
    jobs: int,
    basis: Literal["an earlier build here", "the recipe's weights"],
) -> Expected:
    longest = max(milliseconds, default=0) / 1000
    return Expected(max(work / jobs, longest), work, jobs, basis)


class Forecast:
    """The seconds left of a build, from what its steps were expected to take and what they took.

    ``todo`` is in the order in which ninja begins the steps. What those that ended took corrects what is
    expected of the others; these are then dealt out to the jobs as ninja would, without its dependencies.
    """

    def __init__(self, todo: Iterable[str], costs: Costs, jobs: int) -> None:
        self._costs = {output: costs.of(output) for output in todo}
        self._waiting = dict(self._costs)
        self._running: dict[str, float] = {}  # when each began, as far as can be told
        self._jobs = max(1, min(jobs, len(self._costs)))
        self._at = 0.0
        self._expected = self._took = _PRIOR * sum(self._costs.values())

    @property
    def beforehand(self) -> float:
        """The seconds that all of it should take."""
        return self._dealt([0.0] * self._jobs, 1.0)

    def measured(self, output: str, seconds: float) -> None:
        """Take in what a step took that has ended."""
        if output in self._costs:
            self._expected += self._costs[output]
            self._took += seconds

    def left(self, output: str, now: float, running: int) -> float:
        """Return the seconds left, with all jobs, when a step ended ``now`` seconds after the start.

        ``running`` is how many steps ran until then. Of builds that share the jobs it is what each adds to
        the time left of all.
        """
        self._waiting.pop(output, None)
        others = running - (output not in self._running)
        while self._waiting and len(self._running) < others:
            begun = next(iter(self._waiting))
            del self._waiting[begun]
            self._running[begun] = self._at
        self._running.pop(output, None)
        self._at = now
        pace = self._took / self._expected if self._expected else 1.0
        busy = [max(0.0, self._costs[o] * pace - (now - began)) for o, began in self._running.items()]
        return self._dealt(busy[: self._jobs] + [0.0] * (self._jobs - len(busy)), pace)

    def _dealt(self, lanes: list[float], pace: float) -> float:
        """Return when the last job is done, if each takes the next step that waits as soon as it is free."""
        heapq.heapify(lanes)
        for cost in self._waiting.values():
            heapq.heapreplace(lanes, lanes[0] + cost * pace)
        return max(lanes)
