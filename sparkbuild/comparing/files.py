"""The files of two artifacts and how they are run, compared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from sparkbuild.artifact.manifest import File, Manifest
from sparkbuild.comparing.differences import Group, Value, by_name, many, values
from sparkbuild.handover import Run


def run(a: Manifest, b: Manifest) -> Group:
    """Compare tools, how they spell settings, what they need and the commands that come of it."""
    needs = [_needs(m.run) for m in (a, b)]
    tools = [{t.role: t.path for t in m.run.tools} for m in (a, b)]
    found = (
        *by_name(tools[0], tools[1], of="tool "),
        *_spelled(a.run, b.run),
        *by_name(_commands(a.run), _commands(b.run), of="command "),
        *by_name(needs[0], needs[1], of="needs "),
        *by_name(a.run.environment, b.run.environment, of="environment "),
        *by_name(_profiles(a.run), _profiles(b.run), of="profile "),
        *values(((name, str(x), str(y)) for name, x, y in _rest(a.run, b.run))),
    )
    return Group("run", tuple(_run_means(a.run, b.run)), found)


def _rest(a: Run, b: Run) -> Iterator[tuple[str, object, object]]:
    yield "libraries", ", ".join(a.libraries), ", ".join(b.libraries)
    yield "pairs on the fast path", len(a.pairs), len(b.pairs)
    yield "other pairs", a.pairs_note, b.pairs_note


def _run_means(a: Run, b: Run) -> Iterator[str]:
    for name, run, other in (("A", a, b), ("B", b, a)):
        roles = {t.role for t in other.tools}
        if only := [t.role for t in run.tools if t.role not in roles]:
            yield f"only {name} has {', '.join(only)}"
    versions = [[int(n) for n in re.findall(r"\d{1,9}", r.needs.glibc)] for r in (a, b)]
    if all(versions) and versions[0] != versions[1]:
        yield f"{'A' if versions[0] > versions[1] else 'B'} needs the newer glibc"


def _spelled(a: Run, b: Run) -> Iterator[Value]:
    """Yield the switches that a role spells differently in both; roles that say the same share a row."""
    one, two = _switches(a), _switches(b)
    shared: dict[tuple[str, str | None, str | None], list[str]] = {}
    both = {t.role for t in a.tools} & {t.role for t in b.tools}
    for role, name in sorted({*one, *two}):
        x, y = one.get((role, name)), two.get((role, name))
        if x != y and role in both:
            shared.setdefault((name, x, y), []).append(role)
    for (name, x, y), roles in shared.items():
        yield Value(f"{name} of {', '.join(roles)}", x, y)


def _switches(run: Run) -> dict[tuple[str, str], str]:
    """Return the words of each setting by role and name, with the values that it takes."""
    found: dict[tuple[str, str], list[str]] = {}
    for tool in run.tools:
        for s in tool.switches:
            value = f"{s.value}: " if s.value else ""
            allowed = f" ({', '.join(s.allowed)})" if s.allowed else ""
            words = shlex.join(s.words).replace("'{value}'", "{value}") or "by itself"
            found.setdefault((tool.role, s.name), []).append(f"{value}{words}{allowed}")
    return {key: "; ".join(spellings) for key, spellings in found.items()}


def _commands(run: Run) -> dict[str, str]:
    found = {}
    for c in run.commands:
        left = f" [left out: {', '.join(c.left_out)}]" if c.left_out else ""
        refused = f" [refused: {'; '.join(c.refused)}]" if c.refused else ""
        found[f"{c.profile} {c.role}"] = f"{shlex.join(c.words)}{left}{refused}"
    return found


def _needs(run: Run) -> Mapping[str, str]:
    n = run.needs
    cuda = {"CUDA": str(n.cuda_major), "driver": n.driver or "unknown"} if n.cuda_major else {}
    return {"processor": n.processor, "glibc": n.glibc, "libraries": ", ".join(n.libraries) or "none"} | cuda


def _profiles(run: Run) -> dict[str, str]:
    return {
        f"{p.name}: {name}": value
        for p in run.profiles
        for name, value in {"title": p.title, **p.settings, **p.environment}.items()
    }


def files(a: Manifest, b: Manifest) -> Group:
    """Compare the files: names, sizes, hashes, and what each needs and holds."""
    one, two = ({f.path: f for f in m.files} for m in (a, b))
    both = [n for n in one if n in two]
    other = [n for n in both if one[n].sha256 != two[n].sha256]
    found = [v for n in both for v in _file(one[n], two[n])]
    only = [tuple(f"{n} ({_size(s[n].size)})" for n in s if n not in t) for s, t in ((one, two), (two, one))]
    same = len(both) - len(other)
    sizes = [sum(f.size for f in m.files) for m in (a, b)]
    said = [_files_mean(other, same, only)]
    if sizes[0] != sizes[1]:
        said.append(f"all files: {_size(sizes[0])} in A, {_size(sizes[1])} in B{_change(*sizes)}")
    return Group("files", tuple(said), tuple(found), only[0], only[1], same)


def _files_mean(other: list[str], same: int, only: list[tuple[str, ...]]) -> str:
    if not other and not any(only):
        return f"not one byte differs in {many(same, 'file')}"
    verb = "differs" if len(other) == 1 else "differ"
    parts = [f"{len(other)} of {many(same + len(other), 'file')} in both {verb}"]
    if 0 < len(other) <= 3:  # noqa: PLR2004 - more would be read in the table
        parts[0] += f": {', '.join(n.removeprefix('bin/') for n in other)}"
    parts += [f"{len(o)} only in {n}" for n, o in zip("AB", only, strict=True) if o]
    return "; ".join(parts)


def _file(a: File, b: File) -> Iterator[Value]:
    if a.sha256 != b.sha256:
        bytes_ = _change(a.size, b.size) or ", the same size, other bytes"
        yield Value(a.path, f"{_size(a.size)} {a.sha256[:12]}", f"{_size(b.size)} {b.sha256[:12]}{bytes_}")
    elif a.size != b.size:
        yield Value(f"{a.path}: size", str(a.size), str(b.size))
    sets = [n for n in ("needed", "external") if getattr(a, n) != getattr(b, n)]
    for name in sets[:1]:  # what is external is needed, and would be told twice
        only = [
            ", ".join(n for n in getattr(f, name) if n not in getattr(g, name)) for f, g in ((a, b), (b, a))
        ]
        yield Value(f"{a.path}: {name}, only here", only[0] or "none", only[1] or "none")
    facts = ("machine", "role", "runpath", "glibc", *(("build_id",) if a.sha256 == b.sha256 else ()))
    yield from values((f"{a.path}: {n.replace('_', ' ')}", getattr(a, n), getattr(b, n)) for n in facts)
    yield from values(((f"{a.path}: device code", _code(a), _code(b)),))


def _code(file: File) -> str:
    return ", ".join(f"{c.entries} {c.name} ({c.compressed} compressed)" for c in file.device_code) or "none"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"  # noqa: PLR2004


def _change(a: int, b: int) -> str:
    return f" ({(b - a) / a:+.1%})" if a and a != b else ""


PARTS = (run, files)
