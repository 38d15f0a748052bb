from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbuild.artifact import index
from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.errors import StoreError
from sparkbuild.files import sha256_bytes
from sparkbuild.handover import Entry, Index, open_artifact, read_index
from tests.conftest import manifest_of
from tests.kills import killed


def a_manifest(key: str, engine: str = "toy", day: int = 1) -> Manifest:
    manifest = manifest_of(key=key.ljust(64, "0"))
    return msgspec.structs.replace(
        manifest,
        engine=msgspec.structs.replace(manifest.engine, name=engine),
        build=msgspec.structs.replace(manifest.build, started=dt.datetime(2026, 1, day, tzinfo=dt.UTC)),
    )


def put(root: Path, key: str, engine: str = "toy", *, age: float = 100) -> Path:
    """Put an artifact of a manifest alone onto a shelf, changed ``age`` seconds ago."""
    made = a_manifest(key, engine)
    folder = root / engine / made.key[: index.NAME]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(manifests.encode(made))
    settle(folder, age)
    return folder


def settle(folder: Path, age: float = 100) -> None:
    then = time.time_ns() - int(age * 1e9)
    for path in (folder / "manifest.json", folder):
        os.utime(path, ns=(then, then))


def sidecar(folder: Path, name: str, **changes: Any) -> None:  # noqa: ANN401 - any field
    digest = sha256_bytes((folder / "manifest.json").read_bytes())
    schema = f"sparkbuild/{name.removesuffix('.json')}/1"
    record = {"schema": schema, "manifest": digest, "verdict": "identical", "engine": "more than is read"}
    (folder / name).write_text(json.dumps(record | changes))


def names(found: Index) -> list[str]:
    return [f"{e.engine}@{e.key.rstrip('0')}" for e in found.artifacts]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the manifests that were read since."""
    seen: list[Path] = []
    real = manifests.read

    def read(path: Path) -> Manifest:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(manifests, "read", read)
    return seen


def test_an_entry_says_what_its_manifest_says(tmp_path: Path) -> None:
    folder = put(tmp_path, "abc")
    made = manifests.read(folder / "manifest.json")
    entry = index.entry_of(tmp_path, folder)
    assert entry == Entry(
        engine="toy",
        title="Toy",
        state="active",
        key=made.key,
        arch="board",
        backend="cuda",
        processor="aarch64",
        commit="a" * 40,
        build_number=7,
        made=made.build.started,
        size=made.files[0].size,
        manifest="toy/abc0000000000000/manifest.json",
        digest=sha256_bytes((folder / "manifest.json").read_bytes()),
        seen_ns=folder.stat().st_mtime_ns,
    )
    assert open_artifact(tmp_path, entry).path == folder


def test_verdicts_come_from_the_sidecars(tmp_path: Path) -> None:
    folder = put(tmp_path, "abc")
    sidecar(folder, "reproduction.json", verdict="device code")
    sidecar(folder, "smoke.json", verdict="passed")
    entry = index.entry_of(tmp_path, folder)
    assert (entry.reproduction, entry.smoke) == ("device code", "passed")


@pytest.mark.parametrize(
    "changes",
    [{"manifest": "0" * 64}, {"verdict": "not comparable"}, {"verdict": "\x1b[31m"}, {"schema": "x"}],
)
def test_a_sidecar_about_something_else_is_not_believed(tmp_path: Path, changes: dict[str, str]) -> None:
    folder = put(tmp_path, "abc")
    sidecar(folder, "reproduction.json", **changes)
    sidecar(folder, "smoke.json", **changes)
    entry = index.entry_of(tmp_path, folder)
    assert (entry.reproduction, entry.smoke) == ("", "")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"schema":"sparkbuild/smoke/1"}'])
def test_a_broken_sidecar_is_none(tmp_path: Path, text: str) -> None:
    folder = put(tmp_path, "abc")
    (folder / "smoke.json").write_text(text)
    os.mkfifo(folder / "reproduction.json")
    entry = index.entry_of(tmp_path, folder)
    assert (entry.reproduction, entry.smoke) == ("", "")


def test_nothing_is_there(tmp_path: Path) -> None:
    assert index.scan(tmp_path / "absent") == (Index("sparkbuild/index/1", ()), ())
    assert index.update(tmp_path / "new").artifacts == ()
    assert read_index(tmp_path / "new").artifacts == ()


def test_what_is_no_artifact_is_not_listed(tmp_path: Path) -> None:
    real = put(tmp_path, "abc")
    (tmp_path / "toy/empty").mkdir()
    (tmp_path / "toy/stray").touch()
    (tmp_path / "stray").touch()
    put(tmp_path, "dead", engine=".hidden")
    real.with_name(".abc0.tmp").mkdir()
    (real.with_name(".abc0.tmp") / "manifest.json").write_text("{")
    (tmp_path / "current").mkdir()
    (tmp_path / "current/toy").symlink_to(f"../toy/{real.name}")
    pipe = tmp_path / "toy/fifo"
    pipe.mkdir()
    os.mkfifo(pipe / "manifest.json")
    found, problems = index.scan(tmp_path)
    assert (names(found), problems) == (["toy@abc"], ())


def test_only_what_changed_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    first, second = put(tmp_path, "a"), put(tmp_path, "b")
    assert names(index.update(tmp_path)) == ["toy@a", "toy@b"]
    reads.clear()
    assert names(index.update(tmp_path)) == ["toy@a", "toy@b"]
    assert reads == []
    sidecar(second, "smoke.json", verdict="failed")
    put(tmp_path, "c", engine="other")
    found, _ = index.scan(tmp_path)
    assert [(e.key[0], e.smoke) for e in found.artifacts] == [("c", ""), ("a", ""), ("b", "failed")]
    assert {p.parent.name[0] for p in reads} == {"b", "c"}
    (first / "manifest.json").unlink()
    assert names(index.update(tmp_path)) == ["other@c", "toy@b"]


def test_an_entry_made_just_after_a_change_is_not_trusted(tmp_path: Path, reads: list[Path]) -> None:
    """Another change within the same tick of the clock would not show."""
    put(tmp_path, "a", age=0)
    put(tmp_path, "b", age=-5000)  # a clock that went back: still told apart
    index.update(tmp_path)
    reads.clear()
    index.scan(tmp_path)
    assert [p.parent.name[0] for p in reads] == ["a"]


def test_the_index_is_written_only_when_it_changes(tmp_path: Path) -> None:
    put(tmp_path, "a")
    index.update(tmp_path)
    before = (tmp_path / "index.json").stat()
    index.update(tmp_path)
    assert (tmp_path / "index.json").stat() == before


@pytest.mark.threat(
    "manifests",
    "a manifest that is cut, none, another's, with unknown keys",
    "named (8); the others are listed",
)
@pytest.mark.parametrize("damage", ["cut", "not JSON", "another's", "an unknown key"])
@pytest.mark.threat(
    "faults",
    "an artifact of the store that can not be read",
    "named with a remedy; the others are listed",
)
def test_a_damaged_artifact_is_told_and_hides_no_other(tmp_path: Path, damage: str) -> None:
    bad = put(tmp_path, "bad")
    put(tmp_path, "600d")
    index.update(tmp_path)  # while it was whole
    path = bad / "manifest.json"
    if damage == "cut":
        os.truncate(path, 100)
    elif damage == "not JSON":
        path.write_bytes(b"\xff" * 100)
    elif damage == "another's":
        path.write_bytes(manifests.encode(a_manifest("abad")))
    else:
        path.write_text(path.read_text().replace('"schema"', '"more": 1, "schema"', 1))
    for _ in range(2):
        found, problems = index.scan(tmp_path)
        assert names(found) == ["toy@600d"]
        assert [type(p) for p in problems] == [StoreError]
        assert problems[0].where == str(path)
        assert problems[0].remedy
        assert names(index.update(tmp_path)) == ["toy@600d"]


def test_an_index_that_is_gone_is_made_again(tmp_path: Path) -> None:
    put(tmp_path, "a")
    whole = index.update(tmp_path)
    (tmp_path / "index.json").unlink()
    assert index.scan(tmp_path)[0] == whole
    assert not (tmp_path / "index.json").exists()
    index.update(tmp_path)
    assert read_index(tmp_path) == whole


@pytest.mark.threat("manifests", "an index that was changed", "not believed; made again from the folders")
@given(data=st.data())
def test_an_index_that_was_changed_is_made_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("shelf")
    put(root, "a")
    put(root, "b")
    whole = index.update(root)
    path = root / "index.json"
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    if data.draw(st.booleans()):
        bad[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del bad[place:]
    path.write_bytes(bad)
    assert index.scan(root) == (whole, ())
    index.update(root)
    assert path.read_bytes() == good


@pytest.mark.threat("manifests", "an index that names folders outside", "not followed")
def test_a_hostile_index_names_nothing_outside(tmp_path: Path) -> None:
    """Even with a sum that holds: an entry counts only for the folder it is of, and that must be there."""
    inside = put(tmp_path / "shelf", "a")
    root = tmp_path / "shelf"
    outside = put(tmp_path / "elsewhere", "b")
    (entry,) = index.update(root).artifacts
    lies = [
        msgspec.structs.replace(entry, manifest="../elsewhere/toy/b000000000000000/manifest.json"),
        msgspec.structs.replace(entry, manifest=str(outside / "manifest.json")),
        msgspec.structs.replace(entry, manifest="toy/gone/manifest.json"),
        msgspec.structs.replace(entry, engine="other", title="a lie"),
        msgspec.structs.replace(entry, key="b" * 64, title="a lie"),
    ]
    for lie in lies:
        data = msgspec.json.encode(Index("sparkbuild/index/1", (lie,)))
        (root / "index.json").write_bytes(data)
        (root / ".index.sha256").write_text(sha256_bytes(data))
        assert index.scan(root) == (Index("sparkbuild/index/1", (entry,)), ())
    assert inside.is_dir()


@pytest.mark.parametrize("data", [b"[" * 200_000, b"null", b'{"schema":"sparkbuild/index/2","artifacts":[]}'])
def test_an_index_of_another_form_is_made_again(tmp_path: Path, data: bytes) -> None:
    put(tmp_path, "a")
    (tmp_path / "index.json").write_bytes(data)
    (tmp_path / ".index.sha256").write_text(sha256_bytes(data))
    assert names(index.update(tmp_path)) == ["toy@a"]
    assert names(read_index(tmp_path)) == ["toy@a"]


@pytest.mark.threat(
    "faults",
    "SIGKILL at each step of an update of the index",
    "the index is the one before or the new one; the next update leaves nothing behind",
)
def test_an_update_killed_at_every_step(tmp_path: Path, reads: list[Path]) -> None:
    put(tmp_path, "57a7")
    index.update(tmp_path)
    step = 0
    while True:
        put(tmp_path, f"{step:04x}1")
        before = read_index(tmp_path)
        stopped = killed(step, lambda: index.update(tmp_path))
        now = read_index(tmp_path)  # whole: the one before it, or the new one
        assert len(now.artifacts) in (len(before.artifacts), step + 2)
        reads.clear()
        assert len(index.update(tmp_path).artifacts) == step + 2
        assert len(reads) <= 1  # the others were believed whenever it was stopped
        assert read_index(tmp_path) == index.scan(tmp_path)[0]
        assert [p.name for p in tmp_path.glob(".*") if p.name not in (".index.lock", ".index.sha256")] == []
        if not stopped:
            break
        step += 1
    assert step > 5


@pytest.mark.threat(
    "faults",
    "three processes that add artifacts and are killed at any time",
    "the index names what is there and nothing else",
)
def test_many_update_and_are_killed(tmp_path: Path) -> None:
    """Three processes add and update without end and are killed at any time."""
    rng = random.Random(5)
    for turn in range(12):
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                for key in range(1000):
                    put(tmp_path, f"{turn:02x}{number}{key:03x}f")
                    index.update(tmp_path)
                os._exit(0)
            children.append(child)
        time.sleep(rng.random() / 10)
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        manifests = tmp_path.glob("toy/*/manifest.json")
        there = {p.parent.name for p in manifests if p.stat().st_size}  # killed between open and write
        if (tmp_path / "index.json").exists():
            assert {e.key[:16] for e in read_index(tmp_path).artifacts} <= there
        assert {e.key[:16] for e in index.update(tmp_path).artifacts} == there
        assert {e.key[:16] for e in read_index(tmp_path).artifacts} == there
