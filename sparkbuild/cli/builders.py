"""The command that sets up other machines to compile on."""

from __future__ import annotations

from pathlib import Path

import click

from sparkbuild.cli.say import say


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
def builders(scheduler: str, servers: tuple[str, ...], into: Path) -> None:
    """Write the settings of a scheduler at IP:PORT, its build servers, and --builders.

    docs/distributed.md says how they are started, and who may be trusted with it.
    """
    from sparkbuild.build import machines  # noqa: PLC0415

    for path in machines.settings(scheduler, servers, into):
        say(str(path))
