"""Every state file cut at every length and changed at every byte: made anew, told, or of no effect."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sparkbuild.artifact import gc, index, store, use
from sparkbuild.artifact import timeline as timelines
from sparkbuild.artifact.store import Stored
from sparkbuild.build import commands, ninja
from sparkbuild.build.costs import Measured
from sparkbuild.errors import MissingError, SparkbuildError
from sparkbuild.files import Folders, keep, kept, locked, sha256_bytes, sha256_file
from sparkbuild.handover import HandoverError, artifacts
from sparkbuild.packages import Pin, obtain
from sparkbuild.progress import Silent
from sparkbuild.source.checkout import Record
from sparkbuild.source.options import scan
from sparkbuild.toolchain.cuda import find_cuda
from sparkbuild.toolchain.memory import recall
from tests.artifacts import write
from tests.conftest import FILE, compilers_of, manifest_of, source_of, toolchain_of
from tests.wheels import toolkit_wheels

_MASKS = (0x01, 0x20, 0x80)


def damaged(path: Path, masks: tuple[int, ...] = _MASKS, stride: int = 1) -> Iterator[str]:
    """Damage a file at every byte, one at a time, and yield how; afterwards it is as it was.

    ``stride`` is for what takes a process: every so many bytes.
    """
    data = path.read_bytes()
    for size in range(0, len(data), stride):
        path.write_bytes(data[:size])
        yield f"cut to {size}"
    for at in range(0, len(data), stride):
        for mask in masks:
            path.write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            yield f"byte {at} ^ {mask:#x}"
    path.write_bytes(data)


def put(folders: Folders, name: str = "key") -> Stored:
    """Store a small artifact and index it."""
    key = sha256_bytes(name.encode())
    manifest = manifest_of(key=key)
    folder = store.folder("toy", key, folders)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "toy-server").write_bytes(FILE)
    write(folder, manifest)
    os.utime(folder / "manifest.json", (1e9, 1e9))
    os.utime(folder, (1e9, 1e9))  # long settled, so that the index is believed where it can be
    index.update(folders.store)
    return Stored(folder, manifest)


# --- what a cache remembers ---


def _records(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "CMakeLists.txt").write_text('option(FAST "be fast" ON)\nif (NUMBER)\nendif()\n')
    return {
        "source.json": Record(source_of(), scan(tmp_path)),
        "timings": Measured({"a.o": 17, "b.o": 1997}, 2.014, 1.5),
    }


@pytest.mark.parametrize("name", ["source.json", "timings"])
@pytest.mark.threat(
    "faults",
    "source.json and timings of the cache, cut and changed at every byte",
    "never believed: the source is checked out again, the times are forgotten",
)
def test_kept_records(name: str, tmp_path: Path) -> None:
    record, path = _records(tmp_path)[name], tmp_path / name
    keep(path, record)
    assert kept(path, type(record)) == record
    for how in damaged(path):
        assert kept(path, type(record)) is None, how


@pytest.mark.threat(
    "faults",
    "what is remembered of compilers, cut and changed at every byte",
    "never believed: the compilers are asked again",
)
def test_memory(tmp_path: Path) -> None:
    asked: list[int] = []

    def find() -> tuple[str, list[Path]]:
        asked.append(1)
        return "a compiler's digest", [Path(__file__)]

    def look() -> str:
        return recall(tmp_path, "x", "question", str, find)

    look()
    (path,) = (tmp_path / "machine").iterdir()
    whole = path.read_bytes()
    for number, how in enumerate(damaged(path, (0x01, 0x20)), 2):
        assert look() == "a compiler's digest"
        assert len(asked) == number, how
        assert path.read_bytes() == whole


@pytest.mark.threat(
    "faults",
    "a wheel or sdist in the cache, cut and changed",
    "never used: downloaded again, or with --offline said to be missing",
)
def test_downloads(folders: Folders) -> None:
    pin = Pin(project="x", file="x-1.tar.gz", sha256=sha256_bytes(FILE), size=len(FILE))
    path = folders.cache / "downloads" / pin.sha256[:16] / pin.file
    path.parent.mkdir(parents=True)
    path.write_bytes(FILE)
    for how in damaged(path):
        with pytest.raises(MissingError, match="is not in the cache"):
            obtain(pin, folders, offline=True, progress=Silent())
        assert not path.exists(), how
    assert obtain(pin, folders, offline=True, progress=Silent()) == path


@pytest.mark.threat(
    "faults",
    "an assembled CUDA toolkit and its sum: cut, changed, a file gone, one replaced",
    "noticed before a build and after it; assembled again from the cached wheels",
)
def test_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparkbuild.toolchain.cuda.installed_roots", list)  # this machine may have one
    folders = Folders(tmp_path / "cache", tmp_path / "store", tmp_path / "config")
    wheels, gcc = toolkit_wheels(folders), Path(shutil.which("gcc") or "gcc")

    def find() -> Path:
        compilers = compilers_of(cc=gcc)
        return find_cuda(toolchain_of(), wheels, compilers, folders, offline=True, progress=Silent()).root

    root = find()
    kept_copy = Path(shutil.copytree(root, tmp_path / "kept", symlinks=True))
    for name in (".sparkbuild-sum", "bin/nvcc"):
        for how in damaged(root / name, (0x01,), 5):
            changed = (root / name).read_bytes()
            assert find() == root
            assert (root / name).read_bytes() == (kept_copy / name).read_bytes() != changed, how
    (root / "nvvm/bin/cicc").unlink()
    assert (find() / "nvvm/bin/cicc").is_file()


# --- the store and a published folder ---


@pytest.mark.parametrize("name", ["index.json", ".index.sha256"])
@pytest.mark.threat(
    "faults",
    "index.json of the store or of a published folder, and its sum, cut and changed at every byte",
    "made again from the artifacts; the benchmark stage's reader refuses a wrong place or digest",
)
def test_index(name: str, folders: Folders) -> None:
    made = put(folders)
    told = index.scan(folders.store)
    assert len(told[0].artifacts) == 1
    digest = sha256_file(made.path / "manifest.json")
    for how in damaged(folders.store / name, (0x01, 0x20)):
        assert index.scan(folders.store) == told, how
        try:
            found = list(artifacts(folders.store))
        except HandoverError:
            continue
        assert [a.digest for a in found] in ([digest], []), how
    (folders.store / name).write_bytes(b"")
    assert index.update(folders.store) == told[0]
    assert index.scan(folders.store) == told


@pytest.mark.parametrize("name", ["smoke", "reproduction"])
@pytest.mark.threat(
    "faults",
    "smoke.json and reproduction.json, cut and changed at every byte",
    "no verdict instead of another one",
)
def test_verdicts(name: str, tmp_path: Path) -> None:
    verdict = "passed" if name == "smoke" else "identical"
    said = {"schema": f"sparkbuild/{name}/1", "manifest": "a" * 64, "verdict": verdict}
    path = tmp_path / f"{name}.json"
    path.write_bytes(msgspec.json.encode(said))
    assert verdict in index.verdicts(tmp_path, "a" * 64)
    for how in damaged(path):
        assert set(index.verdicts(tmp_path, "a" * 64)) <= {"", verdict}, how


@pytest.mark.threat(
    "faults",
    "timeline.json, cut and changed at every byte",
    "an error that says to remove it, or times that differ; nothing else reads it",
)
def test_timeline(tmp_path: Path) -> None:
    path = tmp_path / timelines.NAME
    path.write_bytes(timelines.encode(timelines.Timeline(timelines.SCHEMA, 2, 2, {"a.o": (0, 5)})))
    refused = 0
    for _ in damaged(path):
        refused += told(lambda: timelines.read(tmp_path))
    assert refused > len(path.read_bytes())


@pytest.mark.threat(
    "faults",
    "published.json, cut and changed at every byte",
    "gc spares the artifact all the same",
)
def test_published(folders: Folders) -> None:
    made = put(folders)
    path = made.path / "published.json"
    path.write_bytes(msgspec.json.encode({"schema": "sparkbuild/published/1", "places": ["/somewhere"]}))
    for how in damaged(path, (0x01, 0x80), 3):
        assert gc.plan_gc(folders, keep=0) == (), how


@pytest.mark.threat(
    "faults",
    "the link current/ENGINE, cut and changed at every byte, or a file in its place",
    "nothing is in use, or the very same; use --back says so and nothing is lost",
)
def test_current(folders: Folders) -> None:
    one, two = put(folders, "one"), put(folders, "two")
    use.use(one, folders)
    use.use(two, folders)
    link = use.link("toy", folders)
    (folders.store / "link").write_bytes(os.fsencode(link.readlink()))
    for _ in damaged(folders.store / "link"):
        wrong = (folders.store / "link").read_bytes().replace(b"\0", b"") or b"x"
        link.unlink()
        link.symlink_to(os.fsdecode(wrong))
        for folder in use.in_use(folders).values():
            assert folder == two.path or not folder.exists()
        told(lambda: use.used("toy", folders))
        told(lambda: use.previous("toy", folders))
    link.unlink()
    link.write_text("no link")
    assert use.in_use(folders) == {}
    use.use(one, folders)
    assert use.in_use(folders) == {"toy": one.path}


def told(action: Callable[[], object]) -> bool:
    """Return whether it fails as a person can be told; in no other way may it fail."""
    try:
        action()
    except SparkbuildError as problem:
        return problem.exit_code in (2, 5, 8) and bool(problem.remedy)
    return False


@pytest.mark.threat(
    "faults",
    "a lock file that was left, with the id of a process that lives, or with any bytes",
    "nobody waits: the kernel knows who holds it",
)
@pytest.mark.parametrize("content", [b"", b"1\n", str(os.getppid()).encode(), bytes(range(256))])
def test_stale_lock(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(content)
    with locked(tmp_path / "lock", wait=0):
        pass


# --- a kept build folder ---

_NINJA = """
rule cc
  command = gcc -c -MD -MF $out.d $in -o $out && echo $in >> ran
  depfile = $out.d
  deps = gcc
build a.o: cc a.c
build b.o: cc b.c
"""


@pytest.fixture
def ninja_folder(tmp_path: Path, tools: dict[str, Path]) -> Path:
    """Return a folder in which two files were compiled."""
    folder = tmp_path / "build"
    folder.mkdir()
    (folder / "build.ninja").write_text(_NINJA)
    (folder / "h.h").write_text("int h;\n")
    for name in ("a", "b"):
        (folder / f"{name}.c").write_text(f'#include "h.h"\nint {name};\n')
    subprocess.run([tools["ninja"], "-C", folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", [".ninja_log", ".ninja_deps"])
@pytest.mark.threat(
    "faults",
    ".ninja_log and .ninja_deps of a kept build folder, cut and changed, then ninja",
    "ninja goes on and what it can not believe is made again; times can still be read",
)
def test_ninja_files(name: str, ninja_folder: Path, tools: dict[str, Path]) -> None:
    objects = [(ninja_folder / o).read_bytes() for o in ("a.o", "b.o")]
    for _ in damaged(ninja_folder / name):
        ninja.timeline(ninja_folder)
        ninja.replaced(ninja_folder)
    for how in damaged(ninja_folder / name, (0x11,), 8):
        done = subprocess.run([tools["ninja"], "-C", ninja_folder], capture_output=True, check=False)
        assert done.returncode == 0, f"{how}: {done.stdout.decode()}"
        assert [(ninja_folder / o).read_bytes() for o in ("a.o", "b.o")] == objects


@pytest.mark.threat(
    "faults",
    "compile_commands.json of a build folder, cut and changed at every byte",
    "read, or an error that says to configure again",
)
def test_compile_commands(tmp_path: Path, tools: dict[str, Path]) -> None:
    entry = {"directory": "/b", "file": "/s/a.c", "command": "gcc -c a.c", "output": "CMakeFiles/t.dir/a.c.o"}
    path = tmp_path / "compile_commands.json"
    path.write_bytes(msgspec.json.encode([entry]))
    refused = 0
    for _ in damaged(path):
        refused += told(lambda: commands.read_database(tools["ninja"], tmp_path, ("t",)))
    assert refused > len(path.read_bytes())
