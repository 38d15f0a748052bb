"""The commands that look at what was built: probe and verify-flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkbuild.cli.options import arch_option, catalog_option, finish, json_option, session_of
from sparkbuild.errors import FindingError

if TYPE_CHECKING:
    from sparkbuild.catalog import Catalog
    from sparkbuild.catalog.records import Backend


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Name every model architecture and option.")
@click.option(
    "--require",
    "required",
    multiple=True,
    metavar="WHAT",
    help="Exit with 1 unless it is there: a feature, sm_121a, model:NAME, option:--NAME, kv:q4_0/q8_0@128.",
)
@click.option("--run", is_flag=True, help="Also run them, and compare: only for binaries you trust.")
@click.option("--sandbox", is_flag=True, help="Run them in a sandbox that shows PATH and nothing of yours.")
@catalog_option
@json_option
def probe(
    paths: tuple[Path, ...],
    everything: bool,
    run: bool,
    sandbox: bool,
    required: tuple[str, ...],
    catalogs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show what binaries have: any llama.cpp executable, library, folder, wheel or archive."""
    from sparkbuild.catalog import Catalog  # noqa: PLC0415
    from sparkbuild.cli import render_probe  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415
    from sparkbuild.inspection import probe as probing  # noqa: PLC0415
    from sparkbuild.inspection.live import How  # noqa: PLC0415
    from sparkbuild.toolchain import runners  # noqa: PLC0415
    from sparkbuild.toolchain import sandbox as seal  # noqa: PLC0415

    folders = Folders.default()
    catalog = Catalog.default(folders, catalogs)
    if sandbox:
        seal.check()
    how = How(*runners(folders), view=() if sandbox else None) if run or sandbox else None
    with progress() as shown:
        probes = [probing.probe(path, catalog, shown, how) for path in paths]
    checked = [(p, probing.require(p.verdicts, p.files, w)) for p in probes for w in required]
    render_probe.probed(probes, as_json=as_json, everything=everything)
    if bad := [f"{p.path}: {problem.what}" for p, problem in checked if problem]:
        problem = FindingError(
            f"{len(bad)} of {len(checked)} requirements are not met", output="\n".join(bad)
        )
        finish(problem, as_json)


@click.command("verify-flags")
@click.argument("engine", required=False)
@click.option(
    "--build-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A folder that CMake configured, whoever did; ENGINE is guessed where it is not given.",
)
@click.option("--compiler", metavar="CC", type=click.Path(path_type=Path), help="A C compiler alone.")
@click.option(
    "--cpuinfo",
    metavar="FILE|NAME",
    help="With --compiler: take another machine's /proc/cpuinfo for this one's; gb10 names a shipped one.",
)
@click.option("--backend", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@arch_option
@catalog_option
@json_option
def verify_flags(
    engine: str | None,
    build_dir: Path | None,
    compiler: Path | None,
    cpuinfo: str | None,
    backend: Backend,
    arch: str,
    catalogs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Follow each flag from what was asked to what runs: of the last builds, a build folder, a compiler."""
    from sparkbuild import verify  # noqa: PLC0415
    from sparkbuild.cli import render_journeys  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415
    from sparkbuild.verification import failures  # noqa: PLC0415

    with progress() as shown:
        session = session_of(catalogs, shown)
        if compiler:
            _verify_compiler(compiler, cpuinfo, arch, session.catalog, as_json)
            return
        if build_dir:
            found = [verify.verify_folder(build_dir, engine, arch, backend, session)]
        else:
            found = verify.verify_stored(engine, session)
    render_journeys.journeys(found, as_json=as_json)
    if bad := sum(len(failures(v.flags)) for v in found):
        finish(FindingError(f"{bad} required flags are not in force"), as_json)


def _verify_compiler(cc: Path, cpuinfo: str | None, arch: str, catalog: Catalog, as_json: bool) -> None:
    from sparkbuild.cli import render_flags  # noqa: PLC0415
    from sparkbuild.toolchain.compilers import target_processor  # noqa: PLC0415
    from sparkbuild.toolchain.fault import try_compiler  # noqa: PLC0415

    toolchain = catalog.toolchain(arch).record
    proofs = catalog.proofs(target_processor(toolchain))
    trial = try_compiler(cc, toolchain, catalog.cpuinfo(cpuinfo) if cpuinfo else None, proofs)
    render_flags.compiler(trial, as_json=as_json)
    if trial.finding:
        finish(FindingError(trial.finding, where=str(trial.cc)), as_json)
