from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from sparkbuild.artifact import store
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.cli.main import run
from sparkbuild.files import Folders
from tests.conftest import FILE, digest, manifest_of
from tests.pages import alone


def add(made: Manifest) -> str:
    """Put an artifact into the store; return its name."""
    with store.adding(made.engine.name, made.key, Folders.default()) as temp:
        (temp / "bin").mkdir()
        (temp / "bin/toy-server").write_bytes(FILE)
        store.finish(temp, made)
    return f"{made.engine.name}@{made.key[:12]}"


@pytest.fixture
def two() -> tuple[str, str]:
    """Return the names of two artifacts in the store; the second is for another machine."""
    one = manifest_of()
    target = msgspec.structs.replace(one.target, arch="board-plus", cpu_flags=("-march=armv8.2-a+sve2",))
    other = msgspec.structs.replace(one, key=digest("plus"), target=target)
    return add(one), add(other)


def test_diff_says_what_differs_and_what_is_the_same(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["diff", *two]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"A {two[0]} B {two[1]}" in said
    assert "the same engine, source, definitions" in said
    assert "not one byte differs in 1 file" in said
    assert "arch board board-plus" in said
    assert "B's compiler may use sve2 as well" in said
    assert "the same in both: engine, source" in said


def test_diff_in_json(two: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", *two, "--json", "--exit-code"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparkbuild/diff/1"
    assert found["differs"] is True
    groups = {g["name"]: g for g in found["difference"]["groups"]}
    assert groups["target"]["values"][0] == {
        "what": "arch",
        "a": "board",
        "b": "board-plus",
        "kind": "differs",
    }
    assert groups["source"]["values"] == []


def test_an_exit_code_only_where_it_is_asked_for_and_something_differs(two: tuple[str, str]) -> None:
    assert run(["diff", two[0], two[0], "--exit-code"]) == 0
    assert run(["diff", *two]) == 0
    assert run(["diff", *two, "--exit-code"]) == 1


def test_paths_of_a_folder_and_of_a_manifest(
    two: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store.pick(two[0], Folders.default()).path
    (tmp_path / "x.json").write_bytes((folder / "manifest.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert run(["diff", str(folder), "x.json", "--exit-code"]) == 0
    assert run(["diff", str(folder), "./nothing"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_a_hostile_manifest_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    one = manifest_of()
    evil = msgspec.structs.replace(
        one,
        key=digest("evil"),
        source=msgspec.structs.replace(one.source, notes=("\x1b[2J[bold]x",), commit="\x1b]0;x\x07"),
    )
    assert run(["diff", add(one), add(evil)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]x" in out


def test_report_writes_one_page(
    two: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert run(["report", "--out", str(out)]) == 0
    assert "2 artifacts" in capsys.readouterr().out
    text = out.read_text()
    alone(text)
    assert all(name in text for name in two)
    assert run(["report", two[1], "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["artifacts"], told["left_out"]) == ("sparkbuild/report/1", [two[1]], [])
    assert two[0] not in out.read_text()


def test_report_leaves_out_what_a_page_has_no_room_for_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [add(manifest_of(key=digest(str(n)))) for n in range(10)]
    broken = store.folder("toy", digest("broken"), Folders.default())
    broken.mkdir()
    (broken / "manifest.json").write_text("{}")
    out = tmp_path / "page.html"
    assert run(["report", "--out", str(out)]) == 0
    assert "left out: 2" in capsys.readouterr().out
    text = out.read_text()
    assert all(n in text for n in names)
    assert "can not be read:" in text


def test_report_about_nothing_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report"]) == 2
    assert "no artifact in the store" in capsys.readouterr().err
