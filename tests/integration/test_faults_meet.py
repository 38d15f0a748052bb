"""What meets a build from outside while it runs: signals, others who build, new tools, clocks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Built, seeded
from tests.integration.engine import Box, Done, Toy, Wrapped, argv, build_words, file_hashes
from tests.integration.gates import Gate, assert_all_free, at_the_gate, family, wait_for

_ENDS = [pytest.param(signal.SIGTERM, marks=pytest.mark.full), signal.SIGKILL]
_AGAIN = "no process left, every lock free, nothing stored; the next run ends well"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.threat("faults", "SIGTERM, SIGKILL while git fetches from a host that is silent", _AGAIN)
def test_signal_while_fetching(
    number: signal.Signals, built: Built, box: Box, gate: Gate, tmp_path: Path
) -> None:
    upstream = box.home / "upstream.git"  # so that what works on it is of the family
    shutil.copytree(built.toy.source / ".git", upstream)
    (upstream / "packed-refs").unlink(missing_ok=True)
    (upstream / "packed-refs").symlink_to(gate.path)
    box = Box(box.home, {"SPARKBUILD_ALLOW_FILE_GIT": "1"})
    words = [*build_words(built.toy), "--source", upstream.as_uri(), "--ref", "main"]
    run = box.start(*words)
    wait_for(lambda: any("upload-pack" in words for words in family(box).values()))
    time.sleep(0.2)
    os.kill(run.pid, number)
    _, err = run.communicate(timeout=30)
    assert run.returncode == (-number if number is signal.SIGKILL else 130), err
    assert "Traceback" not in err
    wait_for(lambda: not any("git" in words and " fetch " in words for words in family(box).values()))
    gate.open()  # a helper of git's ends by itself when SIGKILL left it no parent: it has nobody to tell
    assert_all_free(box)
    gate.path.write_text("# pack-refs with: peeled fully-peeled sorted \n")
    assert box.run(*words, "--json").artifact()["fresh"] is True
    assert box.debris() == []


@pytest.mark.parametrize("number", _ENDS)
@pytest.mark.threat("faults", "SIGTERM, SIGKILL while a built tool is asked for its version", _AGAIN)
def test_signal_while_asking(number: signal.Signals, toy: Toy, box: Box, gate: Gate) -> None:
    wait = f'std::fclose(std::fopen("{gate.path}", "r"));'
    toy.replace("tools/tool.cpp", "        std::fprintf(", f"        {wait}\n        std::fprintf(").publish()
    run = box.start(*build_words(toy))
    wait_for(lambda: any("llama-server --version" in words for words in family(box).values()))
    os.kill(run.pid, number)
    run.communicate(timeout=30)
    assert run.returncode == (-number if number is signal.SIGKILL else 130)
    assert_all_free(box)
    steps = box.steps()
    gate.open()
    assert box.build(toy, "--json").artifact()["fresh"] is True
    assert box.steps() == steps  # nothing was compiled twice
    assert box.run("gc").code == 0
    assert box.debris() == []


@pytest.mark.parametrize("number", _ENDS)
@pytest.mark.threat("faults", "SIGTERM, SIGKILL while reproduce compiles", _AGAIN)
def test_signal_while_reproducing(number: signal.Signals, toy: Toy, box: Box, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    toy.append("ggml/src/ggml-quants.c", f'#include "{gate}"\n').publish()
    assert box.build(toy).code == 0
    gate.unlink()
    shut = Gate(gate)
    words: list[str | Path] = ["reproduce", toy.name, "--vary", "none", "--catalog", toy.catalog]
    run = box.start(*words)
    try:
        wait_for(lambda: at_the_gate(shut, box, "cc1"))
        os.kill(run.pid, number)
        run.communicate(timeout=30)
        wait_for(lambda: not family(box), 15.0)
    finally:
        for pid in family(box):
            os.kill(pid, signal.SIGKILL)
    shut.open()
    assert len(box.artifacts()) == 1
    assert not (box.artifacts()[0] / "reproduction.json").exists()
    done = box.run(*words, "--json")
    assert done.code == 0, done.err
    assert json.loads((box.artifacts()[0] / "reproduction.json").read_bytes())["verdict"] == "identical"


@pytest.mark.threat(
    "faults",
    "three builders of one key in the same second; the one at work is killed; gc meanwhile",
    "another goes on from there, the third takes what it made; gc touches nothing of them",
)
def test_three_builders_and_gc(toy: Toy, box: Box, gate: Gate) -> None:
    toy.append("ggml/src/ggml-quants.c", f'#include "{gate.path}"\n').publish()
    words = [*build_words(toy), "--json"]
    runs = [box.start(*words) for _ in range(3)]
    wait_for(lambda: at_the_gate(gate, box, "cc1") and len(box.steps()) == 7)
    cleaned = box.run("gc", "--keep", "0", "--json")
    assert cleaned.code == 0, cleaned.err
    before = box.steps()
    (first,) = [r for r in runs if any(int(_parent(pid)) == r.pid for pid in family(box))]
    first.kill()
    first.communicate(timeout=30)
    gate.open()
    left = [r for r in runs if r is not first]
    outs = [r.communicate(timeout=300) for r in left]
    assert [r.returncode for r in left] == [0, 0], outs
    made = [json.loads(out)["artifacts"][0] for out, _ in outs]
    assert sorted(a["fresh"] for a in made) == [False, True]
    assert made[0]["manifest"] == made[1]["manifest"]
    assert box.steps()[: len(before)] == before
    assert len(box.steps()) == len(set(box.steps()))
    assert box.debris() == []


def _parent(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return "0"


@pytest.mark.threat(
    "faults",
    "a compiler replaced by another between configure and the last compile",
    "an error that says so; nothing is stored, the mixed build folder goes, the next run begins anew",
)
def test_a_compiler_upgraded_meanwhile(toy: Toy, box: Box, gate: Gate, tmp_path: Path) -> None:
    wrapped = Wrapped(tmp_path / "bin")
    toy.append("ggml/src/ggml-quants.c", f'#include "{gate.path}"\n').publish()
    box = Box(box.home, wrapped.when("nothing", "exit 1"))
    run = box.start(*build_words(toy), "--json")
    wait_for(lambda: at_the_gate(gate, box, "cc1"))
    for script in wrapped.folder.iterdir():
        script.write_text(script.read_text() + "# another version\n")
    gate.open()
    out, err = run.communicate(timeout=300)
    error = Done(run.returncode, out, err).error(6, "compile")
    assert "changed while this was built: compilers" in error["what"]
    assert "begins anew" in error["remedy"]
    assert box.build_dirs == []
    box.assert_nothing_stored()
    assert box.build(toy, "--json").artifact()["fresh"] is True


def _ahead(folder: Path, seconds: float) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (time.time() + seconds, time.time() + seconds))


@pytest.mark.threat(
    "faults",
    "the clock goes back a day between two runs of one build: all files are of tomorrow",
    "the second run ends well and does not configure without end",
)
def test_clock_went_back_between_runs(toy: Toy, box: Box, gate: Gate) -> None:
    toy.append("ggml/src/ggml-quants.c", f'#include "{gate.path}"\n').publish()
    run = box.start(*build_words(toy))
    wait_for(lambda: at_the_gate(gate, box, "cc1"))
    os.kill(run.pid, signal.SIGTERM)
    run.communicate(timeout=30)
    gate.open()
    _ahead(box.home / "cache", 86400)
    first = box.build(toy, "--json").artifact()
    assert first["fresh"] is True
    _ahead(box.home / "store", 86400)
    assert box.build(toy, "--json").artifact()["fresh"] is False
    assert [a["key"] for a in box.run("list", "--json").document()["artifacts"]] == [first["manifest"]["key"]]


_CLOCK = """
import os, pathlib, time
real = time.time
time.time = lambda: real() + float(pathlib.Path(os.environ["CLOCK"]).read_text())
time.time_ns = lambda: int(time.time() * 1e9)
"""


@pytest.mark.threat(
    "faults",
    "the clock goes back two days in the middle of a build",
    "the build ends well and its seconds are sound; list and gc take an artifact of tomorrow",
)
def test_clock_goes_back_in_a_build(toy: Toy, box: Box, gate: Gate, tmp_path: Path) -> None:
    """Python's clock is moved, and not the system's: files have the kernel's time."""
    clock, site = tmp_path / "clock", tmp_path / "site"
    clock.write_text("86400")
    site.mkdir()
    (site / "sitecustomize.py").write_text(_CLOCK)
    moved = {"CLOCK": str(clock), "PYTHONPATH": f"{site}:{box.env()['PYTHONPATH']}"}
    toy.append("ggml/src/ggml-quants.c", f'#include "{gate.path}"\n').publish()
    run = Box(box.home, moved).start(*build_words(toy), "--json")
    wait_for(lambda: at_the_gate(gate, box, "cc1"))
    clock.write_text("-86400")
    gate.open()
    out, err = run.communicate(timeout=300)
    manifest = Done(run.returncode, out, err).artifact()["manifest"]
    assert 0 < manifest["build"]["wall_seconds"] < 3600
    assert box.run("list").code == 0
    assert box.run("gc", "--older-than", "0", "--json").document()["removed"] == []
    assert len(box.artifacts()) == 1
    assert box.debris() == []


@pytest.mark.threat(
    "faults",
    "what CMake found out of the compilers, cut short in a kept build folder",
    "found out again; the build goes on",
)
def test_cmake_files(built: Built, box: Box) -> None:
    assert box.build(built.toy).code == 0
    (folder,) = box.build_dirs
    steps = box.steps()
    for path in folder.glob("CMakeFiles/[0-9]*/*.cmake"):
        os.truncate(path, path.stat().st_size // 2)
    shutil.rmtree(box.artifacts()[0])
    assert box.build(built.toy, "--json").artifact()["fresh"] is True
    assert box.steps() == steps


@pytest.mark.threat(
    "faults",
    "objects of a kept build folder that a power cut left empty, cut or full of zeros; their times as before",
    "made again, and this is said; the same bytes come out",
)
def test_cut_objects(built: Built, box: Box) -> None:
    first = box.build(built.toy, "--json").artifact()
    (folder,) = box.build_dirs
    changes: dict[str, Callable[[bytes], bytes]] = {
        "ggml.c.o": lambda _: b"",
        "ggml-quants.c.o": lambda data: data[: len(data) - 1],
        "ggml-cpu.c.o": lambda data: bytes(len(data)),
    }
    for name, change in changes.items():
        path = next(folder.rglob(name))
        when = path.stat().st_mtime_ns
        path.write_bytes(change(path.read_bytes()))
        os.utime(path, ns=(when, when))
    for library in folder.rglob("libggml.so*"):
        library.unlink()  # so that they are linked again
    shutil.rmtree(box.artifacts()[0])
    done = box.build(built.toy, "--json")
    assert file_hashes(done.artifact()["manifest"]) == file_hashes(first["manifest"])
    assert "cut short in an earlier run and made again" in done.err
    again = [Path(s).name for s, count in Counter(box.steps()).items() if s.endswith(".o") and count > 1]
    assert sorted(again) == sorted(changes)


@pytest.mark.threat(
    "faults",
    "a full disk (a small tmpfs) while publishing to it and exporting to it",
    "exit 8 that names the place and a remedy for it; nothing is left there",
)
@pytest.mark.parametrize("target", ["builds", "toy.tar.zst"])
def test_publish_to_a_full_disk(target: str, built: Built, tmp_path: Path) -> None:
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"may not mount: {tried.stderr.decode().strip()}")
    box = seeded(built, tmp_path / "home")
    box.build(built.toy, "--no-cache", "--json").artifact()
    full = tmp_path / "full"
    full.mkdir()
    script = 'mount -t tmpfs -o size=16k none "$0" || exit 77; "$@"; code=$?; find "$0" >&2; exit $code'
    words: list[str | Path] = ["publish", full / target, built.toy.name, "--json"]
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, full, *argv(words)],
        env=box.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode == 77:
        pytest.skip(f"may not mount: {ran.stderr}")
    error = Done(ran.returncode, ran.stdout, ran.stderr).error(8, "store")
    assert "No space left" in error["what"]
    assert error["where"].startswith(str(full))
    assert error["remedy"] == "free some disk space there, or name another place"
    assert "/bin/" not in ran.stderr
