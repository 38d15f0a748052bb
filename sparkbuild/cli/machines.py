"""The command that sets up other machines to compile on."""

from __future__ import annotations

from pathlib import Path

import click

from sparkbuild.cli.options import json_option
from sparkbuild.cli.say import say, say_json


@click.command()
@click.argument("scheduler", metavar="IP:PORT")
@click.option("--server", "servers", multiple=True, required=True, metavar="IP:PORT", help="A build server.")
@click.option(
    "--into",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A new folder for the files.",
)
@json_option
def machines(scheduler: str, servers: tuple[str, ...], into: Path, *, as_json: bool) -> None:
    """Write the settings of machines that compile for others: a scheduler at IP:PORT and build servers.

    Among them is the file for 'build --builders'. docs/distributed.md says how all are started, and whom
    one has to trust.
    """
    from sparkbuild.build.machines import settings  # noqa: PLC0415
    from sparkbuild.files import to_json  # noqa: PLC0415

    made = [str(path) for path in settings(scheduler, servers, into)]
    if as_json:
        say_json(to_json({"files": made}))
    else:
        say("\n".join(made))
