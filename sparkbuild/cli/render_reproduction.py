"""How a reproduction is shown: how near each rebuild came, which files differ, and the cause in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sparkbuild.cli.progress import duration
from sparkbuild.cli.render import table
from sparkbuild.cli.say import plain, say, say_json

if TYPE_CHECKING:
    from sparkbuild.reproduction.records import Cause, Level, Rebuild, Reproduction


def reproduction(report: Reproduction, *, required: Level, as_json: bool) -> None:
    """Show a report; in JSON the record itself is the document."""
    if as_json:
        from sparkbuild.files import to_json  # noqa: PLC0415

        say_json(to_json(report))
        return
    _heading(report, required)
    if report.inputs:
        inputs = [(i.name, i.recorded, i.here) for i in report.inputs]
        _table("inputs that are not the recorded ones", ("input", "recorded", "here"), inputs)
    if report.rebuilds:
        rows = [(str(n), *_row(r)) for n, r in enumerate(report.rebuilds, 1)]
        _table("rebuilds", ("", "varied", "level", "identical", "took"), rows)
    for number, rebuild in enumerate(report.rebuilds, 1):
        differing = [f for f in rebuild.files if f.level != "identical"]
        files = [(f.path, f.recorded[:12] or "none", f.rebuilt[:12] or "none", f.level) for f in differing]
        if files:
            _table(f"rebuild {number}: what differs", ("file", "recorded", "rebuilt", "level"), files)
        if rebuild.cause:
            _cause(number, rebuild.cause)
    if report.notes:
        say()
    for note in report.notes:
        say(f"note: {plain(note)}")


def _heading(report: Reproduction, required: Level) -> None:
    from rich.text import Text  # noqa: PLC0415

    if report.verdict == "not comparable":
        verdict = Text("not comparable: nothing was built", style="yellow")
    else:
        reached = report.reaches(required)
        verdict = Text(
            f"{report.verdict} ({required} was required: {'reached' if reached else 'NOT reached'})",
            style="green" if reached else "bold red",
        )
    head = [
        ("engine", plain(report.title)),
        ("key", report.key[:12]),
        ("target", plain(f"{report.arch}, {report.backend}")),
        ("commit", plain(report.commit) or "unknown"),
        ("verdict", verdict),
    ]
    table("reproduction", ("", ""), head)


def _row(rebuild: Rebuild) -> tuple[str, ...]:
    same = sum(f.level == "identical" for f in rebuild.files)
    varied = ", ".join(v.name for v in rebuild.varied) or "nothing"
    return varied, rebuild.level, f"{same} of {len(rebuild.files)}", duration(rebuild.wall_seconds)


def _cause(number: int, cause: Cause) -> None:
    say(f"\nrebuild {number}: the first file that differs is {plain(cause.output)}", bold=True)
    samples = "".join(f"\n  {plain(sample)}" for sample in cause.samples)
    for name, text in (
        ("made by", plain(cause.command)),
        ("differs in", ", ".join(cause.kinds) + samples),
        ("command run twice in one place", cause.replay),
        ("cure", plain(cause.cure) or "none known"),
        ("detail", plain(cause.detail)),
    ):
        if text:
            say(f"{name}: {text}")


def _table(title: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    say()
    table(title, heads, [[plain(cell) for cell in row] for row in rows])
