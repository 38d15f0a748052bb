"""Bare repositories of our own: a shared mirror of an engine's, and what is read from it."""

from __future__ import annotations

import contextlib
import difflib
import re
import shutil
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sparkbuild.errors import SourceError
from sparkbuild.files import git_tree, sha256_bytes, whole_folder
from sparkbuild.progress import Progress
from sparkbuild.source import sealed
from sparkbuild.source.names import COMMIT, redact
from sparkbuild.source.records import Origin
from sparkbuild.source.sealed import GitFailedError, OutOfReachError

_DIAL = 10.0  # seconds; git itself has no limit for connecting, and the kernel's is two minutes
_HEAD = "refs/sparkbuild/HEAD"
# Highest in precedence, so that no .gitattributes of the engine can change a byte.
_ATTRIBUTES = "* -text -eol -crlf -ident -filter -working-tree-encoding\n"
_NO_NETWORK = re.compile(
    r"could not resolve|failed to connect|couldn't connect|connection (refused|reset|timed out)|timed? ?out"
    r"|network is unreachable|no route to host|operation too slow|tunnel failed|proxy|error: (429|5\d\d)"
    r"|early eof|unexpected disconnect|hung up|recv failure|gnutls|ssl",
    re.IGNORECASE,
)


class Repository(msgspec.Struct, frozen=True):
    """A bare repository made by us.

    ``url`` is where it is fetched from, empty for never; ``lender`` the repository on disk whose
    objects it uses.
    """

    gitdir: Path
    url: str = ""
    lender: str = ""

    @property
    def where(self) -> str:
        """Where a person finds it."""
        return redact(self.url) or self.lender

    def resolve(self, ref: str) -> str:
        """Return the commit id of a commit id, tag, branch, HEAD or unique short id, "" if none is here."""
        wanted = "HEAD" if ref == "HEAD" and not self.url else _HEAD if ref == "HEAD" else ref
        names = [wanted] if wanted != ref or COMMIT.fullmatch(ref) else []
        names += [f"refs/tags/{ref}", f"refs/heads/{ref}", ref]
        found = (
            self._look("rev-parse", "--verify", "--quiet", "--end-of-options", f"{n}^{{commit}}")
            for n in names
        )
        return next((commit for commit in found if commit), "")

    def find(self, ref: str, *, offline: bool, progress: Progress) -> tuple[str, tuple[str, ...]]:
        """Return a ref's commit and notes, fetching it first; a full id that is here needs no network.

        Raises SourceError for an unknown ref, OutOfReachError when it would have to be fetched and can not.
        """
        before = self.resolve(ref)
        if before and (offline or COMMIT.fullmatch(ref)):
            return before, ()
        if offline:
            raise OutOfReachError(
                f"the git mirror does not have {ref}",
                where=str(self.gitdir),
                remedy="run the same command once without --offline",
            )
        was = self.resolve(f"refs/tags/{ref}")
        progress.stage(f"fetch {redact(self.url)}")
        self.fetch(ref, progress)
        commit = self.resolve(ref)
        if not commit:
            raise self.unknown(ref)
        moved = was and was != self.resolve(f"refs/tags/{ref}")
        return commit, (f"the tag {ref} has moved; it was {was[:12]}",) if moved else ()

    def fetch(self, ref: str, progress: Progress) -> None:
        """Fetch what ``ref`` needs: a full id alone, else all branches, tags and HEAD.

        Files are not fetched here (``blob:none``) but with ``write``, in one batch.
        """
        self._dial()
        if COMMIT.fullmatch(ref):
            with contextlib.suppress(GitFailedError):  # an older server wants a name, not an id
                return self._fetch([f"+{ref}:refs/sparkbuild/{ref}"], progress)
        heads = [f"+HEAD:{_HEAD}"] if ref == "HEAD" else []
        try:
            self._fetch([*heads, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"], progress)
        except GitFailedError as failure:
            raise self.fault(str(failure)) from None
        return None

    def origin(self, ref: str, commit: str, location: str) -> Origin:
        """Return all that is to know of a commit: its tree without submodules, number and time."""
        tree, seconds = self._look("log", "-1", "--format=%T %ct", "--end-of-options", commit).split()
        notes: tuple[str, ...] = ()
        if links := self._gitlinks(commit):
            tree = self._tree_without(commit, links)
            notes = (f"without its submodules: {', '.join(links)}",)
        shallow = (self.gitdir / "shallow").exists()
        if shallow:
            notes += ("a shallow clone: the build number is not known",)
        number = 0 if shallow else int(self._look("rev-list", "--count", "--end-of-options", commit) or 0)
        return Origin(
            way="git",
            location=location,
            ref=ref,
            tree=tree,
            commit=commit,
            build_number=number,
            commit_time=int(seconds),
            notes=notes,
        )

    def apart(self, old: str, new: str) -> tuple[int, int]:
        """Return how many commits only ``new`` has, and how many only ``old``."""
        counts = self._ask("rev-list", "--left-right", "--count", "--end-of-options", f"{old}...{new}")
        only_old, only_new = (int(word) for word in counts.split())
        return only_new, only_old

    def write(self, commit: str, tree: str, into: Path, *, offline: bool) -> None:
        """Write a commit's files into an empty folder, and check that they are ``tree``."""
        index = into.parent / f".index-{commit}"
        away = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(into)}
        listed = self._look(
            "rev-list", "--objects", "--no-walk", "--missing=print", "--end-of-options", commit
        )
        lacking = any(line.startswith("?") for line in listed.splitlines())
        if lacking:
            self._may_reach(offline, commit)
        try:
            self._ask("read-tree", "--reset", "-u", "--end-of-options", commit, env=away, network=lacking)
        except GitFailedError as failure:
            raise self.fault(str(failure)) from None
        finally:
            index.unlink(missing_ok=True)
        if (found := git_tree(into)) != tree:
            raise SourceError(
                f"commit {commit} gave the files {found}, expected {tree}",
                where=self.where,
                remedy="if the recipe pins this tree, correct its pin; else delete the folder and try again",
            )

    def unknown(self, ref: str) -> SourceError:
        """Return the error for a ref that is not there, with the nearest name."""
        names = self._look("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads", "refs/tags").split()
        near = difflib.get_close_matches(ref, names, n=1)
        return SourceError(
            f"no branch, tag or (unique) commit {ref!r}",
            where=self.where,
            remedy=f"did you mean {near[0]!r}?" if near else "give a branch, a tag or a full commit id",
        )

    def _may_reach(self, offline: bool, commit: str) -> None:
        if not self.url:
            raise SourceError(
                f"commit {commit} is not whole: files of it are missing",
                where=self.where,
                remedy="give a whole clone",
            )
        if offline:
            raise OutOfReachError(
                f"the git mirror lacks files of commit {commit}",
                where=str(self.gitdir),
                remedy="run the same command once without --offline",
            )
        self._dial()

    def _dial(self) -> None:
        """Find out in seconds that a host can not be reached. A proxy is left to git."""
        parts = urllib.parse.urlsplit(self.url)
        host = parts.hostname or ""
        proxied = {"https", "all"} & set(urllib.request.getproxies())
        if parts.scheme != "https" or (proxied and not urllib.request.proxy_bypass(host)):
            return
        try:
            socket.create_connection((host, parts.port or 443), timeout=_DIAL).close()
        except OSError as problem:
            raise self._away(f"{host}: {problem.strerror or problem}") from None

    def _fetch(self, refspecs: list[str], progress: Progress) -> None:
        filters = ["--filter=blob:none", "--no-tags", "--no-write-fetch-head", "--force", "--progress"]
        try:
            sealed.tell(
                ["fetch", *filters, "--end-of-options", "origin", *refspecs],
                gitdir=self.gitdir,
                env=self._network(),
                config=self._remote(),
                progress=progress,
            )
        except GitFailedError as failure:
            if _unreachable(str(failure)):
                raise self.fault(str(failure)) from None
            raise

    def _gitlinks(self, commit: str) -> list[str]:
        rows = self._look("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", commit).split("\0")
        return [row.partition("\t")[2] for row in rows if row.startswith("160000 ")]

    def _tree_without(self, commit: str, links: list[str]) -> str:
        index = self.gitdir / "sparkbuild-index"
        away = {"GIT_INDEX_FILE": str(index)}
        try:
            self._ask("read-tree", "--end-of-options", commit, env=away)
            self._ask(
                "update-index", "--force-remove", "--", *links, env=away | {"GIT_WORK_TREE": str(self.gitdir)}
            )
            return self._ask("write-tree", "--missing-ok", env=away)
        finally:
            index.unlink(missing_ok=True)

    def _look(self, *arguments: str) -> str:
        with contextlib.suppress(GitFailedError):
            return self._ask(*arguments)
        return ""

    def _ask(self, *arguments: str, env: Mapping[str, str] | None = None, network: bool = False) -> str:
        more = self._network() if network else {}
        config = self._remote() if network else {}
        return sealed.ask(arguments, gitdir=self.gitdir, env={**more, **(env or {})}, config=config)

    def _network(self) -> dict[str, str]:
        return {"GIT_ALLOW_PROTOCOL": urllib.parse.urlsplit(self.url).scheme}

    def _remote(self) -> dict[str, str]:
        """Return the remote's settings: on the command line alone, so no credential stays in a file."""
        remote = {"url": self.url, "promisor": "true", "partialclonefilter": "blob:none"}
        return {f"remote.origin.{key}": value for key, value in remote.items()}

    def _away(self, why: str) -> OutOfReachError:
        return OutOfReachError(
            f"the git host can not be reached: {why}",
            where=self.where,
            remedy="check the network and https_proxy; or build what is here with --offline",
        )

    def fault(self, said: str) -> SourceError | OutOfReachError:
        """Return the error for what git said: the host is away, or something is wrong."""
        last = said.strip().splitlines()[-1] if said.strip() else "no reason given"
        if self.url and _unreachable(said):
            return self._away(last)
        return SourceError(
            f"git failed: {last}",
            where=self.where,
            remedy="check the address and the ref",
            output=said,
        )


def _unreachable(said: str) -> bool:
    return bool(_NO_NETWORK.search(re.sub("'[^']*'", "", said)))  # a URL's own words do not count


def mirror(cache: Path, url: str) -> Repository:
    """Return the shared mirror of a URL, made empty where there is none. Call it under ``mirror_lock``."""
    gitdir = mirror_path(cache, url)
    if not gitdir.exists():
        create(gitdir)
    for stale in [
        *gitdir.glob("*.lock"),
        *(gitdir / "refs").rglob("*.lock"),
        *gitdir.glob("objects/pack/tmp_*"),
    ]:
        stale.unlink(missing_ok=True)  # of a git that was killed; our own lock says that none is at work
    return Repository(gitdir, url)


def mirror_path(cache: Path, url: str) -> Path:
    """Return where the mirror of a URL lies; credentials make no difference."""
    bare = redact(url)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", bare.rstrip("/").rpartition("/")[2].removesuffix(".git")) or "x"
    return cache / "git" / f"{name}-{sha256_bytes(bare.encode())[:12]}.git"


def create(gitdir: Path) -> None:
    """Make an empty bare repository, without hooks or templates."""
    with whole_folder(gitdir) as temp:
        sealed.ask(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"], gitdir=temp)
        (temp / "info").mkdir(exist_ok=True)
        (temp / "info" / "attributes").write_text(_ATTRIBUTES)
        shutil.rmtree(temp / "hooks", ignore_errors=True)
