"""One repository of an OCI registry, asked through oras (distribution-spec 1.1 has the requests).

What is oras': the log-in (see login.py) and the requests. What is not, and why: its retries sleep for two
minutes when nobody answers, its upload holds a blob in memory, its download checks no digest, and a token
of too narrow a scope is never asked for anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin

import msgspec

from sparkbuild.errors import StoreError
from sparkbuild.files import sha256_bytes
from sparkbuild.transport.login import UNAUTHORIZED, logged_in, reason
from sparkbuild.transport.reference import TAG, Reference

if TYPE_CHECKING:
    from requests import Response

_LOCAL = ("localhost", "127.0.0.1")
_BLOCK = 1 << 20
_MOST_TAGS = 100_000
_MOST_BODY = 4 << 20  # bytes of a manifest, a list or an error (distribution-spec 1.1, "Pushing Manifests")
_SAID = 300  # characters
_OK, _CREATED, _ACCEPTED, _NOT_FOUND = 200, 201, 202, 404


class Client:
    """A connection to one repository.

    Raises MissingError when the registry can not be reached, StoreError when it refuses or breaks off.
    """

    def __init__(self, reference: Reference, *, plain_http: bool = False) -> None:
        self._reference = reference
        self.shown = f"oci://{reference.host}/{reference.repo}:{reference.tag}"
        local = reference.host.partition(":")[0] in _LOCAL
        self._origin = f"{'http' if plain_http or local else 'https'}://{reference.host}/"
        self._base = f"{self._origin}v2/{reference.repo}"
        self._oras = logged_in(reference.host, self._origin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._oras.session.close()

    def send_blob(self, path: Path, digest: str) -> None:
        """Send a file as a blob, in one request from the disk, unless the registry has it."""
        with self._ask(f"{self._base}/blobs/{digest}", "HEAD") as known:
            if known.status_code == _OK:
                return
        with self._expect(_ACCEPTED, "upload", f"{self._base}/blobs/uploads/", "POST") as begun:
            place = urljoin(begun.url, begun.headers.get("Location", ""))
        url = f"{place}{'&' if '?' in place else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        self._expect(_CREATED, "blob", url, "PUT", data=_Body(path), headers=headers).close()

    def send_manifest(self, data: bytes, media_type: str) -> None:
        """Send an image manifest under the reference's tag."""
        url = f"{self._base}/manifests/{self._reference.tag}"
        headers = {"Content-Type": media_type}
        self._expect(_CREATED, "manifest", url, "PUT", data=data, headers=headers).close()

    def manifest(self, media_type: str) -> bytes:
        """Return the image manifest of the reference's tag; it is what the registry says that it is."""
        url = f"{self._base}/manifests/{self._reference.tag}"
        answer = self._expect(_OK, "manifest", url, headers={"Accept": media_type})
        data, named = self._body(answer), answer.headers.get("Docker-Content-Digest", "")
        if named.startswith("sha256:") and named != f"sha256:{sha256_bytes(data)}":
            raise self._error(f"sent another manifest than the one it names, {named[:80]!r}")
        return data

    def blob(self, digest: str) -> Iterator[bytes]:
        """Yield the blocks of a blob as they come; nothing is checked here."""
        return self._blocks(self._expect(_OK, "blob", f"{self._base}/blobs/{digest}"))

    def tags(self) -> tuple[str, ...]:
        """Return all tags, sorted, page after page."""
        url, found = f"{self._base}/tags/list", set[str]()
        while url:
            answer = self._expect(_OK, "list of tags", url)
            following = answer.links.get("next", {}).get("url")
            try:
                page = msgspec.json.decode(self._body(answer), type=_Tags)
            except (ValueError, RecursionError) as problem:
                raise self._error(f"sent a list of tags that can not be read: {problem}") from problem
            before = len(found)
            found.update(t for t in page.tags or () if TAG.fullmatch(t))
            more = following and before < len(found) <= _MOST_TAGS
            url = urljoin(url, following) if more else ""
        return tuple(sorted(found))

    def _expect(self, code: int, what: str, *asked: str, **more: Any) -> Response:  # noqa: ANN401 - as _ask
        answer = self._ask(*asked, **more)
        if answer.status_code != code:
            said = "".join(c for c in self._body(answer).decode(errors="replace") if c.isprintable())
            why = "has no such" if answer.status_code == _NOT_FOUND else "refused the"
            raise self._error(f"{why} {what}: {answer.status_code} {said[:_SAID]}")
        return answer

    def _ask(
        self,
        url: str,
        method: str = "GET",
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | _Body | None = None,
    ) -> Response:
        from requests import RequestException  # noqa: PLC0415

        if not url.startswith(self._origin):  # the credentials would go there as well
            raise self._error("points to another host")
        ask = type(self._oras).do_request.__wrapped__  # without its retries

        def answered() -> Response:  # oras adds to the headers
            found: Response = ask(
                self._oras, url, method, data=data, headers=dict(headers or {}), stream=True
            )
            return found

        try:
            answer = answered()
            if answer.status_code == UNAUTHORIZED and getattr(self._oras.auth, "token", None):
                self._oras.auth.token = None  # it was for less, to read only, or is too old
                answer = answered()
        except RequestException as problem:
            raise self._error(f"broke off: {reason(problem)}") from problem
        except (ValueError, TypeError, LookupError, AttributeError) as problem:  # oras', for an odd challenge
            raise self._error("wants a log-in") from problem
        return answer

    def _body(self, answer: Response) -> bytes:
        data = bytearray()
        for block in self._blocks(answer):
            data += block
            if len(data) > _MOST_BODY:
                raise self._error(f"sent an answer of more than {_MOST_BODY >> 20} MiB")
        return bytes(data)

    def _blocks(self, answer: Response) -> Iterator[bytes]:
        from requests import RequestException  # noqa: PLC0415

        try:
            with answer:
                yield from answer.iter_content(_BLOCK)
        except RequestException as problem:
            raise self._error(f"broke off: {reason(problem)}") from problem

    def _error(self, what: str) -> StoreError:
        return StoreError(
            f"the registry {what}",
            where=self.shown,
            remedy=f"try again; if it wants a log-in: docker login {self._reference.host}",
        )


class _Body:
    """A file as a request's body; from its beginning whenever it is sent, as for a log-in on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return self._path.stat().st_size

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


class _Tags(msgspec.Struct, frozen=True):
    tags: tuple[str, ...] | None = None
