"""What went into two artifacts, compared: source, target, definitions, compilers, CUDA, and the making."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from sparkbuild.artifact.manifest import DefinitionUsed, Manifest
from sparkbuild.comparing.differences import Group, Kind, Value, by_name, known, many, some, values
from sparkbuild.verification import Journey

_DAY = 86400


def engine(a: Manifest, b: Manifest) -> Group:
    """Compare which engine it is, and how its authors see it."""
    one, two = a.engine, b.engine
    found = values(
        (
            ("engine", one.name, two.name),
            ("title", one.title, two.title),
            ("homepage", one.homepage, two.homepage),
            ("state", one.state.status, two.state.status),
            ("state since", str(one.state.since or ""), str(two.state.since or "")),
            ("state's note", one.state.note, two.state.note),
        )
    )
    return Group("engine", (), found)


def source(a: Manifest, b: Manifest) -> Group:
    """Compare commits and contents; where a source came from is its making."""
    one, two = a.source, b.source
    patches = ({p.name: p.sha256 for p in one.patches}, {p.name: p.sha256 for p in two.patches})
    found = (
        *known((("commit", one.commit, two.commit), ("build number", one.build_number, two.build_number))),
        *known((("commit time", _time(one.commit_time), _time(two.commit_time)),)),
        *known((("tree", one.tree, two.tree), ("patched tree", one.patched_tree, two.patched_tree))),
        *by_name(*patches, of="patch "),
        *values(
            (
                ("came as", one.way, two.way),
                ("from", one.location, two.location),
                ("asked for", one.ref, two.ref),
                ("notes", "; ".join(one.notes), "; ".join(two.notes)),
            ),
            "making",
        ),
    )
    return Group("source", tuple(_source_means(a, b)) if found else (), found)


def _source_means(a: Manifest, b: Manifest) -> list[str]:
    one, two = a.source, b.source
    if one.patched_tree and one.patched_tree == two.patched_tree:
        return ["the same source, file for file"]
    said = []
    if one.commit and one.commit == two.commit:
        what = "other patches" if one.tree == two.tree else "another content"
        said.append(f"the same commit, {what}")
    if a.engine.name != b.engine.name:
        return [*said, "two engines: commits and build numbers are of two histories"]
    if one.build_number and two.build_number and one.build_number != two.build_number:
        said.append(_more("B's build number", two.build_number - one.build_number, ""))
    if one.commit_time and two.commit_time and abs(two.commit_time - one.commit_time) >= _DAY:
        days = (two.commit_time - one.commit_time) // _DAY
        said.append(f"B's commit is {many(abs(days), 'day')} {'younger' if days > 0 else 'older'}")
    return said


def _more(what: str, number: int, unit: str) -> str:
    return f"{what} is {abs(number)}{unit} {'higher' if number > 0 else 'lower'}"


def target(a: Manifest, b: Manifest) -> Group:
    """Compare the machine, and what the compile commands really said."""
    one, two = a.target, b.target
    found = values(
        (
            ("arch", one.arch, two.arch),
            ("backend", one.backend, two.backend),
            ("processor", one.processor, two.processor),
            ("CPU flags", " ".join(one.cpu_flags), " ".join(two.cpu_flags)),
            ("CUDA arch", one.cuda_arch or None, two.cuda_arch or None),
            ("CUDA arch in commands", _cuda_archs(a), _cuda_archs(b)),
            ("-march in commands", _marches(a), _marches(b)),
        )
    )
    return Group("target", tuple(_target_means(a, b)), found)


def _cuda_archs(made: Manifest) -> str | None:
    return ", ".join(sorted(made.build.compile_commands.cuda_archs)) or None


def _marches(made: Manifest) -> str | None:
    return ", ".join(sorted(m for m in made.build.compile_commands.march if m)) or None


def _target_means(a: Manifest, b: Manifest) -> list[str]:
    extensions = [{w for f in m.target.cpu_flags for w in f.split("+")[1:]} for m in (a, b)]
    said = []
    if a.target.processor != b.target.processor:
        said.append("two processors: no machine runs both natively")
    for name, more in (
        ("B", extensions[1] - extensions[0]),
        ("A", extensions[0] - extensions[1]),
    ):
        if more:
            said.append(f"{name}'s compiler may use {', '.join(sorted(more))} as well")
    return said


def definitions(a: Manifest, b: Manifest) -> Group:
    """Compare CMake definitions as asked and as in force, what was left out, and what was built."""
    tables = [{d.name: _definition(d) for d in m.definitions} for m in (a, b)]
    whys = [{d.name: f"{d.origin}: {d.why}" for d in m.definitions} for m in (a, b)]
    left_out = [{s.intent: s.reason for s in m.skipped} for m in (a, b)]
    asked = [{d.name: d.asked.removeprefix(d.local) for d in m.definitions} for m in (a, b)]
    found = by_name(tables[0], tables[1])
    targets = [[t for t in m.targets if t not in n.targets] for m, n in ((a, b), (b, a))]
    forced = [v.what for v in found if v.a and v.b and asked[0][v.what] == asked[1][v.what]]
    said = [f"asked alike, and not the same in force: {some(forced)}"] if forced else []
    return Group(
        "definitions",
        tuple(said),
        (
            *found,
            *values((("built, only here", ", ".join(targets[0]) or None, ", ".join(targets[1]) or None),)),
            *by_name(left_out[0], left_out[1], "making", of="left out: "),
            *(v for v in by_name(whys[0], whys[1], "making", of="reason of ") if v.a and v.b),
        ),
        same=len(set(tables[0]) & set(tables[1])) - sum(v.a is not None and v.b is not None for v in found),
    )


def _definition(used: DefinitionUsed) -> str:
    """Return a definition as asked, and as in force where that is spelled otherwise, without local places."""
    asked, in_force = (v.removeprefix(used.local) for v in (used.asked, used.in_force))
    asked = asked or (used.local and "a place of the building machine")
    in_force = in_force or (used.local and "a place of the building machine")
    here = "" if asked == in_force else f", in force {in_force!r}"
    return f"{asked}{here}{' (required)' if used.required else ''}"


def flags(a: Manifest, b: Manifest) -> Group:
    """Compare the verdicts on what became of each flag."""
    one, two = ({j.flag: j for j in m.flags} for m in (a, b))
    found = [_journeys(n, one.get(n), two.get(n)) for n in sorted({*one, *two})]
    return Group("flags", (), tuple(v for v in found if v))


def _journeys(name: str, a: Journey | None, b: Journey | None) -> Value | None:
    verdicts = [j.verdict if j else None for j in (a, b)]
    if verdicts[0] == verdicts[1]:
        return None
    kind: Kind = "unknown" if "unknown" in verdicts else "differs"
    return Value(name, a.why if a else None, b.why if b else None, kind)


def compilers(a: Manifest, b: Manifest) -> Group:
    """Compare compilers and what they proved; the digest covers assembler, linker and run time too."""
    one, two = a.compilers, b.compilers
    proofs = [{p.feature: "proved" if p.holds else "not proved" for p in m.proofs} for m in (one, two)]
    found = (
        *values(
            (
                ("version", one.version, two.version),
                ("target", one.target, two.target),
                ("digest", one.digest, two.digest),
            )
        ),
        *(_proof(v) for v in by_name(proofs[0], proofs[1], of="proof of ")),
        *values((("C compiler", one.cc, two.cc), ("C++ compiler", one.cxx, two.cxx)), "making"),
    )
    same_version = one.version == two.version and one.digest != two.digest
    said = ("one version, but not the same bytes of compiler, assembler, linker or run time",)
    return Group("compilers", said if same_version else (), found)


def _proof(value: Value) -> Value:
    """Return a proof that only one was asked for as not known of the other."""
    if value.a and value.b:
        return value
    return Value(value.what, value.a or "unknown: not asked", value.b or "unknown: not asked", "unknown")


def cuda(a: Manifest, b: Manifest) -> Group:
    """Compare the CUDA toolkits."""
    one, two = ({"version": m.cuda.version, "digest": m.cuda.digest} if m.cuda else {} for m in (a, b))
    places = [{"origin": m.cuda.origin, "root": m.cuda.root} if m.cuda else {} for m in (a, b)]
    said = [f"{n} was made without CUDA" for n, m in (("A", one), ("B", two)) if not m] if one != two else []
    found = (*by_name(one, two), *by_name(places[0], places[1], "making"))
    return Group("CUDA", tuple(said), found)


def making(a: Manifest, b: Manifest) -> Group:
    """Compare when, where, with what effort and by which recipe they were made."""
    one, two = _making(a), _making(b)
    found = (
        *by_name(one, two, "making"),
        *by_name(_environment(a), _environment(b), "making", of="environment "),
    )
    shown: tuple[str, ...] = ()
    if a.build.wall_seconds and b.build.wall_seconds:
        jobs = (a.build.jobs, b.build.jobs)
        took = (a.build.wall_seconds, b.build.wall_seconds)
        shown = (f"A took {took[0]:.0f} s with {jobs[0]} jobs, B {took[1]:.0f} s with {jobs[1]}",)
    return Group("making", shown if found else (), found)


def _making(made: Manifest) -> Mapping[str, str]:
    build = made.build
    return {
        "made": f"{build.started:%Y-%m-%d %H:%M:%S} UTC",
        "by": f"sparkbuild {made.sparkbuild}",
        "host": build.host,
        "cmake": build.cmake,
        "ninja": build.ninja,
        "source's place": build.place,
        "jobs": str(build.jobs),
        "steps": str(build.steps),
        "compiled": f"{build.compile_commands.total} files, {build.compile_commands.cuda} of CUDA",
        "took": f"{build.wall_seconds:.1f} s",
        "of it configuring": f"{build.configure_seconds:.1f} s",
        "of it compiling": f"{build.compile_seconds:.1f} s",
        "from the compile cache": f"{build.cache.hits} objects" if build.cache else "",
        "other machines": "may have compiled, too" if build.distributed else "",
        "CPU time": f"{build.cpu_seconds:.1f} s",
        "deprecated": ", ".join(build.deprecated),
        "recipe": made.engine.recipe_digest,
        "toolchain": made.target.toolchain_digest,
        "configure": _placeless(made, " ".join(w for w in build.configure[1:] if not w.startswith("-D"))),
        "build": _placeless(made, " ".join(build.build[1:])),
    }


def _environment(made: Manifest) -> dict[str, str]:
    return {name: _placeless(made, value) for name, value in made.build.environment.items()}


def _placeless(made: Manifest, text: str) -> str:
    """Return a text without the name of the build folder, which no two builds share."""
    words = made.build.configure
    folder = next((words[n + 1] for n, w in enumerate(words[:-1]) if w == "-B"), "")
    return text.replace(folder, "BUILD-FOLDER") if folder else text


def _time(seconds: int) -> str:
    try:
        return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC" if seconds else ""
    except (OverflowError, OSError, ValueError):  # nothing bounds a manifest's number
        return f"{seconds} s since 1970"


PARTS = (engine, source, target, definitions, flags, compilers, cuda)
