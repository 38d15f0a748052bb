"""The commands that look at several artifacts: what differs between two, and a page about many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkbuild.cli.options import finish, json_option
from sparkbuild.errors import FindingError

if TYPE_CHECKING:
    from sparkbuild.artifact.store import Stored
    from sparkbuild.files import Folders


def chosen(name: str, folders: Folders) -> Stored:
    """Return the artifact that ENGINE[@KEY] names in the store, or that lies where a path leads.

    A path has a slash or ends with .json, and leads to an artifact's folder or to its manifest.
    """
    from sparkbuild.artifact import manifest, store  # noqa: PLC0415
    from sparkbuild.catalog import Catalog  # noqa: PLC0415

    if "/" in name or name.endswith(".json"):
        path = Path(name)
        path = path / "manifest.json" if path.is_dir() else path
        return store.Stored(path.parent, manifest.read(path))
    engine, at, key = name.partition("@")
    known = Catalog.default(folders).aliases().get(engine, engine)
    return store.pick(f"{known}{at}{key}", folders)


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--exit-code", "tell", is_flag=True, help="End with 1 when anything but the making differs.")
@json_option
def diff(a: str, b: str, *, tell: bool, as_json: bool) -> None:
    """Show what differs between two artifacts and what that means.

    A and B are ENGINE[@KEY] of the store, or paths (with a slash) of an artifact's folder or manifest.
    """
    from sparkbuild.artifact.diff import compare  # noqa: PLC0415
    from sparkbuild.cli import render_diff  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415

    folders = Folders.default()
    one, two = chosen(a, folders), chosen(b, folders)
    found = compare(one.manifest, two.manifest, (one.name, two.name))
    render_diff.difference(found, as_json=as_json)
    if tell and found.differs:
        finish(FindingError(f"{one.name} and {two.name} differ"), as_json)
