"""The command that tells continuous integration what to build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkbuild.cli.options import catalog_option, json_option

if TYPE_CHECKING:
    from sparkbuild.catalog.records import Backend


@click.command()
@click.option("--arch", "archs", multiple=True, default=["gb10"], show_default=True, metavar="NAME")
@click.option(
    "--backend", "backends", multiple=True, type=click.Choice(["cuda", "cpu"]), help="Default: both."
)
@catalog_option
@json_option
def matrix(
    archs: tuple[str, ...], backends: tuple[Backend, ...], catalogs: tuple[Path, ...], as_json: bool
) -> None:
    """List the builds that the catalogue promises: each engine, target machine and backend.

    With --json its member "include" is what a workflow's matrix takes, so that a new recipe needs no new one.
    """
    from sparkbuild.catalog import Catalog  # noqa: PLC0415
    from sparkbuild.catalog.matrix import matrix as rows_of  # noqa: PLC0415
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415

    rows = rows_of(Catalog.default(Folders.default(), catalogs), archs, backends)
    if as_json:
        render.document("matrix", include=rows)
        return
    shown = [(r.name, r.engine, r.arch, r.backend, " ".join(r.require)) for r in rows]
    render.table("builds", ("name", "engine", "arch", "backend", "must have"), shown)
