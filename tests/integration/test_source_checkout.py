"""checkout() against real git, real archives and a small package index on this machine."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from sparkbuild.catalog.records import GitSource, Recipe, SdistSource, Shelf, State
from sparkbuild.errors import MissingError, SourceError, SparkbuildError, UsageError
from sparkbuild.files import Folders
from sparkbuild.packages import Pin
from sparkbuild.source import SourceTree, checkout, declared_options, intact, local, reads_variable
from sparkbuild.source.repository import Repository
from sparkbuild.trees import git_tree

_FILES = {
    "CMakeLists.txt": b'option(FAST "be fast" ON)\nif (NOT DEFINED NUMBER)\nendif()\n',
    "crlf.txt": b"one\r\ntwo\r\n",
    "ident.c": b"/* $Id$ */\n",
    "sub/utf16.txt": b"\xff\xfeh\x00i\x00",
    ".gitattributes": b"*.txt text eol=crlf\n*.c ident\nutf16.txt working-tree-encoding=UTF-16\n",
}
_NOWHERE = "https://127.0.0.1:9/x.git"
_PATCH = """Why: a test.

diff --git a/CMakeLists.txt b/CMakeLists.txt
--- a/CMakeLists.txt
+++ b/CMakeLists.txt
@@ -1,3 +1,4 @@
 option(FAST "be fast" ON)
+option(PATCHED "a patch was here" ON)
 if (NOT DEFINED NUMBER)
 endif()
"""


class Notes:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def git(folder: Path, *arguments: str) -> str:
    who = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "-c",
        "core.autocrlf=false",
        "-c",
        "protocol.file.allow=always",
    ]
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, message: str = "x") -> str:
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository of two commits; the second, on main, holds _FILES."""
    monkeypatch.setenv("SPARKBUILD_ALLOW_FILE_GIT", "1")
    folder = tmp_path / "upstream"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "old").write_text("old\n")
    commit(folder, "first")
    git(folder, "tag", "v1")
    (folder / "old").unlink()
    # Git attributes would change bytes on the way in, too: the files come first, as they are.
    for name, data in sorted(_FILES.items(), key=lambda item: item[0] == ".gitattributes"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        if name == "crlf.txt":
            (folder / "run.sh").write_text("#!/bin/sh\n")
            (folder / "run.sh").chmod(0o755)
            (folder / "link").symlink_to("run.sh")
            git(folder, "add", "-A")
    (folder / ".git" / "info").mkdir(exist_ok=True)
    (folder / ".git" / "info" / "attributes").write_text("* -text -ident -working-tree-encoding\n")
    commit(folder, "second")
    git(folder, "config", "uploadpack.allowFilter", "true")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    root = tmp_path / "home"
    return Folders(root / "cache", root / "store", root / "config")


def pinned(url: str, upstream: Path) -> GitSource:
    return GitSource(
        url=url,
        commit=git(upstream, "rev-parse", "main"),
        tree=git(upstream, "rev-parse", "main^{tree}"),
        build_number=2,
        commit_time=int(git(upstream, "log", "-1", "--format=%ct", "main")),
    )


@pytest.fixture
def shelve(upstream: Path, tmp_path: Path) -> Callable[..., Shelf[Recipe]]:
    """Return a maker of recipes that pin the upstream's main."""

    def make(
        url: str | None = None,
        *,
        patches: tuple[str, ...] = (),
        git: GitSource | None = None,
        sdist: SdistSource | None = None,
    ) -> Shelf[Recipe]:
        pin = git or pinned(url or upstream.as_uri(), upstream)
        recipe = Recipe(
            schema=1,
            name="engine",
            title="t",
            homepage="",
            state=State(status="active"),
            targets={"cpu": ("x",)},
            intents=(),
            version_pattern="x",
            version_target="x",
            git=pin,
            sdist=sdist,
        )
        paths = []
        for number, text in enumerate(patches):
            paths.append(tmp_path / f"{number:04}-p.patch")
            paths[-1].write_text(text)
        return Shelf(recipe, tmp_path / "engine.toml", "0" * 64, tuple(paths))

    return make


Shelve = Callable[..., Shelf[Recipe]]


def get(
    shelf: Shelf[Recipe],
    folders: Folders,
    *,
    ref: str | None = None,
    source: str | None = None,
    way: Literal["auto", "git", "sdist"] = "auto",
    offline: bool = False,
    progress: Notes | None = None,
) -> SourceTree:
    told = progress or Notes()
    return checkout(shelf, folders, ref=ref, source=source, way=way, offline=offline, progress=told)


def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)


# --- git -------------------------------------------------------------------------------------------


def test_the_pinned_commit_byte_for_byte(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    tree = get(shelve(), folders)
    pin = shelve().record.git
    assert (tree.way, tree.commit, tree.tree, tree.build_number) == ("git", pin.commit, pin.tree, 2)
    assert tree.patched_tree == tree.tree == git_tree(tree.path)
    assert tree.commit_time == pin.commit_time
    assert tree.notes == ()
    assert {n: (tree.path / n).read_bytes() for n in _FILES} == _FILES
    assert (tree.path / "link").readlink() == Path("run.sh")
    assert (tree.path / "run.sh").stat().st_mode & 0o111
    assert sorted(p.name for p in tree.path.parent.iterdir()) == ["source.json", "tree"]
    assert not (tree.path / ".git").exists()


def test_a_second_run_needs_no_git_and_no_time(
    shelve: Shelve, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = shelve()
    first = get(shelf, folders)
    no_git(monkeypatch)
    start = time.perf_counter()
    second = get(shelf, folders)
    assert time.perf_counter() - start < 0.05
    assert second == first
    assert intact(second)
    assert declared_options(second.path)["FAST"].default == "ON"
    assert reads_variable(second.path, "NUMBER")


def test_a_commit_in_the_mirror_needs_no_network(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    get(shelve(), folders)
    upstream.rename(upstream.with_name("gone"))
    shutil.rmtree(folders.cache / "src")
    shelf = _again(shelve, upstream, folders)
    assert intact(get(shelf, folders, way="git"))
    shutil.rmtree(folders.cache / "src")
    assert intact(get(shelf, folders, offline=True))


def _again(shelve: Shelve, upstream: Path, folders: Folders) -> Shelf[Recipe]:
    """Return the same recipe while the upstream has another name."""
    gone = upstream.with_name("gone")
    gone.rename(upstream)
    shelf = shelve()
    upstream.rename(gone)
    return shelf


@pytest.mark.parametrize("ref", ["v1", "side", "short", "full"])
def test_a_tag_a_branch_and_commit_ids(ref: str, upstream: Path, shelve: Shelve, folders: Folders) -> None:
    first = git(upstream, "rev-parse", "v1")
    git(upstream, "branch", "side", "v1")
    asked = {"short": first[:10], "full": first}.get(ref, ref)
    tree = get(shelve(), folders, ref=asked)
    assert (tree.commit, tree.ref, tree.build_number) == (first, asked, 1)
    assert tree.tree == git(upstream, "rev-parse", "v1^{tree}")
    assert [p.name for p in tree.path.iterdir()] == ["old"]


@pytest.mark.threat(
    "git", "a short or absent commit, a ref that is not there", "an error (4) with the nearest name"
)
def test_an_ambiguous_or_unknown_ref(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    with pytest.raises(SourceError, match="no branch, tag") as error:
        get(shelve(), folders, ref="mian")
    assert error.value.remedy == "did you mean 'main'?"
    for ref in ("0" * 40, "abcd"):
        with pytest.raises(SourceError):
            get(shelve(), folders, ref=ref)


@pytest.mark.threat("git", "a tag that moved upstream", "the new commit, and a note with the old one")
def test_a_moved_tag_is_noted(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    was = get(shelve(), folders, ref="v1").commit
    git(upstream, "tag", "-f", "v1", "main")
    tree = get(shelve(), folders, ref="v1")
    assert tree.commit != was
    assert tree.notes == (f"the tag v1 has moved; it was {was[:12]}",)


def test_a_branch_is_fetched_again(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    shelf = shelve()
    assert get(shelf, folders, ref="main").commit == shelf.record.git.commit
    (upstream / "more").write_text("more\n")
    new = commit(upstream)
    assert get(shelf, folders, ref="main").commit == new
    assert get(shelf, folders).commit == shelf.record.git.commit


def test_only_what_is_needed_is_fetched(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    get(shelve(), folders)
    mirror = next((folders.cache / "git").glob("*.git"))
    listed = git(mirror, "rev-list", "--objects", "--all", "--missing=print")
    assert f"?{git(upstream, 'rev-parse', 'v1:old')}" in listed
    assert str(upstream) not in (mirror / "config").read_text()


def test_a_server_without_filters_gives_all(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    git(upstream, "config", "uploadpack.allowFilter", "false")
    assert intact(get(shelve(), folders))


def test_a_server_that_serves_names_only(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    git(upstream, "config", "--unset", "uploadpack.allowAnySHA1InWant")
    git(upstream, "config", "protocol.version", "0")
    assert get(shelve(), folders, ref=git(upstream, "rev-parse", "v1")).build_number == 1


@pytest.mark.threat("git", "a submodule", "left out, and noted in the manifest")
def test_a_submodule_is_left_out_and_said(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    shelf = shelve()
    git(upstream, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor/part")
    git(upstream, "commit", "-q", "-m", "submodule")
    tree = get(shelf, folders, ref="main")
    assert tree.notes == ("without its submodules: vendor/part",)
    assert intact(tree)
    assert tree.tree == shelf.record.git.tree  # the rest is what it was


@pytest.mark.threat("git", "a commit whose tree is not the one that the recipe pins", "refused (4)")
def test_the_pins_tree_must_be_the_commits(shelve: Shelve, folders: Folders) -> None:
    shelf = shelve()
    wrong = msgspec.structs.replace(shelf.record.git, tree="1" * 40)
    with pytest.raises(SourceError, match="the recipe says"):
        get(shelve(git=wrong), folders)


@pytest.mark.threat(
    "git",
    "GIT_* variables, hooks, fsmonitor, filters, insteadOf in the caller's own settings",
    "none is obeyed",
)
def test_the_callers_git_environment_and_configuration_are_shut_out(
    upstream: Path, shelve: Shelve, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "ran"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
    hook.chmod(0o755)
    (tmp_path / "hooks").mkdir()
    for name in ("post-checkout", "post-index-change", "reference-transaction"):
        shutil.copy(hook, tmp_path / "hooks" / name)
    (tmp_path / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {tmp_path}/hooks\n\tfsmonitor = {hook}\n\tautocrlf = true\n"
        f'[filter "x"]\n\tsmudge = {hook}\n[url "file:///nowhere"]\n\tinsteadOf = {upstream.as_uri()}\n'
    )
    for name, value in {
        "HOME": tmp_path,
        "GIT_DIR": "nowhere",
        "GIT_WORK_TREE": "nowhere",
        "GIT_INDEX_FILE": "nowhere",
        "GIT_OBJECT_DIRECTORY": "nowhere",
        "GIT_CONFIG_GLOBAL": tmp_path / ".gitconfig",
        "GIT_EXTERNAL_DIFF": hook,
        "GIT_SSH_COMMAND": hook,
        "GIT_ASKPASS": hook,
    }.items():
        monkeypatch.setenv(name, str(value))
    assert intact(get(_without(monkeypatch, shelve), folders))
    assert not mark.exists()


def _without(monkeypatch: pytest.MonkeyPatch, shelve: Shelve) -> Shelf[Recipe]:
    """Make the recipe, which asks git itself, in a normal environment."""
    with monkeypatch.context() as normal:
        for name in [n for n in os.environ if n.startswith("GIT_")]:
            normal.delenv(name)
        return shelve()


@pytest.mark.threat(
    "faults",
    "a mirror, a tree and a record that a killed run left half made",
    "cleared away and made anew",
)
def test_leftovers_of_a_killed_run_do_no_harm(shelve: Shelve, folders: Folders) -> None:
    tree = get(shelve(), folders)
    mirror = next((folders.cache / "git").glob("*.git"))
    for lock in (mirror / "shallow.lock", mirror / "config.lock", mirror / "refs" / "heads" / "main.lock"):
        lock.parent.mkdir(exist_ok=True, parents=True)
        lock.touch()
    (tree.path.parent / "source.json").write_text('{"source": ')
    (tree.path / "CMakeLists.txt").write_text("cut sh")
    half = tree.path.parent.with_name(f".{tree.path.parent.name}.abc123")
    half.mkdir()
    assert get(shelve(), folders, ref="main") == msgspec.structs.replace(tree, ref="main")
    assert intact(tree)
    assert not half.exists()


# --- patches ---------------------------------------------------------------------------------------


def test_patches_make_another_tree(shelve: Shelve, folders: Folders) -> None:
    plain, patched = get(shelve(), folders), get(shelve(patches=(_PATCH,)), folders)
    assert plain.tree == patched.tree != patched.patched_tree
    assert plain.path != patched.path
    assert intact(plain)
    assert intact(patched)
    assert [p.name for p in patched.patches] == ["0000-p.patch"]
    assert "PATCHED" in declared_options(patched.path)
    assert "PATCHED" not in declared_options(plain.path)


@pytest.mark.threat("patches", "of two patches the second does not apply", "refused (4); no tree is left")
def test_a_failing_patch_leaves_nothing(shelve: Shelve, folders: Folders) -> None:
    with pytest.raises(SourceError, match="already applied"):
        get(shelve(patches=(_PATCH, _PATCH)), folders)
    assert not [p for p in (folders.cache / "src" / "engine").iterdir() if p.is_dir()]


# --- the sdist, and what is out of reach -----------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder as a package index that speaks PEP 691."""
    root = tmp_path / "index"
    root.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").rpartition("/")[2]
            files = [{"filename": p.name, "url": f"/files/{p.name}"} for p in root.iterdir()]
            page = json.dumps({"files": files}).encode()
            body = (root / name).read_bytes() if (root / name).is_file() else page
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple")
    yield root
    server.shutdown()
    server.server_close()


@pytest.fixture
def sdist(upstream: Path, index: Path) -> SdistSource:
    """Make an sdist that carries the upstream's first commit."""
    archive = index / "bindings-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("bindings-1.0/vendor/engine/old")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"old\n"))
    data = archive.read_bytes()
    return SdistSource(
        commit=git(upstream, "rev-parse", "v1"),
        tree=git(upstream, "rev-parse", "v1^{tree}"),
        build_number=1,
        commit_time=1_000_000_000,
        root="vendor/engine",
        pin=Pin(
            project="bindings", file=archive.name, sha256=hashlib.sha256(data).hexdigest(), size=len(data)
        ),
    )


def test_the_sdist_stands_in_when_the_host_is_away(
    shelve: Shelve, folders: Folders, sdist: SdistSource
) -> None:
    progress = Notes()
    start = time.perf_counter()
    tree = get(shelve(_NOWHERE, sdist=sdist), folders, progress=progress)
    assert time.perf_counter() - start < 5
    assert (tree.way, tree.location, tree.commit) == ("sdist", "bindings-1.0.tar.gz", sdist.commit)
    assert tree.build_number == 1
    assert progress.notes == list(tree.notes)
    assert "127.0.0.1" in tree.notes[0]
    assert f"commit {sdist.commit[:12]} of 2001-09-09, older than the pin" in tree.notes[0]
    assert intact(tree)
    assert get(shelve(_NOWHERE, sdist=sdist), folders, ref=sdist.commit).way == "sdist"


def test_the_sdist_of_the_pinned_commit_answers_at_once(
    shelve: Shelve, folders: Folders, sdist: SdistSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = GitSource(
        url=_NOWHERE, **{f: getattr(sdist, f) for f in ("commit", "tree", "build_number", "commit_time")}
    )
    shelf = shelve(git=pin, sdist=sdist)
    no_git(monkeypatch)
    first = get(shelf, folders)
    assert first.notes[0].endswith("the commit that the recipe pins")
    assert "git is not installed" in first.notes[0]
    assert get(shelf, folders) == first


def test_the_sdist_when_asked_for(shelve: Shelve, folders: Folders, sdist: SdistSource) -> None:
    tree = get(shelve(sdist=sdist), folders, way="sdist")
    assert (tree.way, tree.notes) == ("sdist", ())
    assert get(shelve(sdist=sdist), folders, way="sdist", offline=True) == tree


def test_no_stand_in_for_another_ref_or_when_git_is_demanded(
    shelve: Shelve, folders: Folders, sdist: SdistSource
) -> None:
    with pytest.raises(MissingError, match="can not be reached"):
        get(shelve(_NOWHERE, sdist=sdist), folders, ref="main")
    with pytest.raises(MissingError, match="can not be reached"):
        get(shelve(_NOWHERE, sdist=sdist), folders, way="git")
    with pytest.raises(MissingError, match="can not be reached"):
        get(shelve(_NOWHERE), folders)
    with pytest.raises(UsageError, match="no sdist"):
        get(shelve(), folders, way="sdist")
    with pytest.raises(UsageError, match="no sdist"):
        get(shelve(sdist=sdist), folders, way="sdist", ref="main")


def test_a_missing_commit_is_no_reason_for_the_sdist(
    upstream: Path, shelve: Shelve, folders: Folders, sdist: SdistSource
) -> None:
    pin = msgspec.structs.replace(shelve().record.git, commit="1" * 40)
    with pytest.raises(SourceError, match="no branch, tag"):
        get(shelve(git=pin, sdist=sdist), folders)


def test_offline_says_all_that_is_missing(shelve: Shelve, folders: Folders, sdist: SdistSource) -> None:
    shelf = shelve(sdist=sdist)
    with pytest.raises(MissingError) as error:
        get(shelf, folders, offline=True)
    assert shelf.record.git.commit in error.value.what
    assert "bindings-1.0.tar.gz" in error.value.what
    get(shelf, folders, way="sdist")
    assert get(shelf, folders, offline=True).way == "sdist"


def test_offline_with_the_commit_but_not_its_files(
    shelve: Shelve, folders: Folders, sdist: SdistSource
) -> None:
    get(shelve(), folders, ref="v1")  # fetches all commits, and the files of this one
    assert get(shelve(), folders, ref="v1", offline=True).commit == sdist.commit
    with pytest.raises(MissingError, match="lacks files"):
        get(shelve(), folders, ref="main", offline=True)


@pytest.mark.threat("archives", "an sdist that holds another tree than the one pinned", "refused (4)")
def test_an_sdist_with_another_tree_is_refused(shelve: Shelve, folders: Folders, sdist: SdistSource) -> None:
    wrong = msgspec.structs.replace(sdist, tree="1" * 40)
    with pytest.raises(SourceError, match="expected 1111"):
        get(shelve(sdist=wrong), folders, way="sdist")


@pytest.mark.parametrize(
    ("said", "away"),
    [
        ("fatal: unable to access 'https://h/x/': Could not resolve host: h", True),
        ("fatal: unable to access 'https://h/x/': CONNECT tunnel failed, response 403", True),
        ("fatal: unable to access 'https://h/x/': Operation too slow. Less than 1 bytes/sec", True),
        ("error: RPC failed; curl 56 GnuTLS recv error (-54)\nfatal: early EOF", True),
        ("fatal: unable to access 'https://h/x/': The requested URL returned error: 503", True),
        ("fatal: unable to access 'https://h/x/': The requested URL returned error: 429", True),
        ("fatal: unable to access 'https://h/x/': The requested URL returned error: 403", False),
        ("fatal: repository 'https://h/openssl-proxy.git/' not found", False),
        ("fatal: couldn't find remote ref refs/heads/x", False),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", False),
    ],
)
def test_what_counts_as_out_of_reach(said: str, away: bool) -> None:
    fault = Repository(Path("x"), "https://h/x").fault(said)
    assert isinstance(fault, MissingError) is away
    assert fault.exit_code == (3 if away else 4)


# --- what a person names ---------------------------------------------------------------------------


@pytest.mark.threat(
    "git",
    "a dirty tree, with pipes and .git files in it",
    "taken as it is and noted; pipes and .git stay behind",
)
def test_a_folder_as_it_is(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    shelf = shelve()
    clean = get(shelf, folders, source=str(upstream))
    assert (clean.way, clean.location, clean.notes) == ("local", str(upstream), ())
    assert (clean.commit, clean.build_number, clean.tree) == (
        shelf.record.git.commit,
        2,
        shelf.record.git.tree,
    )
    (upstream / "CMakeLists.txt").write_text('option(DIRTY "d" OFF)\n')
    (upstream / "nested").mkdir()
    (upstream / "nested" / ".git").write_text("gitdir: elsewhere\n")
    os.mkfifo(upstream / "pipe")
    dirty = get(shelf, folders, source=str(upstream))
    assert dirty.commit == clean.commit
    assert "uncommitted changes" in dirty.notes[0]
    assert "DIRTY" in declared_options(dirty.path)
    assert intact(dirty)
    assert sorted(p.name for p in dirty.path.iterdir() if p.name in ("pipe", ".git", "nested")) == ["nested"]
    assert dirty.path != clean.path


def test_a_folder_without_git(shelve: Shelve, folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "f").write_text("x")
    tree = get(shelve(), folders, source=str(tmp_path / "plain"))
    assert (tree.commit, tree.build_number, tree.commit_time, tree.ref) == ("", 0, 0, "")
    with pytest.raises(UsageError, match="needs a git repository"):
        get(shelve(), folders, source=str(tmp_path / "plain"), ref="main")


@pytest.mark.threat(
    "git",
    "a shallow clone, a linked work tree, a bare one",
    "taken as they are; a shallow one without a build number, and noted",
)
@pytest.mark.parametrize("kind", ["clone", "bare", "worktree", "shallow"])
def test_a_commit_of_a_repository_on_disk(
    kind: str,
    upstream: Path,
    shelve: Shelve,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = upstream.with_name("made")
    commands = {
        "clone": ["clone", "-q", str(upstream), str(made)],
        "bare": ["clone", "-q", "--bare", str(upstream), str(made)],
        "shallow": ["clone", "-q", "--depth=1", upstream.as_uri(), str(made)],
        "worktree": ["worktree", "add", "-q", str(made), "-b", "other"],
    }
    git(upstream, *commands[kind])
    monkeypatch.delenv("SPARKBUILD_ALLOW_FILE_GIT")
    tree = get(shelve(), folders, source=str(made), ref=None if kind == "bare" else "HEAD")
    assert tree.way == "local"
    assert tree.tree == shelve().record.git.tree
    assert tree.build_number == (0 if kind == "shallow" else 2)
    assert (tree.notes == ()) is (kind != "shallow")
    assert intact(tree)
    with pytest.raises(SourceError, match="no branch"):
        get(shelve(), folders, source=str(made), ref="absent")


@pytest.mark.threat("git", "a repository on this machine with a missing object", "refused (4)")
def test_a_repository_that_is_not_whole(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    shelf, blob = shelve(), git(upstream, "rev-parse", "v1:old")
    (upstream / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SourceError, match="files of it are missing") as error:
        get(shelf, folders, source=str(upstream), ref="v1")
    assert error.value.where == str(upstream / ".git")


@pytest.mark.threat("git", "a folder that changes while it is copied", "refused (4)")
def test_a_folder_that_changes_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "f").write_text("x")
    with pytest.raises(SourceError, match="changed while"):
        local.copy(tmp_path / "from", tmp_path / "to", "0" * 40)


@pytest.mark.threat("git", "a settings file that is broken, with includes of /dev/zero", "not read")
def test_a_foreign_repositorys_configuration_is_not_obeyed(
    upstream: Path, shelve: Shelve, folders: Folders, tmp_path: Path
) -> None:
    shelf, mark = shelve(), tmp_path / "ran"
    with (upstream / ".git" / "config").open("a") as config:
        config.write(f'[core]\n\tfsmonitor = "touch {mark}; false"\n\tworktree = /\n[uploadpack]\n')
        config.write(
            f'\tpackObjectsHook = "touch {mark}"\n[filter "x"]\n\tsmudge = "touch {mark}"\n\trequired\n'
        )
        config.write("[include]\n\tpath = /dev/zero\n[broken\n")
    assert get(shelf, folders, source=str(upstream)).build_number == 2
    assert get(shelf, folders, source=str(upstream), ref="v1").build_number == 1
    assert not mark.exists()


@pytest.mark.threat("git", "Git LFS pointers in place of files", "noted in the manifest")
def test_git_lfs_pointers_are_noted(shelve: Shelve, folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "lfs").mkdir()
    (tmp_path / "lfs" / ".gitattributes").write_text("*.bin filter=lfs -text\n")
    (tmp_path / "lfs" / "x.bin").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    assert "1 files are Git LFS pointers" in get(shelve(), folders, source=str(tmp_path / "lfs")).notes[0]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz", ".zip"])
def test_an_archive(suffix: str, upstream: Path, shelve: Shelve, folders: Folders, tmp_path: Path) -> None:
    (upstream / "link").unlink()  # zip knows no links
    commit(upstream)
    archive = tmp_path / f"engine-1{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as pack:
            for path in git(upstream, "ls-files").splitlines():
                pack.write(upstream / path, f"engine-1/{path}")
    else:
        with tarfile.open(archive, "w:xz" if suffix == ".tar.xz" else "w:gz") as tar:
            tar.add(upstream, "engine-1")
    tree = get(shelve(), folders, source=str(archive))
    assert (tree.way, tree.commit, tree.build_number) == ("local", "", 0)
    assert tree.tree == git(upstream, "rev-parse", "HEAD^{tree}")
    with pytest.raises(UsageError, match="no branches"):
        get(shelve(), folders, source=str(archive), ref="main")


@pytest.mark.threat(
    "archives", "an archive for --source that climbs or is none", "refused (4); no scratch folder is left"
)
def test_hostile_and_broken_archives(shelve: Shelve, folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b\x08 not really")
    with tarfile.open(tmp_path / "y.tar", "w") as tar:
        info = tarfile.TarInfo("top/../../escaped")
        tar.addfile(info, io.BytesIO(b""))
    for name in ("x.tar.gz", "y.tar"):
        with pytest.raises(SourceError):
            get(shelve(), folders, source=str(tmp_path / name))
    assert not (folders.cache.parent / "escaped").exists()
    assert not list(folders.cache.glob(".scratch-*"))


def test_a_url(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    tree = get(shelve(_NOWHERE), folders, source=upstream.as_uri())
    assert (tree.way, tree.ref, tree.build_number) == ("git", "HEAD", 2)
    git(upstream, "checkout", "-q", "v1")
    assert get(shelve(_NOWHERE), folders, source=upstream.as_uri()).build_number == 1
    assert get(shelve(_NOWHERE), folders, source=upstream.as_uri(), ref="main").build_number == 2


def test_a_url_without_a_repository(shelve: Shelve, folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="git failed") as error:
        get(shelve(), folders, source=(tmp_path / "nothing").as_uri())
    assert error.value.output


@pytest.mark.threat("git", "a password in an address that can not be reached", "in no error and in no file")
def test_a_credential_shows_nowhere(shelve: Shelve, folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(MissingError) as error:
        get(shelve(), folders, source="https://me:hunter2@127.0.0.1:9/x.git")
    assert "hunter2" not in json.dumps(error.value.as_dict())
    assert "hunter2" not in repr(error.value)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not [p for p in files if b"hunter2" in p.read_bytes() or "hunter2" in p.name]


@pytest.mark.threat(
    "git", "`ext::`, `-u`, `--upload-pack`, `git@host`, `ssh://-oProxyCommand=` for --source", "refused (2)"
)
@pytest.mark.parametrize(
    "source",
    [
        "absent/folder",
        "ext::sh -c touch% /x",
        "-u",
        "--upload-pack=x",
        "git@host:x/y.git",
        "ssh://-oProxyCommand=x/y",
    ],
)
def test_a_source_that_is_none(source: str, shelve: Shelve, folders: Folders) -> None:
    with pytest.raises(UsageError):
        get(shelve(), folders, source=source)


def test_contradictions_are_refused(upstream: Path, shelve: Shelve, folders: Folders) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        get(shelve(), folders, source=str(upstream), way="sdist")
    folders.cache.mkdir(parents=True)
    with pytest.raises(UsageError, match="own cache"):
        get(shelve(), folders, source=str(folders.cache.parent))
    with pytest.raises(UsageError, match="not a branch"):
        get(shelve(), folders, ref="--output=x")


def test_an_error_is_one_of_ours_when_the_cache_can_not_be_written(
    upstream: Path, shelve: Shelve, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SparkbuildError):
        get(shelve(), Folders(tmp_path / "file", tmp_path, tmp_path), source=str(upstream))


def test_git_tree_is_gits_own(upstream: Path) -> None:
    (upstream / "a").mkdir()
    (upstream / "a" / "x").write_text("1")
    (upstream / "a.c").write_text("2")
    (upstream / "a-b").write_text("3")
    (upstream / "empty").mkdir()
    (upstream / "é ü").write_text("4")
    commit(upstream)
    assert git_tree(upstream) == git(upstream, "write-tree")


# --- a damaged mirror ------------------------------------------------------------------------------

_WAYS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "flipped": lambda data: bytes(b ^ (at == len(data) // 2) for at, b in enumerate(data)),
    "noise": lambda data: bytes(len(data)),
}


_LONGER = [pytest.param(way, marks=pytest.mark.full) for way in ("half", "noise")]


@pytest.mark.parametrize("way", ["empty", "flipped", *_LONGER])
@pytest.mark.threat(
    "faults",
    "each file of a git mirror (HEAD, refs, config, packs, indexes) emptied, cut, changed",
    "the same source as before: git can still read it, or the mirror is made anew and this is said",
)
def test_a_damaged_mirror_is_made_anew(way: str, shelve: Shelve, folders: Folders, upstream: Path) -> None:
    shelf = shelve()
    url = upstream.as_uri()
    first = get(shelf, folders, source=url, ref="main")
    mirror = next((folders.cache / "git").glob("*.git"))
    git(mirror, "pack-refs", "--all")
    files = sorted(p.relative_to(mirror) for p in mirror.rglob("*") if p.is_file())
    assert {f.suffix for f in files} >= {".pack", ".idx"}
    told = Notes()
    for file in files:
        if not (mirror / file).is_file():
            continue  # made anew, it has other names
        (mirror / file).chmod(0o644)
        (mirror / file).write_bytes(_WAYS[way]((mirror / file).read_bytes()))
        shutil.rmtree(folders.cache / "src")
        again = get(shelf, folders, source=url, ref="main", progress=told)
        assert intact(again), file
        assert (again.commit, again.tree, again.build_number) == (first.commit, first.tree, 2), file
    assert any("is made anew" in note for note in told.notes)


@pytest.mark.threat(
    "faults",
    "a git mirror whose packs are cut short, with --offline",
    "exit 3 or 4 that says so and to run once without --offline; then it is made anew",
)
def test_a_damaged_mirror_offline(shelve: Shelve, folders: Folders, upstream: Path) -> None:
    shelf, url = shelve(), upstream.as_uri()
    first = get(shelf, folders, source=url, ref="main")
    for pack in folders.cache.glob("git/*.git/objects/pack/*.pack"):
        pack.chmod(0o644)
        os.truncate(pack, pack.stat().st_size // 2)
    shutil.rmtree(folders.cache / "src")
    with pytest.raises(MissingError) as caught:
        get(shelf, folders, source=url, ref="main", offline=True)
    assert "without --offline" in caught.value.remedy
    assert get(shelf, folders, source=url, ref="main").tree == first.tree


@pytest.mark.threat(
    "faults",
    "sources whose time is after that of what is made of them",
    "checked-out files are of the year 2000, whatever the clock says",
)
def test_a_source_is_older_than_what_is_made_of_it(shelve: Shelve, folders: Folders) -> None:
    tree = get(shelve(), folders)
    times = {p.lstat().st_mtime for p in tree.path.rglob("*") if not p.is_dir()}
    assert times == {946_684_800}
