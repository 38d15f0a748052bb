from __future__ import annotations

import datetime as dt
import json
import re
import sys
from pathlib import Path

import pytest

from sparkbuild.artifact.store import Stored
from sparkbuild.build.costs import Expected
from sparkbuild.catalog.records import Shelf, State
from sparkbuild.cli import progress, render
from sparkbuild.errors import CompileError
from sparkbuild.inspection.runtime import VersionReport
from sparkbuild.pipeline import Result
from sparkbuild.planning import Plan, make_plan
from tests.conftest import (
    cuda_of,
    digest,
    inputs_of,
    intent_of,
    manifest_of,
    options_of,
    recipe_of,
    source_of,
)


def plan_of() -> Plan:
    recipe = recipe_of(
        intent_of("fast", "TOY_FAST=ON"),
        intent_of("graphs", "TOY_GRAPHS=ON"),
        state=State("deprecated", dt.date(2026, 5, 25), "use another"),
    )
    source = source_of(notes=("differs from its commit",))
    known = inputs_of(
        options=("TOY_FAST",),
        recipe=Shelf(recipe, Path("/r"), digest("r")),
        source=source,
        backend="cuda",
        cuda=cuda_of(),
    )
    return make_plan(known)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (99.4, "99 s"),
        (99.6, "1 min 40 s"),
        (222, "3 min 42 s"),
        (5999, "99 min 59 s"),
        (6000, "1 h 40 min"),
        (3600 * 30 + 61, "30 h 01 min"),
    ],
)
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


def test_an_error_says_what_where_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    render.error(
        CompileError("it failed", where="a.c", remedy="mend it", output="its words\n\n"), as_json=False
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "its words\n\nsparkbuild: it failed\n  where:  a.c\n  remedy: mend it\n"


def test_an_error_without_more_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    render.error(CompileError("it failed"), as_json=False)
    assert capsys.readouterr().err == "sparkbuild: it failed\n"


def test_progress_in_a_log_is_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress() as shown:
        shown.stage("configure")
        shown.advance(1, 2, "x", 3.0)
        shown.note("careful")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["» configure", "! careful"]


def test_progress_now_and_then_tells_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress._Lines, "_EVERY", 0.0)
    with progress.progress() as shown:
        shown.advance(1, 4, "ggml.c", 222.0)
        shown.advance(1, 0)
    assert capsys.readouterr().err.splitlines()[0].split() == [
        *("25", "%", "ggml.c"),
        *("·", "3", "min", "42", "s", "left"),
    ]


def test_many_builds_in_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress._Lines, "_EVERY", 0.0)
    with progress.board() as shown:
        row = shown.row("toy gb10 cpu")
        row.stage("configure")
        row.advance(1, 4, "ggml.c", 222.0)
        row.note("careful")
        shown.left(2, 100.0)
        shown.done("toy gb10 cpu", None)
        shown.done("other gb10 cpu", CompileError("x.o could not be made"))
        shown.left(1, None)
        shown.left(0, 0.0)
    assert capsys.readouterr().err.splitlines() == [
        "toy gb10 cpu: » configure",
        "toy gb10 cpu:    25 % ggml.c · 3 min 42 s left",
        "toy gb10 cpu: ! careful",
        "  2 builds to go · 1 min 40 s left",
        "toy gb10 cpu: done",
        "other gb10 cpu: failed: x.o could not be made",
        "  1 build to go",
    ]


def test_many_builds_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.board() as shown:
        rows = [shown.row(f"{name} gb10 cpu") for name in ("toy", "other")]
        for row in rows:
            row.stage(_STEERS)
            row.note(_STEERS)
            row.advance(1, 4, _STEERS, 222.0)
        shown.left(2, 100.0)
        shown.done("toy gb10 cpu", None)
        shown.done("other gb10 cpu", CompileError(_STEERS))
    err = capsys.readouterr().err
    assert not re.search("\x1b]|\x07|\x1b\\[2J", err)
    assert "toy gb10 cpu: done" in err
    assert "other gb10 cpu: failed: " in err


_STEERS = "\x1b]0;title\x07 \x1b[2J [/bold] \r"


@pytest.mark.threat("sandbox", "escapes and markup in file names, warnings and errors", "shown, never obeyed")
@pytest.mark.parametrize("terminal", [False, True])
def test_a_sources_own_words_do_not_steer_the_terminal(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress._Lines, "_EVERY", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with progress.progress() as shown:
        for tell in (shown.stage, shown.note):
            tell(_STEERS)
        shown.advance(1, 4, _STEERS)
    render.error(CompileError(_STEERS, where=_STEERS, remedy=_STEERS, output=_STEERS), as_json=False)
    err = capsys.readouterr().err
    assert not re.search("\x1b]|\x07|\x1b\\[2J", err)
    assert err.count("[/bold]") >= 6


def test_markup_in_data_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    render.table("t", ("a", "b"), [("[bold]x[/bold]", "[/nonsense]")])
    assert "[bold]x[/bold]" in capsys.readouterr().out


# --- plans and results ---------------------------------------------------------------------------


def test_a_plan_shows_what_decides_it(capsys: pytest.CaptureFixture[str]) -> None:
    render.plan(plan_of(), None, None, explain=False, as_json=False)
    out = capsys.readouterr().out
    said = (
        "Toy [deprecated since 2026-05-25: use another]",
        f"{'a' * 40}, build 7",
        "differs from its commit",
        "13.0.88, wheels: /opt/cuda",
        "toy-server toy-cuda",
        "TOY_FAST",
    )
    assert [words for words in said if words not in out] == []
    assert "because" not in out


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (None, "not known: nothing was built here"),
        (
            Expected(212.5, 3400.0, 16, "the recipe's weights"),
            "about 3 min 32 s to compile with 16 jobs, by the recipe's weights",
        ),
        (
            Expected(40.0, 40.0, 1, "an earlier build here"),
            "about 40 s to compile with 1 job, by an earlier build here",
        ),
    ],
)
def test_a_plan_says_what_it_should_take(
    expected: Expected | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    render.plan(plan_of(), None, expected, explain=False, as_json=False)
    assert words in capsys.readouterr().out
    render.plan(plan_of(), None, expected, explain=False, as_json=True)
    found = json.loads(capsys.readouterr().out)["expected"]
    assert (found["seconds"] if found else None) == (expected.seconds if expected else None)


def test_what_is_expected_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress() as shown:
        shown.advance(0, 400, "", 212.5)
        shown.advance(0, 400)
        shown.advance(1, 400, "a.c", 212.0)
    assert capsys.readouterr().err == "    0 %  · 3 min 32 s left\n"


def test_explain_gives_reasons_and_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    render.plan(plan_of(), None, None, explain=True, as_json=False)
    out = capsys.readouterr().out
    assert all(
        words in out for words in ("recipe:fast", "because", "this source does not declare TOY_GRAPHS")
    )


def test_the_options_of_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    render.plan(plan_of(), options_of("TOY_B", "TOY_A"), None, explain=False, as_json=False)
    out = capsys.readouterr().out
    assert out.index("TOY_A") < out.index("TOY_B")
    assert "TOY_FAST" not in out


def test_a_plan_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of()
    render.plan(plan, options_of("TOY_A"), None, explain=False, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparkbuild/plan/1"
    assert found["plan"]["key"] == plan.key
    assert [o["name"] for o in found["options"]] == ["TOY_A"]


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (VersionReport("native", "", "x", 7, "aaaa"), "--version: build 7, commit aaaa (native)"),
        (VersionReport("not run", "no emulator"), "--version: not run: no emulator"),
    ],
)
@pytest.mark.parametrize(("fresh", "how"), [(True, "built in 12 s"), (False, "already in the store")])
def test_a_result_says_where_it_is_and_how_it_came(
    capsys: pytest.CaptureFixture[str], report: VersionReport, said: str, fresh: bool, how: str
) -> None:
    stored = Stored(Path("/store/toy/x"), manifest_of(version=report))
    render.built([Result(stored, fresh)], [], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{stored.name}  {how}"
    assert lines[1].strip() == "/store/toy/x/bin"
    assert lines[3].strip() == said


def test_results_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    render.built([Result(Stored(Path("/s"), manifest_of()), fresh=True)], [], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparkbuild/build/1"
    assert [(a["fresh"], a["path"]) for a in found["artifacts"]] == [(True, "/s")]


def test_a_terminal_sees_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.progress() as shown:
        shown.stage("configure [1]")
        shown.advance(1, 2, "ggml.c", 3.0)
        shown.advance(2, 2, "ggml.c", 0.0)
        shown.note("careful")
        shown.stage("compile")
    out, err = capsys.readouterr()
    assert out == ""
    assert all(words in err for words in ("» configure [1]", "! careful", "» compile"))
