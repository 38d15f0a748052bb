"""The command that moves a recipe's pin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkbuild.cli.options import (
    arch_option,
    catalog_option,
    finish,
    json_option,
    sandbox_option,
    session_of,
)
from sparkbuild.errors import FindingError

if TYPE_CHECKING:
    from sparkbuild.catalog.records import Backend


@click.command()
@click.argument("engine")
@click.option("--to", "ref", metavar="REF", default="HEAD", help="A branch, tag or commit; default: HEAD.")
@click.option("--source", metavar="URL|DIR", help="A repository to look in instead of the recipe's own.")
@arch_option
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(["cuda", "cpu"]),
    help="Try only this one, and say so; can be repeated. Default: all of the recipe.",
)
@click.option("--dry-run", is_flag=True, help="Show all of it and write nothing.")
@sandbox_option
@click.option("--offline", is_flag=True, help="Use only what is here; say what is missing.")
@catalog_option
@json_option
def update(
    engine: str,
    ref: str,
    source: str | None,
    arch: str,
    backends: tuple[Backend, ...],
    dry_run: bool,
    sandbox: bool,
    offline: bool,
    catalogs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Move a recipe's git pin, when a real configure step of every backend shows that nothing gets lost.

    Shows what changed in options, intents, patches and targets. Nothing is compiled.
    """
    from sparkbuild import updating  # noqa: PLC0415
    from sparkbuild.cli import render_update  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415

    asked = updating.Asked(engine, arch, ref, source, backends, offline, dry_run, sandbox)
    with progress() as shown:
        found = updating.update(asked, session_of(catalogs, shown))
    render_update.update(found, as_json=as_json)
    if found.verdict == "refused":
        lost = "\n".join(f"{p.what}\n  {p.remedy}" for p in found.problems)
        count = f"{len(found.problems)} {'loss' if len(found.problems) == 1 else 'losses'}"
        problem = FindingError(
            f"the pin is not moved: {count}; the recipe is as it was",
            where=str(found.recipe),
            remedy="mend the recipe as said above, then run it again",
            output=lost,
        )
        finish(problem, as_json)
