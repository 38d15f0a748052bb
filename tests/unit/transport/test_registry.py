"""Against a real registry (Debian's docker-registry), on this machine and in a folder of the test."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from sparkbuild.errors import MissingError, SparkbuildError, StoreError, UsageError
from sparkbuild.files import sha256_bytes
from sparkbuild.transport import login, registry
from sparkbuild.transport.reference import Reference
from sparkbuild.transport.registry import ARTIFACT, BIN, IMAGE, pull, push, tags

needs_registry = pytest.mark.skipif(
    not shutil.which("docker-registry"), reason="no docker-registry (the Debian package of that name)"
)
_PASSWORD = "so:secret"
# Of "somebody" and _PASSWORD, made with `htpasswd -Bn`; bcrypt is the only kind that the registry takes.
_HTPASSWD = "somebody:$2a$05$abcdefghijklmnopqrstuuSJE9DmXHHysAXZmmQ8ThD7w4sAVF04u\n"


class Running(msgspec.Struct, frozen=True):
    """A registry at work: its port and the folder that it keeps everything in."""

    port: int
    data: Path

    def reference(self, tag: str = "", repo: str = "spark/toy") -> str:
        return f"oci://localhost:{self.port}/{repo}{':' if tag else ''}{tag}"

    def blob(self, digest: str) -> Path:
        hexes = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / hexes[:2] / hexes / "data"

    def image(self, tag: str, repo: str = "spark/toy") -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.get(f"{repo}/manifests/{tag}", {"Accept": IMAGE}))

    def get(self, path: str, headers: dict[str, str] | None = None) -> bytes:
        return self._ask("GET", path, headers or {})

    def put_image(self, tag: str, image: object, repo: str = "spark/toy") -> None:
        data = json.dumps(image).encode()
        self._ask("PUT", f"{repo}/manifests/{tag}", {"Content-Type": IMAGE}, data)

    def _ask(self, method: str, path: str, headers: dict[str, str], data: bytes | None = None) -> bytes:
        with contextlib.closing(http.client.HTTPConnection("localhost", self.port)) as connection:
            connection.request(method, f"/v2/{path}", data, headers)
            answer = connection.getresponse()
            assert answer.status < 300
            return answer.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def served(folder: Path, extra: dict[str, Any] | None = None) -> Iterator[Running]:
    folder.mkdir(exist_ok=True)
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "x"},
    }
    (folder / "config.yml").write_text(json.dumps(config | (extra or {})))  # YAML takes JSON
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log
        )
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield Running(port, folder / "data")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Run an empty registry."""
    with served(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Return an artifact's folder."""
    folder = tmp_path / "artifact"
    (folder / "bin").mkdir(parents=True)
    (folder / "manifest.json").write_bytes(b'{"a": 1}\n')
    (folder / "manifest.json.sig").write_bytes(b"signature")
    (folder / "probe.json").write_bytes(b"{}")
    (folder / "empty.json").write_bytes(b"")
    (folder / "bin" / "toy-server").write_bytes(os.urandom(3 << 20))
    (folder / "bin" / "toy-server").chmod(0o755)
    (folder / "bin" / "libtoy.so.0").write_bytes(b"library")
    return folder


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mode & 0o777)
        for p in folder.rglob("*")
        if p.is_file()
    }


# --- the way there and back ----------------------------------------------------------------------


@needs_registry
def test_an_artifact_comes_back_as_it_went(
    running: Running, artifact: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = push(artifact, running.reference("gb10"))
    assert pull(running.reference("gb10"), tmp_path / "back") == digest
    assert content(tmp_path / "back") == content(artifact)
    assert pull(running.reference("gb10"), tmp_path / "small", small_only=True) == digest
    assert content(tmp_path / "small") == {
        name: found for name, found in content(artifact).items() if not name.startswith("bin/")
    }
    assert capfd.readouterr() == ("", "")


@needs_registry
def test_any_reader_of_oci_finds_the_small_files(running: Running, artifact: Path) -> None:
    digest = push(artifact, running.reference("gb10"))
    data = running.get("spark/toy/manifests/gb10", {"Accept": IMAGE})
    assert f"sha256:{sha256_bytes(data)}" == digest
    image = json.loads(data)
    assert (image["schemaVersion"], image["mediaType"], image["artifactType"]) == (2, IMAGE, ARTIFACT)
    assert image["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": f"sha256:{sha256_bytes(b'{}')}",
        "size": 2,
    }
    layers = {x["annotations"]["org.opencontainers.image.title"]: x for x in image["layers"]}
    assert {name: x["mediaType"] for name, x in layers.items()} == {
        "empty.json": "application/json",
        "manifest.json": "application/vnd.sparkbuild.manifest.v1+json",
        "manifest.json.sig": "application/vnd.sparkbuild.signature.v1",
        "probe.json": "application/json",
        "bin.tar.zst": BIN,
    }
    manifest = running.get(f"spark/toy/blobs/{layers['manifest.json']['digest']}")
    assert manifest == (artifact / "manifest.json").read_bytes()


@needs_registry
def test_the_same_artifact_has_the_same_digest_everywhere(
    running: Running, artifact: Path, tmp_path: Path
) -> None:
    first = push(artifact, running.reference("one"))
    pull(running.reference("one"), tmp_path / "back")
    assert push(tmp_path / "back", running.reference("two", "other/place")) == first


@needs_registry
def test_tags_are_listed_and_a_moved_tag_gives_what_is_there_now(
    running: Running, artifact: Path, tmp_path: Path
) -> None:
    first = push(artifact, running.reference("v1"))
    assert push(artifact, running.reference()) == first
    (artifact / "manifest.json").write_bytes(b'{"a": 2}\n')
    second = push(artifact, running.reference())
    assert second != first
    assert tags(running.reference()) == ("latest", "v1")
    assert pull(running.reference("latest"), tmp_path / "new") == second
    assert pull(running.reference("v1"), tmp_path / "old") == first
    assert (tmp_path / "new" / "manifest.json").read_bytes() == b'{"a": 2}\n'
    assert (tmp_path / "old" / "manifest.json").read_bytes() == b'{"a": 1}\n'


@needs_registry
def test_an_empty_folder_is_filled_and_another_is_left_alone(
    running: Running, artifact: Path, tmp_path: Path
) -> None:
    push(artifact, running.reference("v1"))
    (tmp_path / "empty").mkdir()
    pull(running.reference("v1"), tmp_path / "empty")
    assert content(tmp_path / "empty") == content(artifact)
    with pytest.raises(UsageError, match="not empty"):
        pull(running.reference("v1"), artifact)


@needs_registry
def test_what_is_not_there(running: Running, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no such list of tags"):
        tags(running.reference())
    push(artifact, running.reference("v1"))
    with pytest.raises(StoreError, match="has no such manifest"):
        pull(running.reference("v2"), tmp_path / "back")
    assert not (tmp_path / "back").exists()


# --- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("oci://ghcr.io/me/toy", Reference("ghcr.io", "me/toy", "latest")),
        ("oci://localhost:5000/toy:v1.0_a-b", Reference("localhost:5000", "toy", "v1.0_a-b")),
        ("oci://127.0.0.1/a.b/c__d/e--f:1", Reference("127.0.0.1", "a.b/c__d/e--f", "1")),
    ],
)
def test_references_are_read(text: str, found: Reference) -> None:
    assert Reference.parse(text) == found


@pytest.mark.threat(
    "archives", "odd references to a registry, with passwords", "refused (2), the password not repeated"
)
@pytest.mark.parametrize(
    "text",
    [
        *("", "toy", "ghcr.io/me/toy", "docker://ghcr.io/toy", "OCI://ghcr.io/toy", "https://ghcr.io/toy"),
        *(
            "oci://",
            "oci:///toy",
            "oci://ghcr.io",
            "oci://ghcr.io/",
            "oci://ghcr.io//toy",
            "oci://ghcr.io/toy/",
        ),
        *("oci://-host/toy", "oci://host-/toy", "oci://host/-toy", "oci://host/toy:-v", "oci://host/toy:"),
        *("oci://me@host/toy", "oci://me:pass@host/toy", "oci://host/toy@sha256:" + "0" * 64),
        *("oci://host:port/toy", "oci://host:123456/toy", "oci://host/Toy", "oci://host/a/../b"),
        *(
            "oci://host/toy:v1\n",
            "oci://host/to\x00y",
            "oci://host/toy?x=1",
            "oci://host/toy#x",
            "oci://[::1]/toy",
        ),
        *(" oci://host/toy", "oci://host/t\u043ey", "oci://host/toy:" + "x" * 129, "-oci://host/toy"),
    ],
)
def test_other_references_are_refused_without_repeating_a_password(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert "oci://HOST" in caught.value.remedy
    assert "pass" not in caught.value.what
    assert caught.value.what.isprintable()


# --- what is not an artifact ----------------------------------------------------------------------


@needs_registry
@pytest.mark.parametrize(
    "change", ["no manifest", "no bin", "a link", "a folder", "an odd name", "a reserved name"]
)
def test_a_folder_that_is_no_artifact_is_not_pushed(running: Running, artifact: Path, change: str) -> None:
    if change == "no manifest":
        (artifact / "manifest.json").unlink()
    elif change == "no bin":
        shutil.rmtree(artifact / "bin")
    elif change == "a link":
        (artifact / "x.json").symlink_to("/etc/passwd")
    elif change == "a folder":
        (artifact / "more").mkdir()
    elif change == "an odd name":
        (artifact / "x\ny").touch()
    else:
        (artifact / "bin.tar.zst").touch()
    with pytest.raises(UsageError):
        push(artifact, running.reference("v1"))
    with pytest.raises(StoreError):
        tags(running.reference())


def _titled(image: Any, title: str) -> Any:  # noqa: ANN401 - JSON
    return next(x for x in image["layers"] if x["annotations"]["org.opencontainers.image.title"] == title)


def _named(name: str) -> Callable[[Any], object]:
    def change(image: Any) -> None:  # noqa: ANN401 - JSON
        _titled(image, "probe.json")["annotations"]["org.opencontainers.image.title"] = name

    return change


def _without(title: str) -> Callable[[Any], object]:
    return lambda image: image["layers"].remove(_titled(image, title))


_HOSTILE: dict[str, Callable[[Any], object]] = {
    "climbs": _named("../x"),
    "absolute": _named("/etc/x"),
    "below a folder": _named("bin/x"),
    "into bin": _named("bin"),
    "into bin, by case": _named("BIN"),
    "hidden": _named(".bashrc"),
    "no name": _named(""),
    "a control character": _named("a\x1bb"),
    "the same name twice": _named("manifest.json"),
    "a name that differs by case": _named("Manifest.json"),
    "no title": lambda i: _titled(i, "probe.json").pop("annotations"),
    "no manifest": _without("manifest.json"),
    "no bin": _without("bin.tar.zst"),
    "two bins": lambda i: i["layers"].append(_titled(i, "bin.tar.zst")),
    "a size too small": lambda i: _titled(i, "probe.json").update(size=1),
    "a size too large": lambda i: _titled(i, "probe.json").update(size=3),
    "a huge size": lambda i: _titled(i, "probe.json").update(size=1 << 40),
    "a negative size": lambda i: _titled(i, "probe.json").update(size=-1),
    "another type": lambda i: i.update(artifactType="application/vnd.other"),
    "no type": lambda i: i.pop("artifactType"),
    "small files for bin": lambda i: _titled(i, "bin.tar.zst").update(
        digest=_titled(i, "probe.json")["digest"], size=2
    ),
    "many layers": lambda i: i["layers"].extend(
        _titled(i, "probe.json") | {"annotations": {"org.opencontainers.image.title": f"x{n}"}}
        for n in range(200)
    ),
}


@pytest.mark.threat("archives", "a registry with a hostile image manifest", "refused (8)")
@needs_registry
def test_a_hostile_image_manifest_is_refused(running: Running, artifact: Path, tmp_path: Path) -> None:
    push(artifact, running.reference("good"))
    for name, change in _HOSTILE.items():
        image = running.image("good")
        change(image)
        running.put_image("bad", image)
        with pytest.raises(StoreError) as caught:
            pull(running.reference("bad"), tmp_path / "out" / "back")
        assert caught.value.what.isprintable(), name
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir()), name


@needs_registry
def test_an_image_of_others_is_not_an_artifact(running: Running, artifact: Path, tmp_path: Path) -> None:
    push(artifact, running.reference("good"))
    image = running.image("good")
    image["layers"] = []
    del image["artifactType"]
    running.put_image("image", image)
    with pytest.raises(StoreError, match="not an artifact of sparkbuild"):
        pull(running.reference("image"), tmp_path / "back")


# --- tampering and faults -------------------------------------------------------------------------


@pytest.mark.threat("archives", "a registry that serves other bytes than asked for", "refused (8)")
@needs_registry
@pytest.mark.parametrize("title", ["manifest.json", "manifest.json.sig", "bin.tar.zst"])
@pytest.mark.parametrize("how", ["a bit", "shorter", "longer", "absent"])
def test_a_changed_blob_is_refused(
    running: Running, artifact: Path, tmp_path: Path, title: str, how: str
) -> None:
    push(artifact, running.reference("v1"))
    path = running.blob(_titled(running.image("v1"), title)["digest"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    changed = {"a bit": data, "shorter": data[:-1], "longer": data + b"x"}.get(how)
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    with pytest.raises(StoreError):
        pull(running.reference("v1"), tmp_path / "out" / "back")
    assert list((tmp_path / "out").iterdir()) == []


@needs_registry
def test_a_changed_image_manifest_is_refused(running: Running, artifact: Path, tmp_path: Path) -> None:
    digest = push(artifact, running.reference("v1"))
    whole = running.blob(digest).read_bytes()
    running.blob(digest).write_bytes(whole.replace(b"probe.json", b"PROBE.json"))
    with pytest.raises(StoreError):
        pull(running.reference("v1"), tmp_path / "back")
    running.blob(digest).write_bytes(whole)
    assert pull(running.reference("v1"), tmp_path / "back") == digest


_PUSH = """
import sys
from pathlib import Path
from sparkbuild.transport import login, registry
registry.push(Path(sys.argv[1]), sys.argv[2])
"""


@needs_registry
@pytest.mark.threat(
    "faults",
    "SIGKILL while a push is half way",
    "the registry shows no artifact; the next push ends well",
)
def test_a_push_that_was_killed_half_way_leaves_nothing_and_can_be_repeated(
    running: Running, artifact: Path, tmp_path: Path
) -> None:
    """The registry is reached through a door that stops letting bytes through after a megabyte."""
    with slow_door(running.port, 1 << 20) as (port, full):
        reference = f"oci://localhost:{port}/spark/toy:v1"
        env = dict(os.environ, PYTHONPATH=str(Path(registry.__file__).parents[2]), TMPDIR=str(tmp_path))
        process = subprocess.Popen([sys.executable, "-c", _PUSH, artifact, reference], env=env)
        assert full.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(StoreError, match="has no such"):
        pull(running.reference("v1"), tmp_path / "back")
    digest = push(artifact, running.reference("v1"))
    assert pull(running.reference("v1"), tmp_path / "back") == digest
    assert content(tmp_path / "back") == content(artifact)


def shut(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def slow_door(port: int, most: int) -> Iterator[tuple[int, threading.Event]]:
    """Give a port that leads to another, and is stuck once ``most`` bytes went there."""
    full, over = threading.Event(), threading.Event()
    sent = 0

    def carry(source: socket.socket, target: socket.socket, *, counted: bool) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                if counted and (sent := sent + len(block)) > most:
                    full.set()
                    over.wait()
                    break
                target.sendall(block)
        shut(source, target)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                here, there = door.accept()[0], socket.create_connection(("127.0.0.1", port))
                sockets.extend((here, there))
                for ends, counted in (((here, there), True), ((there, here), False)):
                    threads.append(threading.Thread(target=carry, args=ends, kwargs={"counted": counted}))
                    threads[-1].start()

    threads, sockets = [threading.Thread(target=accept)], list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0)) as door:
        threads[0].start()
        try:
            yield door.getsockname()[1], full
        finally:
            over.set()
            shut(door)
            threads[0].join()
            shut(*sockets)
            for thread in threads:
                thread.join()
            for end in sockets:
                end.close()


def test_nobody_there_is_a_machines_fault(artifact: Path, tmp_path: Path) -> None:
    reference = f"oci://localhost:{free_port()}/toy"
    for call in (
        lambda: push(artifact, reference),
        lambda: pull(reference, tmp_path / "back"),
        lambda: tags(reference),
    ):
        with pytest.raises(MissingError, match="refused") as caught:
            call()
        assert caught.value.exit_code == 3
        assert caught.value.remedy


@pytest.mark.parametrize("port", [0, 99999])
def test_a_port_that_can_not_be(port: int) -> None:
    with pytest.raises(MissingError):
        tags(f"oci://localhost:{port}/toy")


@needs_registry
def test_a_registry_that_may_not_be_written_to(artifact: Path, tmp_path: Path) -> None:
    storage = {
        "filesystem": {"rootdirectory": str(tmp_path / "registry" / "data")},
        "maintenance": {"readonly": {"enabled": True}},
    }
    with (
        served(tmp_path / "registry", {"storage": storage}) as running,
        pytest.raises(StoreError, match="refused the upload: 405"),
    ):
        push(artifact, running.reference("v1"))


class Hostile(http.server.BaseHTTPRequestHandler):
    """A registry that answers as a test wants: by method and path, with (code, headers, body)."""

    answers: ClassVar[dict[str, tuple[int, dict[str, str], bytes]]] = {}
    asked: ClassVar[list[tuple[str, str | None, int]]] = []

    def do_GET(self) -> None:
        size = len(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        self.asked.append((f"{self.command} {self.path}", self.headers.get("Authorization"), size))
        code, headers, body = self.answers.get(f"{self.command} {self.path}", (404, {}, b""))
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):  # the client has had enough
                self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hostile() -> Iterator[str]:
    """Run a registry that is none; gives its HOST:PORT."""
    Hostile.answers = {"GET /v2/": (200, {}, b"")}
    Hostile.asked = []
    with http.server.HTTPServer(("127.0.0.1", 0), Hostile) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_upload_to_another_host_is_refused(hostile: str, artifact: Path) -> None:
    for place in ("http://127.0.0.1:1/x", "//127.0.0.1:1/x", "https://example.invalid/x", "ftp://x/"):
        Hostile.answers["POST /v2/toy/blobs/uploads/"] = (202, {"Location": place}, b"")
        with pytest.raises(StoreError, match="points to another host"):
            push(artifact, f"oci://{hostile}/toy")


def test_a_log_in_in_the_middle_sends_the_whole_blob_again(hostile: str, artifact: Path) -> None:
    (artifact / "empty.json").unlink()
    size = (artifact / "manifest.json").stat().st_size
    put = f"/x?digest=sha256:{sha256_bytes((artifact / 'manifest.json').read_bytes())}"
    Hostile.answers |= {
        "POST /v2/toy/blobs/uploads/": (202, {"Location": "/x"}, b""),
        f"PUT {put}": (401, {"WWW-Authenticate": f'Bearer realm="http://{hostile}/token"'}, b""),
        "GET /token": (200, {}, b'{"token": "t"}'),
    }
    with pytest.raises(StoreError, match="refused the blob: 401"):
        push(artifact, f"oci://{hostile}/toy")
    sent = [(who, length) for asked, who, length in Hostile.asked if asked == f"PUT {put}"]
    assert sent == [(None, size), ("Bearer t", size)] * 2


@pytest.mark.threat("archives", "a registry whose blob does not end", "refused (8)")
@pytest.mark.parametrize("longer", [0, 1, 8 << 20])
def test_a_blob_that_does_not_end_is_not_taken(
    hostile: str, artifact: Path, tmp_path: Path, longer: int
) -> None:
    data = b'{"a": 1}\n' + bytes(longer)
    image = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": ARTIFACT,
        "config": {"mediaType": "x", "digest": "x", "size": 2},
        "layers": [
            {
                "mediaType": media_type,
                "size": 9,
                "digest": f"sha256:{sha256_bytes(data)}",
                "annotations": {"org.opencontainers.image.title": name},
            }
            for name, media_type in (("manifest.json", "x"), ("", BIN))
        ],
    }
    Hostile.answers["GET /v2/toy/manifests/latest"] = (200, {}, json.dumps(image).encode())
    Hostile.answers[f"GET /v2/toy/blobs/sha256:{sha256_bytes(data)}"] = (200, {}, data)
    if longer:
        with pytest.raises(StoreError, match="not what was pushed"):
            pull(f"oci://{hostile}/toy", tmp_path / "back", small_only=True)
        assert not (tmp_path / "back").exists()
    else:
        pull(f"oci://{hostile}/toy", tmp_path / "back", small_only=True)
        assert content(tmp_path / "back") == {"manifest.json": (data, 0o644)}


def test_more_tags_at_another_host_are_not_asked_for(hostile: str) -> None:
    link = {"Link": '<http://127.0.0.1:1/v2/toy/tags/list>; rel="next"'}
    Hostile.answers["GET /v2/toy/tags/list"] = (200, link, b'{"tags": ["a"]}')
    with pytest.raises(StoreError, match="points to another host"):
        tags(f"oci://{hostile}/toy")


def test_pages_of_tags_are_followed_and_have_an_end(hostile: str) -> None:
    pages = {"": ("b", "c"), "?last=c": ("a", "x y", "../d"), "?last=e": ("a",), "?last=f": ("g",)}
    for (query, page), following in zip(pages.items(), ("c", "e", "f", "f"), strict=True):
        link = {"Link": f'</v2/toy/tags/list?last={following}>; rel="next"'}
        Hostile.answers[f"GET /v2/toy/tags/list{query}"] = (200, link, json.dumps({"tags": page}).encode())
    assert tags(f"oci://{hostile}/toy") == ("a", "b", "c")
    Hostile.answers["GET /v2/toy/tags/list"] = (200, {}, b'{"name": "toy", "tags": null}')
    assert tags(f"oci://{hostile}/toy") == ()


_ODD: dict[str, tuple[int, dict[str, str], bytes]] = {
    "not JSON": (200, {}, b"<html>"),
    "another JSON": (200, {}, b'{"tags": 1}'),
    "an endless answer": (200, {}, bytes(5 << 20)),
    "cut short": (200, {"Content-Length": "100"}, b'{"tags": ["a"]}'),
    "compressed, and not": (200, {"Content-Encoding": "gzip"}, b"text"),
    "a bomb": (200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(64 << 20))),
    "it points to itself": (302, {"Location": "/v2/toy/tags/list"}, b""),
    "it points nowhere": (302, {"Location": "http://127.0.0.1:1/"}, b""),
    "it points to a file": (302, {"Location": "file:///etc/passwd"}, b""),
    "an error with escape codes": (500, {}, b"\x1b[2J" + b"x" * 10_000),
    "a challenge without a word": (401, {"WWW-Authenticate": "Bearer"}, b""),
    "an empty challenge": (401, {"WWW-Authenticate": ""}, b""),
    "no challenge": (401, {}, b""),
    "a challenge to nowhere": (401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/t"'}, b""),
    "a realm that is no address": (401, {"WWW-Authenticate": 'Bearer realm="http://[x"'}, b""),
    "forbidden": (403, {}, b"{}"),
}


@pytest.mark.parametrize("answer", _ODD.values(), ids=_ODD.keys())
def test_an_odd_answer_is_a_store_error(
    hostile: str, tmp_path: Path, answer: tuple[int, dict[str, str], bytes]
) -> None:
    for path in ("tags/list", "manifests/latest"):
        Hostile.answers[f"GET /v2/toy/{path}"] = answer
    for call in (
        lambda: tags(f"oci://{hostile}/toy"),
        lambda: pull(f"oci://{hostile}/toy", tmp_path / "back"),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.what.isprintable()
        assert len(caught.value.what) < 500
    assert not (tmp_path / "back").exists()


def test_a_registry_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_TIMEOUT", (5.0, 0.1))  # two minutes
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(MissingError, match="timed out"):
        tags(f"oci://127.0.0.1:{silent.getsockname()[1]}/toy")


@pytest.mark.threat("archives", "passwords that are kept for other registries", "not sent to this one")
def test_the_password_goes_to_its_registry_only(hostile: str, sealed: Path) -> None:
    (sealed / ".docker").mkdir()
    auths = {"auths": {"127.0.0.1:1": {"auth": "c2VjcmV0"}, "example.invalid": {"auth": "c2VjcmV0"}}}
    (sealed / ".docker" / "config.json").write_text(json.dumps(auths))
    Hostile.answers["GET /v2/toy/tags/list"] = (200, {}, b'{"tags": ["a"]}')
    assert tags(f"oci://{hostile}/toy") == ("a",)
    assert {authorization for _, authorization, _ in Hostile.asked} == {None}


# --- log-in -------------------------------------------------------------------------------------------


_AUTH = base64.b64encode(f"somebody:{_PASSWORD}".encode()).decode()


def log_in(home: Path, port: int, password: str) -> None:
    auth = base64.b64encode(f"somebody:{password}".encode()).decode()
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps({"auths": {f"localhost:{port}": {"auth": auth}}}))


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Running]:
    """Run a registry that wants a password."""
    (tmp_path / "htpasswd").write_text(_HTPASSWD)
    auth = {"htpasswd": {"realm": "Toys", "path": str(tmp_path / "htpasswd")}}
    with served(tmp_path / "registry", {"auth": auth}) as running:
        yield running


@needs_registry
@pytest.mark.parametrize("where", [".docker", "elsewhere"])
def test_the_password_of_docker_login_is_used(
    locked: Running,
    artifact: Path,
    tmp_path: Path,
    sealed: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    log_in(sealed / where, locked.port, _PASSWORD)
    if where == "elsewhere":
        monkeypatch.setenv("DOCKER_CONFIG", str(sealed / where))
    digest = push(artifact, locked.reference("v1"))
    assert pull(locked.reference("v1"), tmp_path / "back") == digest
    assert content(tmp_path / "back") == content(artifact)
    assert tags(locked.reference()) == ("v1",)


@needs_registry
@pytest.mark.parametrize("wrong", ["none", "another", "broken"])
def test_without_the_password_it_says_how_to_log_in(
    locked: Running,
    artifact: Path,
    tmp_path: Path,
    sealed: Path,
    capfd: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    if wrong != "none":
        log_in(sealed / ".docker", locked.port, "wrong-password")
    if wrong == "broken":
        (sealed / ".docker" / "config.json").write_text("{")
    for call in (
        lambda: push(artifact, locked.reference("v1")),
        lambda: pull(locked.reference("v1"), tmp_path / "back"),
        lambda: tags(locked.reference()),
    ):
        with pytest.raises(SparkbuildError) as caught:
            call()
        assert isinstance(caught.value, StoreError if wrong == "another" else UsageError)
        assert f"docker login localhost:{locked.port}" in caught.value.remedy
        assert "wrong-password" not in str(caught.value.as_dict())
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Running]:
    """Run a registry that wants a token for each kind of access, and a service that gives them.

    Tokens are JSON Web Tokens as docker's token specification has them, signed with a key of the test.
    """
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=toys",
        "-days",
        "2",
    ]
    subprocess.run([*words, "-keyout", key, "-out", cert], check=True, capture_output=True)
    der = "".join(line for line in cert.read_text().splitlines() if not line.startswith("-"))

    def packed(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
            allowed = self.headers.get("Authorization") == f"Basic {_AUTH}"
            scopes = [s.split(":") for s in query.get("scope", [])]
            access = [{"type": t, "name": n, "actions": a.split(",")} for t, n, a in scopes if allowed]
            claims = {
                "iss": "toys",
                "sub": "",
                "aud": "toys",
                "nbf": 0,
                "iat": 0,
                "jti": "1",
                "access": access,
            }
            head = json.dumps({"typ": "JWT", "alg": "RS256", "x5c": [der]}).encode()
            body = json.dumps(claims | {"exp": int(time.time()) + 600}).encode()
            signed = packed(head) + b"." + packed(body)
            sign = ["openssl", "dgst", "-sha256", "-sign", str(key)]
            mark = subprocess.run(sign, check=True, input=signed, capture_output=True).stdout
            answer = json.dumps({"token": (signed + b"." + packed(mark)).decode()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        token = {
            "realm": f"http://127.0.0.1:{server.server_port}/token",
            "service": "toys",
            "issuer": "toys",
            "rootcertbundle": str(cert),
        }
        with served(tmp_path / "registry", {"auth": {"token": token}}) as running:
            yield running
        server.shutdown()
        thread.join()


@needs_registry
@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl, which signs the tokens here")
def test_tokens_are_asked_for_as_much_as_is_needed(
    guarded: Running, artifact: Path, tmp_path: Path, sealed: Path
) -> None:
    running = guarded
    for call in (lambda: push(artifact, running.reference("v1")), lambda: tags(running.reference())):
        with pytest.raises(StoreError) as caught:
            call()
        assert "docker login" in caught.value.remedy
    log_in(sealed / ".docker", running.port, _PASSWORD)
    digest = push(artifact, running.reference("v1"))
    assert pull(running.reference("v1"), tmp_path / "back") == digest
    assert content(tmp_path / "back") == content(artifact)
    assert tags(running.reference()) == ("v1",)


def test_the_client_is_loaded_only_when_it_is_needed() -> None:
    code = "import sys; from sparkbuild.evidence import signing\n"
    code += "from sparkbuild.transport import archive, registry\n"
    code += "print(sorted({'oras', 'requests', 'jsonschema', 'zstandard'} & sys.modules.keys()))"
    env = dict(os.environ, PYTHONPATH=str(Path(registry.__file__).parents[2]))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    assert done.stdout == "[]\n"
