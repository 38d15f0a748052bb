"""Artifacts handed over and taken back: whole or not at all, the same bytes, what came later added."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sparkbuild.artifact import store
from sparkbuild.artifact.collect import describe
from sparkbuild.artifact.store import Stored
from sparkbuild.checking import check
from sparkbuild.checking.checked import Check
from sparkbuild.errors import StoreError, UsageError
from sparkbuild.files import Folders, sha256_bytes, sha256_file
from sparkbuild.handover import HandoverError, artifacts, read_index
from sparkbuild.inspection.elf import read_elf
from sparkbuild.progress import Silent
from sparkbuild.publish import With, publish, take_in
from tests.artifacts import make
from tests.conftest import manifest_of
from tests.kills import killed

_BUILD = manifest_of().build


Put = Callable[..., Stored]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Return a real small artifact: what is handed over is read again."""
    folder = tmp_path_factory.mktemp("template")
    return Stored(folder, make(folder))


@pytest.fixture
def put(template: Stored, folders: Folders) -> Put:
    """Store an artifact as a build does, with a key of its own or in a store of its own."""

    def put(key: str = "key", into: Folders = folders, **changes: object) -> Stored:
        key = sha256_bytes(key.encode())
        manifest = msgspec.structs.replace(template.manifest, key=key, **changes)
        engine = manifest.engine.name
        with store.reserved(engine, key, into), store.adding(engine, key, into) as temp:
            shutil.copytree(template.path / "bin", temp / "bin")
            store.finish(temp, manifest)
        return Stored(store.folder(engine, key, into), manifest)

    return put


def failed(place: Path) -> list[Check]:
    return [c for c in check.check(place, check.Asked(), Silent()) if c.verdict == "failed"]


def everything(root: Path) -> dict[str, str]:
    return {
        p.relative_to(root).as_posix(): sha256_file(p)
        for p in root.rglob("*")
        if p.is_file() and not p.name.startswith(".") and p.name != "index.json"
    }


def test_a_folder_is_all_that_a_stage_needs(put: Put, tmp_path: Path) -> None:
    found, root = put(), tmp_path / "builds"
    handed = publish(found, str(root), With(sbom=True), Silent())
    assert (handed.fresh, handed.signed) == (True, False)
    assert handed.digest == sha256_file(found.path / "manifest.json")
    (artifact,) = artifacts(root)
    assert artifact.digest == handed.digest
    assert artifact.changed() == []
    assert artifact.command("server", "production", Path("/m.gguf"))[1:] == [
        *("--model", "/m.gguf", "--threads", "16", "--no-mmap")
    ]
    assert {p.name for p in artifact.path.iterdir()} == {
        *("bin", "manifest.json", "provenance.json", "probe.json", "sbom.cdx.json")
    }
    assert failed(root) == []
    assert json.loads((found.path / "published.json").read_bytes())["places"] == [str(artifact.path)]


def test_what_is_there_already_stays_and_gets_what_came_later(put: Put, tmp_path: Path) -> None:
    found, root = put(), tmp_path / "builds"
    publish(found, str(root), With(), Silent())
    before = everything(root)
    assert publish(found, str(root), With(), Silent()).fresh is False
    assert everything(root) == before
    verdict = {"schema": "sparkbuild/smoke/1", "manifest": sha256_file(found.path / "manifest.json")}
    store.add_sidecar(found, "smoke.json", json.dumps(verdict | {"verdict": "passed"}).encode())
    publish(found, str(root), With(), Silent())
    assert [e.smoke for e in read_index(root).artifacts] == ["passed"]
    assert before.items() <= everything(root).items()


def test_another_build_of_the_same_bytes_leaves_the_manifest(put: Put, tmp_path: Path) -> None:
    root = tmp_path / "builds"
    first = publish(put(), str(root), With(), Silent())
    later = put(build=msgspec.structs.replace(_BUILD, jobs=99))
    again = publish(later, str(root), With(), Silent())
    assert (again.fresh, again.digest) == (False, first.digest)
    assert failed(root) == []


def test_other_bytes_under_the_same_key_are_refused(put: Put, tmp_path: Path) -> None:
    root = tmp_path / "builds"
    publish(put(), str(root), With(), Silent())
    found = put()
    path = found.path / "bin/toy-server"
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(StoreError, match="not what its manifest describes: bin/toy-server"):
        publish(found, str(root), With(), Silent())
    file = describe(path, read_elf(path), "server", {"libllama.so"})
    files = tuple(file if f.path == file.path else f for f in found.manifest.files)
    other = Stored(found.path, msgspec.structs.replace(found.manifest, files=files))
    store.finish(found.path, other.manifest)
    before = everything(root)
    with pytest.raises(StoreError, match="other bytes are published under the key"):
        publish(other, str(root), With(), Silent())
    assert everything(root) == before


def test_what_was_published_and_is_damaged_is_said(put: Put, tmp_path: Path) -> None:
    found, root = put(), tmp_path / "builds"
    place = Path(publish(found, str(root), With(), Silent()).place)
    os.truncate(place / "bin/toy-server", 10)
    with pytest.raises(StoreError, match="what is published is damaged: bin/toy-server"):
        publish(found, str(root), With(), Silent())


def test_two_publishers_at_once_lose_nothing(put: Put, tmp_path: Path) -> None:
    root = tmp_path / "builds"
    found = [put(f"key {n}") for n in range(8)]
    context = multiprocessing.get_context("fork")

    def work(mine: list[Stored]) -> None:
        for one in mine:
            publish(one, str(root), With(), Silent())

    workers = [context.Process(target=work, args=(part,)) for part in (found[:5], found[3:])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0]
    assert {e.key for e in read_index(root).artifacts} == {s.manifest.key for s in found}
    assert failed(root) == []


def test_a_publisher_killed_at_any_step_leaves_nothing_half_made(put: Put, tmp_path: Path) -> None:
    old, new = put("old"), put("new")
    root = tmp_path / "builds"
    step = 0
    while True:
        shutil.rmtree(root, ignore_errors=True)
        publish(old, str(root), With(), Silent())
        if not killed(step, lambda: publish(new, str(root), With(), Silent())):
            break
        step += 1
        assert {old.manifest.key} <= {a.manifest.key for a in artifacts(root)}
        for folder in (p for p in (root / "toy").iterdir() if not p.name.startswith(".")):
            assert failed(folder) == []
        publish(new, str(root), With(), Silent())
        assert {e.key for e in read_index(root).artifacts} == {old.manifest.key, new.manifest.key}
        assert [p for p in (root / "toy").iterdir() if p.name.startswith(".") and p.is_dir()] == []
    assert step > 20


def test_an_archive_is_the_same_bytes_from_any_store(put: Put, folders: Folders, tmp_path: Path) -> None:
    other = Folders(tmp_path / "c", tmp_path / "another store", tmp_path / "d")
    one = publish(put(), str(tmp_path / "one.tar.zst"), With(), Silent())
    two = publish(put(into=other), str(tmp_path / "two.tar.zst"), With(), Silent())
    assert one.blob == two.blob
    assert (tmp_path / "one.tar.zst").read_bytes() == (tmp_path / "two.tar.zst").read_bytes()
    third = Folders(tmp_path / "e", tmp_path / "third store", tmp_path / "f")
    taken = take_in(str(tmp_path / "one.tar.zst"), third, Silent())
    assert taken.manifest == put().manifest
    assert store.find("toy", taken.manifest.key, third)
    assert os.access(taken.path / "bin/toy-server", os.X_OK)
    assert take_in(str(tmp_path / "two.tar.zst"), third, Silent()).path == taken.path
    assert failed(taken.path) == []


def test_what_does_not_hold_is_not_taken_in(put: Put, tmp_path: Path) -> None:
    folder = tmp_path / "handed"
    shutil.copytree(put().path, folder)
    with (folder / "bin/toy-server").open("ab") as file:
        file.write(b"!")
    other = Folders(tmp_path / "c", tmp_path / "another store", tmp_path / "d")
    with pytest.raises(StoreError, match="not taken in: bin/toy-server size"):
        take_in(str(folder), other, Silent())
    assert [p for p in other.store.rglob("*") if p.name != ".index.lock"] == []
    with pytest.raises(UsageError, match="no artifact there"):
        take_in(str(tmp_path), other, Silent())


def test_a_reader_believes_no_index_that_leads_elsewhere(put: Put, tmp_path: Path) -> None:
    root = tmp_path / "builds"
    publish(put(), str(root), With(), Silent())
    index = json.loads((root / "index.json").read_bytes())
    secret = tmp_path / "manifest.json"
    secret.write_text("{}")
    for change, told in [
        ({"manifest": "../manifest.json"}, "outside of it"),
        ({"manifest": str(secret)}, "outside of it"),
        ({"digest": "0" * 64}, "the index says"),
        ({"manifest": "toy/none/manifest.json"}, "not a valid manifest"),
    ]:
        changed = index | {"artifacts": [index["artifacts"][0] | change]}
        (root / "index.json").write_text(json.dumps(changed))
        with pytest.raises(HandoverError, match=told):
            list(artifacts(root))
    for text in ("", "[]", '{"schema": "sparkbuild/index/2", "artifacts": []}', "[" * 100_000):
        (root / "index.json").write_text(text)
        with pytest.raises(HandoverError, match="not a valid index"):
            read_index(root)
