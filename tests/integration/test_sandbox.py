"""A hostile source and the hostile tools that it makes, built with and without a sandbox."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import sparkbuild
from sparkbuild.toolchain import sandbox
from sparkbuild.toolchain.place import SOURCE
from tests.integration.conftest import Built, seeded, with_cuda
from tests.integration.engine import Box, Done, Toy, argv, build_words, file_hashes

_EVIL = Path(__file__).parent.parent / "data" / "hostile" / "evil.c"
_NO_NAMESPACES = ("bwrap", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--dev-bind", "/", "/")
_SECRET = "the content of a key"
_SCRIPT = """\
while read kind what; do
    "$1" "$kind" "$what" </dev/null && echo "did $2 $kind $what"
done < "$3/evil.txt"
true
"""
_LISTS = """
execute_process(COMMAND cc -O1 "${CMAKE_SOURCE_DIR}/evil.c" -o "${CMAKE_BINARY_DIR}/evil")
set(EVIL sh "${CMAKE_SOURCE_DIR}/evil.sh" "${CMAKE_BINARY_DIR}/evil")
execute_process(COMMAND ${EVIL} configure "${CMAKE_SOURCE_DIR}")
add_custom_command(TARGET llama-bench POST_BUILD COMMAND ${EVIL} compile "${CMAKE_SOURCE_DIR}")
"""
_TOOL = """\
#define EVIL_INCLUDED
#include "../evil.c"
static const char *evil_list_of[][2] = {@rows@};
struct AtEnd {
    ~AtEnd() {
        for (auto &one : evil_list_of)
            if (evil(one[0], one[1])) std::fprintf(stderr, "did tool %s %s\\n", one[0], one[1]);
    }
};
int main(int argc, char **argv) {
    AtEnd at_end;
"""

pytestmark = [
    pytest.mark.skipif(bool(sandbox.why_not()), reason=sandbox.why_not()),
    pytest.mark.skipif(not shutil.which("cc"), reason="cc is not installed"),
]


@dataclass
class World:
    """What there is to reach: files, servers, a process."""

    home: Path
    mark: str = field(default_factory=lambda: f"evil-{uuid.uuid4().hex}")
    server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    agent: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))
    hidden: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))
    victim: subprocess.Popen[bytes] = field(default_factory=lambda: subprocess.Popen(["sleep", "600"]))

    def __post_init__(self) -> None:
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "id_x").write_text(_SECRET)
        (self.home / "store" / "other").mkdir(parents=True)
        self.agent.bind(f"/tmp/{self.mark}.s")  # noqa: S108 - as an agent's
        self.hidden.bind(f"\0{self.mark}")
        for one in (self.agent, self.hidden):
            one.listen()

    @property
    def writes(self) -> list[Path]:
        """What is written, but for the sandbox's own /tmp and /var/tmp."""
        folders = [self.home, self.home / "store", Path(sparkbuild.__file__).parent, SOURCE]
        return [f / self.mark for f in folders + [Path("/usr/local")] * (os.getuid() == 0)]

    @property
    def temporary(self) -> list[Path]:
        return [Path("/tmp", self.mark), Path("/var/tmp", self.mark)]  # noqa: S108 - what others use

    @property
    def lines(self) -> list[str]:
        """What the hostile code tries, most harmful last."""
        tried = [f"read {self.home}/.ssh/id_x", f"list {self.home}/store", f"list {self.home}"]
        tried += [f"write {p}" for p in (*self.writes, *self.temporary)]
        tried += [f"tcp {self.server.getsockname()[1]}", f"unix /tmp/{self.mark}.s", f"unix @{self.mark}"]
        tried += ["mount /usr", f"see {self.victim.pid}", f"daemon {self.mark}", f"kill {self.victim.pid}"]
        return tried

    def daemons(self) -> list[int]:
        """Return the processes that were left behind."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if self.mark.encode() in words and b"-c" in words:
                    found.append(int(path.parent.name))
        return found

    def close(self) -> None:
        for pid in self.daemons():
            os.kill(pid, 9)
        self.victim.kill()
        self.victim.wait()
        for path in (*self.writes, *self.temporary, Path(f"/tmp/{self.mark}.s")):  # noqa: S108 - as above
            path.unlink(missing_ok=True)
        for one in (self.server, self.agent, self.hidden):
            one.close()


@dataclass(frozen=True)
class Ran:
    """A hostile build, and what it did."""

    world: World
    box: Box
    done: Done
    manifest: dict[str, Any]
    did: set[str]
    told: str


@pytest.fixture(scope="module")
def hostile(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Toy]]:
    """Return a world and a toy that goes for it."""
    folder = tmp_path_factory.mktemp("hostile")
    world = World(folder / "user")
    toy = Toy(folder / "toy")
    shutil.copy(_EVIL, toy.source)
    (toy.source / "evil.txt").write_text("\n".join(world.lines) + "\n")
    (toy.source / "evil.sh").write_text(_SCRIPT)
    rows = "".join(f'{{"{kind}", "{what}"}},' for kind, _, what in (x.partition(" ") for x in world.lines))
    toy.append("CMakeLists.txt", _LISTS)
    toy.replace("tools/tool.cpp", "int main(int argc, char **argv) {\n", _TOOL.replace("@rows@", rows))
    yield world, toy.publish()
    world.close()


def run(built: Built, hostile: tuple[World, Toy], folder: Path, *words: str) -> Ran:
    world, toy = hostile
    box = seeded(built, folder / "home")
    seen = {"HOME": str(world.home), "SSH_AUTH_SOCK": f"/tmp/{world.mark}.s"}  # noqa: S108 - as above
    done = box.build(toy, "--json", *words, env=seen)
    manifest = dict(done.artifact()["manifest"])
    (where,) = box.build_dirs
    told = "".join((where / name).read_text() for name in ("configure.log", "build.log"))
    told += manifest["version"]["output"]
    did = {line.removeprefix("did ") for line in told.splitlines() if line.startswith("did ")}
    return Ran(world, box, done, manifest, did, told)


@pytest.fixture(scope="module")
def sealed_off(built: Built, hostile: tuple[World, Toy], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Return the hostile build in a sandbox; nothing else has been run of it yet."""
    return run(built, hostile, tmp_path_factory.mktemp("sandboxed"), "--sandbox")


@pytest.mark.threat(
    "sandbox",
    "CMake code, a build step and a built tool that read, write, connect, kill, mount and leave a daemon",
    "nothing outside is reached or left, and the build goes on",
)
def test_nothing_is_reached(sealed_off: Ran) -> None:
    world = sealed_off.world
    own = {f"write {p}" for p in world.temporary} | {f"daemon {world.mark}"}
    assert {did.partition(" ")[2] for did in sealed_off.did} == own
    assert {did.partition(" ")[0] for did in sealed_off.did} == {"configure", "compile", "tool"}
    assert [p for p in (*world.writes, *world.temporary) if p.exists()] == []
    assert (world.daemons(), world.victim.poll()) == ([], None)
    assert _SECRET not in sealed_off.told + json.dumps(sealed_off.manifest)


def test_its_manifest_says_so(sealed_off: Ran) -> None:
    assert sealed_off.manifest["build"]["place"] == "sandbox"
    assert sealed_off.manifest["system"]["ran"] in ("native", "qemu")
    assert "SSH_AUTH_SOCK" not in sealed_off.manifest["build"]["environment"]


@pytest.mark.threat("sandbox", "probe --sandbox, verify-flags and reproduce of what it made", "as the build")
def test_later_runs_are_in_a_sandbox_too(sealed_off: Ran, hostile: tuple[World, Toy]) -> None:
    world, folder, user = (
        sealed_off.world,
        sealed_off.box.artifacts()[0],
        {"HOME": str(sealed_off.world.home)},
    )
    done = sealed_off.box.run("probe", folder / "bin", "--sandbox", "--json", env=user)
    (probed,) = done.document()["probes"]
    assert "did tool" in probed["said"]["version"]["output"]
    more = ("--catalog", hostile[1].catalog, "--json")
    assert sealed_off.box.run("verify-flags", "toy", *more, env=user).code == 0
    report = sealed_off.box.run("reproduce", "toy", "--vary", "none", *more, env=user).document()
    assert report["verdict"] == "identical"
    assert not any(p.exists() for p in (*world.writes, *world.temporary))
    assert (world.daemons(), world.victim.poll()) == ([], None)


def test_without_a_sandbox_it_all_happens(
    sealed_off: Ran, built: Built, hostile: tuple[World, Toy], tmp_path: Path
) -> None:
    """The positive control, and the same bytes. Tests run in the order in which they are written."""
    world = hostile[0]
    free = run(built, hostile, tmp_path)
    lost = set(world.lines) - {did.partition(" ")[2] for did in free.did}
    # The source is read-only in any case; qemu, which runs the tool elsewhere, knows no mount namespaces.
    assert lost <= {f"write {SOURCE}/{world.mark}", "mount /usr"}
    assert [p for p in world.writes if not p.exists()] == [SOURCE / world.mark]
    assert world.daemons()
    assert world.victim.wait(60)
    assert _SECRET in free.told
    assert file_hashes(free.manifest) == file_hashes(sealed_off.manifest)
    assert free.manifest["key"] == sealed_off.manifest["key"]


@pytest.mark.threat("sandbox", "links in the build folder of an earlier attempt", "removed, never followed")
def test_the_same_bytes_whatever_an_earlier_attempt_left(built: Built, tmp_path: Path) -> None:
    plain, box, mine = built.done.artifact()["manifest"], seeded(built, tmp_path / "home"), tmp_path / "mine"
    (mine / "api/v1/reply").mkdir(parents=True)
    (mine / "api/v1/reply/kept").touch()
    (mine / "log").write_text("kept\n")
    where = box.home / "cache/build" / f"toy-gb10-cpu-{plain['key'][:12]}"
    (where / ".env").mkdir(parents=True)
    for name, there in {".cmake": "", "build.log": "log", ".env/home": "", ".ninja_log": "log"}.items():
        (where / name).symlink_to(mine / there)
    manifest = box.build(built.toy, "--json", "--sandbox").artifact()["manifest"]
    assert sorted(p.name for p in mine.rglob("*") if p.is_file()) == ["kept", "log"]
    assert (mine / "log").read_text() == "kept\n"
    assert (manifest["key"], file_hashes(manifest)) == (plain["key"], file_hashes(plain))
    # The definitions name the folder in which it was built.
    assert {k for k in manifest if manifest[k] != plain[k]} == {"build", "definitions"}


def test_cuda(built: Built, tmp_path: Path) -> None:
    """The toolkit is shown where it lies, and nothing beside it."""
    box, arch = with_cuda(built, tmp_path / "home", "gb10", "host")
    words = ("--arch", arch, "--backend", "cuda", "--offline", "--json")
    plain = box.build(built.toy, *words).artifact()["manifest"]
    sealed = box.build(built.toy, *words, "--sandbox", "--rebuild").artifact()["manifest"]
    assert sealed["build"]["place"] == "sandbox"
    assert file_hashes(sealed) == file_hashes(plain)


@pytest.mark.threat("sandbox", "a machine that gives no namespaces", "refused: never built without a sandbox")
def test_a_machine_without_namespaces(built: Built, tmp_path: Path) -> None:
    """As on Ubuntu 24.04, where AppArmor keeps namespaces from most users."""
    box = seeded(built, tmp_path / "home")
    words = [*_NO_NAMESPACES, *argv([*build_words(built.toy), "--sandbox", "--json"])]
    done = subprocess.run(words, env=box.env(), capture_output=True, text=True, check=False, timeout=300)
    error = Done(done.returncode, done.stdout, done.stderr).error(3, "missing")
    assert "bwrap" in error["what"]
    assert "kernel.apparmor_restrict_unprivileged_userns" in error["remedy"]
    assert box.build_dirs == []


@pytest.mark.threat("sandbox", "a compiler in the user's home", "refused: it would have to show the home")
def test_a_compiler_in_the_home(built: Built, tmp_path: Path) -> None:
    prefix = "" if platform.machine() == "aarch64" else "aarch64-linux-gnu-"
    folder = tmp_path / "user" / "bin"
    folder.mkdir(parents=True)
    for name in ("gcc", "g++"):
        script = folder / f"{prefix}{name}"
        script.write_text(f'#!/bin/sh\nexec {shutil.which(prefix + name)} "$@"\n')
        script.chmod(0o755)
    env = {"PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = seeded(built, tmp_path / "home").build(built.toy, "--json", "--sandbox", env=env)
    assert "would have to show" in done.error(3, "missing")["what"]
