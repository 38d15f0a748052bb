"""The command line as a person and a script meet it: real processes, and run() where one is enough."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import sparkbuild
from sparkbuild import __version__, process
from sparkbuild.artifact import store
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.cli.main import cli, run
from sparkbuild.files import Folders
from tests.conftest import FILE, manifest_of

_ROOT = Path(sparkbuild.__file__).parent.parent
_ENGINE = next(iter(Catalog((shipped_root(),)).recipes()))


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT), **extra}


def call(*words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sparkbuild", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**extra), check=False)


def every_command() -> Iterator[tuple[str, ...]]:
    def below(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, sub in getattr(command, "commands", {}).items():
            yield from below(sub, (*path, name))

    yield from below(cli, ())


def document(capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401 - any JSON
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


# --- help and version ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", list(every_command()), ids=lambda p: " ".join(p) or "sparkbuild")
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(
    path: tuple[str, ...], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, option]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: {' '.join(['sparkbuild', *path])} ")
    assert err == ""


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option: str) -> None:
    done = call(option)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sparkbuild {__version__}\n", "")


def test_help_does_not_load_what_it_does_not_need() -> None:
    code = "import sys; from sparkbuild.cli.main import run; run(['--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    loaded = set(done.stdout.split())
    assert "click" in loaded
    assert not loaded & {"rich", "git", "elftools", "sparkbuild.pipeline", "scikit_build_core"}


def test_what_is_in_the_store_is_found_without_the_tools_that_make_it() -> None:
    code = "import sys, sparkbuild.pipeline, sparkbuild.artifact.manifest; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert not set(done.stdout.split()) & {"rich", "git", "numpy", "cmake", "sparkbuild.making"}


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["no-such-command"],
        ["build"],
        ["build", _ENGINE, "--no-such-option"],
        ["build", _ENGINE, "--backend", "vulkan"],
        ["build", _ENGINE, "--jobs", "0"],
        ["build", _ENGINE, "-D", "no-definition"],
        ["build", _ENGINE, "-D", "A;B=1"],
        ["build", _ENGINE, "-D", "A=1\n2"],
        ["build", _ENGINE, "--arch", "gb99"],
        ["build", "../x"],
        ["plan", "no-such-engine"],
        ["show", "nothing"],
        ["completion", "tcsh"],
        ["recipes", "check", "absent.toml", "--no"],
    ],
    ids=lambda w: " ".join(w).replace("\n", "\\n") or "nothing",
)
def test_a_wrong_call_is_exit_code_2_and_says_so_on_stderr(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err


def test_an_unknown_engine_gets_a_suggestion_on_stderr() -> None:
    done = call("build", _ENGINE[:-1] + "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"unknown engine {_ENGINE[:-1] + 'x'!r}" in done.stderr
    assert f"remedy: did you mean {_ENGINE}?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (["plan", "no-such-engine"], "usage", 2),
        (["build", "no-such-engine"], "usage", 2),
        (["no-such-command"], "usage", 2),
        (["build"], "usage", 2),
        (["show", "nothing"], "usage", 2),
        (["plan", _ENGINE, "--offline", "--backend", "cpu", "--arch", "host"], "missing", 3),
        (["list", "--no-such-option"], "usage", 2),
        (["plan", _ENGINE, "-D", "x"], "usage", 2),
    ],
    ids=lambda w: " ".join(w) if isinstance(w, list) else None,
)
def test_an_error_in_json_is_one_document_on_stdout(
    words: list[str], kind: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = call(*words, "--json")
    found = json.loads(done.stdout)
    assert found["schema"] == "sparkbuild/error/1"
    assert (found["error"]["kind"], found["error"]["exit_code"], done.returncode) == (kind, code, code)
    assert found["error"]["what"]


def test_a_bug_is_exit_code_101_with_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def bug(_: Folders) -> None:  # there is no bug to be had otherwise
        raise ZeroDivisionError("the answer")

    monkeypatch.setattr(store, "entries", bug)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(["list"]) == 101
    out, err = capsys.readouterr()
    assert out == ""
    assert "a bug in sparkbuild: ZeroDivisionError: the answer" in err
    (log,) = tmp_path.glob("sparkbuild-bug-*.log")
    assert str(log) in err
    assert "Traceback" in log.read_text()
    assert run(["list", "--json"]) == 101
    assert document(capsys)["error"]["kind"] == "bug"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.threat(
    "faults",
    "SIGINT, SIGTERM, SIGHUP while a command runs",
    "exit 130, one line, no traceback",
)
def test_a_signal_is_exit_code_130(number: signal.Signals) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        "from sparkbuild.artifact import store\n"
        f"store.entries = lambda _: os.kill(os.getpid(), {int(number)})\n"
        "sys.argv = ['sparkbuild', 'list']\n"
        "from sparkbuild.cli import entry\n"
        "entry()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", ["recipes list", "recipes list --json", "list", "--help", "completion bash"]
)
def test_a_reader_that_leaves_is_no_error(words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sparkbuild", *words.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment(), check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "code"), [("recipes check absent.toml --json", 1), ("plan nosuch --json", 2)]
)
def test_a_reader_that_leaves_changes_no_exit_code(words: str, code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sparkbuild", *words.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment(), check=False)
    os.close(write)
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False)


# --- commands that need no build -----------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_SPARKBUILD_COMPLETE" in script
    assert "complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_completion_completes() -> None:
    done = call(_SPARKBUILD_COMPLETE="bash_complete", COMP_WORDS="sparkbuild bu", COMP_CWORD="1")
    assert done.stdout == "plain,build\n"


def test_an_empty_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    assert "0 artifacts" in capsys.readouterr().out
    assert run(["list", "--json"]) == 0
    assert document(capsys) == {"schema": "sparkbuild/list/2", "artifacts": [], "damaged": []}
    assert run(["show", "toy"]) == 2
    assert "no artifact 'toy' in the store" in capsys.readouterr().err


@pytest.fixture
def stored() -> store.Stored:
    """Put an artifact into the default store."""
    folders, manifest = Folders.default(), manifest_of()
    with store.adding("toy", manifest.key, folders) as temp:
        (temp / "bin").mkdir()
        (temp / "bin/toy-server").write_bytes(FILE)
        store.finish(temp, manifest)
    found = store.find("toy", manifest.key, folders)
    assert found
    return found


def test_recipes_list(capsys: pytest.CaptureFixture[str]) -> None:
    catalog = Catalog((shipped_root(),))
    assert run(["recipes", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*catalog.recipes(), *catalog.toolchains()))
    assert run(["recipes", "list", "--json"]) == 0
    found = document(capsys)
    assert [r["recipe"]["name"] for r in found["recipes"]] == list(catalog.recipes())
    assert [t["toolchain"]["name"] for t in found["toolchains"]] == list(catalog.toolchains())


def test_recipes_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["recipes", "check"]) == 0
    assert "BAD" not in capsys.readouterr().out
    bad = tmp_path / "bad.toml"
    bad.write_text("schema = 3")
    assert run(["recipes", "check", str(bad)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"BAD  {bad}: ")
    assert "1 of 1 files do not hold" in err


def test_findings_in_json_are_one_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("schema = 3")
    assert run(["recipes", "check", str(bad), "--json"]) == 1
    found = document(capsys)
    assert found["schema"] == "sparkbuild/recipes-check/1"
    assert [f["ok"] for f in found["files"]] == [False]


def test_a_catalogue_of_ones_own_from_option_and_environment(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toolchains").mkdir()
    text = (shipped_root() / "toolchains/host.toml").read_text()
    (tmp_path / "toolchains/mine.toml").write_text(text.replace('"host"', '"mine"', 1))
    assert run(["recipes", "list", "--catalog", str(tmp_path)]) == 0
    assert "mine" in capsys.readouterr().out
    monkeypatch.setenv("SPARKBUILD_CATALOG", str(tmp_path))
    assert run(["recipes", "list"]) == 0
    assert "mine" in capsys.readouterr().out
    assert run(["recipes", "list", "--catalog", str(tmp_path / "absent")]) == 2


def test_a_doctor_that_misses_something_is_exit_code_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["doctor", "--json"]) == 3
    found = document(capsys)
    assert found["schema"] == "sparkbuild/doctor/1"
    assert {c["name"]: c["verdict"] for c in found["checks"]}["git"] == "missing"
    assert run(["doctor"]) == 3
    out, err = capsys.readouterr()
    assert "apt-get install git" in out
    assert "missing for gb10: git" in err


@pytest.mark.parametrize("words", [["list"], ["recipes", "list"], ["show", "toy"]])
def test_no_escape_codes_in_a_pipe(words: list[str], stored: store.Stored) -> None:
    done = call(*words, TERM="xterm-256color")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.threat(
    "faults",
    "a tool that vanishes or fails where nobody foresaw it",
    "exit 3 that names it and what it said; no traceback, no bug's log",
)
def test_a_tool_that_fails_unforeseen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "entries", lambda _: process.run(["sh", "-c", "echo its words >&2; exit 9"]))
    assert run(["list", "--json"]) == 3
    error = document(capsys)["error"]
    assert error["what"] == "a tool failed: sh: exit code 9"
    assert "its words" in error["output"]
    assert "doctor" in error["remedy"]
