"""What people and machines see: results on stdout, errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparkbuild.cli.progress import duration
from sparkbuild.cli.say import plain, say, say_json
from sparkbuild.errors import SparkbuildError

if TYPE_CHECKING:
    from sparkbuild.artifact.store import Stored
    from sparkbuild.build.cache import Used
    from sparkbuild.build.costs import Expected
    from sparkbuild.catalog import Catalog, Checked
    from sparkbuild.catalog.records import State
    from sparkbuild.pipeline import Result
    from sparkbuild.planning import Plan
    from sparkbuild.schedule import Done
    from sparkbuild.source import Option
    from sparkbuild.toolchain.doctor import Check

_LONG = 500  # rows
_VERDICT = {"ok": "green", "missing": "red", "faulty": "yellow", "not run": "dim"}


def document(schema: str, *, version: int = 1, **members: Any) -> None:  # noqa: ANN401
    """Print one JSON document with its schema's name."""
    from sparkbuild.files import to_json  # noqa: PLC0415

    say_json(to_json({"schema": f"sparkbuild/{schema}/{version}"} | members))


def error(problem: SparkbuildError, *, as_json: bool) -> None:
    """Say what failed, where and what to do; with ``--json`` as a document on stdout."""
    if as_json:
        say(json.dumps({"schema": "sparkbuild/error/1", "error": problem.as_dict()}, indent=2))
        return
    if problem.output:
        say(problem.output.rstrip() + "\n", err=True)
    say(f"sparkbuild: {problem.what}", fg="red", bold=True, err=True)
    if problem.where:
        say(f"  where:  {problem.where}", err=True)
    if problem.remedy:
        say(f"  remedy: {problem.remedy}", err=True)


def table(title: str, heads: Iterable[str], rows: Iterable[Iterable[Any]], *, note: str = "") -> None:
    """Print a table that folds to the terminal's width; in a pipe it is 120 columns wide.

    A long one does not fold: measured, ten thousand rows took 13 s to lay out.
    """
    rows = list(rows)
    if len(rows) > _LONG:
        _long_table(title, [tuple(heads), *([str(c) for c in r] for r in rows)], note)
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(*heads, box=None, pad_edge=False)
    for column in drawn.columns:
        column.overflow = "fold"
    for row in rows:
        cells = [c if isinstance(c, Text) else Text(str(c)) for c in row]
        for cell in cells:
            cell.plain = plain(cell.plain, "\n\t")
        drawn.add_row(*cells)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(Text(plain(title), style="bold"))  # as the table's own it would fold to the table's width
    console.print(drawn)
    if note:
        console.print(plain(note), style="dim", highlight=False, markup=False)


def _long_table(title: str, rows: Sequence[Sequence[str]], note: str) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)
    say("\n".join([title, *lines, *([note] if note else [])]))


def built(results: Sequence[Result], failed: Sequence[Done], *, as_json: bool) -> None:
    """Show the artifacts that builds made or found, and what became of the others."""
    if as_json:
        rows = [{"fresh": r.fresh, "path": r.stored.path, "manifest": r.stored.manifest} for r in results]
        failures = [
            {"engine": d.request.engine, "arch": d.request.arch, "backend": d.request.backend}
            | {"error": d.problem.as_dict()}
            for d in failed
            if d.problem
        ]
        document("build", artifacts=rows, failures=failures)
        return
    for result in results:
        made = result.stored.manifest
        how = f"built in {duration(made.build.wall_seconds)}" if result.fresh else "already in the store"
        say(f"{result.stored.name}  {how}")
        say(f"  {result.stored.path}/bin")
        say(f"  {source_line(result.stored)}")
        if made.build.cache and result.fresh:
            say(f"  {cache_line(made.build.cache)}")
        say(f"  --version: {version_line(result.stored)}")
    for done in failed:
        say(f"\n{done.request.engine} {done.request.arch} {done.request.backend}:", err=True)
        if done.problem:
            error(done.problem, as_json=False)


def cache_line(used: Used) -> str:
    """Return what a build took from the compile cache, in words."""
    said = f"{used.hits} of {used.hits + used.misses + used.uncached} objects from {used.tool}"
    more = [f"{used.shared} of them from {used.storage}"] if used.storage else []
    if used.faults:
        more.append(f"{used.storage} failed {used.faults} times")
    return "; ".join((said, *more))


def plan(
    made: Plan,
    declared: Mapping[str, Option] | None,
    expected: Expected | None,
    *,
    explain: bool,
    as_json: bool,
) -> None:
    """Show a plan and what it should take; ``explain`` adds reasons, ``declared`` the source's options."""
    if as_json:
        extra: dict[str, Any] = (
            {} if declared is None else {"options": sorted(declared.values(), key=lambda o: o.name)}
        )
        document("plan", plan=made, expected=expected, **extra)
        return
    if declared is not None:
        rows = [(o.name, o.kind, o.default, o.help) for o in sorted(declared.values(), key=lambda o: o.name)]
        table(
            f"{made.title}: options that this source declares",
            ("option", "kind", "default", "what it says"),
            rows,
        )
        return
    source, cuda = made.source, made.cuda
    head = [
        ("engine", f"{made.title}{engine_state(made.state)}"),
        ("source", f"{source.way} {source.location}"),
        ("commit", f"{source.commit or 'unknown'}, build {source.build_number or 'unknown'}"),
        ("patches", ", ".join(p.name for p in source.patches) or "none"),
        ("target", f"{made.arch}, {made.backend}"),
        (
            "compiler",
            f"{made.compilers.version}; proved: {', '.join(p.feature for p in made.compilers.proofs)}",
        ),
        ("CUDA", f"{cuda.version}, {cuda.origin}: {cuda.root}" if cuda else "no"),
        ("targets", " ".join(made.targets)),
        ("expected", expected_line(expected)),
        ("key", made.key[:12]),
    ]
    table("plan", ("", ""), [*head, *(("note", n) for n in source.notes)])
    say()
    if explain:
        reasons = [(d.name, d.value, d.origin, d.why) for d in made.definitions]
        table("definitions", ("definition", "value", "origin", "why"), reasons)
        say()
        table("left out", ("intent", "why"), [(s.intent, s.reason) for s in made.skipped])
    else:
        table("definitions", ("definition", "value"), [(d.name, d.value) for d in made.definitions])


def expected_line(expected: Expected | None) -> str:
    """Return what compiling should take, and who says so."""
    if expected is None:
        return "not known: nothing was built here, and the recipe has no job_seconds"
    jobs = "1 job" if expected.jobs == 1 else f"{expected.jobs} jobs"
    return f"about {duration(expected.seconds)} to compile with {jobs}, by {expected.basis}"


def engine_state(state: State) -> str:
    """Return what is to be known of an engine's state, nothing when it is well."""
    since = f" since {state.since}" if state.since else ""
    return "" if state.status == "active" else f" [{state.status}{since}: {state.note}]"


def source_line(found: Stored) -> str:
    """Return where an artifact's source is from, and which it is."""
    source = found.manifest.source
    commit, number = source.commit[:9] or "unknown", source.build_number or "unknown"
    return f"{source.way} {source.location}, commit {commit}, build {number}"


def version_line(found: Stored) -> str:
    """Return what a tool of it said of its version."""
    version = found.manifest.version
    if version.number is None:
        return f"{version.ran}: {version.reason}"
    return f"build {version.number}, commit {version.commit} ({version.ran})"


def catalog(known: Catalog, *, as_json: bool) -> None:
    """Show the engines and target machines."""
    recipes, toolchains = known.recipes(), known.toolchains()
    if as_json:
        document(
            "recipes",
            recipes=[{"path": s.path, "digest": s.digest, "recipe": s.record} for s in recipes.values()],
            toolchains=[
                {"path": s.path, "digest": s.digest, "toolchain": s.record} for s in toolchains.values()
            ],
        )
        return
    rows = [
        (
            r.record.name,
            ", ".join(r.record.aliases),
            f"{r.record.git.build_number} ({r.record.git.commit[:9]})",
            f"{r.record.sdist.build_number} ({r.record.sdist.commit[:9]})" if r.record.sdist else "",
            r.record.state.status + (f" since {r.record.state.since}" if r.record.state.since else ""),
        )
        for r in recipes.values()
    ]
    table("engines", ("engine", "also", "build from git", "from the package index", "state"), rows)
    say()
    rows2 = [
        (t.record.name, t.record.title, t.record.cpu_arch or "native", t.record.cuda.arch)
        for t in toolchains.values()
    ]
    table("target machines", ("arch", "what", "-march", "CUDA arch"), rows2)


def checked(found: Iterable[Checked], *, as_json: bool) -> None:
    """Show which files of the catalogue hold."""
    rows = list(found)
    if as_json:
        members = [
            {"path": c.path, "ok": c.problem is None} | (c.problem.as_dict() if c.problem else {})
            for c in rows
        ]
        document("recipes-check", files=members)
        return
    for row in rows:
        if row.problem is None:
            say(f"ok   {row.path}")
        else:
            say(f"BAD  {row.problem.where}: {row.problem.what} ({row.problem.remedy})")


def checks(found: Iterable[Check], arch: str, *, as_json: bool) -> None:
    """Show what the doctor saw."""
    from rich.text import Text  # noqa: PLC0415

    rows = list(found)
    if as_json:
        document("doctor", arch=arch, checks=rows)
        return
    drawn = [(c.name, Text(c.verdict, style=_VERDICT[c.verdict]), c.detail, c.remedy) for c in rows]
    table(f"this machine, building for {arch}", ("what", "verdict", "seen", "remedy"), drawn)
