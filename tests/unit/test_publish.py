"""Artifacts handed over and taken back: whole or not at all, the same bytes, what came later added."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact import store
from sparkbuild.artifact.collect import describe
from sparkbuild.artifact.store import Stored
from sparkbuild.checking import check
from sparkbuild.checking.checked import Check
from sparkbuild.errors import StoreError, UsageError
from sparkbuild.evidence import signing, statements
from sparkbuild.files import Folders, sha256_bytes, sha256_file
from sparkbuild.handover import HandoverError, artifacts, read_index
from sparkbuild.inspection.elf import read_elf
from sparkbuild.intake import take_in
from sparkbuild.progress import Silent
from sparkbuild.publish import With, publish
from tests.artifacts import key_of, make, shelved, write
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


@pytest.mark.threat(
    "faults",
    "a published tool that was cut short, published again",
    "exit 8 that names it and the folder to remove",
)
def test_what_was_published_and_is_damaged_is_said(put: Put, tmp_path: Path) -> None:
    found, root = put(), tmp_path / "builds"
    place = Path(publish(found, str(root), With(), Silent()).place)
    os.truncate(place / "bin/toy-server", 10)
    with pytest.raises(StoreError, match="what is published is damaged: bin/toy-server"):
        publish(found, str(root), With(), Silent())


@pytest.mark.threat(
    "faults",
    "two publishers into one folder at once",
    "the index names the artifacts of both",
)
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


@pytest.mark.threat(
    "faults",
    "SIGKILL at each step of publish",
    "what the index names is whole; the next publish leaves nothing behind",
)
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
    taken = take_in(str(tmp_path / "one.tar.zst"), third, check.Asked(), Silent())
    assert taken.manifest == put().manifest
    assert store.find("toy", taken.manifest.key, third)
    assert os.access(taken.path / "bin/toy-server", os.X_OK)
    assert take_in(str(tmp_path / "two.tar.zst"), third, check.Asked(), Silent()).path == taken.path
    assert failed(taken.path) == []


@pytest.mark.threat(
    "manifests",
    "an artifact whose file is not the one described, for `import`",
    "refused (8); nothing in the store",
)
def test_what_does_not_hold_is_not_taken_in(put: Put, tmp_path: Path) -> None:
    folder = tmp_path / "handed"
    shutil.copytree(put().path, folder)
    with (folder / "bin/toy-server").open("ab") as file:
        file.write(b"!")
    other = Folders(tmp_path / "c", tmp_path / "another store", tmp_path / "d")
    with pytest.raises(StoreError, match="not taken in: bin/toy-server size"):
        take_in(str(folder), other, check.Asked(), Silent())
    assert [p for p in other.store.rglob("*") if p.name != ".index.lock"] == []
    with pytest.raises(UsageError, match="no artifact there"):
        take_in(str(tmp_path), other, check.Asked(), Silent())


@pytest.mark.threat(
    "manifests", "a published index that leads elsewhere or names another digest", "refused by the hand-over"
)
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


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_of(tmp_path)


def unsigned(place: Path, key: Path) -> list[str]:
    found = check.check(place, check.Asked(key.with_name("allowed")), Silent())
    return [f"{c.file}: {c.said}" for c in found if c.verdict == "failed"]


@pytest.mark.threat(
    "manifests", "an engine named ../x in a manifest, for `import`", "refused (8); nothing outside"
)
@pytest.mark.parametrize("name", ["../x", "..", "", ".x", "-x", "a/b", "current", "toy\n", "\x1b[31mred"])
def test_an_engine_that_is_no_name_is_not_taken_in(template: Stored, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(template.path, tmp_path / "hostile"))
    engine = msgspec.structs.replace(template.manifest.engine, name=name)
    write(folder, msgspec.structs.replace(template.manifest, engine=engine))
    home = Folders(tmp_path / "a/b/cache", tmp_path / "a/b/store", tmp_path / "a/b/config")
    with pytest.raises(StoreError, match=r"not taken in: manifest\.json /engine/name"):
        take_in(str(folder), home, check.Asked(), Silent())
    assert list((tmp_path / "a").rglob("*")) == [tmp_path / "a/b", home.store]


def test_an_artifact_is_not_published_into_itself(put: Put, folders: Folders, tmp_path: Path) -> None:
    found = put()
    before = everything(folders.store)
    (tmp_path / "link").symlink_to(folders.store)
    for dest in (folders.store, tmp_path / "link", found.path, found.path / "x", found.path / "x.tar.zst"):
        with pytest.raises(UsageError, match="into itself"):
            publish(found, str(dest), With(), Silent())
    for odd in ("", "https://example.invalid/x"):
        with pytest.raises(UsageError, match="not a place to publish to"):
            publish(found, odd, With(), Silent())
    assert everything(folders.store) == before


def test_what_is_published_has_the_name_of_its_key(put: Put, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(put().path)
    publish(Stored(tmp_path / "link", put().manifest), str(tmp_path / "builds"), With(), Silent())
    assert [a.manifest.key for a in artifacts(tmp_path / "builds")] == [put().manifest.key]


def test_everybody_may_read_what_is_published(put: Put, tmp_path: Path) -> None:
    found, root = put(), tmp_path / "builds"
    before = os.umask(0o077)
    try:
        publish(found, str(root), With(), Silent())
    finally:
        assert os.umask(before) == 0o077
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (root, *root.rglob("*"))}
    assert modes == {0o755, 0o644}


@pytest.mark.threat(
    "manifests", "links in a published folder", "refused (8); nothing is written through them"
)
def test_nothing_is_published_through_a_link(put: Put, tmp_path: Path) -> None:
    found, root, other = put(), tmp_path / "builds", tmp_path / "other"
    for link in (root / "toy", root / "toy" / found.path.name):
        other.mkdir()
        link.parent.mkdir(parents=True)
        link.symlink_to(other)
        with pytest.raises(StoreError, match="nothing is published through one"):
            publish(found, str(root), With(), Silent())
        assert list(other.iterdir()) == []
        other.rmdir()
        shutil.rmtree(root)


def test_the_artifact_is_published_as_it_is_by_then(put: Put, tmp_path: Path) -> None:
    old = put()
    new = put(build=msgspec.structs.replace(_BUILD, jobs=99))
    publish(old, str(tmp_path / "builds"), With(), Silent())
    assert manifests.read(new.path / "manifest.json").build.jobs == 99
    assert failed(tmp_path / "builds") == []
    (new.path / "bin/toy-server").unlink()
    with pytest.raises(StoreError, match="not what its manifest describes: bin/toy-server"):
        publish(new, str(tmp_path / "more"), With(), Silent())
    shutil.rmtree(new.path)
    with pytest.raises(StoreError, match="not a valid manifest"):
        publish(new, str(tmp_path / "more"), With(), Silent())


def test_a_signature_is_of_what_lies_beside_it(
    put: Put, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, root = put(), tmp_path / "builds"
    place = Path(publish(found, str(root), With(key), Silent()).place)
    assert unsigned(place, key) == []
    made = statements.provenance
    with monkeypatch.context() as patch:  # as another version of sparkbuild writes it
        patch.setattr(statements, "provenance", lambda *told: made(*told) + b"\n")
        publish(found, str(root), With(), Silent())
        assert unsigned(place, key) == []
    verdict = {"schema": "sparkbuild/smoke/1", "manifest": sha256_file(found.path / "manifest.json")}
    for said in ("failed", "passed"):
        store.add_sidecar(found, "smoke.json", json.dumps(verdict | {"verdict": said}).encode())
        publish(found, str(root), With(), Silent())
        assert unsigned(place, key) == []
        signing.sign(place / "smoke.json", key)
    assert json.loads((place / "smoke.json").read_bytes())["verdict"] == "passed"


def test_what_is_taken_in_keeps_its_signatures(put: Put, tmp_path: Path, key: Path) -> None:
    publish(put(), str(tmp_path / "one.tar.zst"), With(key), Silent())
    other = Folders(tmp_path / "c", tmp_path / "another store", tmp_path / "d")
    taken = take_in(str(tmp_path / "one.tar.zst"), other, check.Asked(), Silent())
    assert unsigned(taken.path, key) == []
    place = Path(publish(taken, str(tmp_path / "builds"), With(), Silent()).place)
    assert unsigned(place, key) == []


def test_a_manifest_that_is_not_ours_is_not_signed(put: Put, tmp_path: Path, key: Path) -> None:
    found, root = put(), tmp_path / "builds"
    place = Path(publish(found, str(root), With(), Silent()).place)
    made = found.manifest
    run = msgspec.structs.replace(made.run, environment={"LD_PRELOAD": "/evil.so"})
    write(place, msgspec.structs.replace(made, run=run))
    with pytest.raises(StoreError, match="so it is not signed"):
        publish(found, str(root), With(key), Silent())
    assert list(place.glob("*.sig")) == []


@pytest.mark.threat(
    "faults",
    "what a killed run left in a published artifact",
    "cleared away by the next publish",
)
def test_what_a_killed_run_left_in_a_published_folder_goes(put: Put, tmp_path: Path) -> None:
    found, root = put(), tmp_path / "builds"
    place = Path(publish(found, str(root), With(), Silent()).place)
    (place / ".smoke.json.abc").write_text("{")
    publish(found, str(root), With(), Silent())
    assert failed(root) == []


def test_a_disk_without_links_will_do(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    publish(put(), str(tmp_path / "one.tar.zst"), With(), Silent())
    monkeypatch.undo()
    publish(put(), str(tmp_path / "two.tar.zst"), With(), Silent())
    assert (tmp_path / "one.tar.zst").read_bytes() == (tmp_path / "two.tar.zst").read_bytes()


def test_what_is_taken_in_has_modes_of_its_own_and_was_published_nowhere(put: Put, tmp_path: Path) -> None:
    found = put()
    publish(found, str(tmp_path / "builds"), With(), Silent())
    for folder in (found.path, found.path / "bin"):
        folder.chmod(0o777)
    other = Folders(tmp_path / "c", tmp_path / "another store", tmp_path / "d")
    taken = take_in(str(found.path), other, check.Asked(), Silent())
    assert not (taken.path / "published.json").exists()
    for folder in (taken.path, taken.path / "bin"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_other_bytes_are_not_taken_in_for_what_is_there(put: Put, tmp_path: Path) -> None:
    found = put()
    folder = Path(shutil.copytree(found.path, tmp_path / "other"))
    shutil.copyfile(folder / "bin/toy-bench", folder / "bin/toy-server")
    path = folder / "bin/toy-server"
    file = describe(path, read_elf(path), "server", {"libllama.so"})
    files = tuple(file if f.path == file.path else f for f in found.manifest.files)
    write(folder, msgspec.structs.replace(found.manifest, files=files))
    with pytest.raises(StoreError, match="the store has other bytes under the key"):
        take_in(str(folder), Folders(tmp_path, found.path.parent.parent, tmp_path), check.Asked(), Silent())


@pytest.mark.threat(
    "manifests", "pipes for an archive, a manifest, a signature, for `import`", "refused, never waited for"
)
def test_a_pipe_is_not_waited_for(put: Put, folders: Folders, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar.zst")
    with pytest.raises(UsageError, match="no artifact there"):
        take_in(str(tmp_path / "x.tar.zst"), folders, check.Asked(), Silent())
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(StoreError, match="it is no plain file"):
        manifests.read(tmp_path / "manifest.json")
    folder = Path(shutil.copytree(put().path, tmp_path / "artifact"))
    os.mkfifo(folder / "manifest.json.sig")
    with pytest.raises(StoreError, match=r"not taken in: manifest\.json\.sig: no manifest speaks of it"):
        take_in(str(folder), folders, check.Asked(), Silent())


def test_an_artifact_in_anothers_place_does_not_hold(put: Put, tmp_path: Path) -> None:
    shutil.copytree(put().path, tmp_path / "builds/toy/0000000000000000")
    told = f"it is of toy/{put().path.name}, not of toy/0000000000000000"
    assert [(c.field, c.said) for c in failed(tmp_path / "builds")] == [("place", told)]


@pytest.mark.threat(
    "manifests", "no signature, or one by somebody else, where signatures count", "refused (8)"
)
def test_only_what_is_signed_by_who_counts_is_taken_in(put: Put, key: Path, tmp_path: Path) -> None:
    other = Folders(tmp_path / "c", tmp_path / "another store", tmp_path / "d")
    asked = check.Asked(tmp_path / "allowed")
    publish(put(), str(tmp_path / "bare.tar.zst"), With(), Silent())
    with pytest.raises(StoreError, match=r"not taken in: manifest.json signature"):
        take_in(str(tmp_path / "bare.tar.zst"), other, asked, Silent())
    publish(put(), str(tmp_path / "signed.tar.zst"), With(key), Silent())
    assert (
        take_in(str(tmp_path / "signed.tar.zst"), other, asked, Silent()).manifest.key == put().manifest.key
    )


def as_another(action: Callable[[], object], group: int) -> str:
    """Run something as another user of a group; return what it was refused, or nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "a bug"
        try:
            os.setgroups([group])
            os.setgid(group)
            os.setuid(65534)
            os.umask(0o022)
            action()
            said = ""
        except StoreError as problem:
            said = f"{problem.what}; {problem.remedy}"
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become two users")
@pytest.mark.threat(
    "faults",
    "two users and one folder to publish to, shared by their group (setgid) or not",
    "the other may publish, index and list where the group may write; elsewhere exit 8 that says what to do",
)
def test_two_users_of_one_share(template: Stored, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own is closed to others
        os.chmod(place, 0o755)  # noqa: PTH101, S103 - others are what this is about
        shelf, group = Path(place), 54321
        mine = Folders(shelf / "c1", shelf / "s1", shelf / "d1")
        first, second = (shelved(template, name, mine) for name in ("first", "second"))
        for path in (shelf / "s1", *(shelf / "s1").rglob("*")):
            os.chown(path, 65534, group, follow_symlinks=False)
        share, closed = shelf / "share", shelf / "closed"
        for root in (share, closed):
            root.mkdir()
            os.chown(root, 0, group)
        share.chmod(0o2775)
        for root in (share, closed):
            publish(first, str(root), With(), Silent(), remember=False)
        publish(second, str(tmp_path / "warm"), With(), Silent(), remember=False)  # imports all it needs
        assert as_another(lambda: publish(second, str(share), With(), Silent(), remember=False), group) == ""
        assert {a.manifest.key for a in artifacts(share)} == {first.manifest.key, second.manifest.key}
        assert failed(share) == []
        said = as_another(lambda: publish(second, str(closed), With(), Silent(), remember=False), group)
        assert "Permission denied" in said
        assert "make it writable for you, or name another place" in said
        assert [a.manifest.key for a in artifacts(closed)] == [first.manifest.key]
