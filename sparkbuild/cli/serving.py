"""The command that makes a service of an artifact."""

from __future__ import annotations

from pathlib import Path

import click

from sparkbuild.cli.options import catalog_option, chosen, json_option
from sparkbuild.cli.say import say


@click.command()
@click.argument("artifact", metavar="ENGINE[@KEY]")
@click.option(
    "--model", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The GGUF file to serve."
)
@click.option("--profile", "name", default="production", show_default=True, help="Which settings.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of your own, such as port=8080; without a value it is left out.",
)
@click.option("--user", metavar="NAME", help="Who runs it; else who you are.")
@catalog_option
@json_option
def unit(
    artifact: str,
    model: Path,
    name: str,
    changes: tuple[str, ...],
    user: str | None,
    catalogs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Print a systemd unit that serves a model, with a profile's switches as this build spells them.

    ENGINE means the artifact that is in use, and the unit then follows `sparkbuild use`; with a key it is
    that artifact alone. What this build can not do is refused.
    """
    import getpass  # noqa: PLC0415

    from sparkbuild.artifact import use  # noqa: PLC0415
    from sparkbuild.catalog import Catalog  # noqa: PLC0415
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.errors import UsageError  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415
    from sparkbuild.serving import unit as units  # noqa: PLC0415
    from sparkbuild.serving.switches import profile_of  # noqa: PLC0415

    folders = Folders.default()
    catalog = Catalog.default(folders, catalogs)
    if "@" in artifact:
        stored = chosen(artifact, folders, catalogs)
        place = stored.path
    else:
        engine = catalog.aliases().get(artifact, artifact)
        stored, place = use.used(engine, folders), use.link(engine, folders)
    rules = catalog.switches().record
    settings = dict(word.partition("=")[::2] for word in changes)
    if bad := [word for word in changes if "=" not in word]:
        raise UsageError(f"not a setting: {bad[0]!r}", where="--set", remedy="write --set NAME=VALUE")
    profile = units.with_settings(profile_of(catalog.profile(name).record), settings, rules)
    who = user or getpass.getuser()
    made = units.service(stored.manifest, place, model.absolute(), profile, rules, who)
    if as_json:
        render.document("unit", artifact=stored.name, service=made)
        return
    say(made.unit, nl=False)
    for note in made.notes:
        say(f"note: {note}", err=True)
