"""How a comparison of two artifacts is shown: in short, then a table for each side that differs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sparkbuild.cli.render import document, table
from sparkbuild.cli.say import say

if TYPE_CHECKING:
    from rich.text import Text

    from sparkbuild.comparing.differences import Difference, Group, Value

_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b")
_STYLE = {"differs": "", "making": "dim", "unknown": "yellow"}


def difference(found: Difference, *, as_json: bool) -> None:
    """Show what differs; in JSON every name, in a table some of many."""
    if as_json:
        document("diff", differs=found.differs, difference=found)
        return
    say(f"A  {found.a.name}\nB  {found.b.name}", bold=True)
    for line in found.summary:
        say(f"  {line}")
    for group in found.groups:
        if group.anything:
            _group(group)
    if alike := [g.name for g in found.groups if not g.anything]:
        say(f"\nthe same in both: {', '.join(alike)}")


def _group(group: Group) -> None:
    rows = [(v.what, _cell(v.a, v), _cell(v.b, v)) for v in group.values]
    for sign, names in (("A", group.only_a), ("B", group.only_b)):
        if names:
            shown = _names(names)
            here, there = (shown, "") if sign == "A" else ("", shown)
            rows.append((f"{len(names)} only in {sign}", _text(here), _text(there)))
    if group.same:
        rows.append((f"{group.same} the same", _text(""), _text("")))
    say()
    table(group.name, ("", "A", "B"), rows)
    for line in group.meaning:
        say(f"  = {line}", fg="cyan")


def _names(names: tuple[str, ...], most: int = 8) -> str:
    more = f"; {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _cell(value: str | None, of: Value) -> Text:
    if value is None:
        return _text("-", "dim")
    return _text(_HASH.sub(r"\1", value) or "none", _STYLE[of.kind])


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text  # noqa: PLC0415

    return Text(text, style)
