"""``sparkbuild verify-flags`` with this machine's cross compiler, and scripts in front of it."""

from __future__ import annotations

import json
import platform
import shutil

import pytest

from sparkbuild.cli.main import run
from sparkbuild.files import from_json
from sparkbuild.toolchain.fault import CompilerTrial
from tests.conftest import Script

_ARM = shutil.which("gcc") if platform.machine() == "aarch64" else shutil.which("aarch64-linux-gnu-gcc")
_FIX = "-march=armv8.2-a+dotprod+fp16"
_ALL = "-march=armv8.6-a+dotprod+fp16+i8mm+bf16+sve2"
_COMMAND = ["verify-flags", "--cpuinfo", "gb10", "--compiler"]

pytestmark = pytest.mark.skipif(not _ARM, reason="no GCC for aarch64 is installed")


def native_as(script: Script, flags: str) -> str:
    """Return GCC for aarch64 that takes both native flags for ``flags``."""
    replace = f'case "$a" in -m*=native) set -- "$@" {flags} ;; *) set -- "$@" "$a" ;; esac'
    return str(script("gcc", f'for a; do shift; {replace}; done\nexec {_ARM} "$@"'))


def test_the_fault_is_a_finding(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    cc = native_as(script, "")
    assert run([*_COMMAND, cc]) == 1
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert ["-march=native", "no", "no", "no", "no", "no", "lost"] in rows
    assert ["-mcpu=native", "no", "no", "no", "no", "no", "lost"] in rows
    assert [_FIX, "yes", "yes", "(no)", "(no)", "(no)", "good"] in rows
    assert "fault in native detection: proved: -march=native loses dotprod, fp16, i8mm, bf16, sve2;" in out
    assert f"remedy: give {_FIX} instead" in out
    assert "gcc: native detection loses CPU features" in err
    assert run([*_COMMAND, cc, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "sparkbuild/verify-flags/1"
    trial = from_json(json.dumps(found["compiler"]).encode(), CompilerTrial)
    assert (trial.fault, [t.verdict for t in trial.trials]) == ("proved", ["lost", "lost", "good"])


def test_a_good_compiler_is_exit_code_0(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*_COMMAND, native_as(script, _ALL), "--arch", "gb10-sve2"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "fault in native detection: disproved" in out
    assert "remedy: nothing to do" in out


def test_what_could_not_be_tried_is_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    if platform.machine() == "aarch64":
        pytest.skip("a cross compiler for aarch64 needs another machine")
    assert run([*_COMMAND, "aarch64-linux-gnu-gcc"]) == 0
    out = capsys.readouterr().out
    assert "fault in native detection: not shown: -march=native is refused" in out
    assert run(["verify-flags", "--compiler", "aarch64-linux-gnu-gcc"]) == 0
    assert out.count("refused") >= 2
    assert "not run" in capsys.readouterr().out


def test_a_fix_that_is_lost_is_a_finding(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    drop = 'for a; do shift; case "$a" in -march=*) ;; *) set -- "$@" "$a" ;; esac; done'
    cc = str(script("gcc", f'{drop}\nexec {_ARM} "$@"'))
    assert run([*_COMMAND, cc]) == 1
    out, err = capsys.readouterr()
    assert "remedy: another compiler: this one does not prove dotprod, fp16" in out
    assert f"gcc does not prove {_FIX}" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([*_COMMAND, "/nowhere/gcc"], 3, "/nowhere/gcc does not work"),
        ([*_COMMAND, "true"], 3, "does not work"),
        ([*_COMMAND, str(_ARM), "--arch", "gb11"], 2, "did you mean gb10?"),
        (["verify-flags", "--compiler", str(_ARM), "--cpuinfo", "gb11"], 2, "did you mean gb10?"),
        (["verify-flags", "--compiler", str(_ARM), "--cpuinfo", "/dev/null"], 2, "no cpuinfo '/dev/null'"),
        (["verify-flags"], 2, "--compiler"),
    ],
)
def test_wrong_calls(words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert run([*words, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["schema"] == "sparkbuild/error/1"
