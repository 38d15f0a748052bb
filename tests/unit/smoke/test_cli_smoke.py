"""The command: its exit codes, its JSON, what it stores, and what an interrupt leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from sparkbuild.artifact import store
from sparkbuild.cli.main import run
from sparkbuild.files import Folders
from sparkbuild.handover import Needs
from sparkbuild.smoke.records import Smoke
from tests.unit.smoke import toys
from tests.unit.test_process import alive, gone

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "artifact" / "bin").mkdir(parents=True)
    return tmp_path / "artifact"


def test_passed_failed_and_not_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys.bench(place / "bin")
    assert run(["smoke", str(toys.artifact(place))]) == 0
    shown = capsys.readouterr().out
    assert "toy@" in shown
    assert ": passed" in shown
    assert "25.5354 prompt tokens/s" in shown
    toys.bench(place / "bin", toys.results(build_number=1))
    assert run(["smoke", str(toys.artifact(place))]) == 1
    assert "bench: it says build 1, the manifest says 11312" in capsys.readouterr().err
    toys.artifact(place, needs=Needs("pdp11", (), "", None, "", ()))
    assert run(["smoke", str(place)]) == 3
    assert "qemu-pdp11 is not installed" in capsys.readouterr().err
    assert not (place / "smoke.json").exists()  # somebody's folder is left as it is


@pytest.mark.parametrize(
    "words", [["smoke", "/nowhere"], ["smoke", "nothing@12"], ["smoke"], ["smoke", "x", "--gpu", "maybe"]]
)
def test_wrong_words_are_usage_errors(words: list[str]) -> None:
    assert run(words) == 2


def test_the_stores_artifact_keeps_the_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys.script(place / "bin", "toy-cli", r"printf 'text \033[2J'")
    toys.artifact(place)
    key = msgspec.json.decode((place / "manifest.json").read_bytes())["key"]
    stored = store.folder("toy", key, Folders.default())
    shutil.copytree(place, stored)
    assert run(["smoke", "toy", "--json"]) == 0
    shown = msgspec.json.decode(capsys.readouterr().out, type=Smoke)
    assert shown == msgspec.json.decode((stored / "smoke.json").read_bytes(), type=Smoke)
    assert (shown.schema, shown.engine, shown.key, shown.verdict) == (
        "sparkbuild/smoke/1",
        "toy",
        key,
        "passed",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.threat(
    "faults",
    "SIGINT, SIGTERM, SIGKILL while a server is smoke-tested",
    "the server ends",
)
def test_an_interrupt_leaves_nothing_behind(place: Path, number: int, tmp_path: Path) -> None:
    toys.server(place / "bin", before=f"open({str(tmp_path / 'up')!r}, 'w'); time.sleep(1000)")
    words = [sys.executable, "-m", "sparkbuild", "smoke", str(toys.artifact(place)), "--json"]
    root = str(Path(__file__).parents[3])
    child = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.PIPE)
    with child:
        while not (tmp_path / "up").exists() and child.poll() is None:
            time.sleep(0.02)
        assert alive(str(place / "bin"))
        child.send_signal(number)
        out, _ = child.communicate(timeout=60)
    if number == signal.SIGINT:
        assert (child.returncode, json.loads(out)["error"]["kind"]) == (130, "interrupted")
    assert gone(str(place / "bin"))
