"""Artifacts whose tools are small programs that behave, or do not."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import structs

from sparkbuild import handover
from sparkbuild.artifact import manifest as manifests
from sparkbuild.files import sha256_file
from tests import toys
from tests.conftest import manifest_of, run_of

COMMIT, NUMBER = "0c1e57098" + "b" * 31, 11312
_RECORD = {
    "build_commit": COMMIT[:9],
    "build_number": NUMBER,
    "gpu_info": "",
    "backends": "CPU",
    "n_gpu_layers": 0,
    "type_k": "f16",
    "type_v": "f16",
    "n_prompt": 16,
    "n_gen": 0,
    "samples_ns": [626580565],
    "samples_ts": [25.5354],
}


def results(**changes: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any field
    """Return what llama-bench prints for a test of a prompt and one of generating."""
    return [_RECORD | changes, _RECORD | {"n_prompt": 0, "n_gen": 4} | changes]


def bench(folder: Path, printed: object = None, before: str = "", after: str = "") -> Path:
    """Compile a benchmark that runs ``before``, prints JSON (or a text), and runs ``after``."""
    text = printed if isinstance(printed, str) else json.dumps(printed or results(), indent=2)
    code = f"""
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <unistd.h>
        int main(int argc, char **argv) {{
            int i;
            for (i = 1; i < argc; i++) fprintf(stderr, "<%s>", argv[i]);
            {before}
            fputs({json.dumps(text)}, stdout);
            fflush(stdout);
            {after}
            return 0;
        }}"""
    return toys.tool(folder, code, name="toy-bench")


SWEEP = """
main: n_kv_max = 256
|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |
|-------|--------|--------|----------|----------|----------|----------|
|    64 |     16 |      0 |    2.179 |    29.38 |    0.773 |    20.70 |
|    64 |     16 |     64 |    2.360 |    27.11 |    0.862 |    18.57 |
"""

_SERVER = """#!{python}
import http.server, json, os, signal, sys, time
answer = {{"content": "abc", "tokens_predicted": 4}}
port = int(sys.argv[sys.argv.index("--port") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    def say(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())
    def do_GET(self):
        {health}
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        {complete}
{before}
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def server(
    folder: Path,
    *,
    before: str = "",
    health: str = 'self.say(200, {"status": "ok"})',
    complete: str = "self.say(200, answer)",
) -> Path:
    """Write a server that completes texts."""
    folder.mkdir(exist_ok=True)
    path = folder / "toy-server"
    text = _SERVER.format(python=sys.executable, before=before, health=health, complete=complete)
    path.write_text(text)
    path.chmod(0o755)
    return path


def script(folder: Path, name: str, body: str) -> Path:
    """Write a tool in shell."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)
    return folder / name


def artifact(folder: Path, *, backend: str = "cpu", **changes: Any) -> Path:  # noqa: ANN401 - any field
    """Write the manifest of the toys in ``folder``/bin, whose names are toy-ROLE; return the folder.

    ``changes`` are of its run part.
    """
    made = manifest_of()
    here = platform.machine()
    paths = sorted((folder / "bin").iterdir())
    tools = [handover.Tool(p.name.removeprefix("toy-"), f"bin/{p.name}", (), "none") for p in paths]
    run = structs.replace(
        run_of(),
        **{
            "tools": tuple(t for t in tools if ".so" not in t.path),
            "needs": handover.Needs(here, (), "2.34", None, "", ()),
            "commands": (),
            "profiles": (),
        }
        | changes,
    )
    files = tuple(manifests.File(f"bin/{p.name}", sha256_file(p), p.stat().st_size, here) for p in paths)
    made = structs.replace(
        made,
        run=run,
        files=files,
        target=structs.replace(made.target, backend=backend, processor=here),
        source=structs.replace(made.source, commit=COMMIT, build_number=NUMBER),
    )
    (folder / "manifest.json").write_bytes(manifests.encode(made))
    return folder


def on_path(folder: Path, name: str, body: str, env: Mapping[str, str] = os.environ) -> str:
    """Write a program and return a PATH that begins with its folder."""
    script(folder, name, body)
    return f"{folder}:{env['PATH']}"
