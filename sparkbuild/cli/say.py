"""The one way in which words reach a terminal: what could steer it, whoever said it, is left out."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import click

# What JSON may hold as it is and a terminal acts on: C1 controls, and what turns the direction of text.
_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str, kept: str = "") -> str:
    """Return a text that prints as it is; of control characters only ``kept`` stay."""
    from sparkbuild.inspection.runtime import printable  # noqa: PLC0415 - --help says nothing of others

    return printable(text, kept)


def say(text: str = "", *, err: bool = False, nl: bool = True, **style: Any) -> None:  # noqa: ANN401
    """Print lines to stdout or stderr; ``style`` is click's."""
    words = plain(text, "\n\t")
    _echo(click.style(words, **style) if style else words, err=err, nl=nl)


def say_json(raw: bytes) -> None:
    """Print a JSON document, which means the same with its odd characters escaped."""
    import msgspec  # noqa: PLC0415 - as above

    text = msgspec.json.format(raw, indent=2).decode()
    _echo(_STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    try:
        click.echo(text, err=err, nl=nl)
    except BrokenPipeError:  # its reader has gone; what became of the command is told by the exit code
        os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if err else sys.stdout).fileno())
