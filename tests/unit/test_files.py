from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild import files
from sparkbuild.errors import MissingError, StoreError
from sparkbuild.files import Folders, locked, whole_folder, write_whole
from sparkbuild.trees import git_tree

_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


# --- folders, JSON, digests ----------------------------------------------------------------------


def test_folders_follow_sparkbuild_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARKBUILD_HOME", str(tmp_path / "x"))
    assert Folders.default() == Folders(tmp_path / "x/cache", tmp_path / "x/store", tmp_path / "x/config")


def test_folders_are_the_platforms_own_otherwise(monkeypatch: pytest.MonkeyPatch, sealed: Path) -> None:
    monkeypatch.delenv("SPARKBUILD_HOME")
    found = Folders.default()
    assert found.cache == sealed / ".cache/sparkbuild"
    assert found.store == sealed / ".local/share/sparkbuild/store"
    assert found.config == sealed / ".config/sparkbuild"


def test_json_keeps_paths() -> None:
    record = Folders(Path("/a"), Path("/b c"), Path("d"))
    assert files.from_json(files.to_json(record), Folders) == record
    with pytest.raises(msgspec.DecodeError):
        files.from_json(b"{", Folders)


def test_digests_agree_with_the_system(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"some bytes\n" * 1000)
    said = subprocess.run(["sha256sum", path], capture_output=True, check=True, text=True).stdout.split()[0]
    assert files.sha256_file(path) == files.sha256_bytes(path.read_bytes()) == said


def test_an_empty_folder_is_gits_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    assert git_tree(tmp_path) == _EMPTY_TREE


# --- whole or not at all -------------------------------------------------------------------------


@pytest.mark.threat("git", "a file of 200 MB in a source", "read in blocks")
def test_a_large_file_is_read_in_blocks(tmp_path: Path) -> None:
    with (tmp_path / "model").open("wb") as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    try:
        found = git_tree(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    words = ["git", "hash-object", "model"]
    blob = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()
    row = b"100644 model\0" + bytes.fromhex(blob)
    assert found == hashlib.sha1(b"tree %d\0" % len(row) + row, usedforsecurity=False).hexdigest()


def test_write_whole_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.json"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.threat(
    "faults",
    "fsync fails while a file is written",
    "the old file stays, nothing is left beside it, exit 8",
)
def test_write_whole_leaves_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_whole(path, b"one")

    def fail(_: int) -> None:  # a failing fsync can not be had from a healthy disk
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="No space left") as caught:
        write_whole(path, b"two")
    assert caught.value.where == str(path)
    assert "disk space" in caught.value.remedy
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.threat(
    "faults",
    "a file where a folder should be",
    "exit 8 for a file, a folder, a lock",
)
def test_a_place_that_can_not_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    below = tmp_path / "file" / "x"
    with pytest.raises(StoreError):
        write_whole(below, b"")
    with pytest.raises(StoreError), whole_folder(below):
        pass
    with pytest.raises(StoreError), locked(below):
        pass


def test_whole_folder_appears_only_at_the_end(tmp_path: Path) -> None:
    final = tmp_path / "store" / "artifact"
    with whole_folder(final) as temp:
        (temp / "x").write_text("new")
        assert not final.exists()
        assert temp.parent == final.parent
    assert (final / "x").read_text() == "new"
    assert stat.S_IMODE(final.stat().st_mode) == 0o755
    assert list(final.parent.iterdir()) == [final]


def test_whole_folder_replaces_an_old_one_only_at_the_end(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    final.mkdir()
    (final / "old").write_text("")
    with whole_folder(final) as temp:
        (temp / "new").write_text("")
        assert (final / "old").exists()
    assert [p.name for p in final.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [final]


def test_whole_folder_can_flush_first(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "x", flush=True) as temp:
        (temp / "a").write_text("1")
    assert (tmp_path / "x" / "a").read_text() == "1"


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.threat(
    "faults",
    "an error, SIGINT or an exit while a folder is made",
    "the old folder stays, nothing is left beside it",
)
def test_whole_folder_leaves_nothing_when_the_block_fails(
    tmp_path: Path, problem: type[BaseException], there: bool
) -> None:
    final = tmp_path / "artifact"
    if there:
        final.mkdir()
        (final / "old").write_text("")

    def fail() -> None:
        with whole_folder(final) as temp:
            (temp / "half").write_text("")
            raise problem

    with pytest.raises(problem):
        fail()
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*")] == (
        [Path("artifact"), Path("artifact/old")] if there else []
    )


@pytest.mark.threat(
    "faults",
    "the second rename fails when a folder is replaced",
    "the old folder is back, exit 8",
)
def test_whole_folder_keeps_the_old_one_when_the_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "artifact"
    final.mkdir()
    (final / "old").write_text("")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:  # a failing rename can not be had from a healthy disk
        if target == final and not self.name.endswith(".old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StoreError, match="Input/output error"), whole_folder(final) as temp:
        (temp / "new").write_text("")
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*")] == [
        Path("artifact"),
        Path("artifact/old"),
    ]


# --- locks ---------------------------------------------------------------------------------------

_HOLDER = """
import sys
from pathlib import Path
from sparkbuild.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Any:  # noqa: ANN401 - a Popen
    """Start a second process that holds the lock until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(files.__file__).parent.parent)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.mark.threat(
    "faults",
    "a lock that another process holds",
    "exit 3 that names the lock",
)
def test_a_held_lock_is_refused_after_the_wait(tmp_path: Path, holder: Any) -> None:  # noqa: ANN401
    with pytest.raises(MissingError, match="at work") as caught, locked(tmp_path / "lock", wait=0.05):
        pytest.fail("two hold one lock")
    assert caught.value.exit_code == 3
    assert caught.value.where == str(tmp_path / "lock")


@pytest.mark.parametrize("how", ["leaves", "is killed"])
@pytest.mark.threat(
    "faults",
    "the holder of a lock leaves or is killed",
    "the next one has it at once",
)
def test_a_lock_is_free_when_its_holder_is_gone(tmp_path: Path, holder: Any, how: str) -> None:  # noqa: ANN401
    if how == "leaves":
        holder.stdin.close()
    else:
        holder.kill()
    with locked(tmp_path / "lock", wait=60):
        holder.wait()


def test_a_lock_can_be_taken_again_and_passes_errors_on(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="of the block"), locked(tmp_path / "new" / "lock", wait=0):
            raise OSError("of the block")


@pytest.mark.threat(
    "manifests",
    "a lock in a published folder that is a link to another file, or a pipe",
    "the file is kept (8); the pipe is not waited for",
)
def test_a_lock_is_not_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious")
    (tmp_path / "lock").symlink_to("other")
    with pytest.raises(StoreError, match="cannot lock"), locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "other").read_text() == "precious"
    os.mkfifo(tmp_path / "pipe")
    with locked(tmp_path / "pipe", wait=5):
        pass


# --- what a person can do ------------------------------------------------------------------------


@pytest.mark.threat(
    "faults",
    "no room, no permission, a failing disk, a name that is too long: at home and elsewhere",
    "a remedy that fits the fault, and the place: SPARKBUILD_HOME only for what lies there",
)
@pytest.mark.parametrize(
    ("number", "first"),
    [
        (errno.ENOSPC, "free some disk space there"),
        (errno.EDQUOT, "free some disk space there"),
        (errno.EACCES, "make it writable for you"),
        (errno.EROFS, "make it writable for you"),
        (errno.EIO, "see to the disk or share"),
        (errno.ESTALE, "see to the disk or share"),
        (errno.ENAMETOOLONG, "give a shorter path"),
        (errno.ENOTDIR, "see what is there"),
    ],
)
def test_the_remedy_of_a_disk_fault(number: int, first: str, tmp_path: Path) -> None:
    problem = OSError(number, os.strerror(number))
    home = files.disk_error("cannot write", Folders.default().store / "x", problem)
    assert home.remedy.startswith(first)
    assert home.remedy.endswith("or point SPARKBUILD_HOME at a writable folder with room")
    elsewhere = files.disk_error("cannot write", tmp_path / "builds", problem)
    assert elsewhere.remedy.startswith(first)
    assert elsewhere.remedy.endswith("or name another place")


def test_a_folder_that_a_group_shares_stays_shared(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    with whole_folder(tmp_path / "toy" / "key"), locked(tmp_path / "toy" / "lock"):
        pass
    assert all(p.stat().st_mode & stat.S_IWGRP for p in (tmp_path / "toy").rglob("*"))
    assert (tmp_path / "toy").stat().st_mode & stat.S_IWGRP
    tmp_path.chmod(0o777)
    with whole_folder(tmp_path / "mine" / "key"), locked(tmp_path / "mine" / "lock"):
        pass
    assert not any(p.stat().st_mode & stat.S_IWGRP for p in (tmp_path / "mine").rglob("*"))
