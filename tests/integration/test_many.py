"""Many builds in one run: two engines for two machines, by real tools, sharing the jobs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.toolchain.place import why_no_namespace
from tests.integration.conftest import Built, seeded
from tests.integration.engine import Box, Toy, argv
from tests.integration.gates import Gate, assert_all_free, family, wait_for

_NO_NAMESPACES = ("bwrap", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--dev-bind", "/", "/")
_JOBS = 3
needs_bwrap = pytest.mark.skipif(bool(why_no_namespace()), reason=why_no_namespace())


def two(folder: Path) -> tuple[Toy, list[str | Path]]:
    """Return two engines of one source, the second named other, and the words that build both."""
    toy = Toy(folder / "toy").publish()
    return toy, words_of(toy)


def words_of(toy: Toy) -> list[str | Path]:
    (toy.catalog / "recipes" / "other.toml").write_text(toy.recipe.read_text().replace("toy", "other"))
    place: list[str | Path] = ["--source", toy.source, "--catalog", toy.catalog]
    return ["build", "toy", "other", "--backend", "cpu", *place, "-j", str(_JOBS)]


class Counted:
    """The real compilers, each call of which is written down, when it begins and when it ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.log = folder / "log"
        self.env = {"PATH": f"{folder}:{os.environ['PATH']}"}
        for name in ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++"):
            script = folder / name
            script.write_text(f"""#!/bin/sh
echo "+ $HOME" >> '{self.log}'
'{shutil.which(name)}' "$@"
code=$?
echo "- $HOME" >> '{self.log}'
exit $code
""")
            script.chmod(0o755)

    def calls(self) -> list[tuple[int, str]]:
        """Return each begin (1) and end (-1) in turn, and whose it was: ENGINE-ARCH, "" for the doctor's."""
        found = []
        for line in self.log.read_text().splitlines():
            whose = re.search(r"/(\w+-gb10(-sve2)?)-cpu-[0-9a-f]+/", line)  # a build has a HOME of its own
            found.append((1 if line[0] == "+" else -1, whose[1] if whose else ""))
        return found


def identity(artifact: dict[str, Any]) -> tuple[str, str]:
    manifest = artifact["manifest"]
    return manifest["engine"]["name"], manifest["target"]["arch"]


def made(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [identity(a) for a in document["artifacts"]]


_ALL = [("toy", "gb10"), ("toy", "gb10-sve2"), ("other", "gb10"), ("other", "gb10-sve2")]


Ran = tuple[Box, Counted, Any, str]


@pytest.fixture(scope="module")
def ran(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Return a run that built both engines for two machines: what it used, made and said."""
    folder = tmp_path_factory.mktemp("many")
    _, words = two(folder)
    counted = Counted(folder / "bin")
    box = seeded(built, folder / "home")
    done = box.run(*words, "--arch", "gb10,gb10-sve2", "--json", env=counted.env)
    return box, counted, done.document(), done.err


class TestSchedule:
    """Two engines for two machines."""

    def test_all_are_built(self, ran: Ran) -> None:
        box, _, document, _ = ran
        assert made(document) == _ALL
        assert document["failures"] == []
        assert len(box.artifacts()) == 4
        assert box.debris() == []

    def test_the_bytes_are_those_of_a_build_by_itself(self, ran: Ran, built: Built) -> None:
        alone = built.done.artifact()["manifest"]
        (here,) = [a["manifest"] for a in ran[2]["artifacts"] if identity(a) == ("toy", "gb10")]
        assert {f["path"]: f["sha256"] for f in here["files"]} == {
            f["path"]: f["sha256"] for f in alone["files"]
        }

    def test_no_more_compilers_than_jobs(self, ran: Ran) -> None:
        now = most = 0
        for sign, _ in ran[1].calls():
            now += sign
            most = max(most, now)
        assert now == 0
        assert 1 < most <= _JOBS

    def test_variants_take_turns_and_engines_do_not(self, ran: Ran) -> None:
        names = [name for _, name in ran[1].calls()]
        first = {name: names.index(name) for name in names}
        last = {name: at for at, name in enumerate(names)}
        for engine, other in (("toy", "other"), ("other", "toy")):
            assert last[f"{engine}-gb10"] < first[f"{engine}-gb10-sve2"]
            assert first[f"{engine}-gb10"] < last[f"{other}-gb10"]

    def test_each_line_of_the_log_names_its_build(self, ran: Ran) -> None:
        lines = ran[3].splitlines()
        for engine, arch in _ALL:
            assert f"{engine} {arch} cpu: done" in lines
        assert all(" cpu: " in line or "to go" in line for line in lines)

    def test_what_was_measured_is_each_builds_own(self, ran: Ran) -> None:
        for artifact in ran[2]["artifacts"]:
            made = artifact["manifest"]["build"]
            assert made["jobs"] == _JOBS
            assert 0 < made["cpu_seconds"] < made["wall_seconds"] * _JOBS
            assert "MAKEFLAGS" not in made["environment"]


@pytest.mark.threat(
    "faults",
    "one of many builds fails",
    "the others are built; each failure is told at the end, the worst one's exit code",
)
def test_one_that_fails_stops_no_other(built: Built, tmp_path: Path) -> None:
    toy, words = two(tmp_path)
    recipe = toy.catalog / "recipes" / "other.toml"
    recipe.write_text(recipe.read_text().replace('cpu = ["llama', 'cpu = ["no-such-target", "llama'))
    box = seeded(built, tmp_path / "home")
    done = box.run(*words, "--json")
    document = json.loads(done.out)
    assert made(document) == [("toy", "gb10")]
    (failure,) = document["failures"]
    assert (failure["engine"], failure["arch"], failure["backend"]) == ("other", "gb10", "cpu")
    assert done.code == failure["error"]["exit_code"] != 0
    assert "no-such-target" in json.dumps(failure["error"])
    again = box.run(*words)
    assert again.code == done.code
    assert "already in the store" in again.out
    assert "\nother gb10 cpu:\n" in again.err
    assert "no-such-target" in again.err


_STOPS = [pytest.param(signal.SIGTERM, marks=pytest.mark.full), signal.SIGINT, signal.SIGKILL]


@pytest.mark.parametrize("number", _STOPS)
@pytest.mark.threat(
    "faults",
    "Ctrl-C, SIGTERM, SIGKILL while many builds compile",
    "no process left, every lock free, nothing stored; the next run ends well",
)
def test_a_signal_ends_all(number: signal.Signals, built: Built, toy: Toy, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    toy.append("ggml/src/ggml-quants.c", f'#include "{gate.path}"\n').publish()
    words, box = words_of(toy), seeded(built, tmp_path / "home")
    run = box.start(*words)
    wait_for(lambda: sum("cc1" in words.split(" ")[0] for words in family(box).values()) == 2)
    if number is signal.SIGINT:  # as a terminal does
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert run.returncode == (-number if number is signal.SIGKILL else 130), err
    # Nobody tells of a kill: what the orphans say while they end is theirs.
    assert number is signal.SIGKILL or "Traceback" not in err
    assert_all_free(box)
    gate.open()
    assert made(box.run(*words, "--json").document()) == [("toy", "gb10"), ("other", "gb10")]
    assert box.debris() == []


@pytest.mark.threat(
    "faults",
    "the process of one of many builds killed while it compiles",
    "told as lost; the other build ends well, and so does the next run",
)
def test_a_build_that_is_killed(built: Built, toy: Toy, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    toy.append("ggml/src/ggml-quants.c", f'#include "{gate.path}"\n').publish()
    words, box = [*words_of(toy), "--json"], seeded(built, tmp_path / "home")
    run = box.start(*words)
    wait_for(lambda: sum("cc1" in words.split(" ")[0] for words in family(box).values()) == 2)
    (first, *_), found = sorted(_workers(run.pid)), family(box)
    assert first in found
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: sum("cc1" in words.split(" ")[0] for words in family(box).values()) == 1)
    gate.open()
    out, err = run.communicate(timeout=300)
    assert run.returncode == 6, err
    document = json.loads(out)
    (failure,) = document["failures"]
    assert "the build's process was lost (ended by signal SIGKILL)" in failure["error"]["what"]
    assert len(document["artifacts"]) == 1
    assert len(made(box.run(*words).document())) == 2
    assert box.debris() == []


def _workers(parent: int) -> list[int]:
    """Return the processes that build: children that multiprocessing spawned."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_text()
        except OSError:
            continue
        if int(state[1]) == parent and "spawn_main" in words:
            found.append(int(folder.name))
    return found


@needs_bwrap
def test_without_namespaces_builds_take_turns(built: Built, tmp_path: Path) -> None:
    _, words = two(tmp_path)
    box = seeded(built, tmp_path / "home")
    done = _run([*_NO_NAMESPACES, *argv([*words, "--json"])], box)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert made(document) == [("toy", "gb10"), ("other", "gb10")]
    assert {a["manifest"]["build"]["place"] for a in document["artifacts"]} == {"copy"}
    assert "wait for another build" not in done.stderr
    begun = [line.partition(" ")[0] for line in done.stderr.splitlines()]
    assert begun == sorted(begun, key=begun.index)  # all of one, then all of the other


def _run(words: Sequence[str], box: Box) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=box.env(), capture_output=True, text=True, check=False, timeout=300)


class TestWords:
    """What is asked for."""

    def test_all_are_those_with_the_backend(self, built: Built, tmp_path: Path) -> None:
        toy, _ = two(tmp_path)
        place = ["--source", str(tmp_path / "nothing"), "--catalog", str(toy.catalog)]
        done = built.box.run(
            "build", "--all", "--arch", "gb10,gb10-sve2", "--backend", "cpu", *place, "--json"
        )
        failures = json.loads(done.out)["failures"]
        names = {(f["engine"], f["arch"]) for f in failures}
        assert set(_ALL) < names
        assert len(names) == len(failures)
        assert {a for _, a in names} == {"gb10", "gb10-sve2"}

    @pytest.mark.parametrize("words", [(), ("toy", "--all")])
    def test_neither_or_both(self, words: tuple[str, ...], built: Built) -> None:
        error = built.box.run("build", *words, "--json").error(2, "usage")
        assert error["what"] == "name the engines, or give --all"

    @pytest.mark.parametrize(("engine", "arch"), [("toyy", "gb10"), ("toy", "gb10,gb11"), ("toy", "gb10,")])
    def test_unknown_names_are_found_before_anything_begins(
        self, engine: str, arch: str, built: Built
    ) -> None:
        place = ["--catalog", str(built.toy.catalog)]
        built.box.run("build", "toy", engine, "--arch", arch, *place, "--json").error(2, "usage")
