"""The commands of the store: what is there, what is in use, what may go."""

from __future__ import annotations

import re
from pathlib import Path

import click

from sparkbuild.cli.options import chosen, json_option
from sparkbuild.errors import UsageError


def size(text: str) -> int:
    """Return a number of bytes such as 20G; K, M, G and T stand for thousands."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([KMGT]?)B?", text, re.ASCII | re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{text!r} is no size such as 20G")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


@click.command("list")
@click.argument("place", required=False, type=click.Path(path_type=Path))
@json_option
def list_(place: Path | None, as_json: bool) -> None:
    """List the artifacts in the store, or in PLACE, a folder that was published to."""
    from sparkbuild.artifact import store, use  # noqa: PLC0415
    from sparkbuild.cli import render_store  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415

    folders = Folders.default()
    if place:
        if not place.is_dir():
            raise UsageError("no such folder", where=str(place), remedy="'list' alone shows the store")
        folders = Folders(folders.cache, place, folders.config)
    found, bad = store.entries(folders)
    now = set() if place else {f"{e}@{path.name[:12]}" for e, path in use.in_use(folders).items()}
    render_store.listed(found, folders.store, now, bad, as_json=as_json)
    if bad:
        click.get_current_context().exit(bad[0].exit_code)


@click.command()
@click.argument("artifact", metavar="ARTIFACT")
@json_option
def show(artifact: str, as_json: bool) -> None:
    """Show one artifact: what it is, how it was made, how it is run, what is known of it by now.

    ARTIFACT is ENGINE[@KEY] of the store, or a path with a slash.
    """
    from sparkbuild.artifact import index, use  # noqa: PLC0415
    from sparkbuild.cli import render_store  # noqa: PLC0415
    from sparkbuild.files import Folders, sha256_file  # noqa: PLC0415

    folders = Folders.default()
    found = chosen(artifact, folders)
    digest = sha256_file(found.path / "manifest.json" if found.path.is_dir() else found.path)
    engine = found.manifest.engine.name
    state = render_store.State(
        digest,
        *index.verdicts(found.path, digest),
        in_use=use.in_use(folders).get(engine) == found.path,
        previous=use.previous(engine, folders) == found.path,
    )
    render_store.shown(found, state, as_json=as_json)


@click.command()
@click.argument("artifact", metavar="ENGINE[@KEY]")
@click.option("--back", is_flag=True, help="Return to what was in use before; once more goes forth again.")
@json_option
def use(artifact: str, back: bool, as_json: bool) -> None:
    """Take an artifact into use: STORE/current/ENGINE leads to it from now on.

    Its files are checked first. What runs is not touched; it takes the new one when it starts again.
    """
    from sparkbuild.artifact import store  # noqa: PLC0415
    from sparkbuild.artifact import use as using  # noqa: PLC0415
    from sparkbuild.catalog import Catalog  # noqa: PLC0415
    from sparkbuild.cli import render_store  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415

    folders = Folders.default()
    if back and "@" in artifact:
        name = artifact.partition("@")[0]
        raise UsageError("--back takes an engine's name alone", remedy=f"sparkbuild use {name} --back")
    if back:
        found = using.back(Catalog.default(folders).aliases().get(artifact, artifact), folders)
    else:
        found = store.pick(artifact, folders, Catalog.default(folders).aliases())
        using.use(found, folders)
    engine = found.manifest.engine.name
    before = using.previous(engine, folders)
    render_store.used(found, using.link(engine, folders), before, as_json=as_json)


@click.command()
@click.option(
    "--older-than", type=click.FloatRange(0), metavar="DAYS", help="Remove what was made before that."
)
@click.option(
    "--keep",
    type=click.IntRange(0),
    metavar="N",
    help="Keep the newest N of each engine, machine and backend, whatever else is asked.",
)
@click.option("--max-size", type=size, metavar="SIZE", help="Remove the oldest down to that, such as 20G.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@json_option
def gc(
    older_than: float | None, keep: int | None, max_size: int | None, dry_run: bool, as_json: bool
) -> None:
    """Remove artifacts that nobody needs, and what runs that were killed have left.

    Without a rule only the latter goes; --keep alone removes all but the newest. What is in use, what
    `use --back` returns to, what was published, runs or is being built stays. Only root sees what other
    users run.
    """
    from sparkbuild.artifact.gc import collect_garbage, plan_gc  # noqa: PLC0415
    from sparkbuild.cli import render_store  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415

    act = plan_gc if dry_run else collect_garbage
    gone = act(Folders.default(), older_than=older_than, keep=keep, max_size=max_size)
    render_store.collected(gone, dry_run=dry_run, as_json=as_json)
