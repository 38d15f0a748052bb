from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sparkbuild.catalog import shipped_root
from sparkbuild.errors import SourceError
from sparkbuild.source import patches
from sparkbuild.trees import git_tree

_TEXT = "one\ntwo\nthree\n"
_EDIT = "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
_OTHER = _EDIT.replace("/f", "/sub/g")


def _new(name: str, mode: str = "100644") -> str:
    head = f"diff --git a/{name} b/{name}\nnew file mode {mode}\n"
    return f"{head}--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n"


_HOSTILE = {
    "absolute": _EDIT.replace("a/f", "/etc/f").replace("b/f", "/etc/f"),
    "climbing": _new("../f"),
    "climbing inside": _new("sub/../../f"),
    "into .git": _new(".git/hooks/post-checkout"),
    "into .GIT": _new("sub/.GIT/config"),
    "symlink": _new("link", "120000"),
    "gitlink": _new("link", "160000"),
    "setuid": _new("f2", "104755"),
    "mode": "diff --git a/f b/f\nold mode 100644\nnew mode 100755\n",
    "rename": "diff --git a/f b/f2\nsimilarity index 100%\nrename from f\nrename to f2\n",
    "rename away": "diff --git a/f b/../f2\nsimilarity index 100%\nrename from f\nrename to ../f2\n",
    "copy": "diff --git a/f b/f2\nsimilarity index 100%\ncopy from f\ncopy to f2\n",
    "binary": "diff --git a/f b/f\nindex 1..2 100644\nGIT binary patch\nliteral 1\nIcmZPo000310RR91\n\n",
    "binaries differ": "diff --git a/f b/f\nindex 1..2 100644\nBinary files a/f and b/f differ\n",
    "through a link": _EDIT.replace("/f", "/out/f"),
    "a link itself": _EDIT.replace("/f", "/away"),
    "carriage returns": _EDIT.replace("\n", "\r\n"),
    "not a patch": "hello\n",
    "empty": "",
    "truncated": _EDIT[:-12],
    "context is off": _EDIT.replace(" one", " won"),
    "no such file": _EDIT.replace("/f", "/nowhere"),
    "half": _EDIT + _OTHER.replace("-two", "-zwei"),
    "huge": _EDIT + "#" * (1 << 20),
    "into .git, spelled in octal": _new("x")
    .replace("b/x", '"b/\\056git/config"')
    .replace("a/x", '"a/\\056git/config"'),
    "climbing, quoted": _new("x").replace("a/x", '"a/../x"').replace("b/x", '"b/../x"'),
    "a link, then a file through it": _new("way", "120000").replace("+x\n", "+../outside\n")
    + _EDIT.replace("/f", "/way/f"),
    "a file that becomes a link": "diff --git a/f b/f\nold mode 100644\nnew mode 120000\n"
    + _EDIT.split("\n", 1)[1],
    "deleted, then a link": "diff --git a/f b/f\ndeleted file mode 100644\n--- a/f\n+++ /dev/null\n"
    "@@ -1,3 +0,0 @@\n-one\n-two\n-three\n" + _new("f", "120000"),
    "an old file with another mode": _EDIT.replace("--- a/f", "old mode 100644\nnew mode 104755\n--- a/f"),
    "a copy from outside": "diff --git a/../outside/f b/f2\nsimilarity index 100%\n"
    "copy from ../outside/f\ncopy to f2\n",
    "numbers beyond all": _EDIT.replace("-1,3 +1,3", "-1,99999999999999999999 +1,3"),
    "the same file twice, the second fails": _EDIT + _EDIT.replace("-two", "-zwei"),
    "an absent parent": _new("f/below"),
    "escape codes in a name": _new("x")
    .replace("a/x", '"a/\\033[2J/.git/x"')
    .replace("b/x", '"b/\\033[2J/.git/x"'),
    "NUL in its text": _EDIT.replace("+2", "+\0"),
    "a submodule's settings through a link": _EDIT.replace("/f", "/out/../f"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for path in (tree / "f", tree / "sub" / "g", tmp_path / "outside" / "f"):
        path.write_text(_TEXT)
    (tree / "out").symlink_to("../outside")
    (tree / "away").symlink_to("../outside/f")
    return tree


def _patch(tmp_path: Path, text: str | bytes, name: str = "0001-x.patch") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_patches_apply_in_order(tree: Path, tmp_path: Path) -> None:
    first = _patch(tmp_path, "Why: a reason.\n\n" + _EDIT + _OTHER)
    second = _patch(
        tmp_path, _EDIT.replace("-two", "-2").replace("+2", "+II") + _new("sub/new"), "0002-y.patch"
    )
    patches.apply([first, second], tree)
    assert (tree / "f").read_text() == "one\nII\nthree\n"
    assert (tree / "sub" / "g").read_text() == "one\n2\nthree\n"
    assert (tree / "sub" / "new").read_text() == "x\n"


@pytest.mark.threat(
    "patches",
    "absolute, `../` and .git targets, links, modes, gitlinks, renames, binary, CRLF, half applying, huge",
    "refused (4); the tree and what is beside it as they were",
)
@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_patch_changes_nothing(name: str, tree: Path, tmp_path: Path) -> None:
    before = (git_tree(tree), git_tree(tmp_path / "outside"))
    with pytest.raises(SourceError) as error:
        patches.apply([_patch(tmp_path, _HOSTILE[name])], tree)
    assert error.value.remedy
    assert "0001-x.patch" in error.value.where
    assert (git_tree(tree), git_tree(tmp_path / "outside")) == before


def test_each_patch_is_tried_behind_those_that_fit(tree: Path, tmp_path: Path) -> None:
    room, before = tmp_path / "room", git_tree(tree)
    room.mkdir()
    gone = "diff --git a/sub/g b/sub/g\ndeleted file mode 100644\n--- a/sub/g\n+++ /dev/null\n"
    gone += "@@ -1,3 +0,0 @@\n-one\n-two\n-three\n"
    texts = {
        "1-fits": _EDIT + _new("sub/new"),
        "2-again": _EDIT,
        "3-after-1": _EDIT.replace("-two", "-2").replace("+2", "+II"),
        "4-deletes": gone,
        "5-too-late": _OTHER,
        "6-nowhere": _EDIT.replace("/f", "/nowhere"),
    }
    found = patches.fittings([_patch(tmp_path, text, name) for name, text in texts.items()], tree, room)
    assert [f.fit for f in found] == [
        "applies",
        "in the source already",
        "applies",
        "applies",
        "does not apply",
        "does not apply",
    ]
    assert [f.said for f in found[4:]] == [
        "error: sub/g: No such file or directory",
        "error: nowhere: No such file or directory",
    ]
    assert git_tree(tree) == before


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_patch_that_is_only_tried_changes_nothing(name: str, tree: Path, tmp_path: Path) -> None:
    room, before = tmp_path / "room", (git_tree(tree), git_tree(tmp_path / "outside"))
    room.mkdir()
    with contextlib.suppress(SourceError):
        (found,) = patches.fittings([_patch(tmp_path, _HOSTILE[name])], tree, room)
        assert found.fit == "does not apply"
    assert (git_tree(tree), git_tree(tmp_path / "outside")) == before


@pytest.mark.threat("patches", "a patch that is not UTF-8", "refused (4)")
def test_a_patch_that_is_not_utf8_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not UTF-8"):
        patches.apply([_patch(tmp_path, _EDIT.replace("+2", "+\xe9").encode("latin-1"))], tree)


@pytest.mark.threat("patches", "a patch that is applied already", "refused (4), and said so")
def test_applied_already_is_said(tree: Path, tmp_path: Path) -> None:
    patch = _patch(tmp_path, _EDIT)
    patches.apply([patch], tree)
    with pytest.raises(SourceError, match="already applied"):
        patches.apply([patch], tree)


@pytest.mark.threat(
    "patches", "a repository around the tree, named by GIT_DIR too", "the patch is applied to the tree alone"
)
def test_a_repository_around_the_tree_does_not_hide_it(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setenv("GIT_DIR", os.fspath(tmp_path / ".git"))
    patches.apply([_patch(tmp_path, _EDIT)], tree)
    assert (tree / "f").read_text() == "one\n2\nthree\n"


def test_the_digest_knows_names_order_and_content(tmp_path: Path) -> None:
    one, two = _patch(tmp_path, _EDIT), _patch(tmp_path, _OTHER, "0002-y.patch")
    digests = {patches.digest(patches.describe(p)) for p in ([], [one], [two], [one, two], [two, one])}
    assert len(digests) == 5


@pytest.mark.threat(
    "patches", "a patch that is a pipe, a device or a folder", "refused (4), never waited for"
)
@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.symlink_to("/dev/zero"), Path.mkdir])
def test_a_patch_that_is_no_file(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "0001-x.patch")
    with pytest.raises(SourceError):
        patches.describe([tmp_path / "0001-x.patch"])


def test_an_unreadable_patch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="can not be read"):
        patches.describe([tmp_path / "absent.patch"])


@pytest.mark.parametrize("path", sorted((shipped_root() / "patches").rglob("*.patch")), ids=lambda p: p.name)
def test_a_shipped_patch_is_sound_and_says_why(path: Path) -> None:
    assert patches.touched(path)
    head = path.read_text().partition("diff --git")[0]
    assert "\nWhy: " in head
    assert "\nApplies to: " in head
