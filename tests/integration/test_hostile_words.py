"""Words of others that could steer a terminal, through the commands that show them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sparkbuild.cli import progress, render
from sparkbuild.cli.main import run
from sparkbuild.errors import SourceError
from tests.integration.engine import Box, Done, Toy

# Clear the screen, set the title, a C1 control, turn the direction of the text, go up and overwrite.
STEER = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eevil\r\x08"
_QUOTED = STEER.encode("unicode_escape").decode().replace("\\x", "\\u00")  # as TOML and JSON write it


def assert_plain(text: str) -> None:
    """Check that a text is lines that print as they are."""
    assert [c for c in text if not c.isprintable() and c not in "\n\t"] == []


def assert_said(done: Done, word: str, code: int) -> None:
    assert done.code == code, done.out + done.err
    assert word in done.out + done.err
    assert_plain(done.out + done.err)


@pytest.mark.threat(
    "environment",
    "escape codes in what CMake files declare, warn of and fail with",
    "shown as printable text only, for people and in JSON",
)
class TestSources:
    """A source whose CMake files speak to the terminal."""

    @pytest.mark.parametrize("form", ["--options", "--json"])
    def test_declared(self, form: str, toy: Toy, box: Box) -> None:
        toy.append("CMakeLists.txt", f'option(TOY_STEER "steer {STEER} me" OFF)\n').publish()
        words: list[str | Path] = [
            "plan",
            toy.name,
            "--backend",
            "cpu",
            "--source",
            toy.source,
            "--catalog",
            toy.catalog,
        ]
        done = box.run(*words, "--options", form)
        assert_said(done, "steer", 0)
        if form == "--json":
            helps = [o["help"] for o in json.loads(done.out)["options"]]
            assert any("\x9b31m\u202e" in h for h in helps)  # escaped, so it means the same

    def test_warned(self, toy: Toy, box: Box) -> None:
        warning = f"message(WARNING [==[TOY_STEER is deprecated {STEER}]==])\n"
        toy.append("CMakeLists.txt", f"{warning}message(FATAL_ERROR [==[it failed {STEER}]==])\n").publish()
        assert_said(box.build(toy), "it failed", 5)

    def test_compiled(self, toy: Toy, box: Box) -> None:
        """A compiler quotes the line that it does not like."""
        toy.append("src/llama.cpp", f"#error steer {STEER}\n").publish()
        assert_said(box.build(toy), "steer", 6)


@pytest.mark.threat(
    "environment", "escape codes in keys and values of a recipe", "shown as printable text only"
)
def test_recipe(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.publish().change_recipe("[state]", f'"key{_QUOTED}" = 1\n[state]')
    assert run(["recipes", "check", str(toy.recipe)]) == 1
    out, err = capsys.readouterr()
    assert "unknown key" in out
    assert_plain(out + err)


@pytest.mark.threat(
    "manifests", "escape codes in file names of a store and in paths", "shown as printable text only"
)
def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SPARKBUILD_HOME", str(tmp_path))
    debris = tmp_path / "store" / f"toy{STEER}" / ".0123456789abcdef.x"
    debris.mkdir(parents=True)
    (debris.parent / "0123456789abcdef").mkdir()
    (debris.parent / "0123456789abcdef" / "manifest.json").write_text(json.dumps({"schema": STEER}))
    bad = tmp_path / f"bad{STEER}"
    bad.mkdir()
    (bad / "manifest.json").write_text(json.dumps({STEER: STEER}))
    for words in (
        ["list"], ["gc", "--dry-run"], ["show", f"{bad}/"], ["verify", str(bad)], ["import", str(bad)],
        ["publish", str(tmp_path / "to"), f"{bad}/"], ["diff", f"{bad}/", f"{bad}/"], ["probe", str(bad)],
        ["reproduce", str(bad / "manifest.json")], ["smoke", str(bad)], ["report", f"{bad}/"],
        ["list", str(bad)], ["recipes", "check", str(bad)], ["verify-flags", f"{bad}/"],
    ):  # fmt: skip
        run(words)
        out, err = capsys.readouterr()
        assert out + err
        assert_plain(out + err)


@pytest.mark.threat(
    "git", "escape codes in what git says, as a server may send them", "shown as printable text only"
)
@pytest.mark.parametrize("terminal", [False, True], ids=["log", "terminal"])
def test_git(terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress._Lines, "_EVERY", 0.0)
    with monkeypatch.context() as here:
        here.setattr(sys.stderr, "isatty", lambda: terminal)
        with progress.progress() as shown:
            shown.stage(f"fetch {STEER}")
            shown.advance(1, 2, f"receiving {STEER} [/nonsense]", 3.0)
            shown.note(f"tag {STEER}")
    said = capsys.readouterr().err
    assert "nonsense" in said or terminal
    assert not {"\x9b", "\u202e", "\x07"} & set(said)
    assert "\x1b]0" not in said
    render.error(SourceError(f"git failed: {STEER}", output=f"remote: {STEER}\n"), as_json=False)
    assert_plain(capsys.readouterr().err)
