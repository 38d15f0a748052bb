"""The command that checks an artifact, or a folder of them, against what is said of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from sparkbuild.cli.options import catalog_option, finish, json_option, plain_http_option, signers_options
from sparkbuild.errors import FindingError

_NAMED = 5  # failures that the last line names


@click.command()
@click.argument("place", metavar="PATH|oci://...")
@signers_options
@click.option("--probe", "probed", is_flag=True, help="Also judge the binaries again; nothing is run.")
@plain_http_option
@catalog_option
@json_option
def verify(
    place: str,
    allowed: Path | None,
    signer: str | None,
    probed: bool,
    plain_http: bool,
    catalogs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Check an artifact's folder, manifest.json or archive, one in a registry, or a folder of many.

    Hashes, schema, statements, signatures and what can be read from the files; what fails is named.
    """
    from sparkbuild.catalog import Catalog  # noqa: PLC0415
    from sparkbuild.checking import check as checking  # noqa: PLC0415
    from sparkbuild.cli import render_check  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415
    from sparkbuild.intake import unpacked  # noqa: PLC0415

    catalog = Catalog.default(Folders.default(), catalogs) if probed else None
    asked = checking.Asked(allowed, signer, catalog)
    with progress() as shown, tempfile.TemporaryDirectory(prefix="sparkbuild-verify-") as room:
        pulled = place.startswith("oci://")
        path = unpacked(place, Path(room), plain_http=plain_http) if pulled else Path(place)
        checks = checking.check(path, asked, shown)
    render_check.checked(place, checks, signed=checking.signed(checks), as_json=as_json)
    if bad := [c.what for c in checks if c.verdict == "failed"]:
        more = f", and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        what = f"{len(bad)} of {len(checks)} checks failed: {', '.join(bad[:_NAMED])}{more}"
        finish(FindingError(what, where=place), as_json)
