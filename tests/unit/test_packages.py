"""Downloads from a small package index (PEP 691) on this machine."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkbuild import packages
from sparkbuild.errors import MissingError, SourceError
from sparkbuild.files import Folders, sha256_bytes
from sparkbuild.packages import Pin, obtain
from sparkbuild.progress import Silent
from tests.conftest import Told

_DATA = bytes(range(256)) * 2000
_FILE = "toy_package-1.0.tar.gz"
_PIN = Pin(project="Toy_.Package", file=_FILE, sha256=sha256_bytes(_DATA), size=len(_DATA))


class Index(http.server.ThreadingHTTPServer):
    """A package index of one file, and how it behaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.page: bytes | None = None
        self.data = _DATA
        self.ranges = True
        self.cut_after: int | None = None
        self.endless = False
        self.password = ""
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"

    def downloads(self) -> list[str]:
        """Return the Range header of each download."""
        return [span for path, span in self.asked if path.startswith("/files/")]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"] or ""))
        wanted = "Basic " + base64.b64encode(self.server.password.encode()).decode()
        if self.server.password and self.headers["Authorization"] != wanted:
            self.send_error(401)
        elif self.path == "/simple/toy-package/":
            rows = [{"filename": "other.whl", "url": "x"}, {"filename": _FILE, "url": f"../../files/{_FILE}"}]
            page = self.server.page
            self.answer(200, json.dumps({"files": rows}).encode() if page is None else page)
        elif self.path == f"/files/{_FILE}":
            self.file()
        else:
            self.send_error(404)

    def file(self) -> None:
        server, span = self.server, self.headers["Range"]
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and server.ranges else 0
        status = 206 if span and server.ranges else 200
        if server.endless:
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(bytes(1 << 16))
        body = server.data[start:]
        self.answer(status, body, body if server.cut_after is None else body[: server.cut_after])

    def answer(self, status: int, body: bytes, sent: bytes | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if sent is None else sent)

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - as in http.server
        pass


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with Index() as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that leaves is no news
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        yield server
        server.shutdown()
        thread.join()


Get = Callable[[], Path]


@pytest.fixture
def get(folders: Folders) -> Get:
    return lambda: obtain(_PIN, folders, offline=False, progress=Silent())


def part(folders: Folders) -> Path:
    return folders.cache / "downloads" / _PIN.sha256[:16] / f"{_FILE}.part"


def leave_part(folders: Folders, data: bytes) -> None:
    part(folders).parent.mkdir(parents=True)
    part(folders).write_bytes(data)


def test_it_downloads_once(index: Index, folders: Folders, get: Get, told: Told) -> None:
    path = obtain(_PIN, folders, offline=False, progress=told)
    assert path.name == _FILE
    assert path.read_bytes() == _DATA
    assert not part(folders).exists()
    assert told.stages == [f"download {_FILE} (1 MB)"]
    assert told.steps[-1][:2] == (len(_DATA), len(_DATA))
    assert get() == path
    assert index.downloads() == [""]


def test_offline_takes_what_is_here_and_says_what_is_not(index: Index, folders: Folders, get: Get) -> None:
    with pytest.raises(MissingError, match="--offline") as caught:
        obtain(_PIN, folders, offline=True, progress=Silent())
    assert caught.value.exit_code == 3
    assert caught.value.remedy == "run the same command once without --offline"
    assert index.asked == []
    assert obtain(_PIN, folders, offline=False, progress=Silent()) == get()
    assert obtain(_PIN, folders, offline=True, progress=Silent()) == get()


@pytest.mark.parametrize("have", [1, 100_000, len(_DATA) - 1])
@pytest.mark.threat(
    "faults",
    "a download that was cut, at several lengths",
    "goes on from there and is checked by its hash",
)
def test_a_cut_download_goes_on(index: Index, folders: Folders, get: Get, have: int) -> None:
    leave_part(folders, _DATA[:have])
    assert get().read_bytes() == _DATA
    assert index.downloads() == [f"bytes={have}-"]


def test_it_begins_again_where_the_server_knows_no_ranges(index: Index, folders: Folders, get: Get) -> None:
    index.ranges = False
    leave_part(folders, _DATA[:1000])
    assert get().read_bytes() == _DATA


def test_a_whole_part_needs_no_server(monkeypatch: pytest.MonkeyPatch, folders: Folders, get: Get) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    leave_part(folders, _DATA)
    assert get().read_bytes() == _DATA


@pytest.mark.threat(
    "faults",
    "a connection that breaks while downloading",
    "exit 3 that says to run again; the part is kept",
)
def test_a_connection_that_is_cut_keeps_its_part(index: Index, folders: Folders, get: Get) -> None:
    index.cut_after = 200_000
    with pytest.raises(MissingError, match="was cut") as caught:
        get()
    assert caught.value.remedy == "run the same command again: it goes on from there"
    assert part(folders).read_bytes() == _DATA[:200_000]
    index.cut_after = None
    assert get().read_bytes() == _DATA
    assert index.downloads() == ["", "bytes=200000-"]


@pytest.mark.threat(
    "archives", "a download with a wrong hash, longer, shorter or empty", "refused (4) and removed"
)
@pytest.mark.parametrize(
    "data", [_DATA[:-1] + b"x", _DATA + b"x", _DATA[:5], b""], ids=["other", "longer", "shorter", "empty"]
)
def test_a_file_with_another_hash_is_refused_and_removed(
    index: Index, folders: Folders, get: Get, data: bytes
) -> None:
    index.data = data
    with pytest.raises(SourceError, match="wrong SHA-256") as caught:
        get()
    assert caught.value.exit_code == 4
    assert sha256_bytes(data) in caught.value.what
    assert not part(folders).exists()
    assert not part(folders).with_suffix("").exists()


@pytest.mark.threat(
    "archives", "a part of another file left in the cache", "found out by the hash (4), fetched anew"
)
def test_a_part_of_another_file_is_found_out(index: Index, folders: Folders, get: Get) -> None:
    leave_part(folders, b"x" * 1000)
    with pytest.raises(SourceError):
        get()
    assert get().read_bytes() == _DATA


@pytest.mark.threat(
    "archives", "a server that sends a file without end", "cut at the pinned size, refused (4)"
)
def test_an_endless_file_is_not_kept(index: Index, folders: Folders, get: Get) -> None:
    index.endless = True
    with pytest.raises(SourceError, match="wrong SHA-256"):
        get()
    assert not part(folders).exists()


@pytest.mark.threat(
    "archives", "a package index that answers with other things than its JSON", "an error (3)"
)
@pytest.mark.parametrize(
    "page",
    [
        b"<html><a href='x'>x</a></html>",
        b"",
        b"[]",
        b'{"files": 1}',
        b'{"files": [1]}',
        b'{"files": [{"filename": "x"}]}',
        b'{"meta": {}}',
        b"\xff",
        b'{"files": ' + b"[" * 100_000,
        b'{"x": ' * 100_000,
    ],
)
def test_an_index_without_json_is_named(index: Index, get: Get, page: bytes) -> None:
    index.page = page
    with pytest.raises(MissingError, match="does not speak JSON") as caught:
        get()
    assert caught.value.where == f"{index.url}/toy-package/"


@pytest.mark.threat(
    "archives", "a package index whose page has no end (limit lowered for the test)", "an error (3)"
)
def test_an_index_without_end_is_not_read(index: Index, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_PAGE", 1000)  # the real limit is 64 MiB
    index.page = b'{"files": []' + b" " * 1000 + b"}"
    with pytest.raises(MissingError, match="does not speak JSON"):
        get()


def test_an_index_without_the_file(index: Index, get: Get) -> None:
    index.page = b'{"files": [{"filename": "toy_package-2.0.tar.gz", "url": "x", "yanked": false}]}'
    with pytest.raises(MissingError, match=f"has no {_FILE}"):
        get()


def test_an_index_without_the_project(index: Index, monkeypatch: pytest.MonkeyPatch, get: Get) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/absent/")
    with pytest.raises(MissingError, match="404") as caught:
        get()
    assert caught.value.where == f"{index.url}/absent/toy-package/"


@pytest.mark.parametrize("host", ["127.0.0.1:9", "127.0.0.1:port"])
def test_an_index_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch, get: Get, host: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://someone:hidden@{host}/simple")
    with pytest.raises(MissingError, match=f"cannot fetch {_FILE}") as caught:
        get()
    assert caught.value.exit_code == 3
    assert "--offline" in caught.value.remedy
    assert "hidden" not in str(caught.value.as_dict())
    assert caught.value.where == f"http://{host}/simple/toy-package/"


@pytest.mark.threat("archives", "a password in the address of a package index", "sent to it, shown nowhere")
def test_a_password_is_sent_and_never_shown(index: Index, monkeypatch: pytest.MonkeyPatch, get: Get) -> None:
    index.password = "us/er:pass word"
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//us%2Fer:pass%20word@"))
    assert get().read_bytes() == _DATA
    index.password = "another"
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//us%2Fer:pass%20word@"))
    get().unlink()
    with pytest.raises(MissingError, match="401") as caught:
        get()
    assert "pass" not in str(caught.value.as_dict())


@pytest.mark.threat("archives", "file:// and ftp:// for a package index", "refused (4)")
@pytest.mark.parametrize("url", ["file:///etc", "ftp://127.0.0.1/simple", "simple"])
def test_only_http_is_an_index(monkeypatch: pytest.MonkeyPatch, get: Get, url: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", url)
    with pytest.raises(SourceError, match="http or https"):
        get()


def test_pips_own_setting_counts(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/a/")
    assert packages.index_url() == "https://index.invalid/a"
    monkeypatch.delenv("PIP_INDEX_URL")
    config = sealed / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text("[global]\nindex-url = https://index.invalid/b/\n")
    assert packages.index_url() == "https://index.invalid/b"
