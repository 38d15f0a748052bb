"""How far long work is, on stderr: a live bar on a terminal, a line now and then elsewhere.

The words may be a source's own, such as the name of a file, so nothing in them steers the terminal.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from sparkbuild.cli.say import plain, say
from sparkbuild.errors import SparkbuildError


class _Lines:
    """Progress for a log: a line a stage, and a line now and then while it lasts."""

    _EVERY = 30.0

    def __init__(self, name: str = "") -> None:
        self._name = plain(name)
        self._told = time.monotonic()

    def stage(self, text: str) -> None:
        say(f"{self._name}» {plain(text)}", err=True)

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        beforehand = not done and left is not None
        if time.monotonic() - self._told < self._EVERY and not beforehand:
            return
        self._told = time.monotonic()
        share = f"{100 * done / total:3.0f} %" if total else ""
        say(f"{self._name}  {share} {plain(text[-90:])}{_left(left)}", err=True)

    def note(self, text: str) -> None:
        say(f"{self._name}! {plain(text)}", fg="yellow", err=True)


class _Bar:
    """Progress for a person: one live bar, stages and notes above it."""

    def __init__(self, bar: Any, name: str = "") -> None:  # noqa: ANN401 - rich is imported late
        self._bar = bar
        self._name = plain(name)
        self._task: Any = None

    def stage(self, text: str) -> None:
        self.drop()
        self._bar.console.print(f"» {plain(text)}", highlight=False, markup=False)

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        if self._task is None:
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done, total=total, description=plain(text[-60:]) + _left(left))

    def note(self, text: str) -> None:
        self._bar.console.print(f"{self._name}! {plain(text)}", style="yellow", highlight=False, markup=False)

    def drop(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


class _LineBoard:
    """Many builds for a log: the lines of each with its name, and how far all are."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def row(self, name: str) -> _Lines:
        return _Lines(f"{name}: ")

    def done(self, name: str, problem: SparkbuildError | None) -> None:
        say(f"{name}: {plain(_outcome(problem))}", err=True)

    def left(self, builds: int, seconds: float | None) -> None:
        if builds and time.monotonic() - self._told >= _Lines._EVERY:  # noqa: SLF001
            self._told = time.monotonic()
            say(f"  {_builds(builds)}{_left(seconds)}", err=True)


class _Row(_Bar):
    """One of many builds for a person: its line is there from its beginning to its end."""

    def __init__(self, bar: Any, name: str) -> None:  # noqa: ANN401 - rich is imported late
        super().__init__(bar, f"{name}: ")
        self._task = bar.add_task("", total=None)

    def stage(self, text: str) -> None:
        self._bar.reset(self._task, total=None, description=plain(self._name + text[-60:]))

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        del left  # it depends on what the others leave it; of all together it is told
        super().advance(done, total, self._name + text[-60:])


class _BarBoard:
    """Many builds for a person: a live line each, one for all, and above them what has ended."""

    def __init__(self, bar: Any) -> None:  # noqa: ANN401 - rich is imported late
        self._bar = bar
        self._rows: dict[str, _Row] = {}
        self._builds = 0
        self._all = bar.add_task("", total=None)

    def row(self, name: str) -> _Row:
        self._rows[name] = _Row(self._bar, name)
        return self._rows[name]

    def done(self, name: str, problem: SparkbuildError | None) -> None:
        self._rows.pop(name).drop()
        self._bar.console.print(f"{name}: {plain(_outcome(problem))}", highlight=False, markup=False)

    def left(self, builds: int, seconds: float | None) -> None:
        self._builds = max(self._builds, builds)
        done = self._builds - builds
        said = _builds(builds) + _left(seconds)
        self._bar.update(self._all, total=self._builds, completed=done, description=said)


def _outcome(problem: SparkbuildError | None) -> str:
    return f"failed: {problem}" if problem else "done"


def _builds(number: int) -> str:
    return "1 build to go" if number == 1 else f"{number} builds to go"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f" · {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 48 s, 3 min 42 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 100:  # noqa: PLR2004
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 100:  # noqa: PLR2004
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


@contextlib.contextmanager
def progress() -> Iterator[Any]:
    """Give a Progress that fits stderr: a live bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with _live() as bar:
        yield _Bar(bar)


@contextlib.contextmanager
def board() -> Iterator[Any]:
    """Give a Board for many builds that fits stderr, as `progress` does."""
    if not sys.stderr.isatty():
        yield _LineBoard()
        return
    with _live() as bar:
        yield _BarBoard(bar)


def _live() -> Any:  # noqa: ANN401 - rich is imported late
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
