from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.evidence.statements import (
    BUILD_TYPE,
    BUILDER,
    PROBE_TYPE,
    canonical,
    fields,
    probe_statement,
    provenance,
)
from sparkbuild.files import sha256_bytes
from tests.conftest import FILE, digest, manifest_of

_DOCS = Path(__file__).parents[3] / "docs/provenance.md"
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def told(manifest: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(provenance(manifest, digest("manifest")))
    return found


def dependencies(manifest: Manifest) -> dict[str, Any]:
    listed = told(manifest)["predicate"]["buildDefinition"]["resolvedDependencies"]
    return {d["name"]: d for d in listed}


def test_both_are_statements_about_the_manifest_and_every_file() -> None:
    for made, kind in (
        (provenance, "https://slsa.dev/provenance/v1"),
        (probe_statement, PROBE_TYPE),
    ):
        data = made(manifest_of(), digest("manifest"))
        whole = json.loads(data)
        assert (whole["_type"], whole["predicateType"]) == ("https://in-toto.io/Statement/v1", kind)
        first, second = whole["subject"]
        assert (first["name"], first["digest"]) == ("manifest.json", {"sha256": digest("manifest")})
        assert second == {"name": "bin/toy-server", "digest": {"sha256": sha256_bytes(FILE)}}
        assert data == json.dumps(whole, indent=2, sort_keys=True).encode() + b"\n"
        assert data == made(manifest_of(), digest("manifest"))
        assert data.isascii()


def test_what_was_asked_is_apart_from_what_recipes_decide() -> None:
    plain = manifest_of()
    theirs = msgspec.structs.replace(plain.definitions[0], name="MINE", asked="7", origin="user")
    definition = told(manifest_of(definitions=(*plain.definitions, theirs)))["predicate"]["buildDefinition"]
    assert definition["buildType"] == BUILD_TYPE
    assert definition["externalParameters"] == {
        "engine": "toy",
        "arch": "board",
        "backend": "cuda",
        "source": "https://example.invalid/toy.git",
        "way": "git",
        "ref": "main",
        "definitions": {"MINE": "7"},
    }
    assert definition["internalParameters"]["definitions"] == {"TOY_FAST": "ON"}
    assert definition["internalParameters"]["environment"] == {"TZ": "UTC"}


def test_every_input_that_is_known_is_a_dependency() -> None:
    found = dependencies(manifest_of())
    assert {name: d["digest"] for name, d in found.items()} == {
        "source": {"gitTree": "b" * 40, "gitCommit": "a" * 40},
        "patches/0001-x.patch": {"sha256": digest("patch")},
        "recipe": {"sha256": digest("recipe")},
        "toolchain": {"sha256": digest("toolchain")},
        "compilers": {"sparkbuildCompilers": digest("compilers")},
        "cuda": {"sparkbuildCuda": digest("cuda")},
    }
    assert found["source"]["uri"] == f"git+https://example.invalid/toy.git@{'a' * 40}"
    assert found["cuda"]["annotations"] == {"version": "13.0.88", "origin": "wheels"}
    assert "cuda" not in dependencies(manifest_of(cuda=None))


@pytest.mark.parametrize("way", ["sdist", "local"])
def test_a_commit_that_git_did_not_give_is_no_digest(way: str) -> None:
    source = msgspec.structs.replace(manifest_of().source, way=way)
    found = dependencies(manifest_of(source=source))["source"]
    assert found["digest"] == {"gitTree": "b" * 40}
    assert "uri" not in found
    assert found["annotations"]["said_to_be_commit"] == "a" * 40
    bare = dependencies(manifest_of(source=msgspec.structs.replace(source, commit="", notes=())))["source"]
    assert bare["annotations"] == {"patched_tree": "c" * 40}


def test_the_builder_says_whose_machine_it_is_and_when() -> None:
    details = told(manifest_of())["predicate"]["runDetails"]
    assert details["builder"] == {
        "id": BUILDER,
        "version": {"sparkbuild": "0.1.0", "cmake": "4.2.0", "ninja": "1.13.0"},
    }
    assert details["metadata"] == {
        "startedOn": "2026-01-02T03:04:05Z",
        "finishedOn": "2026-01-02T03:04:17Z",
    }


@pytest.mark.parametrize(
    ("started", "seconds", "expected"),
    [
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=2))), 1.0, "2026-01-02T01:00:00Z"),
        (dt.datetime(2026, 1, 2, 3), 1.0, "2026-01-02T03:00:00Z"),  # noqa: DTZ001 - a manifest may hold it
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), 1e300, None),
        (dt.datetime(9999, 12, 31, 23, tzinfo=dt.UTC), 1e5, None),
        (dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), 1.0, None),
    ],
)
def test_odd_times_are_told_in_utc_or_not_at_all(
    started: dt.datetime, seconds: float, expected: str | None
) -> None:
    build = msgspec.structs.replace(manifest_of().build, started=started, wall_seconds=seconds)
    metadata = told(manifest_of(build=build))["predicate"]["runDetails"]["metadata"]
    assert metadata.get("startedOn") == expected
    assert len(metadata) == (2 if expected else 0)


def test_the_probe_is_told_as_it_is_in_the_manifest() -> None:
    manifest = manifest_of()
    raw = json.loads(manifests.encode(manifest))
    predicate = json.loads(probe_statement(manifest, digest("manifest")))["predicate"]
    assert predicate == {name: raw[name] for name in ("sparkbuild", "verdicts", "flags", "version", "system")}


def test_every_part_of_the_manifest_has_a_digest_to_depth_two() -> None:
    raw = json.loads(manifests.encode(manifest_of()))
    found = told(manifest_of())["subject"][0]["annotations"]["fields"]
    assert found == fields(raw)
    assert found["/engine/title"] == sha256_bytes(b'"Toy"\n')
    assert found["/files/0"] == sha256_bytes(canonical(raw["files"][0]))
    assert found["/flags"] == sha256_bytes(b"[]\n")
    assert {p.split("/")[1] for p in found} == set(raw)
    assert max(p.count("/") for p in found) == 2


def test_keys_are_escaped_as_json_pointers_are() -> None:
    assert set(fields({"a/b": {"c~d": 1}})) == {"/a~1b/c~0d"}


@given(_JSON, _JSON)
def test_documents_differ_exactly_when_their_digests_do(one: object, other: object) -> None:
    assert (fields(one) == fields(other)) == (canonical(one) == canonical(other))


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_jq_gives_the_same_digests(tmp_path: Path) -> None:
    engine = msgspec.structs.replace(manifest_of().engine, title='Tö"y\n')
    path = tmp_path / "manifest.json"
    path.write_bytes(manifests.encode(manifest_of(engine=engine)))
    expected = fields(json.loads(path.read_bytes()))
    for pointer in (
        "/engine/title",
        "/files/0",
        "/flags",
        "/build/environment",
        "/run/tools",
        "/cuda/digest",
    ):
        words = [f"[{n}]" if n.isdigit() else f".{n}" for n in pointer.split("/")[1:]]
        jq = subprocess.run(["jq", "-cSa", "".join(words), path], capture_output=True, check=True)
        assert sha256_bytes(jq.stdout) == expected[pointer], pointer


def test_the_page_explains_every_name_of_ours() -> None:
    page = _DOCS.read_text()
    for name in (BUILD_TYPE, BUILDER, PROBE_TYPE, "sparkbuildCompilers", "sparkbuildCuda"):
        assert f"`{name}`" in page
