"""Each stage killed, interrupted and failed at what it does to the disk (--full: at each), in a real process.

Whatever happens and whenever: an exit code that is no bug's, nothing half made under a name that counts,
nothing lost that was there, and the next run comes to the end and leaves nothing behind.
"""

from __future__ import annotations

import errno
import http.server
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.artifact import index, store, use
from sparkbuild.artifact import timeline as timelines
from sparkbuild.artifact.gc import collect_garbage
from sparkbuild.artifact.store import Stored
from sparkbuild.catalog import Catalog
from sparkbuild.checking import check
from sparkbuild.files import Folders, sha256_bytes
from sparkbuild.handover import artifacts
from sparkbuild.intake import take_in
from sparkbuild.packages import Pin, obtain
from sparkbuild.progress import Silent
from sparkbuild.publish import With, publish
from sparkbuild.source import checkout, intact
from sparkbuild.toolchain.cuda import find_cuda
from tests.artifacts import make, shelved
from tests.conftest import compilers_of, toolchain_of
from tests.integration.engine import Toy
from tests.kills import Fault, broken
from tests.wheels import toolkit_wheels

_FAULTS: list[Fault] = [signal.SIGKILL, signal.SIGINT, errno.ENOSPC, errno.EIO, errno.EACCES]
_NAMES = ["SIGKILL", "SIGINT", "the disk is full", "the disk fails", "no permission"]
_TIMELINE = timelines.Timeline(timelines.SCHEMA, 1, 1, {"a.o": (0, 1)})
_ALL, _POINTS = "--full" in sys.argv, 4
_OURS = (".index.sha256", ".sparkbuild-sum")
_CODES = {int(signal.SIGKILL): (-9,), int(signal.SIGINT): (0, 130)}
every_fault = pytest.mark.parametrize("fault", _FAULTS, ids=_NAMES)
_PROMISED = "no bug's exit code, nothing half made or lost; the next run ends well and leaves nothing behind"


def sweep(
    fault: Fault,
    reset: Callable[[], object],
    action: Callable[[], object],
    sound: Callable[[], object],
    done: Callable[[], object],
    least: int,
) -> None:
    """Meet the fault at many steps: ``sound`` must hold right after, ``done`` after the next run.

    Those are all with --full, else about four that are spread over them, others for each fault.
    """
    reset()
    action()  # what it imports does not count
    reset()
    code, steps = broken(1 << 30, action, fault)
    assert code == 0
    assert steps >= least
    stride = 1 if _ALL else max(1, steps // _POINTS)
    for step in range(_FAULTS.index(fault) * stride // len(_FAULTS), steps, stride):
        reset()
        code, met = broken(step, action, fault)
        if met <= step:
            continue  # it took another way this time
        assert code in _CODES.get(int(fault), (0, 3, 4, 8)), f"step {step}: exit code {code}"
        sound()
        action()
        done()


def hidden(*roots: Path) -> list[Path]:
    """Return what is half made or in the way: all hidden folders, and files but for locks and sums."""
    found = [p for root in roots for p in root.rglob(".*") if p.parent.name != "current"]
    return [p for p in found if p.suffix != ".lock" and p.name not in _OURS]


def restore(place: Path, kept: Path) -> Callable[[], None]:
    """Return what brings a folder back to what it is now."""
    if place.exists():
        shutil.copytree(place, kept, symlinks=True)

    def again() -> None:
        shutil.rmtree(place, ignore_errors=True)
        if kept.exists():
            shutil.copytree(kept, place, symlinks=True)

    return again


# --- sources and tools ---


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGINT, errno.EIO])
@pytest.mark.threat(
    "faults", "SIGKILL, SIGINT, disk failing, at steps all over: fetch, check out, patch", _PROMISED
)
def test_checkout(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKBUILD_ALLOW_FILE_GIT", "1")
    toy = Toy(tmp_path / "toy").publish()
    patch = toy.catalog / "patches" / "toy" / "0001-x.patch"
    patch.parent.mkdir(parents=True)
    file = "ggml/src/ggml-quants.c"
    (toy.source / "new.c").write_text((toy.source / file).read_text() + "int patched;\n")
    words = ["git", "diff", "--no-index", file, "new.c"]
    told = subprocess.run(words, cwd=toy.source, capture_output=True, text=True, check=False).stdout
    patch.write_text(f"Why: a test.\n\n--- a/{file}\n+++ b/{file}\n{told[told.index('@@') :]}")
    shelf = Catalog((toy.catalog,)).recipe("toy")
    folders = Folders(tmp_path / "cache", tmp_path / "store", tmp_path / "config")

    def run() -> Any:  # noqa: ANN401 - a SourceTree, where it is asked for
        return checkout(shelf, folders, source=toy.source.as_uri(), progress=Silent())

    def sound() -> None:
        for record in folders.cache.glob("src/*/[!.]*/source.json"):
            assert "patched" in (record.parent / "tree" / file).read_text()

    def done() -> None:
        tree = run()
        assert intact(tree)
        assert (tree.commit, tree.build_number) == (toy.commit, 2)
        assert hidden(folders.cache) == []

    sweep(fault, lambda: shutil.rmtree(folders.cache, ignore_errors=True), run, sound, done, 20)


class _Files(http.server.BaseHTTPRequestHandler):
    data = bytes(range(256)) * 9000

    def do_GET(self) -> None:
        rows = {"files": [{"filename": "toy-1.tar.gz", "url": "/toy-1.tar.gz"}]}
        body = json.dumps(rows).encode() if self.path.startswith("/simple") else self.data
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - as in http.server
        pass


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pin]:
    """Return the pin of a file that an index on this machine serves."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client was killed
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield Pin(project="toy", file="toy-1.tar.gz", sha256=sha256_bytes(_Files.data), size=len(_Files.data))
        server.shutdown()
        thread.join()


@every_fault
@pytest.mark.threat(
    "faults",
    "SIGKILL, SIGINT, disk full or failing, no permission, at steps all over: download a wheel or sdist",
    _PROMISED,
)
def test_download(fault: Fault, files: Pin, folders: Folders) -> None:
    def run() -> Path:
        return obtain(files, folders, offline=False, progress=Silent())

    def sound() -> None:
        for path in folders.cache.rglob(files.file):
            assert path.read_bytes() == _Files.data

    def done() -> None:
        assert [p.name for p in run().parent.iterdir() if p.suffix != ".lock"] == [files.file]

    sweep(fault, lambda: shutil.rmtree(folders.cache, ignore_errors=True), run, sound, done, 4)


@every_fault
@pytest.mark.threat(
    "faults",
    "SIGKILL, SIGINT, disk full or failing, no permission, at steps all over: unpack wheels, assemble CUDA",
    _PROMISED,
)
def test_assembly(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparkbuild.toolchain.cuda.installed_roots", list)  # this machine may have one
    folders = Folders(tmp_path / "cache", tmp_path / "store", tmp_path / "config")
    wheels = toolkit_wheels(folders)
    gcc = Path(shutil.which("gcc") or "gcc")

    def run() -> Path:
        compilers = compilers_of(cc=gcc)
        return find_cuda(toolchain_of(), wheels, compilers, folders, offline=True, progress=Silent()).root

    def sound() -> None:
        for root in folders.cache.glob("cuda/[!.]*[!k]"):
            assert (root / "targets/sbsa-linux/lib/stubs/libcuda.so.1").exists()

    def done() -> None:
        assert (run() / "targets/sbsa-linux/lib/stubs/libcuda.so.1").exists()
        assert hidden(folders.cache) == []

    sweep(fault, lambda: shutil.rmtree(folders.cache / "cuda", ignore_errors=True), run, sound, done, 20)


# --- the store and what is handed over ---


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Return a real small artifact."""
    folder = tmp_path_factory.mktemp("template")
    return Stored(folder, make(folder))


def whole(root: Path) -> set[str]:
    """Return the keys of a shelf's artifacts, of which every check holds, and which its index tells."""
    found = sorted(root.glob("toy/[!.]*"))
    for folder in found:
        assert [c for c in check.check(folder, check.Asked(), Silent()) if c.verdict == "failed"] == []
    told, problems = index.scan(root)
    assert problems == ()
    assert {e.key[:16] for e in told.artifacts} == {f.name for f in found}
    return {e.key for e in told.artifacts}


@every_fault
@pytest.mark.parametrize("there", [False, True], ids=["new", "again"])
@pytest.mark.threat(
    "faults",
    "SIGKILL, SIGINT, disk full or failing, no permission, at steps all over: store an artifact",
    _PROMISED,
)
def test_store(fault: Fault, there: bool, template: Stored, folders: Folders, tmp_path: Path) -> None:
    old = shelved(template, "old", folders).manifest.key
    new = shelved(template, "new", folders)
    if not there:
        shutil.rmtree(new.path)
    both = {old, new.manifest.key}

    def done() -> None:
        assert whole(folders.store) == both
        assert {a.manifest.key for a in artifacts(folders.store)} == both
        collect_garbage(folders)
        assert hidden(folders.store) == []

    def sound() -> None:
        assert whole(folders.store) >= {old}

    reset = restore(folders.store, tmp_path / "kept")
    sweep(fault, reset, lambda: shelved(template, "new", folders), sound, done, 8)


@every_fault
@pytest.mark.parametrize("there", [False, True], ids=["new", "again"])
@pytest.mark.threat(
    "faults",
    "SIGKILL, SIGINT, disk full or failing, no permission, at steps all over: publish to a folder",
    _PROMISED,
)
def test_publish(fault: Fault, there: bool, template: Stored, folders: Folders, tmp_path: Path) -> None:
    old, new = shelved(template, "old", folders), shelved(template, "new", folders)
    root, kept = tmp_path / "builds", tmp_path / "kept"
    for one in (old, new) if there else (old,):
        publish(one, str(root), With(), Silent(), remember=False)
    if there:
        store.add_sidecar(new, "timeline.json", timelines.encode(_TIMELINE))
    both = {old.manifest.key, new.manifest.key}

    def run() -> None:
        publish(new, str(root), With(), Silent(), remember=False)

    def done() -> None:
        assert whole(root) == {a.manifest.key for a in artifacts(root)} == both
        assert hidden(root) == []

    sweep(fault, restore(root, kept), run, lambda: whole(root), done, 10)


@every_fault
@pytest.mark.threat(
    "faults",
    "SIGKILL, SIGINT, disk full or failing, no permission, at steps all over: export to a file",
    _PROMISED,
)
def test_export(fault: Fault, template: Stored, folders: Folders, tmp_path: Path) -> None:
    found, place = shelved(template, "x", folders), tmp_path / "out"
    path = place / "toy.tar.zst"
    before = publish(found, str(path), With(), Silent(), remember=False).blob
    path.write_text("an older file of that name")

    def run() -> str:
        return publish(found, str(path), With(), Silent(), remember=False).blob

    def sound() -> None:
        older = path.read_bytes() == b"an older file of that name"
        assert older or sha256_bytes(path.read_bytes()) == before

    def done() -> None:
        assert run() == before
        assert [p.name for p in place.iterdir()] == [path.name]
        collect_garbage(folders)
        assert hidden(folders.store) == []

    sweep(fault, restore(place, tmp_path / "kept"), run, sound, done, 10)


@every_fault
@pytest.mark.parametrize("way", ["archive", "folder"])
@pytest.mark.threat(
    "faults", "SIGKILL, SIGINT, disk full or failing, no permission, at steps all over: import", _PROMISED
)
def test_import(fault: Fault, way: str, template: Stored, folders: Folders, tmp_path: Path) -> None:
    other = Folders(tmp_path / "c", tmp_path / "other store", tmp_path / "d")
    given = shelved(template, "x", folders)
    handed = publish(given, str(tmp_path / "x.tar.zst"), With(), Silent(), remember=False)
    source = handed.place if way == "archive" else str(given.path)

    def done() -> None:
        assert whole(other.store) == {given.manifest.key}
        collect_garbage(other)
        assert hidden(other.store) == []

    sweep(
        fault,
        lambda: shutil.rmtree(other.store, ignore_errors=True),
        lambda: take_in(source, other, check.Asked(), Silent()),
        lambda: whole(other.store),
        done,
        10,
    )


@every_fault
@pytest.mark.threat(
    "faults", "SIGKILL, SIGINT, disk full or failing, no permission, at steps all over: use", _PROMISED
)
def test_use(fault: Fault, template: Stored, folders: Folders, tmp_path: Path) -> None:
    one, two = shelved(template, "one", folders), shelved(template, "two", folders)
    use.use(one, folders)

    def sound() -> None:
        assert use.in_use(folders)["toy"] in (one.path, two.path)

    def done() -> None:
        assert (use.in_use(folders)["toy"], use.previous("toy", folders)) == (two.path, one.path)
        assert not (folders.store / "current" / ".new").is_symlink()

    reset = restore(folders.store, tmp_path / "kept")
    sweep(fault, reset, lambda: use.use(two, folders), sound, done, 4)


@every_fault
@pytest.mark.threat(
    "faults", "SIGKILL, SIGINT, disk full or failing, no permission, at steps all over: gc", _PROMISED
)
def test_gc(fault: Fault, template: Stored, folders: Folders, tmp_path: Path) -> None:
    kept = shelved(template, "kept", folders)
    use.use(kept, folders)
    shelved(template, "old", folders)
    (folders.store / "toy" / f".{'a' * 16}.left").mkdir()

    def sound() -> None:
        assert kept.manifest.key in whole(folders.store)
        assert use.in_use(folders) == {"toy": kept.path}

    def done() -> None:
        assert whole(folders.store) == {kept.manifest.key}
        assert hidden(folders.store) == []

    reset = restore(folders.store, tmp_path / "copy")
    sweep(fault, reset, lambda: collect_garbage(folders, keep=0, max_size=0), sound, done, 10)
