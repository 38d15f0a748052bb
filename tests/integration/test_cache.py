"""The compile cache gives what a compile would give, or nothing: with real ccache, compilers and servers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.toolchain.place import SOURCE
from tests.integration.conftest import Built, with_cuda
from tests.integration.engine import Box, Toy, file_hashes, git

pytestmark = pytest.mark.skipif(not shutil.which("ccache"), reason="ccache is not installed")

_TOOL, _GGML = "tools/tool.cpp", "ggml/CMakeLists.txt"


def _build(box: Box, toy: Toy, *words: str) -> dict[str, Any]:
    manifest: dict[str, Any] = box.build(toy, "--rebuild", "--json", *words).artifact()["manifest"]
    return manifest


def _counts(manifest: dict[str, Any]) -> tuple[int, int]:
    return manifest["build"]["cache"]["hits"], manifest["build"]["cache"]["misses"]


def _same_as_compiled(box: Box, toy: Toy, *words: str) -> dict[str, Any]:
    """Build through the cache and without it, compare every byte; return the first manifest."""
    made = _build(box, toy, *words)
    assert file_hashes(made) == file_hashes(_build(box, toy, "--no-cache", *words))
    return made


def _other_after(box: Box, toy: Toy, file: Path, text: str) -> None:
    """Build a published toy, write one of its files and build that: it is compiled anew, to other bytes."""
    before = _build(box, toy)
    file.write_text(text)
    _commit(toy)
    after = _same_as_compiled(box, toy, "--ref", "HEAD")
    assert file_hashes(after) != file_hashes(before)


def test_what_was_compiled_once_is_not_again(box: Box, toy: Toy) -> None:
    toy.publish()
    cold = _same_as_compiled(box, toy)
    hits, misses = _counts(cold)
    assert misses >= cold["build"]["compile_commands"]["total"] - hits
    warm = _same_as_compiled(box, toy)
    assert _counts(warm) == (hits + misses, 0)
    assert file_hashes(warm) == file_hashes(cold)
    assert warm["build"]["cache"] == cold["build"]["cache"] | {"hits": hits + misses, "misses": 0}
    said = box.build(toy, "--rebuild").out
    assert f"{hits + misses} of {hits + misses} objects from ccache" in said


def test_without_it_nothing_is_taken_or_kept(box: Box, toy: Toy) -> None:
    toy.publish()
    assert _build(box, toy, "--no-cache")["build"]["cache"] is None
    assert not (box.home / "cache" / "ccache").exists()


def test_another_cpu_shares_what_does_not_depend_on_it(box: Box, toy: Toy) -> None:
    toy.publish()
    _build(box, toy)
    hits, misses = _counts(_same_as_compiled(box, toy, "--arch", "gb10-sve2"))
    assert hits > 0
    assert 0 < misses < hits + misses


@pytest.mark.threat(
    "environment",
    "a header, of any name, that is added before one of the same name (the system's, too), while objects of "
    "before are in the compile cache",
    "compiled anew: which header an include takes is part of what objects are known by",
)
@pytest.mark.parametrize("name", ["shadow.h", "words", "part.tcc", "sys/param.h"])
def test_a_header_that_comes_first_now(box: Box, toy: Toy, name: str) -> None:
    for folder in ("one", "two"):
        (toy.source / "tools" / folder / name).parent.mkdir(parents=True)
    if name != "sys/param.h":
        (toy.source / "tools" / "two" / name).write_text("#define SHADOW 2\n")
    use = f"#include <{name}>\n#ifndef SHADOW\n#define SHADOW 3\n#endif\nint shadow() {{ return SHADOW; }}\n"
    toy.replace(_TOOL, "int main(", f"{use}int main(")
    for folder in ("one", "two"):
        toy.append(
            "CMakeLists.txt",
            f"target_include_directories(llama-server PRIVATE tools/{folder})\n"
            f"target_include_directories(llama-bench PRIVATE tools/{folder})\n",
        )
    toy.publish()
    _other_after(box, toy, toy.source / "tools" / "one" / name, "#define SHADOW 1\n")


@pytest.mark.threat(
    "environment",
    "a file that assembly takes in (.incbin) changes, while objects of before are in the compile cache",
    "compiled anew: with such assembly the whole tree is part of what objects are known by",
)
def test_a_file_that_assembly_takes_in(box: Box, toy: Toy) -> None:
    data = toy.source / "tools" / "data.bin"
    data.write_text("first")
    taken = f'asm(".pushsection .rodata\\n.incbin \\"{SOURCE}/tools/data.bin\\"\\n.popsection");'
    toy.replace(_TOOL, "int main(", f"{taken}\nint main(").publish()
    _other_after(box, toy, data, "other")


@pytest.mark.threat(
    "environment",
    "a file that __has_include finds now, while objects of before are in the compile cache",
    "compiled anew",
)
def test_a_header_that_was_only_asked_for(box: Box, toy: Toy) -> None:
    ask = '#if __has_include("maybe.h")\nint maybe() { return 1; }\n#endif\nint main('
    toy.replace(_TOOL, "int main(", ask).publish()
    _other_after(box, toy, toy.source / "tools" / "maybe.h", "")


@pytest.mark.threat(
    "environment",
    "two prefix maps of a person's own, which the compile cache does not tell apart",
    "part of what objects are known by: compiled anew",
)
def test_another_prefix_map(box: Box, toy: Toy) -> None:
    toy.replace(_TOOL, "int main(", "const char *file() { return __FILE__; }\nint main(").publish()
    for name in ("one", "two"):
        _same_as_compiled(box, toy, "-D", f"CMAKE_CXX_FLAGS=-fmacro-prefix-map=./tools={name}")


@pytest.mark.threat(
    "faults", "eight bytes in the middle of every file of the compile cache overwritten", "compiled anew"
)
def test_a_damaged_cache(box: Box, toy: Toy) -> None:
    toy.publish()
    whole = file_hashes(_build(box, toy))
    files = [p for p in (box.home / "cache" / "ccache").rglob("*") if p.is_file() and p.stat().st_size > 100]
    for path in files:
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 8] = b"\xff" * 8
        path.write_bytes(data)
    again = _build(box, toy)
    assert file_hashes(again) == whole


@pytest.mark.threat(
    "sandbox", "a source whose code could leave objects for other engines", "no compile cache"
)
def test_a_sandbox_has_none(box: Box, toy: Toy) -> None:
    toy.publish()
    done = box.build(toy, "--sandbox", "--json")
    if done.code == 3:  # this machine gives no sandbox
        pytest.skip(done.error(3, "missing")["what"])
    assert done.artifact()["manifest"]["build"]["cache"] is None


def test_what_it_had_a_part_in_is_published_after_a_rebuild(box: Box, toy: Toy, tmp_path: Path) -> None:
    toy.publish()
    _build(box, toy)
    manifest = _build(box, toy)
    name = f"{toy.name}@{manifest['key'][:12]}"
    words = ("publish", tmp_path / "out", name, "--json")
    said = box.run(*words).error(1, "finding")
    assert "from the compile cache" in said["what"]
    assert f"sparkbuild reproduce {name}" in said["remedy"]
    box.run("reproduce", name, "--catalog", toy.catalog, "--json").document()
    box.run(*words).document()


def test_what_a_stopped_run_took_is_not_forgotten(box: Box, toy: Toy) -> None:
    """What a run finds made is not made again, so its own log would say nothing."""
    toy.publish()
    _build(box, toy)
    counts = _counts(_build(box, toy))
    shutil.rmtree(box.home / "store")
    again = box.build(toy, "--json").artifact()
    assert again["fresh"]
    assert _counts(again["manifest"]) == counts
    assert counts[0]


def test_host_code_of_cuda_is_never_stale(built: Built, toy: Toy, tmp_path: Path) -> None:
    """Only what the host's part of a CUDA source sees is changed."""
    box, arch = with_cuda(built, tmp_path / "home", "host", "gb10")
    words = ["--arch", arch, "--backend", "cuda", "--offline", "-D", "CMAKE_CUDA_ARCHITECTURES=90"]
    kernel = "ggml/src/ggml-cuda.cu"
    toy.append(kernel, "#ifndef __CUDA_ARCH__\nint only_host() { return 1; }\n#endif\n").publish()
    before = _same_as_compiled(box, toy, *words)
    assert _counts(_build(box, toy, *words))[1] == 0
    toy.replace(kernel, "return 1; }\n#endif", "return 2; }\n#endif")
    _commit(toy)
    after = _same_as_compiled(box, toy, *words, "--ref", "HEAD")
    assert file_hashes(after) != file_hashes(before)


def _commit(toy: Toy) -> None:
    git(toy.source, "add", "--all")
    git(toy.source, "commit", "--quiet", "-m", "a change")


_HTTP = """
import http.server, pathlib, sys

class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        path = pathlib.Path(self.translate_path(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(params=["redis", "http"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a storage server of the test's own; yield its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", _HTTP, str(port)]
    if request.param == "redis":
        if not shutil.which("redis-server"):
            pytest.skip("redis-server is not installed")
        words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    (tmp_path / "served").mkdir()
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, stdout=quiet, stderr=quiet, cwd=tmp_path / "served") as process:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield f"{request.param}://127.0.0.1:{port}", process
        finally:
            process.kill()


def test_two_machines_share_a_storage(
    built: Built, toy: Toy, tmp_path: Path, server: tuple[str, subprocess.Popen[bytes]]
) -> None:
    """The second home has another path and an empty cache of its own."""
    toy.publish()
    storage, process = server
    one, two, three = (_seeded(built, tmp_path / name) for name in ("one", "a second", "three"))
    first = _build(one, toy, "--cache-storage", storage)
    second = _same_as_compiled(two, toy, "--cache-storage", storage)
    assert file_hashes(second) == file_hashes(first)
    used = second["build"]["cache"]
    assert (used["storage"], used["misses"], used["faults"]) == (storage.partition(":")[0], 0, 0)
    assert used["shared"] > 0
    process.kill()
    process.wait()
    third = _build(three, toy, "--cache-storage", storage)
    assert file_hashes(third) == file_hashes(first)
    assert third["build"]["cache"]["shared"] == 0
    assert third["build"]["cache"]["faults"] > 0


def _seeded(built: Built, home: Path) -> Box:
    shutil.copytree(built.box.home / "cache" / "machine", home / "cache" / "machine")
    return Box(home)
