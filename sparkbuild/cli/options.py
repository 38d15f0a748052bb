"""What several commands share: options, a session, how they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparkbuild.errors import SparkbuildError, UsageError

if TYPE_CHECKING:
    from sparkbuild.artifact.store import Stored
    from sparkbuild.files import Folders
    from sparkbuild.pipeline import Session

Command = Callable[..., Any]
json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else."
)
arch_option = click.option(
    "--arch", default="gb10", show_default=True, metavar="NAME", help="The target machine."
)
plain_http_option = click.option(
    "--plain-http", is_flag=True, help="Speak to the registry without TLS, as to localhost in any case."
)
_signers = (
    click.option(
        "--allowed-signers",
        "allowed",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Whose signatures count, as ssh-keygen takes it; everything must be signed then.",
    ),
    click.option("--signer", metavar="IDENTITY", help="Only this signer of that file counts."),
)
catalog_option = click.option(
    "--catalog",
    "catalogs",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A folder with recipes/, patches/, toolchains/ of your own. Also SPARKBUILD_CATALOG.",
)


def signers_options(command: Command) -> Command:
    """Add the options that say whose signatures count."""
    return _signers[0](_signers[1](command))


def finish(problem: SparkbuildError, as_json: bool) -> None:
    """End with a problem's exit code; in JSON the result, printed already, is the whole answer."""
    if not as_json:
        raise problem
    click.get_current_context().exit(problem.exit_code)


def chosen(name: str, folders: Folders, catalogs: Sequence[Path] = ()) -> Stored:
    """Return the artifact that a person names: ENGINE[@KEY] or KEY in the store, or a path.

    A path has a slash or ends in .json; it is an artifact's folder or its manifest.
    """
    from sparkbuild.artifact import manifest, store  # noqa: PLC0415
    from sparkbuild.catalog import Catalog  # noqa: PLC0415

    if "/" in name or name.endswith(".json"):
        path = Path(name)
        if path.name == "manifest.json":
            path = path.parent
        file = path / "manifest.json" if path.is_dir() else path
        if not file.is_file():
            raise UsageError("there is no artifact", where=name, remedy="'sparkbuild list' shows the store's")
        return store.Stored(path, manifest.read(file))
    return store.pick(name, folders, Catalog.default(folders, catalogs).aliases())


def session_of(catalogs: tuple[Path, ...], shown: Any) -> Session:  # noqa: ANN401
    """Return where to look and whom to tell."""
    from sparkbuild.catalog import Catalog  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415
    from sparkbuild.pipeline import Session  # noqa: PLC0415

    folders = Folders.default()
    return Session(Catalog.default(folders, catalogs), folders, shown)
