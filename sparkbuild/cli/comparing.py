"""The commands that look at several artifacts: what differs between two, and a page about many."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkbuild.cli.options import chosen, finish, json_option
from sparkbuild.cli.say import say
from sparkbuild.errors import FindingError, UsageError

if TYPE_CHECKING:
    pass

_SIDE_BY_SIDE = 8  # columns that a page of reading width has room for


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--exit-code", "tell", is_flag=True, help="End with 1 when anything but the making differs.")
@json_option
def diff(a: str, b: str, *, tell: bool, as_json: bool) -> None:
    """Show what differs between two artifacts and what that means.

    A and B are ENGINE[@KEY] of the store, or paths (with a slash) of an artifact's folder or manifest.
    """
    from sparkbuild.cli import render_diff  # noqa: PLC0415
    from sparkbuild.comparing.diff import compare  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415

    folders = Folders.default()
    one, two = chosen(a, folders), chosen(b, folders)
    names = [n.name if n.name.startswith(said) else f"{n.name} ({said})" for n, said in ((one, a), (two, b))]
    found = compare(one.manifest, two.manifest, (names[0], names[1]))
    render_diff.difference(found, as_json=as_json)
    if tell and found.differs:
        finish(FindingError(f"{one.name} and {two.name} differ"), as_json)


@click.command()
@click.argument("artifacts", nargs=-1, metavar="[ARTIFACT...]")
@click.option(
    "--out",
    default="sparkbuild-report.html",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page is written.",
)
@json_option
def report(artifacts: tuple[str, ...], out: Path, *, as_json: bool) -> None:
    """Write one HTML page about artifacts: what they are, what they can do, how their builds went.

    Without an ARTIFACT it is about the newest in the store. Each is ENGINE[@KEY], or a path with a slash.
    """
    from sparkbuild.artifact import store  # noqa: PLC0415
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.files import Folders, write_whole  # noqa: PLC0415
    from sparkbuild.report import gather, page  # noqa: PLC0415

    folders = Folders.default()
    found = [chosen(a, folders) for a in artifacts] or store.all_stored(folders)
    if not found:
        raise UsageError("no artifact in the store", remedy="build one: 'sparkbuild build ENGINE'")
    bad = [] if artifacts else list(store.entries(folders)[1])
    notes = [f"can not be read: {b.where}: {b.what}" for b in bad]
    left_out = [s.name for s in found[_SIDE_BY_SIDE:]]
    shown = gather.gather(found[:_SIDE_BY_SIDE])
    text = page.page(shown, made=dt.datetime.now(dt.UTC), left_out=left_out, notes=notes)
    write_whole(out, text.encode())
    if as_json:
        render.document("report", page=out, artifacts=[s.name for s in shown], left_out=left_out)
        return
    say(f"{out}: {len(shown)} artifacts")
    if left_out:
        say(f"left out: {len(left_out)}, to be readable; name those that you want to see")
