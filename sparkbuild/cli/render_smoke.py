"""How a smoke test is shown: each step, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkbuild.cli.render import table
from sparkbuild.cli.say import plain, say_json

if TYPE_CHECKING:
    from sparkbuild.smoke.records import Smoke

_STYLES = {"passed": "green", "failed": "bold red", "not run": "yellow"}


def smoked(found: Smoke, *, as_json: bool) -> None:
    """Show a smoke test; in JSON the record itself is the document."""
    if as_json:
        from sparkbuild.files import to_json  # noqa: PLC0415

        say_json(to_json(found))
        return
    from rich.text import Text  # noqa: PLC0415

    rows = []
    for step in found.steps:
        figures = ", ".join(f"{value:g} {name}" for name, value in step.figures.items())
        verdict = Text(step.verdict, style=_STYLES[step.verdict])
        rows.append((step.name, verdict, f"{step.seconds:.1f} s", plain(step.said), figures))
    how = {"native": "natively", "qemu": "under qemu-user", "": "not at all"}[found.ran]
    gpu = ", ".join(found.gpu) or "none"
    table(
        f"{found.engine}@{found.key[:12]}: {found.verdict}",
        ("step", "verdict", "took", "what came out", "figures"),
        rows,
        note=f"ran {how}; GPU: {gpu}; model: {plain(found.model)}"
        + (f"; profile: {plain(found.profile)}" if found.profile else ""),
    )
