"""The commands that hand artifacts over and take them in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkbuild.cli.options import chosen, finish, json_option, plain_http_option, signers_options
from sparkbuild.cli.say import say
from sparkbuild.errors import FindingError, SparkbuildError, UsageError

if TYPE_CHECKING:
    from sparkbuild.artifact.store import Stored
    from sparkbuild.files import Folders
    from sparkbuild.publish import Handed

_with = (
    click.option("--sbom", is_flag=True, help="Also write a CycloneDX SBOM."),
    click.option(
        "--sign",
        "key",
        metavar="KEY",
        type=click.Path(path_type=Path),
        help="Sign manifest and statements with this SSH key (or the .pub of one that ssh-agent holds).",
    ),
)


@click.command()
@click.argument("dest")
@click.argument("artifacts", nargs=-1, metavar="[ENGINE[@KEY]...]")
@click.option("--all", "everything", is_flag=True, help="Every artifact of the store.")
@_with[0]
@_with[1]
@plain_http_option
@json_option
def publish(
    dest: str,
    artifacts: tuple[str, ...],
    everything: bool,
    sbom: bool,
    key: Path | None,
    plain_http: bool,
    as_json: bool,
) -> None:
    """Hand artifacts to the benchmark stage; without names, those that are in use.

    DEST is a folder (it gets an index.json), FILE.tar.zst, or oci://HOST/REPOSITORY[:TAG].
    """
    from sparkbuild.artifact import store  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415
    from sparkbuild.publish import ARCHIVE, With  # noqa: PLC0415
    from sparkbuild.publish import publish as hand_over  # noqa: PLC0415

    folders = Folders.default()
    found = _chosen(artifacts, everything, folders)
    lost = store.entries(folders)[1] if everything else ()
    if len(found) > 1 and (dest.endswith(ARCHIVE) or ":" in dest.removeprefix("oci://").partition("/")[2]):
        raise UsageError(
            f"{len(found)} artifacts do not go into one {dest}",
            remedy="name one artifact, or a folder or a repository without a tag",
        )
    with progress() as shown:
        extra = With(key, sbom, plain_http)
        handed = [hand_over(s, dest, extra, shown, remember=store.holds(s, folders)) for s in found]
    _tell(handed, as_json, lost)


@click.command("export")
@click.argument("artifact", metavar="ENGINE[@KEY]")
@click.argument("file", type=click.Path(path_type=Path))
@_with[0]
@_with[1]
@json_option
def export(artifact: str, file: Path, sbom: bool, key: Path | None, as_json: bool) -> None:
    """Write an artifact as FILE.tar.zst for another machine's `sparkbuild import`."""
    from sparkbuild.cli.progress import progress  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415
    from sparkbuild.publish import ARCHIVE, With  # noqa: PLC0415
    from sparkbuild.publish import publish as hand_over  # noqa: PLC0415

    if not file.name.endswith(ARCHIVE) or ":/" in str(file):  # an address would become a folder "oci:"
        raise UsageError(f"not a name for an archive: {file.name}", remedy=f"end it with {ARCHIVE}")
    (found,) = _chosen((artifact,), False, Folders.default())
    with progress() as shown:
        handed = hand_over(found, str(file), With(key, sbom), shown, remember=False)
    _tell([handed], as_json)


@click.command("import")
@click.argument("source")
@signers_options
@plain_http_option
@json_option
def import_(source: str, allowed: Path | None, signer: str | None, plain_http: bool, as_json: bool) -> None:
    """Take an artifact into the store: FILE.tar.zst, oci://..., or the folder of one.

    All that `sparkbuild verify` checks must hold; without --allowed-signers nobody vouches for it.
    """
    from sparkbuild.checking.check import Asked  # noqa: PLC0415
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415
    from sparkbuild.intake import take_in  # noqa: PLC0415

    with progress() as shown:
        taken = take_in(source, Folders.default(), Asked(allowed, signer), shown, plain_http=plain_http)
    if as_json:
        render.document("import", name=taken.name, path=taken.path, manifest=taken.manifest)
    else:
        say(f"{taken.name}\n  {taken.path}")


def _chosen(names: tuple[str, ...], everything: bool, folders: Folders) -> list[Stored]:
    from sparkbuild.artifact import store, use  # noqa: PLC0415

    if everything:
        if names:
            raise UsageError("--all and names", remedy="give one of the two")
        if not (stored := store.all_stored(folders)):
            for problem in store.entries(folders)[1]:
                raise problem
            raise UsageError("the store is empty", where=str(folders.store), remedy="build something first")
        return stored
    if not names:
        used = [use.used(engine, folders) for engine in use.in_use(folders)]
        if not used:
            raise UsageError("no artifact is in use", remedy="name one: ENGINE@KEY, or give --all")
        return used
    return [chosen(name, folders) for name in names]


def _tell(handed: list[Handed], as_json: bool, lost: Sequence[SparkbuildError] = ()) -> None:
    """Show what was handed over; what of the store could not be read is a finding."""
    from sparkbuild.cli import render  # noqa: PLC0415

    if as_json:
        render.document("publish", artifacts=handed, unreadable=[p.as_dict() for p in lost])
    for one in () if as_json else handed:
        state = "handed over" if one.fresh else "was there already"
        say(f"{one.name}  {state}{', signed' if one.signed else ''}")
        say(f"  {one.place}")
        say(f"  manifest sha256:{one.digest}" + (f"\n  bytes {one.blob}" if one.blob else ""))
    for problem in () if as_json else lost:
        render.error(problem, as_json=False)
    if lost:
        finish(FindingError(f"{len(lost)} artifacts can not be read and were not handed over"), as_json)
