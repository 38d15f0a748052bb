"""The command that tries an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from sparkbuild.cli.options import catalog_option, chosen, finish, json_option
from sparkbuild.errors import FindingError, MissingError, StoreError

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("what", metavar="ENGINE[@KEY]|FOLDER")
@click.option(
    "--model",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A model of your own (GGUF) instead of the tiny one that is made for it.",
)
@click.option("--profile", default="", metavar="NAME", help="Run the tools with this profile's switches.")
@click.option(
    "--gpu",
    type=click.Choice(["auto", "require", "never"]),
    default="auto",
    show_default=True,
    help="A CUDA build must use the GPU where one is; require: one must be here; never: the CPU alone.",
)
@catalog_option
@json_option
def smoke(
    what: str,
    model: Path | None,
    profile: str,
    gpu: Literal["auto", "require", "never"],
    catalogs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Run an artifact's own tools with a tiny model: they load it, answer and bench.

    Exits with 0 when all passed, 1 when one failed, 3 when they could not be run here.
    """
    from sparkbuild.artifact import store  # noqa: PLC0415
    from sparkbuild.catalog import Catalog  # noqa: PLC0415
    from sparkbuild.cli import render_smoke  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415
    from sparkbuild.files import Folders, to_json  # noqa: PLC0415
    from sparkbuild.inspection.live import How  # noqa: PLC0415
    from sparkbuild.smoke import run  # noqa: PLC0415
    from sparkbuild.toolchain import runners  # noqa: PLC0415

    folders = Folders.default()
    catalog = Catalog.default(folders, catalogs)
    stored = chosen(what, folders, catalogs)
    artifact = run.artifact_at(stored.path)
    here = run.Here(How(*runners(folders)), catalog.features().record, folders)
    with progress() as shown:
        found = run.smoke(artifact, run.Asked(model, profile, gpu), here, shown)
    render_smoke.smoked(found, as_json=as_json)
    if stored.path.is_relative_to(folders.store):
        try:
            store.add_sidecar(stored, "smoke.json", to_json(found) + b"\n")
        except StoreError as problem:  # what was found is told all the same
            finish(problem, as_json)
    name = f"{found.engine}@{found.key[:12]}"
    bad = "; ".join(f"{s.name}: {s.said}" for s in found.steps if s.verdict == found.verdict)
    if found.verdict == "failed":
        finish(FindingError(f"{name} failed its smoke test", where=str(artifact.path), output=bad), as_json)
    elif found.verdict == "not run":
        finish(MissingError(f"{name} could not be tried here: {bad}", where=str(artifact.path)), as_json)
