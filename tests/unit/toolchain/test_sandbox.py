"""What code that is not trusted reaches: everything without a sandbox, nothing in one."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparkbuild
from sparkbuild import process
from sparkbuild.errors import MissingError, StoreError
from sparkbuild.toolchain import doctor, sandbox
from sparkbuild.toolchain.sandbox import View, enter
from tests.conftest import Script

EVIL = Path(__file__).parents[2] / "data" / "hostile" / "evil.c"
ROOT = os.getuid() == 0
MARK = f"evil-{uuid.uuid4().hex}"
needs_sandbox = pytest.mark.skipif(bool(sandbox.why_not()), reason=sandbox.why_not())
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program that tries things, for this machine."""
    program = tmp_path_factory.mktemp("evil") / "evil"
    subprocess.run(["gcc", "-O1", EVIL, "-o", program], check=True)
    return program


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return the one folder that may be written to."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def tries(evil: Path, kind: str, what: str | Path, work: Path | None) -> bool:
    """Return whether the program gets there; with ``work`` in a sandbox that may write to that."""
    words = enter(View((evil,), (work,))) if work else ()
    done = process.run([*words, evil, kind, what], check=False)
    assert (done.returncode, done.errors.startswith("bwrap")) in ((0, False), (1, False)), done.errors
    return done.returncode == 0


@pytest.fixture
def victim() -> Iterator[str]:
    """Return the number of a process of this user's."""
    with subprocess.Popen(["sleep", "300"]) as child:
        yield str(child.pid)
        child.kill()


def _marked() -> list[int]:
    """Return the processes that have MARK among their words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if MARK.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


@needs_gcc
@needs_sandbox
class TestReach:
    """Each is tried twice: without a sandbox it succeeds, or the test would prove nothing."""

    @pytest.mark.threat("sandbox", "read a key in the user's home", "not there")
    def test_a_key(self, evil: Path, work: Path, tmp_path: Path) -> None:
        key = tmp_path / "home" / ".ssh" / "id_x"
        key.parent.mkdir(parents=True)
        key.write_text("secret")
        assert [tries(evil, "read", key, w) for w in (None, work)] == [True, False]

    @pytest.mark.threat("sandbox", "read what a link in its own folder leads to", "not there")
    def test_a_key_behind_a_link(self, evil: Path, work: Path, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("secret")
        (work / "link").symlink_to(tmp_path / "key")
        assert [tries(evil, "read", work / "link", w) for w in (None, work)] == [True, False]

    @pytest.mark.threat("sandbox", "list the home, /tmp, /etc, /run, /var, /sys", "empty, or not there")
    @pytest.mark.parametrize("folder", ["{tmp}", "{home}", "/etc/ssl", "/run", "/var/lib", "/sys/class"])
    def test_folders(self, folder: str, evil: Path, work: Path, tmp_path: Path) -> None:
        (Path.home() / "file").touch()
        where = folder.format(tmp=tmp_path, home=Path.home())
        if where.startswith("/") and not Path(where).is_dir():
            pytest.skip(f"{where} is not here")
        (tmp_path / "other").touch()
        without, within = (tries(evil, "list", where, w) for w in (None, work))
        assert without or not any(Path(where).iterdir())
        # Its own folder lies below this one: the way to it is seen, and nothing beside it.
        seen = process.run([*enter(View((), (work,))), "ls", where], check=False).output.split()
        assert within == (seen == [work.name])
        assert set(seen) <= {work.name}

    @pytest.mark.threat(
        "sandbox",
        "write to the home, /tmp, /var/tmp, sparkbuild's own code, /usr, /",
        "nothing is there after",
    )
    @pytest.mark.parametrize("folder", ["{tmp}", "{home}", "/tmp", "/var/tmp", "{code}", "/usr/local", "/"])  # noqa: S108
    def test_writing(self, folder: str, evil: Path, work: Path, tmp_path: Path) -> None:
        code = Path(sparkbuild.__file__).parent
        target = Path(folder.format(tmp=tmp_path, home=Path.home(), code=code), MARK)
        if not os.access(target.parent, os.W_OK):
            pytest.skip("only root could write there")
        try:
            tries(evil, "write", target, work)
            assert not target.exists()
            assert tries(evil, "write", target, None)
            assert target.exists()
        finally:
            target.unlink(missing_ok=True)

    @pytest.mark.threat("sandbox", "change what it may read", "refused, for root too")
    def test_changing_what_is_shown(self, evil: Path, work: Path, tmp_path: Path) -> None:
        shown = tmp_path / "tree" / "file"
        shown.parent.mkdir()
        shown.touch()
        words = enter(View((evil, shown.parent), (work,)))
        assert process.run([*words, evil, "write", shown.with_name("new")], check=False).returncode == 1
        assert process.run([*words, evil, "change", shown], check=False).returncode == 1
        assert tries(evil, "change", shown, None)

    @pytest.mark.threat("sandbox", "change the kernel's settings in /proc as root", "refused")
    @pytest.mark.skipif(not ROOT, reason="only root may")
    @pytest.mark.parametrize("name", ["sys/kernel/core_pattern", "sys/vm/drop_caches"])
    def test_kernel(self, name: str, evil: Path, work: Path) -> None:
        assert [tries(evil, "change", f"/proc/{name}", w) for w in (None, work)] == [True, False]

    @pytest.mark.threat("sandbox", "connect to a TCP server on this machine", "nothing answers")
    def test_tcp(self, evil: Path, work: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            assert [tries(evil, "tcp", port, w) for w in (None, work)] == [True, False]

    @pytest.mark.threat("sandbox", "connect to a Unix socket, with a path or abstract", "nothing answers")
    @pytest.mark.parametrize("abstract", [False, True])
    def test_unix(self, abstract: bool, evil: Path, work: Path) -> None:
        with (
            tempfile.TemporaryDirectory(dir="/tmp") as folder,
            socket.socket(socket.AF_UNIX) as server,
        ):
            name = f"@{MARK}" if abstract else f"{folder}/s"
            server.bind(f"\0{MARK}" if abstract else name)
            server.listen()
            assert [tries(evil, "unix", name, w) for w in (None, work)] == [True, False]

    @pytest.mark.threat("sandbox", "see, trace or end another process of the user's", "not there")
    @pytest.mark.parametrize("kind", ["see", "trace", "kill"])
    def test_processes(self, kind: str, evil: Path, work: Path, victim: str) -> None:
        assert [tries(evil, kind, victim, w) for w in (work, None)] == [False, True]

    @pytest.mark.threat("sandbox", "leave a process behind, in a session of its own", "it is ended")
    def test_a_daemon(self, evil: Path, work: Path) -> None:
        tries(evil, "daemon", MARK, work)
        assert _marked() == []
        tries(evil, "daemon", MARK, None)
        left = _marked()
        for pid in left:
            os.kill(pid, 9)
        assert left

    @pytest.mark.skipif(not ROOT, reason="the devices belong to root")
    @pytest.mark.threat("sandbox", "change the mode of /dev/full as root", "refused")
    def test_devices(self, work: Path) -> None:
        if sandbox.tried(sandbox._GUARD):
            pytest.skip("root may not mount here")
        change = ["chmod", "0666", "/dev/full"]  # as it is
        process.run(change)
        assert process.run([*enter(View((), (work,))), *change], check=False).returncode == 1

    @pytest.mark.threat("sandbox", "mount, in namespaces of its own", "refused")
    def test_mount(self, evil: Path, work: Path) -> None:
        assert [tries(evil, "mount", "/usr", w) for w in (None, work)] == [True, False]

    def test_who_it_is(self, work: Path) -> None:
        said = process.run([*enter(View((), (work,))), "sh", "-c", "id -u; grep CapEff /proc/self/status"])
        user, _, capabilities = said.output.split()
        assert (user != "0", int(capabilities, 16)) == (True, 0)

    def test_its_own_folder(self, work: Path) -> None:
        process.run([*enter(View((), (work,))), "sh", "-c", "echo > out; cc --version"], cwd=work)
        assert (work / "out").stat().st_uid == os.getuid()


@pytest.mark.threat("sandbox", "a kernel that gives no user namespaces", "exit code 3 and the remedy")
def test_a_kernel_that_refuses(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = script("bwrap", 'echo "bwrap: setting up uid map: Permission denied" >&2; exit 1')
    monkeypatch.setattr(process, "SYSTEM_PATH", f"{fake.parent}:{process.SYSTEM_PATH}")
    monkeypatch.setattr(sandbox, "why_not", sandbox.why_not.__wrapped__)
    with pytest.raises(MissingError, match="setting up uid map: Permission denied") as caught:
        sandbox.check()
    assert (caught.value.exit_code, "apparmor" in caught.value.remedy) == (3, True)
    found = doctor._sandbox()
    assert (found.verdict, found.needed) == ("missing", False)


def test_no_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SYSTEM_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "bwrap" in sandbox.why_not.__wrapped__()


@pytest.mark.threat(
    "sandbox", "a build folder of ten thousand levels, with links that lead out", "removed alone"
)
def test_any_build_folder_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    folder = tmp_path / "build"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "mine")
    deep = "import os\nfor _ in range(10_000):\n    os.mkdir('d')\n    os.chdir('d')\n"
    process.run([sys.executable, "-c", deep], cwd=folder)
    sandbox.clear(folder)
    assert not folder.exists()
    assert (tmp_path / "mine" / "kept").exists()
    sandbox.clear(folder)


def test_a_folder_that_can_not_be_removed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(StoreError, match="can not be removed"):
        sandbox.clear(Path(".."))
