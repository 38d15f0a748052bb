from __future__ import annotations

import datetime as dt
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import sparkbuild
from sparkbuild.artifact import store
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.errors import StoreError, UsageError
from sparkbuild.files import Folders, sha256_file
from sparkbuild.handover import read_index
from tests.conftest import FILE, digest, manifest_of
from tests.kills import killed


def put(folders: Folders, manifest: Manifest) -> Path:
    """Store an artifact as a build does."""
    with store.reserved(manifest.engine.name, manifest.key, folders):
        with store.adding(manifest.engine.name, manifest.key, folders) as temp:
            for file in manifest.files:
                (temp / file.path).parent.mkdir(exist_ok=True)
                (temp / file.path).write_bytes(FILE)
            store.finish(temp, manifest)
        return store.folder(manifest.engine.name, manifest.key, folders)


def another(key: str, engine: str = "toy", day: int = 1) -> Manifest:
    manifest = manifest_of(key=key.ljust(64, "0"))
    return msgspec.structs.replace(
        manifest,
        engine=msgspec.structs.replace(manifest.engine, name=engine),
        build=msgspec.structs.replace(manifest.build, started=dt.datetime(2026, 1, day, tzinfo=dt.UTC)),
    )


def test_an_artifact_is_found_by_its_key(folders: Folders) -> None:
    manifest = manifest_of()
    assert store.find("toy", manifest.key, folders) is None
    path = put(folders, manifest)
    found = store.find("toy", manifest.key, folders)
    assert found == store.Stored(path, manifest)
    assert found is not None
    assert found.name == f"toy@{manifest.key[:12]}"
    assert store.find("toy", digest("another"), folders) is None
    assert store.find("other", manifest.key, folders) is None


def test_an_artifact_that_fails_half_way_is_not_there(folders: Folders) -> None:
    manifest = manifest_of()

    def fail() -> None:
        with store.adding("toy", manifest.key, folders) as temp:
            store.finish(temp, manifest)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.find("toy", manifest.key, folders) is None
    assert store.all_stored(folders) == []
    assert list((folders.store / "toy").iterdir()) == []


def test_a_folder_without_a_manifest_is_no_artifact(folders: Folders) -> None:
    store.folder("toy", manifest_of().key, folders).mkdir(parents=True)
    assert store.find("toy", manifest_of().key, folders) is None
    put(folders, manifest_of())
    assert store.find("toy", manifest_of().key, folders)


@pytest.mark.parametrize("damage", ["cut", "gone", "another's manifest", "broken manifest"])
@pytest.mark.threat(
    "faults",
    "a stored artifact that is cut, gone or of another manifest",
    "exit 8 that names the folder to remove",
)
def test_a_damaged_artifact_is_an_error_that_says_what_to_do(folders: Folders, damage: str) -> None:
    manifest = manifest_of()
    path = put(folders, manifest)
    if damage == "cut":
        os.truncate(path / "bin/toy-server", 3)
    elif damage == "gone":
        (path / "bin/toy-server").unlink()
    elif damage == "another's manifest":
        store.finish(path, manifest_of(key=manifest.key[:20] + "0" * 44))
    else:
        os.truncate(path / "manifest.json", 100)
    with pytest.raises(StoreError) as caught:
        store.find("toy", manifest.key, folders)
    assert caught.value.exit_code == 8
    assert caught.value.where.startswith(str(path))
    assert "build" in caught.value.remedy


def test_all_artifacts_newest_first(folders: Folders) -> None:
    assert store.all_stored(folders) == []
    for day, key in ((2, "b"), (3, "c"), (1, "a")):
        put(folders, another(key, day=day))
    (folders.store / "toy" / ".half").mkdir()
    (folders.store / "toy" / ".half" / "manifest.json").write_text("{")
    (folders.store / "toy" / "stray").write_text("")
    assert [s.manifest.key[0] for s in store.all_stored(folders)] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("toy", "abd"),
        ("toy@abc", "abc"),
        ("toy@abd000", "abd"),
        ("abc", "abc"),
        ("other", "ffff"),
        ("ffff", "ffff"),
        ("other@", "ffff"),
    ],
)
def test_picking(folders: Folders, name: str, key: str) -> None:
    put(folders, another("abc", day=1))
    put(folders, another("abd", day=2))
    put(folders, another("ffff", "other", day=3))
    assert store.pick(name, folders).manifest.key == key.ljust(64, "0")


@pytest.mark.parametrize("name", ["toy@ab", "ab", "toy@"])
def test_picking_what_is_not_unique(folders: Folders, name: str) -> None:
    put(folders, another("abc"))
    put(folders, another("abd"))
    with pytest.raises(UsageError, match="not unique") as caught:
        store.pick(name, folders)
    assert "toy@abc000000000" in caught.value.remedy
    assert "toy@abd000000000" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "tox", "toy@ffff", "other@abc", "../toy", "@abc"])
def test_picking_what_is_not_there(folders: Folders, name: str) -> None:
    put(folders, another("abc"))
    with pytest.raises(UsageError, match="no artifact") as caught:
        store.pick(name, folders)
    assert caught.value.exit_code == 2
    assert "sparkbuild list" in caught.value.remedy


_BUILDER = """
import sys
from pathlib import Path
from sparkbuild.artifact import store
from sparkbuild.files import Folders
root, log = Path(sys.argv[1]), Path(sys.argv[2])
folders = Folders(root / "cache", root / "store", root / "config")
with store.reserved("toy", sys.argv[3], folders):
    with log.open("a") as out:
        out.write("in\\n")
    print("reserved", flush=True)
    sys.stdin.readline()
    with log.open("a") as out:
        out.write("out\\n")
"""


def test_two_builders_of_one_key_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    env = {**os.environ, "PYTHONPATH": str(Path(sparkbuild.__file__).parent.parent)}
    command = [sys.executable, "-c", _BUILDER, str(tmp_path), str(log), digest("key")]
    builders = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) for _ in range(3)
    ]
    for builder in builders:  # each may go on at once when it holds the lock
        assert builder.stdin is not None
        builder.stdin.write(b"\n")
        builder.stdin.flush()
    for builder in builders:
        assert builder.communicate()[0] == b"reserved\n"
        assert builder.returncode == 0
    assert log.read_text() == "in\nout\n" * 3


def test_builders_of_two_keys_do_not_wait(folders: Folders) -> None:
    with store.reserved("toy", digest("a"), folders), store.reserved("toy", digest("b"), folders):
        assert not store.folder("toy", digest("a"), folders).exists()


def test_what_is_added_is_in_the_index_at_once(folders: Folders) -> None:
    put(folders, another("abc"))
    assert [e.key[:3] for e in read_index(folders.store).artifacts] == ["abc"]


def test_an_artifact_is_stored_although_the_index_can_not_be(folders: Folders) -> None:
    (folders.store / "index.json").mkdir(parents=True)
    put(folders, another("abc"))
    assert [s.manifest.key[:3] for s in store.all_stored(folders)] == ["abc"]


def test_a_sidecar_is_in_the_index_at_once(folders: Folders) -> None:
    manifest = another("abc")
    path = put(folders, manifest)
    (path / ".smoke.json.killed").touch()
    record = {"schema": "sparkbuild/smoke/1", "manifest": sha256_file(path / "manifest.json")}
    for verdict in ("failed", "passed"):
        data = msgspec.json.encode(record | {"verdict": verdict})
        store.add_sidecar(store.Stored(path, manifest), "smoke.json", data)
        assert (path / "smoke.json").read_bytes() == data
        assert [e.smoke for e in read_index(folders.store).artifacts] == [verdict]
    assert sorted(p.name for p in path.iterdir()) == ["bin", "manifest.json", "smoke.json"]


def test_no_sidecar_without_an_artifact(folders: Folders) -> None:
    manifest = another("abc")
    path = put(folders, manifest)
    shutil.rmtree(path)
    with pytest.raises(StoreError, match="toy@abc000000000 is not there any more"):
        store.add_sidecar(store.Stored(path, manifest), "smoke.json", b"{}")
    assert not path.exists()


@pytest.mark.threat(
    "faults",
    "SIGKILL at each step of writing a verdict",
    "the old or the new verdict, whole",
)
def test_a_sidecar_killed_at_every_step(folders: Folders) -> None:
    manifest = another("abc")
    found = store.Stored(put(folders, manifest), manifest)
    store.add_sidecar(found, "timeline.json", b"old")
    for step in itertools.count():
        stopped = killed(step, lambda: store.add_sidecar(found, "timeline.json", b"new"))
        assert (found.path / "timeline.json").read_bytes() in (b"old", b"new")
        store.add_sidecar(found, "timeline.json", b"old")
        assert sorted(p.name for p in found.path.iterdir()) == ["bin", "manifest.json", "timeline.json"]
        assert store.find("toy", manifest.key, folders) == found
        if not stopped:
            break
    assert step > 5
