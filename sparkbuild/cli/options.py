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
    from sparkbuild.request import Request, Session

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
sandbox_option = click.option(
    "--sandbox", is_flag=True, help="For sources you do not trust: see docs/sandbox.md."
)
catalog_option = click.option(
    "--catalog",
    "catalogs",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A folder with recipes/, patches/, toolchains/ of your own. Also SPARKBUILD_CATALOG.",
)

jobs_option = click.option(
    "-j", "--jobs", type=click.IntRange(1, 4096), help="Compile jobs; default from cores and free memory."
)
_which_source = (
    click.option("--ref", metavar="REF", help="A branch, tag or commit instead of the pinned one."),
    click.option(
        "--from",
        "way",
        type=click.Choice(["auto", "git", "sdist"]),
        default="auto",
        show_default=True,
        help="How the pinned source comes: git, a package-index sdist, or what can be reached.",
    ),
)
_any_build = (
    arch_option,
    click.option("--backend", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True),
    click.option("--source", metavar="DIR|URL|ARCHIVE", help="A source of your own."),
    click.option("-D", "define", multiple=True, metavar="NAME=VALUE", help="A CMake definition of your own."),
    click.option("--offline", is_flag=True, help="Use only what is here; say what is missing."),
    catalog_option,
    json_option,
)


_cache = (
    click.option(
        "--cache/--no-cache",
        default=True,
        help="Take objects from the compile cache, or compile what the store has not.",
    ),
    click.option(
        "--cache-storage",
        metavar="URL",
        default="",
        envvar="SPARKBUILD_CACHE_STORAGE",
        help="A compile cache to share, such as redis://HOST or http://HOST/PATH: see docs/cache.md.",
    ),
    click.option(
        "--builders",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="SPARKBUILD_BUILDERS",
        help="Other machines to compile on: see docs/distributed.md.",
    ),
)


def cache_options(command: Command) -> Command:
    """Add the options that say what need not be compiled here."""
    return _with(command, *_cache)


def build_options(command: Command) -> Command:
    """Add the options that decide what is built."""
    return _with(command, *_any_build[:2], *_which_source, *_any_build[2:])


def any_commit_options(command: Command) -> Command:
    """Add the same but for those that say which commit it is."""
    return _with(command, *_any_build)


def _with(command: Command, *options: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def signers_options(command: Command) -> Command:
    """Add the options that say whose signatures count."""
    return _with(command, *_signers)


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
    from sparkbuild.request import Session  # noqa: PLC0415

    folders = Folders.default()
    return Session(Catalog.default(folders, catalogs), folders, shown)


def request_of(engine: str, options: dict[str, Any]) -> Request:
    """Return what ``build_options`` ask for."""
    from sparkbuild.build.builders import load  # noqa: PLC0415
    from sparkbuild.request import Request, parse_definitions  # noqa: PLC0415

    file = options.get("builders")
    said = {"define": parse_definitions(options["define"]), "builders": load(file) if file else None}
    return Request(engine=engine, **options | said)
