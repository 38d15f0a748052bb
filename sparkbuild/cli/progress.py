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


class _Lines:
    """Progress for a log: a line a stage, and a line now and then while it lasts."""

    _EVERY = 30.0

    def __init__(self) -> None:
        self._told = time.monotonic()

    def stage(self, text: str) -> None:
        say(f"» {plain(text)}", err=True)

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        beforehand = not done and left is not None
        if time.monotonic() - self._told < self._EVERY and not beforehand:
            return
        self._told = time.monotonic()
        share = f"{100 * done / total:3.0f} %" if total else ""
        say(f"  {share} {plain(text[-90:])}{_left(left)}", err=True)

    def note(self, text: str) -> None:
        say(f"! {plain(text)}", fg="yellow", err=True)


class _Bar:
    """Progress for a person: one live bar, stages and notes above it."""

    def __init__(self, bar: Any) -> None:  # noqa: ANN401 - rich is imported late
        self._bar = bar
        self._task: Any = None

    def stage(self, text: str) -> None:
        self._drop()
        self._bar.console.print(f"» {plain(text)}", highlight=False, markup=False)

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        if self._task is None:
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done, total=total, description=plain(text[-60:]) + _left(left))

    def note(self, text: str) -> None:
        self._bar.console.print(f"! {plain(text)}", style="yellow", highlight=False, markup=False)

    def _drop(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


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
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)
