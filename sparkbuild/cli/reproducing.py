"""The command that rebuilds and compares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from sparkbuild.cli.options import catalog_option, finish, json_option, session_of
from sparkbuild.errors import FindingError, MissingError, StoreError

if TYPE_CHECKING:
    from sparkbuild.reproduction.records import Level


@click.command()
@click.argument("what", metavar="MANIFEST|ENGINE[@KEY]")
@click.option(
    "--vary",
    "varied",
    default="all",
    show_default=True,
    metavar="NAMES",
    help="What the rebuild does differently: all at once, none (but the path), or one rebuild for each "
    "of path,user,host,zone,locale,umask,jobs,time.",
)
@click.option(
    "--require",
    "required",
    type=click.Choice(["identical", "stripped", "device code", "features"]),
    default="identical",
    show_default=True,
    help="The level below which it fails.",
)
@click.option(
    "--source", metavar="DIR|URL|ARCHIVE", help="Where the source is, if not where the manifest says."
)
@click.option("-j", "--jobs", type=click.IntRange(1), help="Compile jobs of the rebuild.")
@click.option("--trust", is_flag=True, help="Also build what the manifest's author chose, not the recipe.")
@click.option("--offline", is_flag=True, help="Use only what is here; say what is missing.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write the report as a page."
)
@click.option(
    "--attest",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write it as an in-toto statement, to be signed.",
)
@catalog_option
@json_option
def reproduce(
    what: str,
    varied: str,
    required: str,
    source: str | None,
    jobs: int | None,
    trust: bool,
    offline: bool,
    html: Path | None,
    attest: Path | None,
    catalogs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Rebuild an artifact from its manifest and compare: identical, or what differs and why.

    Inputs are verified first; the rebuild has no network where the machine allows that.
    """
    from sparkbuild import reproduce as reproducing  # noqa: PLC0415
    from sparkbuild.cli import render_reproduction  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415
    from sparkbuild.files import write_whole  # noqa: PLC0415
    from sparkbuild.reproduction import attestation, page  # noqa: PLC0415

    wanted = cast("Level", required)
    asked = reproducing.Asked(what, reproducing.sets_of_variations(varied), source, jobs, offline, trust)
    with progress() as shown:
        session = session_of(catalogs, shown)
        report = reproducing.reproduce(asked, session)
    render_reproduction.reproduction(report, required=wanted, as_json=as_json)
    try:
        reproducing.keep(report, session.folders)
        if html:
            write_whole(html, page.page(report).encode())
        if attest and report.verdict != "not comparable":
            write_whole(attest, attestation.statement(report))
    except StoreError as problem:  # what was found in hours is told all the same
        finish(problem, as_json)
    if report.verdict == "not comparable":
        names = ", ".join(i.name for i in report.inputs)
        finish(
            MissingError(
                f"not comparable: {len(report.inputs)} inputs are not the recorded ones ({names})",
                where=str(what),
                remedy="bring this machine's inputs to what the manifest records, or build anew",
            ),
            as_json,
        )
    elif not report.reaches(wanted):
        finish(
            FindingError(
                f"{report.engine}@{report.key[:12]}: {report.verdict}, not {wanted}", where=str(what)
            ),
            as_json,
        )
