"""Other machines compile for this one: a scheduler and build servers, each in its network namespace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.build import machines
from sparkbuild.build.builders import find_sccache
from sparkbuild.errors import MissingError
from tests.integration.conftest import Built, with_cuda
from tests.integration.engine import Box, Toy, file_hashes

_PATIENCE = 60.0  # seconds for a daemon to come up
_NET = "198.18.77"  # RFC 2544: nobody's
_DID = "Performing build in"


class Site:
    """A scheduler and two build servers at work; ``file`` is what --builders takes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.file = folder / "settings" / "builders.toml"

    def start(self, number: int, role: str, settings: str) -> None:
        words: list[str | Path] = [
            "ip",
            "netns",
            "exec",
            f"{self.name}{number}",
            find_sccache("sccache-dist"),
            role,
        ]
        env = {"PATH": os.environ["PATH"], "SCCACHE_NO_DAEMON": "1", "SCCACHE_LOG": "debug"}
        with self.log(number).open("wb") as log:
            self.children[number] = subprocess.Popen(
                [*words, "--config", self.folder / "settings" / settings],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, number: int) -> Path:
        return self.folder / f"{number}.log"

    def wait_for(self, number: int, text: str) -> None:
        end = time.monotonic() + _PATIENCE
        while text not in self.log(number).read_text(errors="replace"):
            at_work = self.children[number].poll() is None and time.monotonic() < end
            assert at_work, self.log(number).read_text(errors="replace")
            time.sleep(0.1)

    def steps(self, number: int) -> int:
        return self.log(number).read_text(errors="replace").count(_DID)

    def kill(self, number: int) -> None:
        child = self.children.pop(number)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@contextlib.contextmanager
def _network(name: str) -> Iterator[None]:
    """Hold three namespaces, NAME0 to NAME2, on a bridge: this machine is .1, they are .10 to .12."""
    with contextlib.ExitStack() as undo:
        _ip(f"link add {name} type bridge")
        undo.callback(_ip, f"link del {name}")
        _ip(f"addr add {_NET}.1/24 dev {name}")
        _ip(f"link set {name} up")
        for n in range(3):
            _ip(f"netns add {name}{n}")
            undo.callback(_ip, f"netns del {name}{n}")
            _ip(f"link add {name}v{n} type veth peer name eth0 netns {name}{n}")
            _ip(f"link set {name}v{n} master {name} up")
            _ip(f"-n {name}{n} addr add {_NET}.1{n}/24 dev eth0")
            _ip(f"-n {name}{n} link set eth0 up")
            _ip(f"-n {name}{n} link set lo up")
        yield


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Return machines to compile on. Build servers must be root, and mount overlays."""
    if os.getuid() or not shutil.which("ip") or not shutil.which("bwrap"):
        pytest.skip("needs root, ip and bwrap")
    try:
        find_sccache("sccache-dist")
    except MissingError as problem:
        pytest.skip(f"{problem}")
    name = f"sb{os.getpid() % 10**6}"
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(folder, name)
    servers = [f"{_NET}.1{n}:10501" for n in (1, 2)]
    machines.settings(f"{_NET}.10:10600", servers, site.file.parent, folder=folder / "FOLDER")
    for server in site.file.parent.glob("server-*.conf"):
        (folder / server.stem).mkdir()
        server.write_text(server.read_text().replace("FOLDER", server.stem))
    with _network(name):
        try:
            site.start(0, "scheduler", "scheduler.conf")
            time.sleep(1)  # a server that finds no scheduler ends
            for n in (1, 2):
                site.start(n, "server", f"server-{servers[n - 1].replace(':', '-')}.conf")
                site.wait_for(n, "Server connected to scheduler")
            yield site
        finally:
            for n in tuple(site.children):
                site.kill(n)


def _made(box: Box, toy: Toy, *words: str | Path) -> dict[str, Any]:
    done = box.build(toy, "--rebuild", "--no-cache", "--json", *words)
    manifest: dict[str, Any] = done.artifact()["manifest"]
    return manifest


def test_the_bytes_are_the_same(box: Box, toy: Toy, site: Site) -> None:
    toy.append("tools/tool.cpp", 'const char *when() { return __DATE__ " " __TIME__; }\n').publish()
    alone = _made(box, toy)
    assert site.steps(1) + site.steps(2) == 0
    shared = _made(box, toy, "--builders", site.file)
    assert site.steps(1) + site.steps(2) >= shared["build"]["compile_commands"]["total"]
    assert file_hashes(shared) == file_hashes(alone)
    assert box.debris() == []


def test_cuda_too(built: Built, site: Site, tmp_path: Path) -> None:
    box, arch = with_cuda(built, tmp_path / "cuda", "gb10", "host")
    words = ["--arch", arch, "--backend", "cuda", "--offline"]
    alone = _made(box, built.toy, *words)
    shared = _made(box, built.toy, *words, "--builders", site.file)
    kernels = sum(shared["build"]["compile_commands"]["cuda_archs"].values())
    # A kernel's four steps: cudafe++, cicc, ptxas and the host compiler.
    assert site.steps(1) + site.steps(2) >= shared["build"]["compile_commands"]["total"] + 3 * kernels
    assert file_hashes(shared) == file_hashes(alone)


def _lose(site: Site, lost: Iterable[int]) -> threading.Thread:
    """Kill machines as soon as a build server is at work."""

    def watch() -> None:
        end = time.monotonic() + _PATIENCE
        while not site.steps(1) + site.steps(2) and time.monotonic() < end:
            time.sleep(0.05)
        for n in lost:
            site.kill(n)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.threat(
    "faults",
    "a build server is killed while machines compile; or all of them, and the scheduler",
    "what it had is compiled here: the same bytes, later",
)
@pytest.mark.parametrize("lost", [(1,), (0, 1, 2)])
def test_a_lost_server_costs_time_alone(box: Box, toy: Toy, site: Site, lost: tuple[int, ...]) -> None:
    toy.publish()
    alone = _made(box, toy)
    watching = _lose(site, lost)
    shared = _made(box, toy, "--builders", site.file)
    watching.join()
    assert file_hashes(shared) == file_hashes(alone)


@pytest.mark.threat(
    "manifests",
    "an artifact that other machines compiled is published",
    "refused until a rebuild here was identical",
)
def test_nobody_there(box: Box, toy: Toy, tmp_path: Path) -> None:
    file = tmp_path / "builders.toml"
    file.touch(mode=0o600)
    file.write_text('scheduler = "http://127.0.0.1:9"\ntoken = "x"\n')
    try:
        find_sccache()
    except MissingError as problem:
        pytest.skip(f"{problem}")
    toy.publish()
    alone = _made(box, toy)
    manifest = _made(box, toy, "--builders", file)
    assert file_hashes(manifest) == file_hashes(alone)
    assert manifest["build"]["distributed"]
    name = f"{toy.name}@{manifest['key'][:12]}"
    words = ("publish", tmp_path / "out", name, "--json")
    assert "other machines" in box.run(*words).error(1, "finding")["what"]
    box.run("reproduce", name, "--catalog", toy.catalog, "--json").document()
    box.run(*words).document()


def test_a_sandbox_has_no_other_machines(box: Box, toy: Toy, tmp_path: Path) -> None:
    file = tmp_path / "builders.toml"
    file.write_text('scheduler = "http://127.0.0.1:9"\ntoken = "x"\n')
    file.chmod(0o600)
    said = box.build(toy.publish(), "--builders", file, "--sandbox", "--json").error(2, "usage")
    assert "no other machine" in said["what"]
