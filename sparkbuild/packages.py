"""Files from a Python package index, pinned by hash: engine sdists and CUDA wheels.

pip itself is no help for an sdist: ``pip download`` runs the package's build code to read its
metadata. So the index's JSON pages (PEP 691) are read here, for one file whose name and SHA-256
are known beforehand.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Annotated, cast

import msgspec

from sparkbuild import process
from sparkbuild.errors import MissingError, SourceError
from sparkbuild.files import Folders, disk_error, locked, sha256_file
from sparkbuild.network import dial
from sparkbuild.progress import Progress

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
_DEFAULT_INDEX = "https://pypi.org/simple"
_TIMEOUT = 60.0
_BLOCK = 1 << 20
_PAGE = 64 << 20  # bytes of an index page; the largest project has some ten million


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of a package index: project, file name, SHA-256 and size in bytes."""

    project: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)")]
    file: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\.(whl|tar\.gz)$(?!\n)")]
    sha256: Sha256
    size: Annotated[int, msgspec.Meta(gt=0)]


def obtain(pin: Pin, folders: Folders, *, offline: bool, progress: Progress) -> Path:
    """Return the pinned file from the cache, downloading it first where needed.

    Raises MissingError when it is not here and can not be had, SourceError on a wrong hash.
    """
    path = folders.cache / "downloads" / pin.sha256[:16] / pin.file
    with locked(path.with_name(pin.file + ".lock")):
        if not _is_there(pin, path, progress):
            if offline:
                raise MissingError(
                    f"{pin.file} is not in the cache and --offline forbids fetching it",
                    where=str(path),
                    remedy="run the same command once without --offline",
                )
            _download(pin, path, progress)
    return path


def _is_there(pin: Pin, path: Path, progress: Progress) -> bool:
    """Return whether the cache has the file; one that is damaged goes."""
    try:
        if not path.exists():
            return False
        if sha256_file(path) == pin.sha256:
            return True
        path.unlink()
    except OSError as problem:
        raise disk_error(f"cannot read {pin.file}", path, problem) from problem
    progress.note(f"{pin.file} in the cache was damaged")
    return False


def _download(pin: Pin, path: Path, progress: Progress) -> None:
    """Download to a temporary name, check, rename. A part left behind by a cut goes on."""
    part = path.with_name(pin.file + ".part")
    progress.stage(f"download {pin.file} ({pin.size / 1e6:.0f} MB)")
    try:
        have = part.stat().st_size if part.exists() else 0
        if have < pin.size:
            request = _request(_file_url(pin), {"Range": f"bytes={have}-"} if have else {})
            with _open(request, pin) as answer, part.open("ab" if answer.status == _PARTIAL else "wb") as out:
                while out.tell() <= pin.size and (block := _read(answer, pin)):
                    out.write(block)
                    progress.advance(out.tell(), pin.size, pin.project)
                if answer.length and out.tell() < pin.size:
                    raise _cut(pin, answer, f"{answer.length} bytes are missing")
                out.flush()
                os.fsync(out.fileno())
    except OSError as problem:
        raise disk_error(f"cannot keep {pin.file}", part, problem) from problem
    if (found := sha256_file(part)) != pin.sha256:
        part.unlink()
        raise SourceError(
            f"{pin.file} has the wrong SHA-256: {found}, expected {pin.sha256}",
            where=f"package {pin.project}",
            remedy="do not use it; the index or its mirror serves another file than the one pinned",
        )
    part.replace(path)


_PARTIAL = 206


def _read(answer: HTTPResponse, pin: Pin) -> bytes:
    try:
        return answer.read(_BLOCK)
    except (OSError, HTTPException) as problem:
        raise _cut(pin, answer, str(problem)) from problem


def _cut(pin: Pin, answer: HTTPResponse, why: str) -> MissingError:
    return MissingError(
        f"the download of {pin.file} was cut: {why}",
        where=_without_secret(answer.url),
        remedy="run the same command again: it goes on from there",
    )


def index_url() -> str:
    """Return the package index this machine uses: pip's own setting, else the public index."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url.rstrip("/")
    try:
        asked = process.run(
            [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
            env=process.clean_env(HOME=str(Path.home())),
            check=False,
        )
    except process.ProcessError:
        return _DEFAULT_INDEX
    return asked.output.strip().rstrip("/") or _DEFAULT_INDEX


class _Row(msgspec.Struct):
    filename: str
    url: str


class _Page(msgspec.Struct):
    files: list[_Row]


def _file_url(pin: Pin) -> str:
    page = f"{index_url()}/{re.sub('[-_.]+', '-', pin.project).lower()}/"
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    with _open(_request(page, accept), pin) as answer:
        try:
            said = answer.read(_PAGE + 1)
            if len(said) > _PAGE:
                raise ValueError("it has no end")  # noqa: TRY301 - told as the others
            rows = msgspec.json.decode(said, type=_Page).files
        except (
            OSError,
            HTTPException,
            ValueError,
            RecursionError,
        ) as problem:  # a DecodeError is a ValueError
            raise MissingError(
                "the package index does not speak JSON (PEP 691)",
                where=_without_secret(page),
                remedy="set PIP_INDEX_URL to an index that does, such as the public one",
            ) from problem
    for row in rows:
        if row.filename == pin.file:
            return urllib.parse.urljoin(page, row.url)
    raise MissingError(
        f"the package index has no {pin.file}",
        where=_without_secret(page),
        remedy="set PIP_INDEX_URL to an index that has it",
    )


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    """Return a request; a name and password in the URL go into its header, as urllib wants them."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise SourceError("a package index must be http or https", where=_without_secret(url))
    request = urllib.request.Request(_without_secret(url), headers=headers)  # noqa: S310 - checked above
    who = urllib.parse.urlsplit(url).netloc.rpartition("@")[0]
    if who:
        secret = base64.b64encode(urllib.parse.unquote(who).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return request


def _open(request: urllib.request.Request, pin: Pin) -> HTTPResponse:
    bundle = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    try:
        dial(request.full_url)
        context = ssl.create_default_context(cafile=bundle)
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT, context=context)  # noqa: S310 - http(s) only
        return cast("HTTPResponse", answer)
    except (OSError, HTTPException) as problem:  # URLError, HTTPError, time-outs, TLS errors are OSErrors
        if isinstance(problem, urllib.error.HTTPError):
            problem.close()
        raise MissingError(
            f"cannot fetch {pin.file}: {problem}",
            where=_without_secret(request.full_url),
            remedy="check the network, or set PIP_INDEX_URL; with the file in the cache use --offline",
        ) from problem


def _without_secret(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
