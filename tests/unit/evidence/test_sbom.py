from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from sparkbuild.artifact.manifest import Manifest
from sparkbuild.evidence.sbom import sbom
from sparkbuild.files import sha256_bytes
from tests import artifacts
from tests.conftest import FILE, digest, manifest_of


def told(manifest: Manifest) -> dict[str, Any]:
    """Return the bill of materials, valid under CycloneDX's own schema."""
    data = sbom(manifest, digest("manifest"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    found: dict[str, Any] = json.loads(data)
    return found


def components(whole: dict[str, Any]) -> dict[str, Any]:
    return {c["bom-ref"]: c for c in whole["components"]}


def source_of(**changes: Any) -> Manifest:  # noqa: ANN401 - any field
    return manifest_of(source=msgspec.structs.replace(manifest_of().source, **changes))


def test_the_engine_its_source_and_its_patches() -> None:
    whole = told(manifest_of())
    engine = whole["metadata"]["component"]
    assert (engine["name"], engine["version"], engine["type"]) == ("toy", "7", "application")
    assert engine["pedigree"] == {
        "commits": [{"uid": "a" * 40, "url": "https://example.invalid/toy.git"}],
        "patches": [{"type": "unofficial", "diff": {"url": "patches/0001-x.patch"}}],
        "notes": "a note",
    }
    assert {r["type"]: r["url"] for r in engine["externalReferences"]} == {
        "vcs": "https://example.invalid/toy.git",
        "website": "https://example.invalid/toy",
    }
    properties = {p["name"]: p["value"] for p in engine["properties"]}
    assert properties["sparkbuild:source:patched_tree"] == "c" * 40
    assert properties["sparkbuild:source:patch:0001-x.patch"] == f"sha256:{digest('patch')}"
    assert properties["sparkbuild:manifest"] == f"manifest.json sha256:{digest('manifest')}"


def test_every_file_has_its_hash() -> None:
    file = components(told(manifest_of()))["file:bin/toy-server"]
    assert file["type"] == "file"
    assert file["hashes"] == [{"alg": "SHA-256", "content": sha256_bytes(FILE)}]
    assert {"name": "sparkbuild:device_code", "value": "3 sm_121"} in file["properties"]


def test_what_it_was_made_with_is_not_in_it() -> None:
    found = components(told(manifest_of()))
    made_with = {n.partition(":")[2]: c for n, c in found.items() if n.startswith("made-with:")}
    assert {n: c["version"] for n, c in made_with.items()} == {
        "compilers": "gcc 13",
        "cmake": "4.2.0",
        "ninja": "1.13.0",
        "cuda-toolkit": "13.0.88",
    }
    assert {c["scope"] for c in made_with.values()} == {"excluded"}
    assert "made-with:cuda-toolkit" not in components(told(manifest_of(cuda=None)))


@pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("objcopy"), reason="gcc and binutils are not installed"
)
def test_files_depend_on_each_other_and_on_what_is_not_here(tmp_path: Path) -> None:
    whole = told(artifacts.make(tmp_path))
    assert components(whole)["needs:libc.so.6"]["scope"] == "required"
    needs = {d["ref"]: set(d.get("dependsOn", ())) for d in whole["dependencies"]}
    library = f"file:bin/{artifacts.LIBRARY}"
    assert needs[f"file:bin/{artifacts.SERVER}"] == {library, "needs:libc.so.6"}
    assert needs["engine"] == {library, f"file:bin/{artifacts.SERVER}", f"file:bin/{artifacts.BENCH}"}


@pytest.mark.parametrize(
    "manifest",
    [
        source_of(way="sdist", location="toy-1.0.tar.gz"),
        source_of(way="local", location="/a place/with ünicode", commit="", build_number=0, notes=()),
        manifest_of(cuda=None, definitions=()),
    ],
    ids=["sdist", "local", "no CUDA"],
)
def test_it_is_valid_whatever_the_source(manifest: Manifest) -> None:
    engine = told(manifest)["metadata"]["component"]
    kinds = {r["type"] for r in engine["externalReferences"]}
    assert ("source-distribution" in kinds) == (manifest.source.way == "sdist")
    assert ("version" in engine) == bool(manifest.source.build_number or manifest.source.commit)


def test_the_same_manifest_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    data = sbom(manifest_of(), digest("manifest"))
    assert data.isascii()
    assert data == json.dumps(json.loads(data), indent=2, sort_keys=True).encode() + b"\n"
    code = (
        "import sys; from sparkbuild.evidence.sbom import sbom; from tests.conftest import *;"
        "sys.stdout.buffer.write(sbom(manifest_of(), digest('manifest')))"
    )
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
        assert done.stdout == data
    assert sbom(manifest_of(), digest("another")) != data
