from __future__ import annotations

import pytest

from sparkbuild.reproduction.page import page
from sparkbuild.reproduction.records import LADDER, FileComparison, Level, Rebuild, Reproduction
from tests.conftest import digest
from tests.pages import Read, alone
from tests.reproductions import BARE, hostile, incomparable, reproduction_of

_REPORTS = [reproduction_of(), reproduction_of(rebuilds=()), incomparable()]


@pytest.mark.threat(
    "manifests",
    "script tags in all that a reproduction's page shows",
    "the same tags and attributes, other words only",
)
@pytest.mark.parametrize("report", _REPORTS)
def test_a_hostile_report_changes_words_only(report: Reproduction) -> None:
    plain, attacked = Read(page(report)), Read(page(hostile(report)))
    assert attacked.tags == plain.tags
    assert '<script>alert(\'x\')</script>" onload="y" &' in attacked.said
    text = page(hostile(report))
    assert "<script" not in text
    assert 'onload="' not in text
    assert all(c.isprintable() or c == "\n" for c in text)
    assert text.encode()


@pytest.mark.parametrize("report", _REPORTS)
def test_a_page_needs_and_allows_nothing_but_its_own_style(report: Reproduction) -> None:
    alone(page(report))


def test_people_find_what_was_varied_every_file_and_the_cause() -> None:
    said = Read(page(reproduction_of())).said
    expected = (
        f"Reproduction of Toy, {digest('key')[:12]}: stripped",
        "Note: the network was not cut off",
        "rebuilt by somebody@example.invalid",
        "started 2026-01-02 03:04:05+00:00",
        "Rebuild 1: ✓ identical",
        "Rebuild 2: ✗ stripped",
        "umask 022 077",
        f"bin/toy-cli ✓ identical {digest('cli')[:12]} {digest('cli')} the same",
        f"bin/toy-server ✗ stripped {digest('server')[:12]} {digest('server')} {digest('another')[:12]}",
        "first file that differs src/CMakeFiles/toy.dir/stamp.c.o",
        "differs in time stamp, embedded path",
        "command run twice in one place differs each time",
        "cure give -Wdate-time and mend what it names",
        "Made by cc -O3 -c stamp.c -o stamp.c.o",
        "Samples 12:34:56 src/stamp.c",
        "Detail __TIME__ in stamp.c",
    )
    assert [words for words in expected if words not in said] == []


@pytest.mark.parametrize("level", LADDER)
def test_the_ladder_says_in_words_what_holds(level: Level) -> None:
    read = Read(page(reproduction_of(verdict=level, rebuilds=())))
    steps = [a for t, a in read.tags if t == "li"]
    assert [n for n, a in enumerate(steps) if "aria-current" in a] == [LADDER.index(level)]
    assert read.said.count("✗ not reached") == LADDER.index(level)
    assert read.said.count("the verdict") == 1
    assert read.said.count("✓ holds too") == max(0, 3 - LADDER.index(level))


def test_nothing_varied_and_a_file_that_one_side_lacks() -> None:
    files = (
        FileComparison("bin/gone", digest("gone"), "", "different"),
        FileComparison("bin/new", "", digest("new"), "different"),
    )
    said = Read(page(reproduction_of(rebuilds=(Rebuild((), "different", files, 1.0),), notes=()))).said
    assert "It took 1 s. Nothing was varied." in said
    assert f"{digest('gone')} no such file" in said
    assert f"no such file {digest('new')[:12]}" in said
    assert "Cause" not in said


def test_a_cause_of_which_little_is_known() -> None:
    said = Read(page(reproduction_of(rebuilds=(Rebuild((), "different", (), 1.0, BARE),)))).said
    assert "not run cure none known Made by cc a.c" in said
    assert "Samples" not in said
    assert "Detail" not in said


def test_not_comparable_has_inputs_and_no_ladder() -> None:
    said = Read(page(incomparable())).said
    assert "compilers gcc 13.3 gcc 14.2" in said
    assert "Nothing was built" in said
    assert "holds too" not in said
