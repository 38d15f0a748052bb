from __future__ import annotations

import json

import msgspec
import pytest

from sparkbuild.cli.render_reproduction import reproduction
from sparkbuild.reproduction.records import FileComparison, Level, Rebuild, Reproduction
from tests.conftest import digest
from tests.reproductions import BARE, DIFFERS, hostile, incomparable, reproduction_of

Capture = pytest.CaptureFixture[str]


def test_json_is_the_record(capsys: Capture) -> None:
    reproduction(reproduction_of(), required="identical", as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out)["schema"] == "sparkbuild/reproduction/1"
    assert msgspec.json.decode(out, type=Reproduction) == reproduction_of()


@pytest.mark.parametrize(
    ("required", "said"),
    [("identical", "NOT reached"), ("stripped", "reached"), ("features", "reached")],
)
def test_the_verdict_is_held_against_what_was_required(required: Level, said: str, capsys: Capture) -> None:
    reproduction(reproduction_of(), required=required, as_json=False)
    assert f"verdict  stripped ({required} was required: {said})" in capsys.readouterr().out


def test_people_see_rebuilds_differing_files_and_the_cause(capsys: Capture) -> None:
    reproduction(reproduction_of(), required="stripped", as_json=False)
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    expected = (
        "engine Toy",
        f"key {digest('key')[:12]}",
        "target board, cuda",
        f"commit {'a' * 40}",
        "1 path identical 2 of 2 61 s",
        "2 path, umask stripped 1 of 2 2 h 02 min",
        "rebuild 2: what differs",
        f"bin/toy-server {digest('server')[:12]} {digest('another')[:12]} stripped",
        "rebuild 2: the first file that differs is src/CMakeFiles/toy.dir/stamp.c.o",
        "made by: cc -O3 -c stamp.c -o stamp.c.o",
        "differs in: time stamp, embedded path",
        "12:34:56",
        "command run twice in one place: differs each time",
        "cure: give -Wdate-time and mend what it names",
        "detail: __TIME__ in stamp.c",
        "note: the network was not cut off",
    )
    assert [line for line in expected if line not in lines] == []
    assert "rebuild 1: what differs" not in out
    assert "bin/toy-cli" not in out


def test_a_file_that_one_side_lacks_and_a_commit_that_nobody_knows(capsys: Capture) -> None:
    gone = FileComparison("bin/gone", digest("gone"), "", "different")
    report = reproduction_of(commit="", rebuilds=(Rebuild((), "different", (DIFFERS, gone), 1.0),), notes=())
    reproduction(report, required="identical", as_json=False)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"bin/gone {digest('gone')[:12]} none different" in lines
    assert "1 nothing different 0 of 2 1 s" in lines
    assert "commit unknown" in lines


def test_a_cause_of_which_little_is_known(capsys: Capture) -> None:
    report = reproduction_of(rebuilds=(Rebuild((), "different", (), 1.0, BARE),))
    reproduction(report, required="identical", as_json=False)
    out = capsys.readouterr().out
    assert "differs in: code\ncommand run twice in one place: not run\ncure: none known\n\nnote" in out


def test_not_comparable_says_which_inputs_differ(capsys: Capture) -> None:
    reproduction(incomparable(), required="identical", as_json=False)
    out = capsys.readouterr().out
    assert "verdict  not comparable: nothing was built" in out
    assert "compilers  gcc 13.3  gcc 14.2" in out
    assert "rebuilds" not in out


@pytest.mark.parametrize("report", [reproduction_of(), incomparable()])
def test_nothing_in_a_report_steers_a_terminal(report: Reproduction, capsys: Capture) -> None:
    reproduction(hostile(report), required="identical", as_json=False)
    out = capsys.readouterr().out
    assert "<script>" in out
    assert all(c.isprintable() or c == "\n" for c in out)
