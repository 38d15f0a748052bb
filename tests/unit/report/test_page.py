from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from sparkbuild.artifact.timeline import SCHEMA, Timeline
from sparkbuild.catalog.records import State
from sparkbuild.inspection.features import ALL_QUANTS, Finding, Pair
from sparkbuild.inspection.features import State as FeatureState
from sparkbuild.report.chart import section
from sparkbuild.report.gather import Shown
from sparkbuild.report.page import page
from sparkbuild.verification import Journey, Stage
from tests.conftest import manifest_of
from tests.pages import Read, alone
from tests.reproductions import hostile

replace = msgspec.structs.replace
NOW = dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)
STEPS = {
    "src/CMakeFiles/toy.dir/k.cu.o": (0, 4000),
    "src/CMakeFiles/toy.dir/a.c.o": (0, 1500),
    "bin/toy": (4000, 5000),
}


def finding(name: str, state: FeatureState, reason: str = "") -> Finding:
    return Finding(name, f"the {name}", "gpu", state, (), reason)


def journey(flag: str, verdict: Any, state: Any = "held") -> Journey:  # noqa: ANN401 - a literal
    stages = (Stage("asked", "held", "x"), Stage("binary", state, "what was seen"))
    return Journey(flag, "ON", "recipe:x", required=True, stages=stages, verdict=verdict)


def shown(letter: str = "A", **changes: Any) -> Shown:  # noqa: ANN401 - any field
    made = manifest_of(
        flags=(
            journey("TOY_FAST", "in force"),
            journey("TOY_LOST", "lost", "lost"),
            journey("TOY_DIM", "unknown", "unknown"),
            journey("TOY_SET", "set"),
        )
    )
    verdicts = replace(
        made.verdicts,
        findings=(finding("sve", "present"), finding("rpc", "absent"), finding("tls", "unknown", "stripped")),
        pairs=(Pair(64, "f16", "f16"), Pair(128, "f16", "f16"), Pair(128, "q4_0", "f16")),
    )
    timeline = Timeline(SCHEMA, 2, 2, STEPS)
    known = Shown(letter, "toy@123", replace(made, verdicts=verdicts), "identical", "passed", timeline)
    return replace(known, **changes)


def other(letter: str = "B") -> Shown:
    """Return an artifact of which little is known."""
    made = manifest_of()
    engine = replace(made.engine, state=State("deprecated"))
    source = replace(made.source, commit="", build_number=0, patches=())
    findings = (finding("sve", "absent"), finding("rpc", "absent"), finding(ALL_QUANTS, "absent", "no CUDA"))
    made = replace(made, engine=engine, source=source, verdicts=replace(made.verdicts, findings=findings))
    return Shown(letter, "toy@456", made, "different", "failed", None, ("smoke.json: it is not valid",))


def test_what_was_not_tried_is_said_so() -> None:
    """The words "not run" are a verdict: of a smoke test that could not be run here."""
    said = Read(page([replace(shown(), reproduction="", smoke="")], made=NOW)).said
    assert "not run" not in said
    assert said.count("not tried") == 2


PAGES = [[shown()], [shown(), other()], []]


@pytest.mark.parametrize("many", PAGES)
def test_a_page_needs_and_allows_nothing_but_its_own_style(many: list[Shown]) -> None:
    alone(page(many, made=NOW))


@pytest.mark.threat(
    "manifests",
    "script tags and escape codes in all that a page shows",
    "the same tags and attributes, other words only",
)
@pytest.mark.parametrize("many", PAGES[:2])
def test_hostile_manifests_change_words_only(many: list[Shown]) -> None:
    text = page([hostile(s) for s in many], made=NOW, left_out=hostile(("x",)), notes=hostile(("y",)))
    attacked = Read(text)
    plain = Read(page(many, made=NOW, left_out=("x",), notes=("y",)))
    assert [(t, sorted(a)) for t, a in attacked.tags] == [(t, sorted(a)) for t, a in plain.tags]
    assert "<script" not in text
    assert 'onload="' not in text
    assert all(c.isprintable() or c == "\n" for c in text)
    alone(text)


def test_people_find_what_each_artifact_is() -> None:
    said = Read(page([shown(), other()], made=NOW, left_out=("toy@789",), notes=("one is damaged",))).said
    for words in (
        "2 artifacts; made 2026-01-02 03:04 UTC",
        "Note: one is damaged",
        "Left out, to be readable: toy@789.",
        "A toy@123 Toy aaaaaaaaa , build 7, 1 patch board, cuda 121 0.0 MB 2026-01-02 03:04",
        "✓ identical ✓ passed B toy@456 Toy deprecated unknown board, cuda 121",
        "✗ different ✗ failed",
        "B: smoke.json: it is not valid",
    ):
        assert words in said


def test_features_that_differ_are_in_the_table_and_the_others_in_words() -> None:
    said = Read(page([shown(), other()], made=NOW)).said
    assert "sve the sve ✓ \N{EN DASH}" in said
    assert "In none: rpc" in said
    assert "Not known of any: tls" in said
    alone_said = Read(page([shown()], made=NOW)).said
    assert "In all: sve In none: rpc Not known of any: tls" in alone_said


def test_pairs_are_a_grid_for_each_head_size() -> None:
    read = Read(page([shown(), other()], made=NOW))
    assert "head size 64 1 pairs f16 q4_0 f16 ● · q4_0 · ·" in read.said
    assert "head size 128 2 pairs f16 q4_0 f16 ● · q4_0 ● ·" in read.said
    assert "Other pairs: others are converted" in read.said
    assert "B: no such kernel: no CUDA" in read.said
    cells = [a["class"] for t, a in read.tags if t == "td" and a.get("class") in ("fast", "slow")]
    assert cells.count("fast") == 3
    assert len(cells) == 8


def test_head_sizes_with_the_same_pairs_share_a_grid() -> None:
    made = shown().manifest
    both = tuple(Pair(h, "f16", "f16") for h in (64, 128))
    one = shown(manifest=replace(made, verdicts=replace(made.verdicts, pairs=both)))
    assert "head sizes 64, 128 1 pairs" in Read(page([one], made=NOW)).said


def test_no_pair_and_no_word_about_it() -> None:
    bare = shown(manifest=manifest_of())
    assert "A: not looked for" in Read(page([bare], made=NOW)).said


def test_flags_that_are_lost_or_unknown_are_told_in_words() -> None:
    said = Read(page([shown()], made=NOW)).said
    assert "A TOY_LOST=ON: lost at binary: what was seen" in said
    assert "A TOY_DIM=ON: not known: what was seen" in said
    assert "TOY_DIM=ON ? TOY_FAST=ON ✓ TOY_LOST=ON ✗ TOY_SET=ON =" in said
    assert "None is lost or unknown." in Read(page([other()], made=NOW)).said


def test_a_build_is_told_with_its_slowest_files() -> None:
    read = Read(section(shown()))
    assert "compiled in 5.0 s, 3 steps, 2 jobs at most" in read.said
    assert "cores busy 65% of 2 cores" in read.said
    assert "at the end for 3.5 s fewer steps ran" in read.said
    assert "src/k.cu 4.0 s 61.5% 0 s src/a.c 1.5 s 23.1% 0 s bin/toy 1.0 s 15.4% 4.0 s" in read.said
    bars = [a for t, a in read.tags if t == "rect"]
    assert [a["class"] for a in bars] == ["cuda", "host", "other"]
    assert [float(a["width"] or 0) for a in bars] == [800, 300, 200]


def test_a_build_without_a_timeline_says_so() -> None:
    assert "It took 12 s with 4 jobs. No timeline was kept of it." in Read(section(other())).said
    empty = shown(timeline=Timeline(SCHEMA, 1, 1, {}))
    assert "No timeline was kept of it." in Read(section(empty)).said


def test_a_log_of_several_runs_is_not_taken_for_one() -> None:
    mixed = Timeline(SCHEMA, 1, 1, {"a": (0, 5), "b": (1, 5)})
    assert "more than one run of ninja is in this log" in Read(section(shown(timeline=mixed))).said


def test_of_very_many_steps_the_longest_are_drawn() -> None:
    steps = {f"{n}.o": (n * 10, n * 10 + 1 + n % 7) for n in range(3100)}
    read = Read(section(shown(timeline=Timeline(SCHEMA, 1, 1, steps))))
    assert len([t for t, _ in read.tags if t == "rect"]) == 3000
    assert "the 100 shortest are not drawn" in read.said
