"""Bare repositories of our own: a shared mirror of an engine's, and what is read from it."""

from __future__ import annotations

import base64
import contextlib
import difflib
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sparkbuild.errors import SourceError
from sparkbuild.network import dial
from sparkbuild.progress import Progress
from sparkbuild.source import sealed
from sparkbuild.source.names import COMMIT, legible, redact
from sparkbuild.source.records import Origin
from sparkbuild.source.sealed import GitFailedError, OutOfReachError
from sparkbuild.trees import DEEPEST, git_tree, too_deep

_HEAD = "refs/sparkbuild/HEAD"
# Highest in precedence, so that no .gitattributes of the engine can change a byte.
ATTRIBUTES = "* -text -eol -crlf -ident -filter -working-tree-encoding\n"
_NO_NETWORK = re.compile(
    r"could not resolve|failed to connect|couldn't connect|connection (refused|reset|timed out)|timed? ?out"
    r"|network is unreachable|no route to host|operation too slow|tunnel failed|proxy|error: (429|5\d\d)"
    r"|early eof|unexpected disconnect|hung up|recv failure|gnutls|ssl",
    re.IGNORECASE,
)


class RepositoryError(SourceError):
    """git failed: the address, the ref, or the repository that it read."""


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
        told = self._sure("log", "-1", "--format=%T %ct", "--end-of-options", commit).split()
        if len(told) != 2:  # noqa: PLR2004 - as asked
            raise SourceError(
                f"commit {commit} can not be read", where=self.where, remedy="give a whole repository"
            )
        tree, seconds = told
        notes: tuple[str, ...] = ()
        if links := self._gitlinks(commit):
            tree = self._tree_without(commit, links)
            notes = (f"without its submodules: {legible(', '.join(links))}",)
        shallow = (self.gitdir / "shallow").exists()
        if shallow:
            notes += ("a shallow clone: the build number is not known",)
        number = 0 if shallow else int(self._sure("rev-list", "--count", "--end-of-options", commit))
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
            raise RepositoryError(
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
        if parts.scheme != "https":
            return
        try:
            dial(self.url)
        except OSError as problem:
            raise self._away(f"{parts.hostname}: {problem.strerror or problem}") from None

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
        if any(row.count("/") > DEEPEST for row in rows):
            raise too_deep(Path(self.where))
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
        except GitFailedError as failure:  # a path that git does not take
            raise self.fault(str(failure)) from None
        finally:
            index.unlink(missing_ok=True)

    def _sure(self, *arguments: str) -> str:
        try:
            return self._ask(*arguments)
        except GitFailedError as failure:
            raise self.fault(str(failure)) from None

    def _look(self, *arguments: str) -> str:
        with contextlib.suppress(GitFailedError):
            return self._ask(*arguments)
        return ""

    def _ask(self, *arguments: str, env: Mapping[str, str] | None = None, network: bool = False) -> str:
        more = self._network() if network else {}
        config = self._remote() if network else {}
        return sealed.ask(arguments, gitdir=self.gitdir, env={**more, **(env or {})}, config=config)

    def _network(self) -> dict[str, str]:
        """Return what lets git reach the remote; a credential is in no argument and in no file."""
        parts = urllib.parse.urlsplit(self.url)
        allowed = {"GIT_ALLOW_PROTOCOL": parts.scheme}
        if not (who := parts.netloc.rpartition("@")[0]):
            return allowed
        name, _, password = who.partition(":")
        secret = ":".join(map(urllib.parse.unquote, (name, password)))
        settings = {
            f"http.{redact(self.url)}.extraHeader": "Authorization: Basic "
            + base64.b64encode(secret.encode()).decode(),
            "http.followRedirects": "false",  # git would send the header to any host
        }
        pairs = enumerate(settings.items())
        lines = {
            f"GIT_CONFIG_{w}_{n}": v for n, pair in pairs for w, v in zip(("KEY", "VALUE"), pair, strict=True)
        }
        return allowed | lines | {"GIT_CONFIG_COUNT": str(len(settings))}

    def _remote(self) -> dict[str, str]:
        """Return the remote's settings, which stay in no file."""
        remote = {"url": redact(self.url), "promisor": "true", "partialclonefilter": "blob:none"}
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
        return RepositoryError(
            f"git failed: {last}",
            where=self.where,
            remedy="check the address and the ref" if self.url else "see what 'git fsck' says there",
            output=said,
        )

    def is_sound(self) -> bool:
        """Return whether the mirror is as it was made and git finds no fault in it; reads all of it."""
        attributes = self.gitdir / "info" / "attributes"
        if not attributes.is_file() or attributes.read_bytes() != ATTRIBUTES.encode():
            return False
        if self._look("config", "--get", "core.bare") != "true":
            return False
        asked = ["fsck", "--full", "--no-dangling", "--no-progress"]
        away = {"GIT_NO_LAZY_FETCH": "1"}
        try:
            sealed.ask(asked, gitdir=self.gitdir, env=away, config=self._remote())
        except GitFailedError:
            return False
        return True


def _unreachable(said: str) -> bool:
    return bool(_NO_NETWORK.search(re.sub("'[^']*'", "", said)))  # a URL's own words do not count
