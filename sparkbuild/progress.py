"""What long work tells while it goes on. The command line shows it; a library user may ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what happens; all of it is for people, none of it is a result."""

    def stage(self, text: str) -> None:
        """Begin a stage, such as "configure"."""

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        """Report ``done`` of ``total`` (any unit) with a short text and the seconds left, if known."""

    def note(self, text: str) -> None:
        """Say something that must stay on the screen, such as a warning."""


class Silent:
    """A Progress that says nothing."""

    def stage(self, text: str) -> None:
        """Ignore it."""

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""
