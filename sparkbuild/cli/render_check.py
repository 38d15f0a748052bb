"""How a check of an artifact is shown: what failed, by name, what was not looked at, what held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparkbuild.cli.render import document, table
from sparkbuild.cli.say import plain, say

if TYPE_CHECKING:
    from rich.text import Text

    from sparkbuild.checking.checked import Check

_STYLE = {"held": "green", "failed": "bold red", "not run": "dim"}


_MOST = 40  # files that have a line each; of more, a line an artifact


def checked(place: str, checks: Sequence[Check], *, signed: bool, as_json: bool) -> None:
    """Show all checks of a place; what held is told in one line a file."""
    bad = any(c.verdict == "failed" for c in checks)
    if as_json:
        document("verify", place=place, held=not bad, signed=signed, checks=checks)
        return
    rows = [_row(c) for verdict in ("failed", "not run") for c in checks if c.verdict == verdict]
    table(plain(f"verify {place}"), ("file", "what of it", "verdict", "why"), [*rows, *_held(checks)])
    if not bad and signed:
        say("\nheld, and signed", fg="green")
    elif not bad:
        say(f"\nheld, but {_unsigned(checks)}", fg="yellow")


def _unsigned(checks: Sequence[Check]) -> str:
    from sparkbuild.checking.check import SIGNATURE, UNSIGNED  # noqa: PLC0415

    if any(c.field == SIGNATURE and c.said != UNSIGNED for c in checks):
        return "no signature was checked: name whose count with --allowed-signers"
    return "nobody signed it: who changes a file and all that is said of it is not found out"


def _row(found: Check) -> tuple[str | Text, ...]:
    from rich.text import Text  # noqa: PLC0415

    verdict = Text(found.verdict, style=_STYLE[found.verdict])
    return plain(found.file), plain(found.field), verdict, plain(found.said)


def _held(checks: Sequence[Check]) -> list[tuple[str | Text, ...]]:
    from rich.text import Text  # noqa: PLC0415

    by_file: dict[str, list[str]] = {}
    for found in checks:
        if found.verdict == "held":
            by_file.setdefault(found.file, []).append(found.field)
    held = Text("held", style=_STYLE["held"])
    if len(by_file) <= _MOST:
        return [(plain(file), plain(", ".join(names)), held, "") for file, names in by_file.items()]
    folders: dict[str, list[int]] = {}
    for file, names in by_file.items():
        place, inside = file.split("/", 1)[0], file.startswith("bin/")
        folder = place if inside else "/".join(file.split("/")[:2])
        folders.setdefault(folder, []).append(len(names))
    return [
        (plain(name), f"{sum(counts)} checks of {len(counts)} files", held, "")
        for name, counts in folders.items()
    ]
