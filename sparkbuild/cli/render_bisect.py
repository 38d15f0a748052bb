"""How a bisection is shown: the first bad commit, what was tried, where to look further."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkbuild.cli.progress import duration
from sparkbuild.cli.render import document, table
from sparkbuild.cli.say import say

if TYPE_CHECKING:
    from sparkbuild.bisect import Bisection
    from sparkbuild.source.history import Commit


def bisection(found: Bisection, *, as_json: bool) -> None:
    """Show which commit is the first bad one, or among which it is."""
    if as_json:
        document("bisect", bisection=found)
        return
    if found.first_bad:
        say(f"the first bad commit is {_line(found.first_bad)}", bold=True)
    else:
        say("the first bad commit is one of these:", bold=True)
        for commit in found.candidates:
            say(f"  {_line(commit)}")
    say()
    rows = [
        (
            t.commit.id[:12],
            t.verdict,
            t.key[:12],
            "" if t.exit_code is None else t.exit_code,
            duration(t.seconds),
            t.commit.subject,
            t.why,
        )
        for t in found.tried
    ]
    heads = ("commit", "verdict", "artifact", "exit code", "time", "subject", "why")
    built = sum(t.fresh for t in found.tried)
    title = f"{len(found.tried)} of {found.between + 1} commits tried, {built} built for it"
    table(title, heads, rows)
    say(f"\nlook further: {found.diff}")


def _line(commit: Commit) -> str:
    number = commit.build_number or "unknown"
    return f"{commit.id}\n  {commit.subject}\n  of {commit.authored}, build {number}"
