"""The command that finds the commit which broke something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparkbuild.cli.options import (
    any_commit_options,
    cache_options,
    finish,
    jobs_option,
    request_of,
    sandbox_option,
    session_of,
)
from sparkbuild.cli.say import say
from sparkbuild.errors import FindingError


@click.command()
@click.argument("engine")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option(
    "--good", required=True, metavar="REF", help="A commit, tag or branch where COMMAND is content."
)
@click.option("--bad", required=True, metavar="REF", help="A later one where it is not.")
@jobs_option
@sandbox_option
@cache_options
@any_commit_options
def bisect(
    engine: str,
    command: tuple[str, ...],
    good: str,
    bad: str,
    as_json: bool,
    catalogs: tuple[Path, ...],
    **options: Any,  # noqa: ANN401
) -> None:
    """Build commits between a good and a bad one, run COMMAND on each, name the first bad commit.

    COMMAND finds the artifact in SPARKBUILD_BIN, SPARKBUILD_ARTIFACT, SPARKBUILD_MANIFEST and
    SPARKBUILD_COMMIT. It ends with 0 for good, 125 for "can not tell", any other code below 128 for bad.
    What the store has is not built again; a commit that does not build is skipped.
    """
    from sparkbuild import bisect as bisecting  # noqa: PLC0415
    from sparkbuild.cli import render_bisect  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415

    asked = bisecting.Asked(request_of(engine, options), good, bad, command)
    with progress() as shown:
        found = bisecting.bisect(
            asked, session_of(catalogs, shown), lambda text: say(text, err=True, nl=False)
        )
    render_bisect.bisection(found, as_json=as_json)
    if found.first_bad is None:
        finish(
            FindingError(
                f"only skipped commits are left: the first bad one is one of {len(found.candidates)}",
                remedy="mend what makes COMMAND or the build skip them, and run it again",
            ),
            as_json,
        )
