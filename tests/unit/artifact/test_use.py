from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sparkbuild
from sparkbuild.artifact import store, use
from sparkbuild.artifact.store import Stored
from sparkbuild.errors import StoreError, UsageError
from sparkbuild.files import Folders
from tests.conftest import FILE
from tests.kills import killed
from tests.unit.artifact.test_store import another, put


def stored(key: str, folders: Folders, engine: str = "toy") -> Stored:
    manifest = another(key, engine)
    return Stored(put(folders, manifest), manifest)


def state(folders: Folders, engine: str = "toy") -> str:
    """Return what is in use and what was before, by the first digits: "a" or "ab"."""
    found = use.in_use(folders).get(engine)
    before = use.previous(engine, folders)
    if found:  # what a program sees is what in_use says
        assert (use.link(engine, folders) / "bin/toy-server").read_bytes() == FILE
        assert use.link(engine, folders).resolve() == found.resolve()
    return "".join(p.name[0] for p in (found, before) if p)


def links(folders: Folders) -> list[str]:
    return sorted(p.name for p in (folders.store / "current").iterdir())


def test_nothing_is_in_use(folders: Folders) -> None:
    assert use.in_use(folders) == {}
    assert use.previous("toy", folders) is None
    with pytest.raises(UsageError, match="nothing of 'toy' is in use"):
        use.back("toy", folders)


def test_use_and_back_and_forth(folders: Folders) -> None:
    a, b, c = (stored(k, folders) for k in "abc")
    other = stored("f", folders, "other")
    assert use.use(a, folders) == folders.store / "current/toy"
    assert state(folders) == "a"
    with pytest.raises(UsageError, match="no other artifact of toy"):
        use.back("toy", folders)
    use.use(b, folders)
    use.use(other, folders)
    assert state(folders) == "ba"
    use.use(b, folders)  # again: what was before stays
    assert state(folders) == "ba"
    assert use.back("toy", folders) == a
    assert state(folders) == "ab"
    assert use.back("toy", folders) == b
    use.use(c, folders)
    assert state(folders) == "cb"
    assert use.in_use(folders) == {"other": other.path, "toy": c.path}
    assert links(folders) == [".toy.c000000000000000", "other", "toy"]


def test_an_engine_named_like_another_s_link(folders: Folders) -> None:
    a, b = stored("a", folders), stored("b", folders)
    near = stored("c", folders, "toy.a000000000000000")
    use.use(a, folders)
    use.use(near, folders)
    use.use(b, folders)
    assert state(folders) == "ba"
    assert state(folders, "toy.a000000000000000") == "c"


def test_the_store_can_be_moved(folders: Folders, tmp_path: Path) -> None:
    use.use(stored("a", folders), folders)
    use.use(stored("b", folders), folders)
    moved = Folders(folders.cache, tmp_path / "elsewhere", folders.config)
    folders.store.rename(moved.store)
    assert state(moved) == "ba"
    use.back("toy", moved)
    assert state(moved) == "ab"


@pytest.mark.parametrize("damage", ["cut", "other bytes", "gone", "no manifest", "no folder"])
@pytest.mark.threat(
    "faults",
    "use of an artifact that is cut, changed or gone",
    "exit 8; what is in use stays",
)
def test_a_damaged_artifact_is_refused(folders: Folders, damage: str) -> None:
    a, b = stored("a", folders), stored("b", folders)
    use.use(b, folders)
    use.use(a, folders)
    tool = b.path / "bin/toy-server"
    if damage == "cut":
        os.truncate(tool, 3)
    elif damage == "other bytes":
        tool.write_bytes(FILE[::-1])
    elif damage == "gone":
        tool.unlink()
    elif damage == "no manifest":
        (b.path / "manifest.json").unlink()
    else:
        shutil.rmtree(b.path)
    with pytest.raises(StoreError) as caught:
        use.use(b, folders)
    assert caught.value.where.startswith(str(b.path))
    with pytest.raises(StoreError):
        use.back("toy", folders)
    assert state(folders) == "ab"


def test_a_link_made_by_hand(folders: Folders) -> None:
    a, b = stored("a", folders), stored("b", folders)
    (folders.store / "current").mkdir()
    (folders.store / "current/toy").symlink_to(f"../toy/{a.path.name}")
    assert state(folders) == "a"
    use.use(b, folders)
    assert state(folders) == "ba"


def test_a_folder_in_the_link_s_place(folders: Folders) -> None:
    a = stored("a", folders)
    (folders.store / "current/toy").mkdir(parents=True)
    assert use.in_use(folders) == {}
    with pytest.raises(StoreError, match="cannot switch"):
        use.use(a, folders)


def test_what_runs_is_not_touched(folders: Folders) -> None:
    a, b = stored("a", folders), stored("b", folders)
    use.use(a, folders)
    shutil.copy("/bin/cat", a.path / "bin/runs")
    with subprocess.Popen(
        [use.link("toy", folders) / "bin/runs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as cat:
        use.use(b, folders)
        assert cat.communicate(b"still here")[0] == b"still here"
    assert cat.returncode == 0


@pytest.mark.threat(
    "faults",
    "SIGKILL at each step of use",
    "the old or the new one is in use, at every moment",
)
def test_use_killed_at_every_step(folders: Folders) -> None:
    a, b, c = (stored(k, folders) for k in "abc")
    for step in itertools.count():
        shutil.rmtree(folders.store / "current", ignore_errors=True)
        use.use(a, folders)
        use.use(b, folders)
        stopped = killed(step, lambda: use.use(c, folders))
        assert state(folders) in ("ba", "cb")
        use.use(c, folders)
        assert state(folders) == "cb"
        use.back("toy", folders)
        assert state(folders) == "bc"
        assert links(folders) == [".toy.b000000000000000", "toy"]
        if not stopped:
            break
    assert step > 5


@pytest.mark.threat(
    "faults",
    "SIGKILL at each step of the first use",
    "nothing or the new one is in use",
)
def test_the_first_use_killed_at_every_step(folders: Folders) -> None:
    a = stored("a", folders)
    for step in itertools.count():
        shutil.rmtree(folders.store / "current", ignore_errors=True)
        stopped = killed(step, lambda: use.use(a, folders))
        assert state(folders) in ("", "a")
        use.use(a, folders)
        assert state(folders) == "a"
        with pytest.raises(UsageError, match="no other"):
            use.back("toy", folders)
        if not stopped:
            break


@pytest.mark.threat(
    "faults",
    "SIGKILL at each step of use --back",
    "the one or the other is in use, and there is a way back",
)
def test_back_killed_at_every_step(folders: Folders) -> None:
    a, b = stored("a", folders), stored("b", folders)
    for step in itertools.count():
        use.use(a, folders)
        use.use(b, folders)
        stopped = killed(step, lambda: use.back("toy", folders))
        assert state(folders) in ("ba", "ab")
        if not stopped:
            break
    assert state(folders) == "ab"


_SWITCHER = """
import sys
from pathlib import Path
from sparkbuild.artifact import store, use
from sparkbuild.files import Folders
root = Path(sys.argv[1])
folders = Folders(root / "cache", root / "store", root / "config")
for turn in range(60):
    use.use(store.pick("toy@" + "abc"[turn % 3], folders), folders)
"""


def test_two_who_switch_at_once(folders: Folders) -> None:
    """Whoever looks sees an artifact that is whole, at every moment."""
    for key in "abc":
        stored(key, folders)
    use.use(store.pick("toy@a", folders), folders)
    env = {**os.environ, "PYTHONPATH": str(Path(sparkbuild.__file__).parent.parent)}
    command = [sys.executable, "-c", _SWITCHER, str(folders.store.parent)]
    switchers = [subprocess.Popen(command, env=env) for _ in range(2)]
    seen = set()
    while any(s.poll() is None for s in switchers):
        seen.add((use.link("toy", folders) / "manifest.json").resolve(strict=True).parent.name[0])
        assert (use.link("toy", folders) / "bin/toy-server").read_bytes() == FILE
    assert [s.returncode for s in switchers] == [0, 0]
    assert seen == set("abc")
    assert len(links(folders)) == 2
