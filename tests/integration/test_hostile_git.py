"""Hostile repositories, on this machine and behind a server of smart HTTP, through checkout()."""

from __future__ import annotations

import ast
import base64
import contextlib
import gzip
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import sparkbuild
from sparkbuild.catalog.records import Recipe, Shelf
from sparkbuild.cli.progress import progress
from sparkbuild.errors import SourceError, SparkbuildError, UsageError
from sparkbuild.files import Folders
from sparkbuild.source import SourceTree, checkout, declared_options, intact
from sparkbuild.source.mirror import create
from sparkbuild.source.repository import Repository
from tests.conftest import Told, recipe_of

_FILES = {"CMakeLists.txt": "project(x)\n", "sub/file.c": "int x;\n"}
_SECRET = "hunter2"


def git(folder: Path, *arguments: str, given: bytes = b"") -> str:
    """Run git as whoever made the repository."""
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "core.hooksPath=/dev/null"]
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=env, input=given, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Return a file that hostile code would make; fails where there is one at the end."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository of one commit."""
    monkeypatch.setenv("SPARKBUILD_ALLOW_FILE_GIT", "1")
    folder = tmp_path / "upstream"
    for name, text in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Shelf[Recipe]:
    return Shelf(recipe_of(), tmp_path / "toy.toml", "0" * 64, ())


Get = Callable[..., SourceTree]


@pytest.fixture
def get(engine: Shelf[Recipe], folders: Folders, told: Told) -> Get:
    """Return checkout() of a source that somebody named."""

    def get(source: Path | str, ref: str | None = None) -> SourceTree:
        return checkout(engine, folders, ref=ref, source=str(source), progress=told)

    return get


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


# --- what a repository can hold --------------------------------------------------------------------


def poison(folder: Path, mark: Path) -> None:
    """Have a repository run code wherever git knows of a way."""
    touch = f"touch {mark}; cat"
    (folder / ".gitattributes").write_text("* filter=x diff=x merge=x text\n")
    modules = (
        '[submodule "../../x"]\n\tpath = ../x\n\turl = ext::sh -c "touch {mark}"\n\tupdate = !touch {mark}\n'
    )
    (folder / ".gitmodules").write_text(modules.format(mark=mark))
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "-m", "poison")
    settings: dict[str, str] = {
        "filter.x.smudge": touch, "filter.x.clean": touch, "filter.x.process": touch,
        "filter.x.required": "true", "diff.x.textconv": touch, "diff.external": touch,
        "merge.x.driver": touch,
        "core.fsmonitor": touch, "core.hooksPath": str(folder / "hooks"), "core.sshCommand": touch,
        "core.pager": touch,
        "core.editor": touch, "core.askPass": touch, "core.gitProxy": touch,
        "core.alternateRefsCommand": touch, "core.attributesFile": str(folder / ".gitattributes"),
        "credential.helper": f"!{touch}", "gpg.program": touch, "alias.log": f"!{touch}",
        "sequence.editor": touch,
        "uploadpack.packObjectsHook": touch, "remote.evil.url": f"ext::sh -c touch% {mark}",
        "remote.evil.promisor": "true", "remote.evil.uploadpack": touch, "remote.evil.vcs": "ext",
        "extensions.partialClone": "evil", "protocol.ext.allow": "always", "protocol.allow": "always",
        "include.path": str(folder / "more"), "core.worktree": "/", "submodule.recurse": "true",
        "url.ext::sh -c x.insteadOf": folder.as_uri(), "log.showSignature": "true",
    }  # fmt: skip
    hooks = folder / "hooks"
    hooks.mkdir()
    for name in (
        "post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman",
        "post-rewrite", "update", "pre-receive", "post-update",
    ):  # fmt: skip
        (hooks / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (hooks / name).chmod(0o755)
        shutil.copy(hooks / name, folder / ".git" / "hooks" / name)
    (folder / "more").write_text(f"[core]\n\tfsmonitor = {touch}\n")
    with (folder / ".git" / "config").open("a") as config:
        for name, value in settings.items():
            section, _, rest = name.partition(".")
            sub, _, key = rest.rpartition(".")
            text = value.replace("\\", "\\\\").replace('"', '\\"')
            config.write(
                f'[{section} "{sub}"]\n\t{key} = "{text}"\n' if sub else f'[{section}]\n\t{key} = "{text}"\n'
            )


@pytest.mark.threat(
    "git",
    "filters, hooks, fsmonitor, includes, aliases, promisor and ext:: remotes in a repository's own settings "
    "(CVE-2018-11235, CVE-2024-32002, CVE-2024-32465)",
    "none is run: a folder, its commit and its address give the files alone",
)
@pytest.mark.parametrize("way", ["folder", "commit", "address"])
def test_a_repository_that_would_run_code(way: str, upstream: Path, mark: Path, get: Get) -> None:
    poison(upstream, mark)
    (upstream / ".git" / "objects" / "info").mkdir(exist_ok=True)
    ref = {"folder": None, "commit": "main", "address": "main"}[way]
    tree = get(upstream.as_uri() if way == "address" else upstream, ref)
    assert {n: (tree.path / n).read_text() for n in _FILES} == _FILES
    assert not (tree.path / ".git").exists()
    assert intact(tree)


@pytest.mark.threat(
    "git",
    "objects that are missing where the repository names an ext:: remote to fetch them from",
    "an error (4), nothing is fetched or run",
)
@pytest.mark.parametrize("way", ["commit", "address"])
def test_missing_objects_are_not_fetched_from_a_named_place(
    way: str, upstream: Path, mark: Path, get: Get
) -> None:
    poison(upstream, mark)
    blob = git(upstream, "rev-parse", "main:sub/file.c")
    (upstream / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SparkbuildError) as caught:
        get(upstream.as_uri() if way == "address" else upstream, "main")
    assert caught.value.exit_code in (3, 4)


def tree_of(folder: Path, *entries: tuple[str, str, bytes]) -> str:
    """Write a tree with any names, which git itself would refuse to make; return a commit of it."""
    rows = b""
    for mode, name, data in entries:
        kind = {"160000": "commit", "40000": "tree"}.get(mode, "blob")
        oid = data.decode() if kind != "blob" else git(folder, "hash-object", "-w", "--stdin", given=data)
        rows += f"{mode} {name}\0".encode() + bytes.fromhex(oid)
    whole = b"tree %d\0" % len(rows) + rows
    oid = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
    path = folder / ".git" / "objects" / oid[:2] / oid[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(whole))
    return oid


def commit_of(folder: Path, tree: str) -> str:
    made = git(folder, "commit-tree", tree, "-m", "x")
    git(folder, "update-ref", "refs/heads/main", made)
    return made


def _deep(folder: Path) -> str:
    tree = tree_of(folder, ("100644", "x", b"x"))
    for _ in range(300):
        tree = tree_of(folder, ("40000", "d", tree.encode()))
    return tree


_TREES: dict[str, Callable[[Path], str]] = {
    "a name that climbs": lambda f: tree_of(f, ("100644", "../../x", b"x")),
    "a folder that climbs": lambda f: tree_of(f, ("40000", "..", tree_of(f, ("100644", "x", b"x")).encode())),
    "an absolute name": lambda f: tree_of(f, ("100644", "/x-of-a-test", b"x")),
    "a .git folder": lambda f: tree_of(
        f, ("40000", ".git", tree_of(f, ("100644", "config", b"[core]\n")).encode())
    ),
    "a .GIT folder": lambda f: tree_of(
        f, ("40000", ".GIT", tree_of(f, ("100644", "config", b"[core]\n")).encode())
    ),
    "a file below a link": lambda f: tree_of(
        f, ("120000", "a", b"../.."), ("40000", "a", tree_of(f, ("100644", "x", b"x")).encode())
    ),
    "a link, then a file of its name": lambda f: tree_of(
        f, ("120000", "a", b"../../x"), ("100644", "a", b"x")
    ),
    "folders without end": _deep,
    "a folder in itself": lambda f: tree_of(
        f, ("40000", "a", b"4b825dc642cb6eb9a060e54bf8d69288fbee4904"[:40])
    ),
    "an empty name": lambda f: tree_of(f, ("100644", "", b"x")),
}


@pytest.mark.threat(
    "git",
    "trees with ../, absolute and .git names, files below links, 300 folders in each other",
    "refused (4) or checked out within the folder; nothing outside",
)
@pytest.mark.parametrize("make", _TREES.values(), ids=_TREES.keys())
@pytest.mark.parametrize("way", ["commit", "address"])
def test_a_tree_that_leaves(
    make: Callable[[Path], str], way: str, upstream: Path, folders: Folders, get: Get, tmp_path: Path
) -> None:
    made = commit_of(upstream, make(upstream))
    before = names(tmp_path) - {n for n in names(tmp_path) if n.startswith(folders.cache.parent.name)}
    with contextlib.suppress(SourceError):
        tree = get(upstream.as_uri() if way == "address" else upstream, made)
        assert intact(tree)
        assert not [p for p in tree.path.rglob("*") if p.name.casefold() == ".git"]
    after = names(tmp_path) - {n for n in names(tmp_path) if n.startswith(folders.cache.parent.name)}
    assert after == before
    left = [p for p in folders.cache.glob("src/*/*") if p.is_dir()]
    assert all((p / "source.json").exists() for p in left)


_LINKS = ["../x", "x\r", "x\r\n", "-x", ".git", ".git/modules/x", "a/../../x", "x\x1b[2J"]


@pytest.mark.threat(
    "git",
    "submodules at ../x, .git/x, with CR, dashes or escape codes in their path (CVE-2018-11235, -2024-32002, "
    "-2025-48384)",
    "left out and named, or the commit refused (4); no submodule is ever fetched",
)
@pytest.mark.parametrize("name", _LINKS)
def test_a_submodule_at_an_odd_place(name: str, upstream: Path, mark: Path, get: Get, tmp_path: Path) -> None:
    poison(upstream, mark)
    tree = tree_of(upstream, ("160000", name, b"1" * 40), ("100644", "z", b"z"))
    made = commit_of(upstream, tree)
    before = names(upstream)
    with contextlib.suppress(SourceError):
        found = get(upstream.as_uri(), made)
        assert [p.name for p in found.path.rglob("*") if not p.is_dir()] == ["z"]
        assert found.notes[0].startswith("without its submodules: ")
    assert names(upstream) == before
    assert not (tmp_path / "x").exists()


@pytest.mark.threat(
    "git", "replace refs and grafts in a repository", "ignored: an id gives the commit that has it"
)
def test_an_id_is_what_it_says(upstream: Path, get: Get) -> None:
    first = git(upstream, "rev-parse", "main")
    (upstream / "sub/file.c").write_text("int evil;\n")
    git(upstream, "commit", "-q", "-a", "-m", "evil")
    evil = git(upstream, "rev-parse", "main")
    git(upstream, "replace", first, evil)
    (upstream / ".git" / "info" / "grafts").write_text(f"{evil}\n")
    for source in (upstream, upstream.as_uri()):
        tree = get(source, first)
        assert (tree.path / "sub/file.c").read_text() == _FILES["sub/file.c"]
        assert (tree.commit, tree.build_number) == (first, 1)
        assert get(source, evil).build_number == 2


# --- what a git directory can be -------------------------------------------------------------------


def _gitdir(folder: Path, *folders: str, **files: bytes | None) -> None:
    shutil.rmtree(folder / ".git")
    (folder / ".git" / "objects").mkdir(parents=True)
    for name in folders:
        (folder / ".git" / name).mkdir()
    for name, data in ({"HEAD": b"ref: refs/heads/main"} | files).items():
        if data is None:
            os.mkfifo(folder / ".git" / name)
        else:
            (folder / ".git" / name).write_bytes(data)


def _file(folder: Path, data: bytes) -> None:
    shutil.rmtree(folder / ".git")
    (folder / ".git").write_bytes(data)


def _circle(folder: Path) -> None:
    _file(folder, b"gitdir: loop")
    (folder / "loop").symlink_to("loop")


def _pipe(folder: Path) -> None:
    shutil.rmtree(folder / ".git")
    os.mkfifo(folder / ".git")


def _alternates(folder: Path) -> None:
    (folder / ".git" / "objects" / "info").mkdir(exist_ok=True)
    text = f'{folder / ".git" / "objects"}\n/dev/zero\n../../../../x\n"\\n\n'
    (folder / ".git" / "objects" / "info" / "alternates").write_text(text)


_GITDIRS: dict[str, tuple[Callable[[Path], object], bool]] = {
    "a file with NUL": (lambda f: _file(f, b"gitdir: a\0b"), True),
    "a file that names a link in circles": (_circle, True),
    "a file of 100,000 letters": (lambda f: _file(f, b"gitdir: " + b"x" * 100_000), True),
    "a file that names /": (lambda f: _file(f, b"gitdir: /"), False),
    "a pipe": (_pipe, False),
    "no refs": (_gitdir, True),
    "a HEAD that climbs": (lambda f: _gitdir(f, "refs", HEAD=b"ref: ../../../../etc/passwd"), False),
    "a HEAD that is a pipe": (lambda f: _gitdir(f, HEAD=None), False),
    "a commondir with NUL": (lambda f: _gitdir(f, commondir=b"\0"), True),
    "a commondir that is no text": (lambda f: _gitdir(f, commondir=b"\xff"), True),
    "a commondir with a line break": (lambda f: _gitdir(f, commondir=b"../x\n/etc"), True),
    "refs that are a file": (lambda f: _gitdir(f, refs=b""), True),
    "refs that are links out": (lambda f: (f / ".git/refs/heads/x").symlink_to("/etc/passwd"), False),
    "a ref that is a pipe": (lambda f: os.mkfifo(f / ".git/refs/heads/x"), False),
    "packed refs that are a pipe": (lambda f: os.mkfifo(f / ".git/packed-refs"), False),
    "alternates in circles": (_alternates, False),
    "a shallow file of garbage": (lambda f: (f / ".git/shallow").write_text("garbage\n"), False),
}


@pytest.mark.threat(
    "git",
    "a git directory that is a file, a pipe, links in circles; HEAD, commondir, refs, alternates that lie",
    "an error (4), or the folder as it is; never waited for",
)
@pytest.mark.parametrize(("change", "refused"), _GITDIRS.values(), ids=_GITDIRS.keys())
def test_a_git_directory_that_lies(
    change: Callable[[Path], object], refused: bool, upstream: Path, get: Get
) -> None:
    change(upstream)
    if refused:
        with pytest.raises(SourceError, match="its git directory can not be read") as caught:
            get(upstream)
        assert caught.value.remedy
        return
    tree = get(upstream)
    assert {n: (tree.path / n).read_text() for n in _FILES} == _FILES


@pytest.mark.threat(
    "git", "names that are no UTF-8: of CMake files, LFS pointers, submodules", "spelled out in the manifest"
)
def test_names_that_are_no_text(upstream: Path, get: Get) -> None:
    odd = os.fsdecode(b"\xff\x9b")
    (upstream / f"{odd}.cmake").write_text("option(ODD text ON)\n")
    (upstream / ".gitattributes").write_text("*.bin filter=lfs\n")
    (upstream / f"{odd}.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    git(upstream, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{odd}")
    git(upstream, "commit", "-q", "-m", "odd")
    tree = get(upstream)
    assert declared_options(tree.path)["ODD"].file == r"\xff\x9b.cmake"
    assert any(r"the first \xff\x9b.bin" in note for note in tree.notes)
    assert r"without its submodules: \xff\x9b" in get(upstream.as_uri(), "main").notes


@pytest.mark.threat("git", "a source that is a pipe or a device, or whose path is no text", "refused (2)")
def test_a_source_that_can_not_be(tmp_path: Path, get: Get) -> None:
    os.mkfifo(tmp_path / "x.tar.gz")
    odd = tmp_path / os.fsdecode(b"\xff")
    odd.mkdir()
    for source in (tmp_path / "x.tar.gz", Path("/dev/zero"), odd):
        with pytest.raises(UsageError) as caught:
            get(source)
        assert caught.value.remedy
        json.dumps(caught.value.as_dict()).encode()


@pytest.mark.threat(
    "git",
    "a source with folders in folders without end",
    "refused (4)",
)
def test_a_folder_without_end(upstream: Path, get: Get) -> None:
    deep = upstream / "/".join("d" * 150)
    deep.mkdir(parents=True)
    (deep / "x").write_text("x")
    with pytest.raises(SourceError, match="nested more than 100 deep"):
        get(upstream)


@pytest.mark.threat(
    "git",
    "a PATH that begins with '.', in a source that holds its own git, env and sh (as CVE-2023-40590, "
    "CVE-2024-22190)",
    "none is run",
)
def test_programs_of_the_source_are_not_run(
    upstream: Path, mark: Path, get: Get, engine: Shelf[Recipe], folders: Folders, told: Told,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("git", "env", "sh", "git-apply", "git-upload-pack", "git-remote-https"):
        (upstream / name).write_text(f'#!/bin/sh\ntouch {mark}\nexec /usr/bin/{name} "$@"\n')
        (upstream / name).chmod(0o755)
    git(upstream, "add", "-A")
    git(upstream, "commit", "-q", "-m", "programs")
    patch = tmp_path / "0001-x.patch"
    patch.write_text("--- a/sub/file.c\n+++ b/sub/file.c\n@@ -1 +1 @@\n-int x;\n+int y;\n")
    monkeypatch.setenv("PATH", f".::{os.environ['PATH']}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shelf = msgspec.structs.replace(engine, patches=(patch,))
    tree = checkout(shelf, folders, source=str(upstream), progress=told)
    assert (tree.path / "sub/file.c").read_text() == "int y;\n"
    assert get(upstream, "main").commit
    assert get(upstream.as_uri()).commit


@pytest.mark.threat(
    "git",
    "GitPython's own faults: CVE-2022-24439, -2023-40267, -2023-41040, -2026-42215, -2026-42284, -2026-44244",
    "what they are in (clone, refs, settings) is not used: it starts no git, and only reads what one says",
)
def test_of_gitpython_only_the_progress_reader_is_used() -> None:
    taken = set()
    for path in Path(sparkbuild.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "git":
                taken |= {f"{node.module}.{a.name}" for a in node.names}
            elif isinstance(node, ast.Import):
                assert not [a for a in node.names if a.name.split(".")[0] == "git"]
    assert taken == {"git.util.RemoteProgress", "git.util.CallableRemoteProgress"}


# --- a server --------------------------------------------------------------------------------------


class Server:
    """git's smart HTTP (gitprotocol-http(5)) for a repository, with answers that a test may change."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.refs: Callable[[bytes], bytes] = lambda answer: answer
        self.pack: Callable[[bytes], bytes] = lambda answer: answer
        self.location = ""
        self.logins: list[str] = []
        self.arguments: set[str] = set()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.seen(self.headers)
                if server.location:
                    self.send_response(302)
                    self.send_header("Location", server.location)
                    self.end_headers()
                    return
                said = server.git(self.headers, "--advertise-refs")
                first = b"" if self.headers["Git-Protocol"] else b"001e# service=git-upload-pack\n0000"
                self.answer("advertisement", server.refs(first + said))

            def do_POST(self) -> None:
                server.seen(self.headers)
                asked = self.rfile.read(int(self.headers["Content-Length"]))
                asked = gzip.decompress(asked) if self.headers["Content-Encoding"] == "gzip" else asked
                change = server.refs if b"command=ls-refs" in asked else server.pack
                self.answer("result", change(server.git(self.headers, given=asked)))

            def answer(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"application/x-git-upload-pack-{kind}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        self.place = f"127.0.0.1:{self._http.server_address[1]}/x.git"

    def seen(self, headers: object) -> None:
        """Note the log-in, and the arguments of every process that any user could read meanwhile."""
        self.logins.append(headers["Authorization"] or "")  # type: ignore[index]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.arguments.add(path.read_bytes().decode(errors="replace"))
            except OSError:
                continue

    def git(self, headers: object, *more: str, given: bytes = b"") -> bytes:
        protocol = headers["Git-Protocol"] or ""  # type: ignore[index]
        env = {"PATH": os.environ["PATH"], "GIT_PROTOCOL": protocol, "GIT_CONFIG_GLOBAL": os.devnull}
        words = ["git", "-c", "uploadpack.allowFilter=true", "-c", "uploadpack.allowAnySHA1InWant=true"]
        words += ["upload-pack", "--stateless-rpc", *more, str(self.repository)]
        return subprocess.run(words, env=env, input=given, capture_output=True, check=False).stdout

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(upstream: Path) -> Iterator[Server]:
    served = Server(upstream)
    yield served
    served.close()


@pytest.fixture
def mirror(server: Server, tmp_path: Path) -> Repository:
    """Return an empty mirror of what is served; checkout() itself speaks https alone."""
    create(tmp_path / "mirror.git")
    return Repository(tmp_path / "mirror.git", f"http://me:{_SECRET}%20word@{server.place}")


def packet(data: bytes) -> bytes:
    return b"%04x" % (len(data) + 4) + data


@pytest.mark.threat(
    "git",
    "a password in a repository's address",
    "sent to its host; in no error, note, file, and no argument that /proc shows",
)
def test_a_password_is_in_no_argument(mirror: Repository, server: Server, tmp_path: Path, told: Told) -> None:
    commit, _ = mirror.find("main", offline=False, progress=told)
    (tmp_path / "out").mkdir()
    mirror.write(commit, mirror.origin("main", commit, "x").tree, tmp_path / "out", offline=False)
    encoded = base64.b64encode(f"me:{_SECRET} word".encode()).decode()
    assert set(server.logins) == {f"Basic {encoded}"}
    assert any("git-remote-http" in a or "remote-http" in a for a in server.arguments)
    assert not [a for a in server.arguments if _SECRET in a or encoded in a]
    assert not [p for p in mirror.gitdir.rglob("*") if p.is_file() and _SECRET.encode() in p.read_bytes()]
    assert _SECRET not in str(told.stages + told.notes)
    server.refs = lambda _: packet(b"ERR no")
    with pytest.raises(SparkbuildError) as caught:
        mirror.find("absent", offline=False, progress=told)
    assert _SECRET not in json.dumps(caught.value.as_dict())


@pytest.mark.threat(
    "git",
    "a server that sends a client with a password on to another host",
    "refused (4); nothing is sent there",
)
def test_a_password_goes_to_its_host_alone(
    mirror: Repository, server: Server, upstream: Path, told: Told
) -> None:
    other = Server(upstream)
    try:
        server.location = f"http://{other.place}/info/refs?service=git-upload-pack"
        with pytest.raises(SourceError):
            mirror.find("main", offline=False, progress=told)
        assert other.logins == []
        assert server.logins
    finally:
        other.close()


@pytest.mark.threat(
    "git",
    "a server whose refs are named ../../x, -x, x.lock, with @{ or control characters",
    "not written, or refused (4); nothing outside of the mirror",
)
@pytest.mark.parametrize(
    "name", [b"../../../../../x", b"../x", b"-x", b"x.lock", b"a@{b", b"x\x1b[2J", b"a..b", b".x", b"x\n"]
)
def test_a_server_with_odd_refs(
    name: bytes, mirror: Repository, server: Server, upstream: Path, tmp_path: Path, told: Told
) -> None:
    stand_in = b"z" * len(name)
    git(upstream, "branch", stand_in.decode())
    server.refs = lambda answer: answer.replace(b"refs/heads/" + stand_in, b"refs/heads/" + name)
    before = names(tmp_path) - {n for n in names(tmp_path) if n.startswith("mirror.git")}
    with contextlib.suppress(SourceError):
        mirror.find("main", offline=False, progress=told)
    assert names(tmp_path) - {n for n in names(tmp_path) if n.startswith("mirror.git")} == before
    assert not (mirror.gitdir / "x").exists()
    assert not [
        p for p in (mirror.gitdir / "refs").rglob("*") if ".." in p.name or p.name in ("x.lock", ".x")
    ]


@pytest.mark.threat("git", "a server whose progress has numbers of 5,000 digits", "shown or passed over")
def test_a_server_with_odd_progress(
    mirror: Repository, server: Server, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f"{step} objects:  10% ({'9' * 5000}/{n})"
        for step in ("Counting", "Receiving")
        for n in ("0", "9" * 5000)
    ]
    odd = b"".join(packet(b"\x02" + line.encode() + b"\n") for line in lines)
    server.pack = lambda answer: answer.replace(b"000dpackfile\n", b"000dpackfile\n" + odd)
    assert mirror.find("main", offline=False, progress=told)[0]
    assert told.steps
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress() as shown:
        for step in told.steps:
            shown.advance(*step)


def _flipped(answer: bytes) -> bytes:
    """Return a pack with a bit of its first object changed; what an answer ends with may be progress."""
    place = answer.index(b"PACK") + 12
    return answer[:place] + bytes([answer[place] ^ 1]) + answer[place + 1 :]


@pytest.mark.threat(
    "git",
    "a server that answers with garbage, escape codes, words without end, half a pack or another address",
    "an error (3 or 4)",
)
@pytest.mark.parametrize("kind", ["garbage", "error", "flood", "cut", "bits", "file", "ext"])
def test_a_server_that_lies(kind: str, mirror: Repository, server: Server, mark: Path, told: Told) -> None:
    match kind:
        case "garbage":
            server.refs = lambda _: b"\xff" * 100_000
        case "error":
            server.refs = lambda _: packet(b"ERR \x1b[2J\x9b31m" + b"x" * 900)
        case "flood":
            flood = packet(b"\x02" + b"word" * 16_000 + b"\n") * 200
            server.pack = lambda answer: answer.replace(b"000dpackfile\n", b"000dpackfile\n" + flood)
        case "cut":
            server.pack = lambda answer: answer[: len(answer) // 2]
        case "bits":
            server.pack = _flipped
        case "file":
            server.location = f"file://{server.repository}"
        case _:
            server.location = f"ext::sh -c touch% {mark}"
    with pytest.raises(SparkbuildError) as caught:
        mirror.find("main", offline=False, progress=told)
    assert caught.value.exit_code in (3, 4)
    assert caught.value.remedy
