from __future__ import annotations

import datetime as dt
import itertools
import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sparkbuild import rooms
from sparkbuild.artifact import index, store, use
from sparkbuild.artifact.gc import TAKEN, Doomed, collect_garbage, plan_gc
from sparkbuild.errors import MissingError, StoreError
from sparkbuild.files import Folders
from sparkbuild.handover import read_index
from tests.conftest import FILE
from tests.kills import killed
from tests.unit.artifact.test_store import another, put


def stored(key: str, folders: Folders, days: float = 10, engine: str = "toy", arch: str = "board") -> Path:
    """Put an artifact into the store that was made so many days ago."""
    made = another(key, engine)
    started = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    build = msgspec.structs.replace(made.build, started=started)
    target = msgspec.structs.replace(made.target, arch=arch)
    return put(folders, msgspec.structs.replace(made, build=build, target=target))


def keys(doomed: tuple[Doomed, ...]) -> str:
    return "".join(d.path.name[0] for d in doomed)


def left(folders: Folders) -> str:
    """Return what is there; what the index says and what list says is the same."""
    there = "".join(sorted(p.parent.name[0] for p in folders.store.glob(f"*/{'?' * 16}/manifest.json")))
    found, problems = store.entries(folders)
    assert "".join(sorted(e.key[0] for e in found)) == there
    assert problems == ()
    return there


def hidden(folders: Folders) -> list[str]:
    return sorted(p.name for p in folders.store.glob("toy/.*") if not p.name.endswith(".lock"))


@pytest.fixture
def four(folders: Folders) -> dict[str, Path]:
    """Store four artifacts, the oldest first, made 4, 3, 2 and 1 days and an hour ago."""
    return {k: stored(k, folders, 5 - n + 1 / 24) for n, k in enumerate("abcd", 1)}


def test_an_empty_store(folders: Folders) -> None:
    assert plan_gc(folders, keep=0) == ()
    assert collect_garbage(folders) == ()


@pytest.mark.parametrize(
    ("older_than", "keep", "max_size", "gone"),
    [
        (None, None, None, ""),
        (2, None, None, "abc"),
        (2.5, None, None, "ab"),
        (0, None, None, "abcd"),
        (400, None, None, ""),
        (None, 4, None, ""),
        (None, 1, None, "abc"),
        (None, 0, None, "abcd"),
        (None, None, 4 * len(FILE), ""),
        (None, None, 4 * len(FILE) - 1, "a"),
        (None, None, 2 * len(FILE), "ab"),
        (None, None, 0, "abcd"),
        (2, 3, None, "a"),
        (3, None, 2 * len(FILE), "ab"),
        (None, 2, 0, "ab"),
        (3, 1, 1000, "ab"),
    ],
)
def test_what_goes(
    four: dict[str, Path],
    folders: Folders,
    older_than: float | None,
    keep: int | None,
    max_size: int | None,
    gone: str,
) -> None:
    planned = plan_gc(folders, older_than=older_than, keep=keep, max_size=max_size)
    assert keys(planned) == gone
    assert left(folders) == "abcd"  # a plan removes nothing
    assert all(d.size == len(FILE) and d.why and d.name.startswith("toy@") for d in planned)
    assert collect_garbage(folders, older_than=older_than, keep=keep, max_size=max_size) == planned
    assert left(folders) == "".join(sorted(set("abcd") - set(gone)))
    assert hidden(folders) == []
    assert len(read_index(folders.store).artifacts) == 4 - len(gone)


def test_the_newest_are_kept_of_each_engine_and_machine(folders: Folders) -> None:
    for key, engine, arch, days in (
        ("a", "toy", "board", 4),
        ("b", "toy", "host", 3),
        ("c", "other", "board", 2),
        ("d", "toy", "board", 1),
    ):
        stored(key, folders, days, engine, arch)
    assert keys(plan_gc(folders, keep=1)) == "a"


def test_what_is_in_use_stays_and_what_was_before(four: dict[str, Path], folders: Folders) -> None:
    for key in "abc":
        use.use(store.pick(f"toy@{key}", folders), folders)
    assert keys(collect_garbage(folders, keep=0)) == "ad"
    assert use.back("toy", folders).path == four["b"]
    assert keys(collect_garbage(folders, keep=0)) == ""


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ('{"schema":"sparkbuild/published/1","places":["/mnt/x"]}', True),
        ('{"schema":"sparkbuild/published/1","places":[]}', False),
        ("", True),
        ("[" * 100_000, True),
        ("{}", True),
    ],
)
def test_what_was_published_stays(four: dict[str, Path], folders: Folders, text: str, *, stays: bool) -> None:
    (four["b"] / "published.json").write_text(text)
    assert keys(collect_garbage(folders, keep=0)) == ("acd" if stays else "abcd")


def test_what_runs_stays(four: dict[str, Path], folders: Folders, tmp_path: Path) -> None:
    """By whichever name: a container has paths of its own."""
    shutil.copy("/bin/cat", four["a"] / "bin/runs")
    shutil.copy("/bin/cat", four["b"] / "bin/runs")
    (tmp_path / "elsewhere").hardlink_to(four["b"] / "bin/runs")
    commands = [[four["a"] / "bin/runs"], [tmp_path / "elsewhere"]]
    pipes = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for c in commands]
    for cat in pipes:  # it has begun when it answers
        assert cat.stdin
        assert cat.stdout
        cat.stdin.write(b"x")
        cat.stdin.flush()
        assert cat.stdout.read(1) == b"x"
    assert keys(collect_garbage(folders, keep=0)) == "cd"
    for cat in pipes:
        cat.communicate()
    assert keys(collect_garbage(folders, keep=0)) == "ab"


def test_what_is_loaded_stays(four: dict[str, Path], folders: Folders) -> None:
    with (
        (four["a"] / "bin/toy-server").open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ),
    ):
        assert keys(plan_gc(folders, keep=0)) == "bcd"
    assert keys(plan_gc(folders, keep=0)) == "abcd"


@pytest.mark.threat(
    "faults",
    "gc while a builder holds an artifact",
    "left alone",
)
def test_what_a_builder_holds_stays(four: dict[str, Path], folders: Folders) -> None:
    half = four["b"].with_name(f".{four['b'].name}.abcdefgh")
    half.mkdir()
    with store.reserved("toy", four["b"].name, folders):
        assert keys(plan_gc(folders, keep=0)) == "acd"
        assert keys(collect_garbage(folders, keep=0)) == "acd"
    assert half.is_dir()
    assert [d.path for d in collect_garbage(folders)] == [half]


@pytest.mark.threat(
    "faults",
    "an artifact taken into use or published after gc has planned",
    "left alone",
)
def test_what_becomes_needed_after_the_plan_stays(
    four: dict[str, Path], folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan_and_then(folders: Folders, **options: float | None) -> tuple[Doomed, ...]:
        planned = plan_gc(folders, **options)  # type: ignore[arg-type] # the same three
        use.use(store.pick("toy@a", folders), folders)
        (four["b"] / "published.json").write_text('{"places": ["x"]}')
        stored("c", folders, days=0)  # built again
        shutil.rmtree(four["d"])
        return planned

    monkeypatch.setattr("sparkbuild.artifact.gc.plan_gc", plan_and_then)
    assert collect_garbage(folders, keep=0) == ()
    assert left(folders) == "abc"


def test_debris_goes_and_nothing_else(four: dict[str, Path], folders: Folders) -> None:
    toy = folders.store / "toy"
    base = four["a"].name
    for name in (f".{base}.abcdefgh", f".{base}.abcdefgh.old", ".eeeeeeeeeeeeeeee.x_y_z_12"):
        (toy / name / "bin").mkdir(parents=True)
        (toy / name / "bin/tool").write_bytes(FILE)
    for name in (".mine", "notes"):
        (toy / name).mkdir()
    (toy / ".eeeeeeeeeeeeeeee.lock").touch()
    doomed = collect_garbage(folders)
    assert [(d.path.name, d.size, d.name) for d in doomed] == [
        (f".{base}.abcdefgh", len(FILE), ""),
        (f".{base}.abcdefgh.old", len(FILE), ""),
        (".eeeeeeeeeeeeeeee.x_y_z_12", len(FILE), ""),
    ]
    assert hidden(folders) == [".mine"]
    assert (toy / "notes").is_dir()
    assert (toy / ".eeeeeeeeeeeeeeee.lock").exists()
    assert left(folders) == "abcd"


@pytest.mark.threat(
    "faults",
    "gc while an import is at work, and after one that was killed",
    "the one is left alone, the other's room goes",
)
def test_what_an_import_left_goes_and_one_at_work_stays(folders: Folders) -> None:
    near = folders.store / TAKEN
    (folders.store / f".{TAKEN}.left").mkdir(parents=True)
    with rooms.held(folders.store / f".{TAKEN}.left"), rooms.room(near) as mine:
        assert plan_gc(folders) == ()
        assert len(rooms.left(near)) == 2
        assert mine in rooms.left(near)
    assert [d.path for d in collect_garbage(folders)] == [folders.store / f".{TAKEN}.left"]
    assert rooms.left(near) == []


@pytest.mark.threat(
    "faults",
    "a builder killed between the two renames of a replacement",
    "gc brings the artifact back",
)
def test_an_artifact_that_was_being_replaced_comes_back(four: dict[str, Path], folders: Folders) -> None:
    """Its builder was killed between the two renames: the old one out of the way, the new one in."""
    old = four["a"].with_name(f".{four['a'].name}.abcdefgh.old")
    four["a"].rename(old)
    four["a"].with_name(f".{four['a'].name}.abcdefgh").mkdir()
    assert old not in [d.path for d in plan_gc(folders)]
    collect_garbage(folders)
    assert (left(folders), hidden(folders)) == ("abcd", [])


def test_links_in_an_artifact_are_not_followed(
    four: dict[str, Path], folders: Folders, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    (four["a"] / "bin/link").symlink_to(tmp_path / "mine")
    collect_garbage(folders, keep=0)
    assert (tmp_path / "mine/file").exists()


@pytest.mark.threat(
    "faults",
    "gc of an artifact that can not be read",
    "left to a person",
)
def test_a_damaged_artifact_is_left_to_a_person(four: dict[str, Path], folders: Folders) -> None:
    os.truncate(four["a"] / "manifest.json", 10)
    assert keys(collect_garbage(folders, keep=0)) == "bcd"
    assert (four["a"] / "bin/toy-server").exists()


def test_what_the_disk_refuses_is_an_error(
    four: dict[str, Path], folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(StoreError, match="cannot remove: Permission denied"):
        collect_garbage(folders, keep=0)
    monkeypatch.undo()
    assert left(folders) == "bcd"
    collect_garbage(folders)
    assert hidden(folders) == []


@pytest.mark.threat(
    "faults",
    "SIGKILL at each step of gc",
    "what is listed is whole; what is in use stays; the next gc ends the work",
)
def test_a_collection_killed_at_every_step(four: dict[str, Path], folders: Folders, tmp_path: Path) -> None:
    use.use(store.pick("toy@b", folders), folders)
    shutil.copytree(folders.store, tmp_path / "filled", symlinks=True)
    for step in itertools.count():
        shutil.rmtree(folders.store)
        shutil.copytree(tmp_path / "filled", folders.store, symlinks=True)
        stopped = killed(step, lambda: collect_garbage(folders, keep=1))
        found = left(folders)
        assert {"b", "d"} <= set(found)
        for entry in store.entries(folders)[0]:  # what is listed is whole
            assert store.find("toy", entry.key, folders)
        collect_garbage(folders, keep=1)
        assert (left(folders), hidden(folders)) == ("bd", [])
        told = [(e.key, e.digest) for e in read_index(folders.store).artifacts]
        assert told == [(e.key, e.digest) for e in index.scan(folders.store)[0].artifacts]
        assert use.in_use(folders)["toy"].name[0] == "b"
        if not stopped:
            break
    assert step > 20


@pytest.mark.threat(
    "faults",
    "three gc at once",
    "each artifact goes once and none that is kept",
)
def test_two_who_collect_at_once(folders: Folders) -> None:
    for number in range(30):
        stored(f"{number:02x}", folders, number)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            collect_garbage(folders, keep=5)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(c, 0)[1] for c in children] == [0, 0, 0]
    assert left(folders) == "00000"
    assert hidden(folders) == []


def test_who_can_not_lock_is_told(folders: Folders) -> None:
    with (
        store.reserved("toy", "a" * 16, folders),
        pytest.raises(MissingError),
        store.reserved("toy", "a" * 16, folders, wait=0),
    ):
        pass


def test_what_others_remove_meanwhile_is_no_fault(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = folders.store / "toy" / f".{'a' * 16}.xyz"
    left.mkdir(parents=True)
    (left / "file").write_text("a builder's, who is at work")
    walk = os.walk

    def gone(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        found = list(walk(path))
        (left / "file").unlink(missing_ok=True)
        return iter(found)

    monkeypatch.setattr(os, "walk", gone)
    assert [d.size for d in plan_gc(folders)] == [0]
