"""How the store is shown: the list, one artifact, what is in use, what was removed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sparkbuild.cli import render
from sparkbuild.cli.progress import duration
from sparkbuild.cli.say import plain, say
from sparkbuild.errors import StoreError

if TYPE_CHECKING:
    from sparkbuild.artifact.gc import Doomed
    from sparkbuild.artifact.manifest import Manifest
    from sparkbuild.artifact.store import Stored
    from sparkbuild.handover import Entry, Run


class State(msgspec.Struct, frozen=True):
    """What is known of an artifact beside its manifest, whose SHA-256 is ``digest``; verdicts may be ""."""

    digest: str
    reproduction: str
    smoke: str
    in_use: bool
    previous: bool


def listed(
    found: Sequence[Entry], root: Path, now: Collection[str], damaged: Iterable[StoreError], *, as_json: bool
) -> None:
    """Show a shelf's artifacts; ``now`` are those in use, as ENGINE@KEY."""
    problems = list(damaged)
    if as_json:
        render.document(
            "list",
            version=2,
            artifacts=[
                {"name": e.name, "path": f"{root}/{e.manifest.rpartition('/')[0]}", "in_use": e.name in now}
                | msgspec.structs.asdict(e)
                for e in found
            ],
            damaged=[d.as_dict() for d in problems],
        )
        return
    heads = (
        "",
        "artifact",
        "arch",
        "backend",
        "build",
        "made (UTC)",
        "size",
        "reproduced",
        "smoke",
        "engine is",
    )
    cells = [
        (
            "*" if e.name in now else "",
            e.name,
            e.arch,
            e.backend,
            f"{e.build_number or '?'} ({e.commit[:9] or '?'})",
            f"{e.made:%Y-%m-%d %H:%M}",
            _megabytes(e.size),
            e.reproduction or "-",
            e.smoke or "-",
            e.state,
        )
        for e in found
    ]
    _table(f"{len(cells)} artifacts", heads, cells, note="* in use" if now else "")
    for problem in problems:
        render.error(problem, as_json=False)


def shown(found: Stored, state: State, *, as_json: bool) -> None:
    """Show one artifact."""
    made = found.manifest
    if as_json:
        known = {f: getattr(state, f) for f in state.__struct_fields__}
        render.document("show", name=found.name, path=found.path, manifest=made, **known)
        return
    _table("artifact", ("", ""), [*_head(found), *_standing(state)])
    say()
    contents = [
        (
            f.path,
            f.role,
            f"{f.size / 1e6:.1f} MB",
            ", ".join(f"{c.entries} {c.name}" for c in f.device_code),
            f.sha256[:16],
        )
        for f in made.files
    ]
    _table("files", ("file", "role", "size", "device code", "sha256"), contents)
    say()
    _run(made.run)
    say()
    spelled = [
        (d.name, d.asked, "" if d.in_force == d.asked else d.in_force, d.origin) for d in made.definitions
    ]
    _table("definitions", ("definition", "asked", "in force, if spelled otherwise", "origin"), spelled)


def _head(found: Stored) -> list[tuple[str, str]]:
    made: Manifest = found.manifest
    took = duration(made.build.wall_seconds)
    return [
        ("artifact", found.name),
        ("folder", str(found.path)),
        ("engine", f"{made.engine.title}{render.engine_state(made.engine.state)}"),
        ("source", render.source_line(found)),
        ("patches", ", ".join(p.name for p in made.source.patches) or "none"),
        ("target", f"{made.target.arch}, {made.target.backend} {made.target.cuda_arch}"),
        ("compiler", made.compilers.version),
        ("CUDA", f"{made.cuda.version}, {made.cuda.origin}" if made.cuda else "no"),
        ("--version", render.version_line(found)),
        ("made", f"{made.build.started:%Y-%m-%d %H:%M} UTC, {took}, {made.build.jobs} jobs"),
        ("", f"{duration(made.build.cpu_seconds)} of CPU time, {made.build.steps} steps"),
    ]


def _standing(state: State) -> list[tuple[str, str]]:
    using = "yes" if state.in_use else "no, but 'use --back' returns to it" if state.previous else "no"
    return [
        ("manifest", f"sha256:{state.digest}"),
        ("reproduction", state.reproduction or "not tried: 'sparkbuild reproduce'"),
        ("smoke test", state.smoke or "not tried: 'sparkbuild smoke'"),
        ("in use", using),
    ]


def _run(run: Run) -> None:
    """Show how it is run: tools, what the machine must have, each profile's command line."""
    tools = [(t.role, t.path, f"{len(t.switches)} settings: {t.learned}") for t in run.tools]
    _table("tools", ("role", "file", "switches"), tools)
    needs = run.needs
    say()
    rows = [
        ("processor", needs.processor),
        ("glibc", needs.glibc),
        ("CUDA", "no" if needs.cuda_major is None else str(needs.cuda_major)),
        ("driver", needs.driver or "not known" if needs.cuda_major else "no"),
        ("libraries", ", ".join(needs.libraries)),
        ("environment", " ".join(f"{k}={v}" for k, v in run.environment.items()) or "none"),
        ("fast KV pairs", _pairs(run)),
    ]
    _table("needs", ("", ""), rows)
    say()
    commands = [
        (
            c.profile,
            c.role,
            " ".join(c.words),
            "; ".join([*c.refused, *([f"no switch for {', '.join(c.left_out)}"] if c.left_out else [])]),
        )
        for c in run.commands
    ]
    _table("commands", ("profile", "tool", "switches", "can not"), commands)


def _pairs(run: Run) -> str:
    """Say how many there are, and what becomes of others where a GPU is used."""
    if not run.pairs and run.needs.cuda_major is None:
        return "none: no kernels for a GPU"
    return f"{len(run.pairs)}; {run.pairs_note}" if run.pairs_note else str(len(run.pairs))


def used(found: Stored, link: Path, before: Path | None, *, as_json: bool) -> None:
    """Say what is in use now."""
    if as_json:
        render.document("use", name=found.name, path=found.path, link=link, previous=before)
        return
    say(f"{found.name} is in use\n  {link}")
    if before:
        say(f"  before it: {before}")


def collected(gone: Sequence[Doomed], *, dry_run: bool, as_json: bool) -> None:
    """Show what was removed, or would be."""
    total = sum(d.size for d in gone)
    if as_json:
        render.document("gc", dry_run=dry_run, removed=gone, size=total)
        return
    what = "would be removed" if dry_run else "removed"
    rows = [(d.name or f"{d.path.parent.name}/{d.path.name}", _megabytes(d.size), d.why) for d in gone]
    if rows:
        _table(what, ("what", "size", "why"), rows)
    say(f"{len(rows)} {what}, {_megabytes(total)}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _table(title: str, heads: Iterable[str], rows: Iterable[Iterable[Any]], *, note: str = "") -> None:
    """Print a table; a manifest's words may be anybody's."""
    render.table(title, heads, [[plain(str(c)) for c in row] for row in rows], note=note)
