"""Real programs are asked for their version: scripts, and compiled ones where the loader matters."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from sparkbuild.inspection import runtime
from sparkbuild.inspection.runtime import (
    Answer,
    Question,
    VersionReport,
    asking,
    launch,
    run_alone,
    version_of,
)
from tests.conftest import Script
from tests.unit.test_process import gone

_HERE = platform.machine()
_PATTERN = r"version: (?P<number>\d+) \((?P<commit>[0-9a-f]+)\)"
_GCC, _ARM = shutil.which("gcc"), shutil.which("aarch64-linux-gnu-gcc")
_QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")

needs_gcc = pytest.mark.skipif(not _GCC, reason="gcc is not installed")
needs_emulation = pytest.mark.skipif(
    _HERE == "aarch64" or not _ARM or not _QEMU, reason="needs qemu-aarch64 and aarch64-linux-gnu-gcc"
)


def ask(tool: Path, words: tuple[str, ...], machine: str, limit: int = 4000) -> Answer:
    """Ask a tool one question."""
    return runtime.ask(Question(tool, words, limit=limit), machine)


def ask_version(
    tool: Path, machine: str, pattern: str, libraries: Sequence[Path] = (), timeout: float = 60
) -> VersionReport:
    """Ask a tool for its version."""
    return version_of(runtime.ask(Question(tool, ("--version",), timeout), machine, libraries), pattern)


def test_a_native_program_answers(script: Script) -> None:
    tool = script("tool", 'test "$1" = --version && echo "version: 42 (abc123)" >&2')
    report = ask_version(tool, _HERE, _PATTERN)
    assert (report.ran, report.reason, report.number, report.commit) == ("native", "", 42, "abc123")
    assert report.output == "version: 42 (abc123)"


def test_a_program_is_asked_anything(script: Script) -> None:
    tool = script("tool", 'printf "<%s>" "$@"; echo; echo more >&2')
    assert ask(tool, ("--list", "a b", ""), _HERE) == Answer("native", "", "<--list><a b><>\nmore")
    assert ask(tool, ("--help", "x" * 9000), _HERE, limit=20) == Answer("native", "", "<--help><xxxxxxxxxxx")


def test_what_a_failing_program_said_is_kept(script: Script) -> None:
    answer = ask(script("tool", "echo usage: tool; exit 1"), ("--help",), _HERE)
    assert answer == Answer("failed", "exit code 1", "usage: tool")


def test_a_program_has_a_home_of_its_own_that_vanishes(
    script: Script, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = script("tool", 'touch "$HOME/left"; pwd; echo "$HOME"; echo "$TMPDIR"; ls -A; ulimit -c')
    monkeypatch.chdir(tool.parent)
    answer = ask(Path("tool"), (), _HERE)
    here, home, temp, listed, core = answer.output.split("\n")
    assert here == home == temp != str(sealed)
    assert (listed, core) == ("left", "0")
    assert not Path(home).exists()


@pytest.mark.threat("binaries", "a tool that leaves a child behind", "it is ended")
@pytest.mark.parametrize("how", ["", "setsid "])
def test_nothing_is_left_running(script: Script, how: str) -> None:
    mark = script("left", "sleep 1000; :")
    answer = ask(script("tool", f"{how}{mark} & echo done"), (), _HERE)
    assert (answer.ran, answer.output) == ("native", "done")
    assert gone(str(mark))


@pytest.mark.threat(
    "binaries",
    "a tool that ends by a signal, by an exit code, says nothing or never ends",
    "told as failed, with the reason",
)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'version: 42 (abc)'; exit 3", "exit code 3"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("kill -ABRT $$", "SIGABRT"),
        ("kill -40 $$", "signal 40"),
        ("echo 'version: unknown'", "version that is looked for"),
        ("true", "version that is looked for"),
        ("sleep 1000", "no answer within"),
    ],
)
def test_a_program_that_runs_and_does_not_answer_has_failed(script: Script, body: str, reason: str) -> None:
    report = ask_version(script("tool", body), _HERE, _PATTERN, timeout=0.5 if "sleep" in body else 60)
    assert report.ran == "failed"
    assert reason in report.reason
    assert report.number is None


@pytest.mark.parametrize("pattern", [r"version: (?P<number>\w+)(?P<commit>)", r"v(?P<number>x)?(?P<commit>)"])
def test_a_number_that_is_none_is_no_answer(script: Script, pattern: str) -> None:
    assert ask_version(script("tool", "echo version: many"), _HERE, pattern).ran == "failed"


def test_a_commit_may_be_absent(script: Script) -> None:
    report = ask_version(script("tool", "echo v7"), _HERE, r"v(?P<number>\d+)(?P<commit>-\w+)?")
    assert (report.number, report.commit) == (7, "")


@pytest.mark.threat("binaries", "a flood with escape codes for an answer", "4,000 printable characters of it")
def test_a_flood_and_escape_codes_are_kept_away(script: Script) -> None:
    body = r"printf 'version: 42 (abc)\033[2J\033]0;title\007\r\n'; yes | head -c 100000"
    report = ask_version(script("tool", body), _HERE, _PATTERN)
    assert report.number == 42
    assert len(report.output) <= 4000
    assert all(c.isprintable() or c == "\n" for c in report.output)


@pytest.mark.threat(
    "binaries", "LD_PRELOAD and secrets in the caller's environment", "not handed to what is run"
)
def test_nothing_of_the_callers_environment_gets_through(
    script: Script, monkeypatch: pytest.MonkeyPatch, sealed: Path
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("SECRET", "s3cret")
    report = ask_version(
        script("tool", "env; echo 'version: 1 (a)'"), _HERE, _PATTERN, [Path("/x"), Path("/y")]
    )
    assert "s3cret" not in report.output
    assert "LD_PRELOAD" not in report.output
    assert str(sealed) not in report.output
    assert "LD_LIBRARY_PATH=/x:/y" in report.output


def test_what_can_not_be_started_is_not_run(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    for data in (None, b"\x7fELFgarbage"):
        if data:
            tool.write_bytes(data)
            tool.chmod(0o755)
        report = ask_version(tool, _HERE, _PATTERN)
        assert report.ran == "not run"
        assert "could not be started" in report.reason


def test_another_machines_program_is_not_run_without_an_emulator(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = ask_version(script("tool", "echo 'version: 1 (a)'"), "riscv64", _PATTERN)
    assert (report.ran, report.output) == ("not run", "")
    assert "qemu-riscv64 is not installed" in report.reason


def test_launching(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch(_HERE) == ()
    monkeypatch.setenv("PATH", str(script("qemu-sparc9000", "").parent))
    assert "C library is missing" in launch("sparc9000")


_MACHINES = [
    pytest.param(_GCC, _HERE, "native", marks=needs_gcc),
    pytest.param(_ARM, "aarch64", "qemu", marks=needs_emulation),
]


@pytest.fixture
def tool(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib.c").write_text("int number(void) { return 42; }\n")
    (tmp_path / "tool.c").write_text(
        "#include <stdio.h>\nint number(void);\n"
        'int main(void) { printf("version: %d (abc)\\n", number()); return 0; }\n'
    )
    compiler: str = request.param
    subprocess.run(
        [compiler, "-shared", "-fPIC", "lib.c", "-Wl,-soname,libnumber.so", "-o", "lib/libnumber.so"],
        cwd=tmp_path,
        check=True,
    )
    subprocess.run([compiler, "tool.c", "-Llib", "-lnumber", "-o", "tool"], cwd=tmp_path, check=True)
    return tmp_path / "tool", tmp_path / "lib"


@pytest.mark.parametrize(("tool", "machine", "how"), _MACHINES, indirect=["tool"])
def test_a_compiled_tool_answers_when_its_libraries_are_there(
    tool: tuple[Path, Path], machine: str, how: str
) -> None:
    report = ask_version(tool[0], machine, _PATTERN, [tool[1]])
    assert (report.ran, report.number, report.commit) == (how, 42, "abc")


@pytest.mark.threat("binaries", "a tool that lacks a library", "told as not run, with the library")
@pytest.mark.parametrize(("tool", "machine", "how"), _MACHINES, indirect=["tool"])
def test_a_tool_that_lacks_a_library_is_not_run(tool: tuple[Path, Path], machine: str, how: str) -> None:
    report = ask_version(tool[0], machine, _PATTERN)
    assert report.ran == "not run"
    assert "error while loading shared libraries: libnumber.so" in report.reason
    assert "\n" not in report.reason


def test_several_tools_are_asked_at_once(script: Script, tmp_path: Path) -> None:
    meeting = tmp_path / "meeting"
    os.mkfifo(meeting)  # who opens one end waits for who opens the other
    says = script("says", f"echo met > {meeting}; echo said")
    hears = script("hears", f"cat {meeting}; exit 3")
    questions = [Question(t, ("--help",), 20) for t in (says, hears, tmp_path / "absent")]
    with asking(questions, _HERE) as answers:
        found = answers()
    assert [(a.ran, a.output) for a in found] == [("native", "said"), ("failed", "met"), ("not run", "")]


@pytest.mark.threat("sandbox", "a tool leaves a home of thousands of levels", "removed; the answer counts")
def test_a_deep_home_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deep = "import os\nfor _ in range(3_000):\n    os.mkdir('d')\n    os.chdir('d')\n"
    done = run_alone(Path("/usr/bin/env"), ("python3", "-c", deep), platform.machine(), (), timeout=60)
    assert done.reason == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root removes what it may not write")
@pytest.mark.threat("sandbox", "a tool leaves a link in a folder that is not to be written", "not followed")
def test_no_mode_is_changed_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "key").touch(mode=0o600)
    words = ("-c", f"mkdir d; ln -s {tmp_path}/key d/link; chmod 555 d")
    run_alone(Path("/bin/sh"), words, platform.machine(), (), timeout=60)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
