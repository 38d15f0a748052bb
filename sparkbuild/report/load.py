"""A build's timeline worked out: lanes, how many steps ran at once, what took longest."""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush

import msgspec

from sparkbuild.artifact.timeline import Timeline

SLICES = 250


class Step(msgspec.Struct, frozen=True):
    """A step: its outputs, when it began and ended (ms), and the lane in which it is drawn."""

    outputs: tuple[str, ...]
    start: int
    end: int
    lane: int = 0

    @property
    def took(self) -> int:
        """Milliseconds from start to end."""
        return self.end - self.start


class Load(msgspec.Struct, frozen=True):
    """What a timeline shows; times in milliseconds.

    ``at_once`` is how many steps ran, on average, in each of SLICES equal parts of ``wall``; ``busy`` is
    the time of all cores in which a step ran, a step counted as one core and never more than there are;
    ``tail`` is how long at the end fewer steps ran than cores and jobs allow. ``mixed`` is true when more
    ran at once than ``jobs``: then the log holds more than one run of ninja, and its times overlap.
    """

    steps: tuple[Step, ...]
    lanes: int
    wall: int
    work: int
    busy: int
    tail: int
    at_once: tuple[float, ...]
    mixed: bool

    def slowest(self, most: int = 10) -> tuple[Step, ...]:
        """Return the steps that took longest."""
        return tuple(sorted(self.steps, key=lambda s: -s.took)[:most])


def load(timeline: Timeline) -> Load:
    """Work a timeline out."""
    steps, lanes = _laid_out(_steps(timeline))
    wall = max((s.end for s in steps), default=0)
    running = _running(steps)
    full = min(timeline.cores, timeline.jobs)
    return Load(
        steps=steps,
        lanes=lanes,
        wall=wall,
        work=sum(s.took for s in steps),
        busy=sum(min(count, timeline.cores) * (end - start) for start, end, count in running),
        tail=wall - max((end for _, end, count in running if count >= full), default=0),
        at_once=_averages(running, wall),
        mixed=lanes > timeline.jobs,
    )


def _steps(timeline: Timeline) -> list[Step]:
    """Return the steps by their beginning; outputs of one time are of one step."""
    outputs: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for output, times in timeline.steps.items():
        outputs[times].append(output)
    return [Step(tuple(outputs[t]), *t) for t in sorted(outputs)]


def _laid_out(steps: list[Step]) -> tuple[tuple[Step, ...], int]:
    """Give each step the first lane that is free when it begins; return how many lanes that takes."""
    free: list[int] = []
    ending: list[tuple[int, int]] = []
    laid, lanes = [], 0
    for step in steps:
        while ending and ending[0][0] <= step.start:
            heappush(free, heappop(ending)[1])
        if free:
            lane = heappop(free)
        else:
            lane, lanes = lanes, lanes + 1
        heappush(ending, (step.end, lane))
        laid.append(msgspec.structs.replace(step, lane=lane))
    return tuple(laid), lanes


def _running(steps: tuple[Step, ...]) -> list[tuple[int, int, int]]:
    """Return spans of time (from, to) and how many steps ran in each."""
    changes: defaultdict[int, int] = defaultdict(int)
    for step in steps:
        changes[step.start] += 1
        changes[step.end] -= 1
    spans, count, last = [], 0, 0
    for time in sorted(changes):
        if time > last:
            spans.append((last, time, count))
        count += changes[time]
        last = time
    return spans


def _averages(spans: list[tuple[int, int, int]], wall: int) -> tuple[float, ...]:
    """Return the average number of steps in each slice of ``wall``."""
    if not wall:
        return ()
    width = wall / SLICES
    sums = [0.0] * SLICES
    for start, end, count in spans:
        for n in range(int(start / width), min(int(end / width), SLICES - 1) + 1):
            inside = min(end, (n + 1) * width) - max(start, n * width)
            sums[n] += count * max(0.0, inside)
    return tuple(s / width for s in sums)
