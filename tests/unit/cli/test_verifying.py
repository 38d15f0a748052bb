"""verify as a person and a script meet it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.cli.main import run
from sparkbuild.evidence import signing
from tests import artifacts
from tests.artifacts import key_of

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("objcopy"), reason="gcc and binutils are not installed"
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    artifacts.make(folder)
    return folder


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "artifact"))


def verified(capsys: Capture, *words: str | Path) -> tuple[int, Any]:
    """Return the exit code and the JSON document, which is all of stdout."""
    code = run(["verify", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_what_holds_and_nobody_signed(place: Path, capsys: Capture) -> None:
    assert run(["verify", str(place)]) == 0
    out = capsys.readouterr().out
    assert "held, but nobody signed it" in out
    assert "sha256" in out
    code, told = verified(capsys, place)
    assert (code, told["schema"], told["held"], told["signed"]) == (0, "sparkbuild/verify/1", True, False)
    assert {"file", "field", "verdict", "said"} == set(told["checks"][0])


def test_what_failed_is_named_in_the_table_and_in_the_last_line(place: Path, capsys: Capture) -> None:
    path = place / "manifest.json"
    path.write_text(path.read_text().replace('"Toy"', '"Tox"'))
    (place / "evil").touch()
    assert run(["verify", str(place)]) == 1
    out, err = capsys.readouterr()
    assert "/engine/title" in out
    assert "no manifest speaks of it" in out
    assert "held, but" not in out
    assert "checks failed: manifest.json /engine/title" in err
    code, told = verified(capsys, place)
    assert (code, told["held"]) == (1, False)
    failed = {(c["file"], c["field"]) for c in told["checks"] if c["verdict"] == "failed"}
    assert {("manifest.json", "/engine/title"), ("evil", "")} <= failed


def test_many_failures_are_counted(place: Path, capsys: Capture) -> None:
    for number in range(8):
        (place / f"evil-{number}").touch()
    assert run(["verify", str(place)]) == 1
    assert "evil-4, and 3 more" in capsys.readouterr().err


def test_a_signature_is_asked_for_and_found(place: Path, tmp_path: Path, capsys: Capture) -> None:
    key = key_of(tmp_path)
    signers = ["--allowed-signers", str(tmp_path / "allowed"), "--signer", "me@example.invalid"]
    code, told = verified(capsys, place, *signers)
    assert (code, told["signed"]) == (1, False)
    for name in ("manifest.json", "provenance.json", "probe.json"):
        signing.sign(place / name, key)
    assert run(["verify", str(place)]) == 0
    assert "no signature was checked" in capsys.readouterr().out
    code, told = verified(capsys, place, *signers)
    assert (code, told["signed"]) == (0, True)
    assert run(["verify", str(place), *signers]) == 0
    assert "held, and signed" in capsys.readouterr().out


def test_the_binaries_are_judged_on_request(place: Path, capsys: Capture) -> None:
    for words, verdict in (((), "not run"), (("--probe",), "held")):
        _, told = verified(capsys, place, *words)
        (found,) = [c for c in told["checks"] if c["field"] == "verdicts"]
        assert found["verdict"] == verdict


def test_a_file_name_does_not_steer_the_terminal(place: Path, capsys: Capture) -> None:
    (place / "a\x1b[31mb").touch()
    assert run(["verify", str(place)]) == 1
    out, err = capsys.readouterr()
    assert "\x1b[31mb" not in out + err
    assert "\N{REPLACEMENT CHARACTER}[31mb" in out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["absent"], 2),
        (["."], 8),
        ([".", "--allowed-signers", "absent"], 2),
        ([".", "--signer", "me"], 2),
        ([], 2),
    ],
)
def test_what_can_not_be_checked(
    words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["verify", *words]) == code
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_the_commands_of_the_page_tell_the_same(place: Path, tmp_path: Path) -> None:
    key = key_of(tmp_path)
    for name in ("manifest.json", "provenance.json"):
        signing.sign(place / name, key)
    public = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    line = f'you@example.org namespaces="{signing.NAMESPACE}" {public}\n'
    (place / "allowed_signers").write_text(line)
    page = (Path(__file__).parents[3] / "docs/provenance.md").read_text().partition("## By hand")[2]
    commands = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    assert len(commands) == 4

    def outcomes() -> list[bool]:
        shell = ["bash", "-o", "pipefail", "-c"]
        done = [subprocess.run([*shell, c], cwd=place, check=False, capture_output=True) for c in commands]
        return [d.returncode == 0 for d in done]

    assert outcomes() == [True, True, True, True]
    text = (place / "manifest.json").read_text()
    (place / "manifest.json").write_text(text.replace('"Toy"', '"Tox"'))
    assert outcomes() == [False, True, False, False]
    (place / "manifest.json").write_text(text)
    (place / "bin" / artifacts.SERVER).write_bytes(b"x")
    assert outcomes() == [True, False, False, True]
