"""Every build sees its source at one path: shown there, or copied there when that is not allowed."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sparkbuild import process
from sparkbuild.errors import MissingError, StoreError
from sparkbuild.progress import Silent
from sparkbuild.toolchain import place
from sparkbuild.toolchain.place import BUILD, SOURCE, Isolation, Place, placed

_AS_IT_IS = Isolation()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "a.c").write_text("int a;\n")
    (folder / "link").symlink_to("src/a.c")
    return folder


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a room of the test's own, on a machine without namespaces."""
    folder = tmp_path / "room"
    monkeypatch.setattr(place, "ROOM", folder)
    monkeypatch.setattr(place, "SOURCE", folder / "source")
    monkeypatch.setattr(place, "BUILD", folder / "build")
    monkeypatch.setattr(place, "why_no_namespace", lambda: "not allowed")
    return folder


def held(tree: Path, isolation: Isolation = _AS_IT_IS) -> AbstractContextManager[Place]:
    return placed(tree, tree.parent, isolation, Silent())


def inside(tree: Path, isolation: Isolation, *words: str) -> str:
    with held(tree, isolation) as found:
        return process.run([*found.enter, *words]).output.strip()


class TestNamespace:
    pytestmark = pytest.mark.skipif(bool(place.why_no_namespace()), reason=place.why_no_namespace())

    def test_the_tree_is_there_and_can_not_be_written(self, tree: Path) -> None:
        assert inside(tree, Isolation(), "cat", f"{SOURCE}/link") == "int a;"
        with pytest.raises(process.ProcessError) as caught:
            inside(tree, Isolation(), "touch", f"{SOURCE}/b")
        assert "Read-only" in caught.value.done.errors

    def test_the_rest_of_the_machine_is_as_it_was(self, tree: Path, tmp_path: Path) -> None:
        inside(tree, Isolation(), "touch", str(tmp_path / "written"))
        assert (tmp_path / "written").exists()

    def test_what_is_written_at_the_build_folder_is_in_it(self, tree: Path) -> None:
        inside(tree, Isolation(), "sh", "-c", f"cd {BUILD} && pwd > made")
        assert (tree.parent / "made").read_text().strip() == str(BUILD)

    def test_it_ends_with_the_block(self, tree: Path) -> None:
        (tree / "only-here").touch()  # another build may be at SOURCE meanwhile
        inside(tree, Isolation(), "test", "-e", f"{SOURCE}/only-here")
        assert not (SOURCE / "only-here").exists()

    def test_who_owns_a_folder_on_the_way_can_not_swap_the_source(self, tree: Path) -> None:
        """A mount moves with the folder that it is on, whose owner may move that."""
        with held(tree) as found:
            mounts = process.run([*found.enter, "cat", "/proc/self/mountinfo"]).output
        points = [line.split()[4] for line in mounts.splitlines()]
        assert {str(SOURCE), "/var/tmp"} <= set(points)  # noqa: S108 - root's own
        assert str(SOURCE.parent) not in points

    def test_what_else_lies_in_that_folder_is_there(self, tree: Path) -> None:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as beside:
            inside(tree, Isolation(), "touch", f"{beside}/written")
            assert Path(beside, "written").exists()

    def test_user_host_and_network_are_the_builds_own(self, tree: Path) -> None:
        isolation = Isolation(network=False, user=4242, host="elsewhere")
        said = inside(tree, isolation, "sh", "-c", "id -u; uname -n; cat /proc/net/route")
        assert said.splitlines()[:2] == ["4242", "elsewhere"]
        assert len(said.splitlines()) == 3  # the head of the table of routes, and no route


class TestCopy:
    def test_the_tree_is_copied_and_removed(self, tree: Path, room: Path) -> None:
        with held(tree) as found:
            assert (found.way, found.enter) == ("copy", ())
            assert (room / "source" / "src" / "a.c").read_text() == "int a;\n"
            assert (room / "source" / "link").is_symlink()
            assert (room / "build").resolve() == tree.parent
            assert (room / "source" / "src" / "a.c").stat().st_mtime == (tree / "src" / "a.c").stat().st_mtime
        assert list(room.iterdir()) == []
        assert room.stat().st_mode & 0o7777 == 0o1777

    @pytest.mark.threat(
        "faults",
        "a copied source that a killed build left at its place",
        "removed before the next copy",
    )
    def test_what_a_killed_build_left_is_removed(self, tree: Path, room: Path) -> None:
        (room / "source" / "old").mkdir(parents=True)
        (room / "build").symlink_to("elsewhere")
        with held(tree):
            assert (room / "build").resolve() == tree.parent
            assert sorted(p.name for p in (room / "source").iterdir()) == ["link", "src"]

    def test_builds_take_turns(self, tree: Path, room: Path) -> None:
        order = []

        def second() -> None:
            with held(tree):
                order.append("second")

        other = threading.Thread(target=second)
        with held(tree):
            other.start()
            other.join(0.3)
            order.append("first")
        other.join()
        assert order == ["first", "second"]
        assert list(room.iterdir()) == []

    def test_it_is_removed_after_a_failure(self, tree: Path, room: Path) -> None:
        with pytest.raises(ZeroDivisionError), held(tree):
            raise ZeroDivisionError
        assert list(room.iterdir()) == []

    @pytest.mark.parametrize("what", ["a link", "a file"])
    def test_something_else_in_its_place(self, what: str, tree: Path, room: Path, tmp_path: Path) -> None:
        room.mkdir(mode=0o1777)
        (room / "source").symlink_to(tmp_path) if what == "a link" else (room / "source").touch()
        with (
            pytest.raises(MissingError, match="can not be used"),
            held(tree),
        ):
            pass
        assert (tree / "src" / "a.c").exists()

    def test_a_room_that_can_not_be_made(
        self, tree: Path, room: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(place, "ROOM", room / "not" / "there")
        with (
            pytest.raises(MissingError, match="can not be made"),
            held(tree),
        ):
            pass

    @pytest.mark.parametrize("reason", ["", "not allowed"])
    def test_a_link_on_the_way(
        self, reason: str, tree: Path, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where /var/tmp is a link to /tmp: nvcc hashes the real path."""
        monkeypatch.setattr(place, "why_no_namespace", lambda: reason)
        (tmp_path / "link").symlink_to(tmp_path)
        monkeypatch.setattr(place, "ROOM", tmp_path / "link" / room.name)
        with pytest.raises(MissingError, match="is a link"), held(tree):
            pass
        assert not room.exists()

    def test_a_copy_that_fails(self, tree: Path, room: Path) -> None:
        (tree / "src" / "b.c").symlink_to("nowhere")
        os.mkfifo(tree / "pipe")
        with pytest.raises(StoreError, match="named pipe"), held(tree):
            pass
        assert list(room.iterdir()) == []

    def test_a_room_that_is_a_link(self, tree: Path, room: Path, tmp_path: Path) -> None:
        room.symlink_to(tmp_path)
        with (
            pytest.raises(MissingError, match="is not a folder"),
            held(tree),
        ):
            pass

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
    def test_a_room_of_another_user(self, tree: Path, room: Path) -> None:
        """Who owns the room could swap the source while it is compiled."""
        room.mkdir()
        os.chown(room, 4242, 4242)
        with (
            pytest.raises(MissingError, match="another user"),
            held(tree),
        ):
            pass

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
    def test_what_another_user_left(self, tree: Path, room: Path) -> None:
        (room / "source" / "theirs").mkdir(parents=True)
        os.chown(room / "source", 4242, 4242)
        with (
            pytest.raises(MissingError, match="left behind by another user") as caught,
            held(tree),
        ):
            pass
        assert str(room / "source") in caught.value.remedy
        assert (room / "source" / "theirs").exists()


def test_without_bubblewrap_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SYSTEM_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "bwrap" in place.why_no_namespace.__wrapped__()
