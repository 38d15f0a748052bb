from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.catalog.records import State
from sparkbuild.comparing.diff import compare
from sparkbuild.comparing.differences import Difference, Group, Value
from sparkbuild.inspection.features import ALL_QUANTS, Finding, Model, Pair
from sparkbuild.inspection.report import BackendReport, SystemReport
from sparkbuild.source import Patch
from sparkbuild.verification import Journey, Stage
from tests.conftest import digest, manifest_of

replace = msgspec.structs.replace


def group(found: Difference, name: str) -> Group:
    return next(g for g in found.groups if g.name == name)


def differing(found: Difference) -> list[str]:
    return [g.name for g in found.groups if g.differs]


def part(manifest: Manifest, name: str, /, **changes: Any) -> Manifest:  # noqa: ANN401 - any field
    """Return the manifest with fields of one of its parts changed."""
    return replace(manifest, **{name: replace(getattr(manifest, name), **changes)})


def findings(**states: str) -> tuple[Finding, ...]:
    return tuple(
        msgspec.convert(
            {"name": n, "title": n.upper(), "group": "gpu", "state": s, "reason": f"why {n}"}, Finding
        )
        for n, s in states.items()
    )


def full() -> Manifest:
    """Return a manifest in which nothing is empty."""
    made = manifest_of(
        engine=replace(manifest_of().engine, state=State("active", None, "well kept")),
        flags=(
            Journey(
                "TOY_FAST",
                "ON",
                "recipe:fast",
                required=True,
                stages=(Stage("binary", "held", "x"),),
                verdict="set",
            ),
        ),
        system=SystemReport(
            "native", "", "CPU : NEON = 1", {"CPU": {"NEON": "1"}}, (BackendReport("CPU", {"SVE": "1"}),)
        ),
    )
    return part(
        made,
        "verdicts",
        findings=findings(cuda="present", sve="absent", **{ALL_QUANTS: "present"}),
        pairs=(Pair(64, "f16", "f16"), Pair(128, "q4_0", "q8_0")),
        models=(Model("aa", "present"), Model("bb", "absent")),
        options=("--threads",),
    )


def test_the_same_is_told_as_the_same() -> None:
    found = compare(full(), full())
    assert not any(g.anything for g in found.groups)
    assert not found.differs
    assert found.summary == (
        "the same engine, source, target, definitions, compilers, CUDA",
        "not one byte differs in 1 file",
        "the same key, which promises the same bytes: kept",
    )
    other = replace(full(), files=(replace(full().files[0], sha256=digest("other")),))
    assert compare(full(), other).summary[-1] == "the same key, which promises the same bytes: not kept"


def test_a_record_reads_back_as_it_was() -> None:
    found = compare(full(), part(full(), "target", arch="other"), ("x@1", "y@2"))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Difference) == found
    assert (found.a.name, found.b.name, found.a.engine) == ("x@1", "y@2", "toy")


def test_another_target_with_one_file_that_differs() -> None:
    a = full()
    other = replace(a.files[0], path="bin/lib.so", sha256=digest("1"), size=200_000, needed=("libc.so.6",))
    a = replace(a, files=(*a.files, other))
    b = part(a, "target", arch="board-plus", cpu_flags=("-march=armv8.2-a+sve2",))
    changed = replace(other, sha256=digest("2"), size=210_000, needed=("libc.so.6", "libm.so.6"))
    b = replace(b, files=(a.files[0], changed), key=digest("other"))
    found = compare(a, b)
    assert differing(found) == ["target", "files"]
    assert found.summary == (
        "the same engine, source, definitions, compilers, CUDA",
        "not the same: target",
        "1 of 2 files in both differs: lib.so",
    )
    assert "B's compiler may use sve2 as well" in group(found, "target").meaning
    assert group(found, "files").values == (
        Value("bin/lib.so", f"0.2 MB {digest('1')[:12]}", f"0.2 MB {digest('2')[:12]} (+5.0%)"),
        Value("bin/lib.so: needed, only here", "none", "libm.so.6"),
    )
    assert group(found, "files").same == 1


def test_files_of_one_side_only() -> None:
    a = full()
    b = replace(a, files=(replace(a.files[0], path="bin/new", size=5_000_000),))
    found = group(compare(a, b), "files")
    assert (found.only_a, found.only_b) == (("bin/toy-server (0.0 kB)",), ("bin/new (5.0 MB)",))
    assert found.meaning[0] == "0 of 0 files in both differ; 1 only in A; 1 only in B"


def test_two_commits() -> None:
    a = full()
    b = part(a, "source", commit="d" * 40, tree="e" * 40, patched_tree="f" * 40, build_number=19)
    b = part(b, "source", commit_time=a.source.commit_time + 3 * 86400)
    assert group(compare(a, b), "source").meaning == (
        "B's build number is 12 higher",
        "B's commit is 3 days younger",
    )
    assert group(compare(b, a), "source").meaning == (
        "B's build number is 12 lower",
        "B's commit is 3 days older",
    )
    other = part(b, "engine", name="other")
    assert group(compare(a, other), "source").meaning == (
        "two engines: commits and build numbers are of two histories",
    )


def test_the_same_commit_with_another_patch_or_from_elsewhere() -> None:
    a = full()
    b = part(a, "source", patched_tree="f" * 40, patches=(Patch("0001-x.patch", digest("q")),))
    assert group(compare(a, b), "source").meaning == ("the same commit, other patches",)
    moved = compare(a, part(a, "source", location="elsewhere", way="local"))
    assert group(moved, "source").meaning == ("the same source, file for file",)
    assert not moved.differs


def test_a_commit_that_is_not_known_is_no_difference() -> None:
    found = compare(full(), part(full(), "source", commit="", build_number=0, commit_time=0))
    assert [(v.what, v.b, v.kind) for v in group(found, "source").values] == [
        ("commit", "unknown", "unknown"),
        ("build number", "unknown", "unknown"),
        ("commit time", "unknown", "unknown"),
    ]
    assert not found.differs


def test_features_and_what_is_not_known_of_them() -> None:
    a = part(
        full(), "verdicts", findings=findings(one="present", two="absent", three="unknown", old="absent")
    )
    b = part(full(), "verdicts", findings=findings(one="absent", two="present", three="absent"))
    found = group(compare(a, b), "features")
    assert found.values == (
        Value("one", "present", "absent"),
        Value("two", "absent", "present"),
        Value("three", "unknown: why three", "absent", "unknown"),
        Value("old", "absent", "unknown: not looked for", "unknown"),
    )
    assert found.meaning == (
        "A has one; B has not",
        "B has two; A has not",
        "not known on one side: three, old",
    )


def test_pairs_by_head_size_and_what_becomes_of_the_others() -> None:
    a = part(full(), "run", pairs_note="others are converted")
    b = part(a, "verdicts", pairs=(Pair(64, "f16", "f16"), Pair(64, "q4_0", "q4_0"), Pair(128, "f16", "f16")))
    found = group(compare(a, b), "KV pairs")
    assert found.only_a == ("q4_0/q8_0 @128",)
    assert found.only_b == ("q4_0/q4_0 @64", "f16/f16 @128")
    assert found.values == (Value("head size 64", "1 pair", "2 pairs"),)
    assert found.same == 1
    assert found.meaning == (
        "A lacks FlashAttention vector kernels for 2 pairs that B has",
        "in A: others are converted",
        "B lacks FlashAttention vector kernels for 1 pair that A has",
        "in B: others are converted",
    )


@pytest.mark.parametrize(("state", "known"), [("absent", True), ("unknown", False), ("", False)])
def test_no_pair_is_absent_only_where_that_is_proved(state: str, known: bool) -> None:
    seen = findings(**{ALL_QUANTS: state}) if state else ()
    found = group(compare(full(), part(full(), "verdicts", pairs=(), findings=seen)), "KV pairs")
    assert found.differs == known
    if known:
        assert "B has none at all: why fa_all_quants" in found.meaning
    else:
        why = "unknown: why fa_all_quants" if state else "unknown: not looked for"
        assert found.values == (Value("vector kernels", "2 pairs", why, "unknown"),)


def test_models_of_one_side_and_those_not_known() -> None:
    a = part(
        full(), "verdicts", models=(Model("aa", "present"), Model("bb", "absent"), Model("cc", "present"))
    )
    b = part(
        a,
        "verdicts",
        models=(Model("aa", "absent"), Model("bb", "present"), Model("cc", "unknown")),
        models_reason="perhaps",
    )
    found = group(compare(a, b), "models")
    assert (found.only_a, found.only_b) == (("aa",), ("bb",))
    assert found.values == (Value("1 architecture", "present", "unknown: perhaps", "unknown"),)
    none = group(compare(a, part(a, "verdicts", models=(), models_reason="no table")), "models")
    assert not none.differs
    assert {v.b for v in none.values} == {"unknown: no table"}


def test_options_gained_and_lost() -> None:
    found = group(compare(full(), part(full(), "verdicts", options=("--load-mode",))), "options")
    assert (found.only_a, found.only_b) == (("--threads",), ("--load-mode",))


def test_what_did_not_run_said_nothing() -> None:
    silent = replace(full(), system=SystemReport("not run", "no libcuda"))
    found = compare(full(), silent)
    assert not found.differs
    assert (
        Value("what it says", "2 lines", "unknown: no libcuda", "unknown") in group(found, "run time").values
    )
    other = replace(full(), system=replace(full().system, features={"CPU": {"NEON": "0"}}))
    assert group(compare(full(), other), "run time").values == (Value("CPU NEON", "1", "0"),)


def test_a_switch_that_is_spelled_otherwise() -> None:
    a = full()
    tool = a.run.tools[0]
    other = replace(
        tool, switches=(*tool.switches[:2], replace(tool.switches[2], words=("--load-mode", "none")))
    )
    b = part(a, "run", tools=(other,))
    assert group(compare(a, b), "run").values == (
        Value("cache_type_k of server", "--cache-type-k {value} (f16, q4_0)", None),
        Value("mmap of server", "off: --no-mmap", "off: --load-mode none"),
    )
    gone = compare(a, part(a, "run", tools=()))
    assert group(gone, "run").meaning == ("only A has server",)


def test_places_of_a_machine_are_no_difference() -> None:
    a, b = (
        part(
            replace(
                full(),
                definitions=(
                    manifests.DefinitionUsed(
                        "ROOT",
                        f"{place}/lib",
                        f"{place}/lib",
                        "PATH",
                        "sparkbuild",
                        "x",
                        required=False,
                        local=place,
                    ),
                ),
            ),
            "build",
            configure=("cmake", "-S", "x", "-B", f"{place}/build"),
            environment={"HOME": f"{place}/build/home"},
        )
        for place in ("/one", "/two")
    )
    assert not any(g.anything for g in compare(a, b).groups)


def test_the_making_is_no_difference_that_counts() -> None:
    found = compare(full(), part(full(), "build", host="another", jobs=9, wall_seconds=99.0))
    assert not found.differs
    assert group(found, "making").meaning == ("A took 12 s with 4 jobs, B 99 s with 9",)


# What may change without a word, and why.
_SILENT = {
    "schema": "one value only",
    "key": "follows from the rest; both keys head the comparison",
    "flags.asked": "a definition",
    "flags.origin": "a definition",
    "flags.required": "a definition",
    "flags.stages": "only the verdict is compared",
    "flags.lost_at": "only the verdict is compared",
    "definitions.type": "what a type does shows in the value in force",
    "definitions.local": "a place of the building machine",
    "compilers.proofs.error": "the proof is compared",
    "build.compile_commands.march": "names are compared, not how many say so",
    "build.compile_commands.cuda_archs": "names are compared, not how many say so",
    "verdicts.title": "follows from the engine",
    "verdicts.engine_evidence": "the verdict is compared",
    "verdicts.findings.title": "the same for a name",
    "verdicts.findings.group": "the same for a name",
    "verdicts.findings.reason": "the verdict is compared",
    "verdicts.findings.evidence": "the verdict is compared",
    "verdicts.models_reason": "told where a model is unknown",
    "verdicts.pairs_note": "that of run is compared",
    "verdicts.external": "compared file by file",
    "verdicts.cuda_major": "compared in run",
    "run.needs.cpu_features": "the proofs are compared",
    "version.output": "number and commit are compared",
    "version.reason": "whether it ran is compared",
    "system.reason": "told where it did not run",
    "system.system_info": "its parts are compared",
    "system.backends.devices": "the machine's, not the artifact's",
    "run.tools.learned": "the switches are compared",
    "run.pairs": "their number is compared, and the verdict's pairs",
    "build.configure": "the program's path and places do not count",
    "build.build": "the program's path and places do not count",
}


def changed(value: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON
    """Yield a JSON value once for each leaf, with that leaf changed; no numbers in its path."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from ((p, value | {name: v}) for p, v in changed(inner, f"{path}.{name}".lstrip(".")))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from ((p, [*value[:n], v, *value[n + 1 :]]) for p, v in changed(inner, path))
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, int | float):
        yield path, value + 1
    elif isinstance(value, str):
        yield from ((path, v) for v in (value + "x", value[:-1] + ("1" if value.endswith("0") else "0")))


def test_nothing_of_a_manifest_changes_without_a_word() -> None:
    made = full()
    silent, tried = set(), set()
    for path, raw in changed(json.loads(manifests.encode(made)), ""):
        try:
            other = msgspec.json.decode(json.dumps(raw).encode(), type=Manifest)
        except msgspec.ValidationError:
            continue
        tried.add(path)
        if not any(g.anything for g in compare(made, other).groups):
            silent.add(path)
    excused = tuple(_SILENT)
    assert len(tried) > 100
    assert {p for p in silent if not p.startswith(excused)} == set()
