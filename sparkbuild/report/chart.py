"""A build's timeline as a picture: how many steps ran at once, each step in its lane, the slowest ten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath

from sparkbuild.page import facts, table, text
from sparkbuild.report.gather import Shown
from sparkbuild.report.load import SLICES, Load, Step, load
from sparkbuild.report.matrix import column

_WIDE, _STRIP = 1000, 60  # units of the drawing: all of the time, and the strip's height
_MOST = 3000  # steps that are drawn
_KINDS = {"cuda": "CUDA", "host": "C and C++", "other": "links and others"}


def section(shown: Shown) -> str:
    """Return one build's part of the page; without a timeline it says so."""
    title = f"<h3>{shown.letter} {text(column(shown))}</h3>"
    build = shown.manifest.build
    if not shown.timeline or not shown.timeline.steps:
        said = f"It took {_time(build.wall_seconds)} with {build.jobs} jobs. No timeline was kept of it."
        return f"{title}\n<p>{said}</p>"
    known = load(shown.timeline)
    jobs, cores = shown.timeline.jobs, shown.timeline.cores
    parts = [
        title,
        facts(_facts(known, jobs, cores)),
        _strip(known, jobs, cores),
        _lanes(known),
        _axis(known),
        _slowest(known),
    ]
    return "\n".join(parts)


def _facts(known: Load, jobs: int, cores: int) -> dict[str, str]:
    every = cores * known.wall
    busy = f"{known.busy / every:.0%} of {cores} cores" if every else "unknown"
    told = {
        "compiled in": f"{_time(known.wall / 1000)}, {len(known.steps)} steps, {jobs} jobs at most",
        "cores busy": f"{busy}, with one core for each step that runs",
        "at the end": f"for {_time(known.tail / 1000)} fewer steps ran than could have run at once",
    }
    if known.tail == known.wall:
        told["at the end"] = "as at all times, fewer steps ran than could have run at once"
    if known.mixed:
        told["note"] = (
            f"up to {known.lanes} steps at once with {jobs} jobs: more than one run of ninja is in this log, "
            "so the times overlap"
        )
    return told


def _strip(known: Load, jobs: int, cores: int) -> str:
    """Return how many steps ran at once over the time, up to the cores and above them."""
    top = max(jobs, cores, *(math.ceil(n - 0.01) for n in known.at_once))
    busy = _area([min(n, cores) for n in known.at_once], top)
    over = _area(list(known.at_once), top)
    line = _STRIP - _STRIP * cores / top
    said = f"How many steps ran at once, 0 to {top}; the line: all {cores} cores busy"
    return (
        f"<figure><figcaption>{said}</figcaption>\n"
        f'<svg class="strip" viewBox="0 0 {_WIDE} {_STRIP}" preserveAspectRatio="none" role="img" '
        f'aria-label="{said}">'
        f'<path class="over" d="{over}"/><path class="busy" d="{busy}"/>'
        f'<line class="cores" x1="0" x2="{_WIDE}" y1="{line:.1f}" y2="{line:.1f}"/></svg></figure>'
    )


def _area(heights: Sequence[float], top: int) -> str:
    width = _WIDE / SLICES
    steps = (f"V{_STRIP - _STRIP * h / top:.1f}H{(n + 1) * width:g}" for n, h in enumerate(heights))
    return f"M0 {_STRIP}{''.join(steps)}V{_STRIP}Z"


def _lanes(known: Load) -> str:
    """Return every step as a bar in its lane; of very many the longest."""
    drawn = sorted(known.slowest(_MOST), key=lambda s: s.start)
    bars = "".join(_bar(s, known.wall) for s in drawn)
    left = len(known.steps) - len(drawn)
    dropped = f"; the {left} shortest are not drawn" if left else ""
    legend = ", ".join(f'<span class="key {k}"></span> {name}' for k, name in _KINDS.items())
    return (
        f"<figure><figcaption>Each step in a lane: {legend}{dropped}</figcaption>\n"
        f'<svg class="lanes" viewBox="0 0 {_WIDE} {known.lanes}" height="{_height(known.lanes)}" '
        'preserveAspectRatio="none" role="img" aria-label="Steps of the build over time">'
        f"{bars}</svg></figure>"
    )


def _height(lanes: int) -> int:
    """Return the picture's height in pixels: a few lanes are thick, many are thin, all are seen."""
    return max(48, min(lanes * 18, 320))


def _bar(step: Step, wall: int) -> str:
    x, width = _WIDE * step.start / max(wall, 1), _WIDE * step.took / max(wall, 1)
    title = f"{_name(step)}: {_time(step.took / 1000)}"
    return (
        f'<rect class="{_kind(step)}" x="{x:.2f}" y="{step.lane + 0.05:.2f}" width="{max(width, 0.3):.2f}" '
        f'height="0.9"><title>{text(title)}</title></rect>'
    )


def _kind(step: Step) -> str:
    name = step.outputs[0]
    if name.endswith((".cu.o", ".cu.obj")):
        return "cuda"
    return "host" if name.endswith(".o") else "other"


def _axis(known: Load) -> str:
    marks = (f"<span>{_time(known.wall * n / 4000)}</span>" for n in range(5))
    return f'<p class="axis">{"".join(marks)}</p>'


def _slowest(known: Load) -> str:
    rows = [
        (
            text(_name(s)),
            f"<span>{s.took / 1000:.1f} s</span>",
            f"<span>{s.took / known.work:.1%}</span>" if known.work else "",
            f"<span>{_time(s.start / 1000)}</span>",
        )
        for s in known.slowest()
    ]
    return table("What took longest", ("file", "took", "share", "began at"), rows, "slowest")


def _name(step: Step) -> str:
    """Return the step's file as people know it: without build folders and the object's ending."""
    return ", ".join(_file(o) for o in step.outputs[:2]) + (" ..." if len(step.outputs) > 2 else "")  # noqa: PLR2004


def _file(output: str) -> str:
    parts = [p for p in PurePosixPath(output).parts if p != "CMakeFiles" and not p.endswith(".dir")]
    return "/".join(parts).removesuffix(".o")


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if 0 < seconds < 10:  # noqa: PLR2004 - then a tenth counts
        return f"{seconds:.1f} s"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
