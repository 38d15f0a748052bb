"""The command that builds many: what it shows, and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkbuild.cli.options import session_of

if TYPE_CHECKING:
    from sparkbuild.request import Request


def build_many(
    request: Request,
    engines: Sequence[str],
    archs: Sequence[str],
    catalogs: tuple[Path, ...],
    *,
    as_json: bool,
) -> None:
    """Build a request for each engine (none: all) and target machine; exit with the worst one's code."""
    from sparkbuild import schedule  # noqa: PLC0415 - --help does not wait for it
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.cli.progress import board  # noqa: PLC0415
    from sparkbuild.progress import Silent  # noqa: PLC0415

    session = session_of(catalogs, Silent())
    requests = schedule.requests_of(request, engines, archs, session.catalog)
    with board() as shown:
        done = schedule.build_all(requests, session, shown)
    failed = [d for d in done if d.problem]
    render.built([d.result for d in done if d.result], failed, as_json=as_json)
    click.get_current_context().exit(max((d.problem.exit_code for d in failed if d.problem), default=0))
