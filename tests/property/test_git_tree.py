"""git itself is the oracle: the tree id of any folder is what ``git write-tree`` says."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkbuild.trees import git_tree

# Names that git refuses are left out: those it takes for .git on some file system, with core.protectHFS
# and core.protectNTFS off only ".git" itself is.
_NAMES = st.one_of(
    st.sampled_from(["a", "a.b", "a-b", "a0", "A", "ab", ".gitignore", ".gitattributes", "x\\y", "-rf", " "]),
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12),
    st.binary(min_size=1, max_size=6).map(os.fsdecode),
).filter(lambda n: n not in (".", "..") and "/" not in n and "\0" not in n and n.casefold() != ".git")
_LINKS = st.one_of(
    st.sampled_from(["a", "./a", "a//b", "a/", "..", "../../a", "/x", "a/./b"]),
    st.binary(min_size=1, max_size=12).filter(lambda b: b"\0" not in b).map(os.fsdecode),
)
_FILES = st.tuples(st.sampled_from(["file", "program"]), st.binary(max_size=40))
_TREES = st.recursive(
    st.dictionaries(_NAMES, _FILES | st.tuples(st.just("link"), _LINKS), max_size=5),
    lambda inner: st.dictionaries(_NAMES, _FILES | inner, max_size=5),
    max_leaves=12,
)


def _make(root: Path, tree: dict[str, object]) -> None:
    for name, what in tree.items():
        path = root / name
        match what:
            case dict():
                path.mkdir()
                _make(path, what)
            case ("link", str(to)):
                os.symlink(to, path)  # noqa: PTH211 - a Path would normalise the link's text
            case (kind, bytes(data)):
                path.write_bytes(data)
                path.chmod(0o700 if kind == "program" else 0o640)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a repository in which no attribute changes a byte."""
    folder = tmp_path_factory.mktemp("repository")
    _git(folder, folder, "init", "-q")
    (folder / "r.git" / "info").mkdir(exist_ok=True)
    (folder / "r.git" / "info" / "attributes").write_text("* -text -filter -ident -working-tree-encoding\n")
    return folder


def _git(root: Path, repository: Path, *arguments: str) -> str:
    switches = ["core.protectHFS=false", "core.protectNTFS=false", "core.autocrlf=false"]
    options = [word for s in switches for word in ("-c", s)]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(repository),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DIR": str(repository / "r.git"),
        "GIT_WORK_TREE": str(root),
    }
    command = ["git", *options, *arguments]
    return subprocess.run(command, cwd=root, env=env, check=True, capture_output=True).stdout.decode().strip()


@settings(max_examples=40)
@given(_TREES)
def test_it_is_what_git_write_tree_says(repository: Path, tree: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _make(root, tree)
        (repository / "r.git" / "index").unlink(missing_ok=True)
        _git(root, repository, "add", "-A", "-f", ".")
        assert git_tree(root) == _git(root, repository, "write-tree")
