"""How the journeys of flags are shown: a row a flag, a column a stage, and in words where it was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparkbuild.cli.render import document, table
from sparkbuild.cli.say import say

if TYPE_CHECKING:
    from rich.text import Text

    from sparkbuild.verification import Stage
    from sparkbuild.verify import Verified

_MARK = {
    "held": ("yes", "green"),
    "lost": ("LOST", "bold red"),
    "unknown": ("?", "yellow"),
    "none": ("", "dim"),
}
_STYLE = {"in force": "green", "set": "green", "lost": "bold red", "unknown": "yellow"}


def journeys(builds: Sequence[Verified], *, as_json: bool) -> None:
    """Show each build's flags."""
    if as_json:
        document("verify-flags", builds=builds)
        return
    for build in builds:
        _one(build)


def _one(build: Verified) -> None:
    from rich.text import Text  # noqa: PLC0415

    from sparkbuild.verification import STAGES  # noqa: PLC0415

    rows = [
        (
            f"{j.flag}={j.asked}{' *' if j.required else ''}",
            *(_cell(s) for s in j.stages[1:]),
            Text(j.verdict, style=_STYLE[j.verdict]),
        )
        for j in build.flags
    ]
    table(
        f"{build.name}",
        ("flag", *STAGES[1:], "verdict"),
        rows,
        note="*: required. set: CMake has it; nothing else could show it.",
    )
    for j in build.flags:
        if j.verdict in ("lost", "unknown"):
            say(f"{j.flag}={j.asked}: {j.why}", fg="red" if j.failed else "yellow")
    for note in build.notes:
        say(f"not known: {note}")


def _cell(stage: Stage) -> Text:
    from rich.text import Text  # noqa: PLC0415

    mark, style = _MARK[stage.state]
    return Text(mark, style=style)
