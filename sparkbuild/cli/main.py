"""Commands and their options. Each imports what it needs, so that --help stays fast."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import click

from sparkbuild import __version__
from sparkbuild.cli.bisecting import bisect
from sparkbuild.cli.checks import probe, verify_flags
from sparkbuild.cli.comparing import diff, report
from sparkbuild.cli.machines import machines
from sparkbuild.cli.matrix import matrix
from sparkbuild.cli.options import (
    arch_option,
    build_options,
    cache_options,
    catalog_option,
    finish,
    jobs_option,
    json_option,
    request_of,
    sandbox_option,
    session_of,
)
from sparkbuild.cli.publishing import export, import_, publish
from sparkbuild.cli.reproducing import reproduce
from sparkbuild.cli.serving import unit
from sparkbuild.cli.smoking import smoke
from sparkbuild.cli.storing import gc, list_, show, use
from sparkbuild.cli.updating import update
from sparkbuild.cli.verifying import verify
from sparkbuild.errors import FindingError, InterruptedRunError, MissingError, SparkbuildError, UsageError

_INTERRUPTED = InterruptedRunError("interrupted", remedy="run the same command again: it goes on from there")


def run(args: list[str]) -> int:  # noqa: PLR0911 - one return an outcome
    """Run one command and return its exit code; the one place where errors become words."""
    as_json = "--json" in args[: args.index("--") if "--" in args else None]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        return cli.main(args, prog_name="sparkbuild", standalone_mode=False) or 0
    except SystemExit:  # so click and rich end when the reader of a pipe has gone: no more into that pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as problem:
        if as_json:
            return _tell(UsageError(problem.format_message(), remedy="see --help"), as_json)
        problem.show()
        return problem.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _tell(_INTERRUPTED, as_json)
    except SparkbuildError as problem:
        return _tell(problem, as_json)
    except Exception as problem:  # noqa: BLE001 - the last line of defence; the log has the traceback
        from sparkbuild.faults import refused  # noqa: PLC0415 - see the module's docstring

        return _tell(refused(problem) or _bug(args), as_json)


def _bug(args: list[str]) -> SparkbuildError:
    with tempfile.NamedTemporaryFile("w", prefix="sparkbuild-bug-", suffix=".log", delete=False) as log:
        log.write(f"sparkbuild {__version__} {args}\n{traceback.format_exc()}")
    last = traceback.format_exc().strip().splitlines()[-1]
    return SparkbuildError(
        f"a bug in sparkbuild: {last}", where=log.name, remedy="please report it with that log"
    )


def _tell(problem: SparkbuildError, as_json: bool) -> int:
    from sparkbuild.cli import render  # noqa: PLC0415 - see the module's docstring

    render.error(problem, as_json=as_json)
    return problem.exit_code


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def cli() -> None:
    """Build llama.cpp and its forks for DGX Spark and other Grace machines, and know what was built."""


cli.add_command(probe)
cli.add_command(verify_flags)
cli.add_command(bisect)
cli.add_command(reproduce)
cli.add_command(verify)
cli.add_command(diff)
cli.add_command(smoke)
cli.add_command(report)
cli.add_command(unit)
cli.add_command(publish)
cli.add_command(export)
cli.add_command(import_)
cli.add_command(list_)
cli.add_command(show)
cli.add_command(use)
cli.add_command(gc)
cli.add_command(matrix)
cli.add_command(machines)


@cli.command()
@click.argument("engines", nargs=-1, metavar="[ENGINE...]")
@click.option("--all", "every", is_flag=True, help="Build every engine that has this backend.")
@jobs_option
@click.option("--rebuild", is_flag=True, help="Build again although the store has it.")
@sandbox_option
@cache_options
@build_options
def build(
    engines: tuple[str, ...],
    every: bool,
    as_json: bool,
    catalogs: tuple[Path, ...],
    **options: Any,  # noqa: ANN401
) -> None:
    """Build engines and store each as an artifact with a manifest.

    --arch takes several target machines, with commas between. Many builds share the jobs and the memory.
    """
    from sparkbuild import pipeline  # noqa: PLC0415
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.cli.building import build_many  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415

    if bool(engines) == every:
        raise UsageError("name the engines, or give --all", remedy="'sparkbuild recipes list' names them")
    archs = options["arch"].split(",")
    if every or len(engines) > 1 or len(archs) > 1:
        build_many(request_of("", options), engines, archs, catalogs, as_json=as_json)
        return
    with progress() as shown:
        result = pipeline.build(request_of(engines[0], options), session_of(catalogs, shown))
    render.built([result], [], as_json=as_json)


@cli.command()
@click.argument("engine")
@click.option("--explain", is_flag=True, help="Every value's reason and origin.")
@click.option("--options", "list_options", is_flag=True, help="Every option that this source declares.")
@build_options
def plan(
    engine: str,
    explain: bool,
    list_options: bool,
    as_json: bool,
    catalogs: tuple[Path, ...],
    **options: Any,  # noqa: ANN401
) -> None:
    """Show what would be built, and why; builds nothing."""
    from sparkbuild import pipeline  # noqa: PLC0415
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.cli.progress import progress  # noqa: PLC0415
    from sparkbuild.request import plan  # noqa: PLC0415
    from sparkbuild.source import declared_options  # noqa: PLC0415

    with progress() as shown:
        request, session = request_of(engine, options), session_of(catalogs, shown)
        made = plan(request, session)
    declared = declared_options(made.source.path) if list_options else None
    expected = pipeline.expected(request, session)
    render.plan(made, declared, expected, explain=explain, as_json=as_json)


@cli.group()
def recipes() -> None:
    """List, check and update engines and target machines."""


recipes.add_command(update)


@recipes.command("list")
@catalog_option
@json_option
def recipes_list(catalogs: tuple[Path, ...], as_json: bool) -> None:
    """List the engines and target machines that are known."""
    from sparkbuild.catalog import Catalog  # noqa: PLC0415
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415

    render.catalog(Catalog.default(Folders.default(), catalogs), as_json=as_json)


@recipes.command("check")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@catalog_option
@json_option
def recipes_check(files: tuple[Path, ...], catalogs: tuple[Path, ...], as_json: bool) -> None:
    """Check recipe and toolchain files; without a name, the whole catalogue."""
    from sparkbuild.catalog import Catalog, check  # noqa: PLC0415
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415

    found = check(Catalog.default(Folders.default(), catalogs), files)
    render.checked(found, as_json=as_json)
    if bad := sum(bool(c.problem) for c in found):
        finish(FindingError(f"{bad} of {len(found)} files do not hold"), as_json)


@cli.command()
@arch_option
@catalog_option
@json_option
def doctor(arch: str, catalogs: tuple[Path, ...], as_json: bool) -> None:
    """Look at this machine: what is here, what is missing, the command that mends it."""
    from sparkbuild.catalog import Catalog  # noqa: PLC0415
    from sparkbuild.cli import render  # noqa: PLC0415
    from sparkbuild.files import Folders  # noqa: PLC0415
    from sparkbuild.toolchain.doctor import examine  # noqa: PLC0415

    folders = Folders.default()
    catalog = Catalog.default(folders, catalogs)
    toolchain = catalog.toolchain(arch).record
    checks = examine(toolchain, catalog.cuda_wheels(toolchain.cuda.wheels).record, folders)
    render.checks(checks, arch, as_json=as_json)
    if missing := [c.name for c in checks if c.needed and c.verdict == "missing"]:
        problem = MissingError(
            f"missing for {arch}: {', '.join(missing)}", remedy="see the table's last column"
        )
        finish(problem, as_json)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell completion script: eval "$(sparkbuild completion bash)"."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - the choices above all exist
        raise MissingError(f"no completion for {shell}")
    click.echo(kind(cli, {}, "sparkbuild", "_SPARKBUILD_COMPLETE").source())
