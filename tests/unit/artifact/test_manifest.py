from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from sparkbuild.artifact import manifest as manifests
from sparkbuild.errors import StoreError
from tests.conftest import manifest_of

_SCHEMA = Path(manifests.__file__).with_name("manifest-2.schema.json")


def validator() -> Any:  # noqa: ANN401 - jsonschema has no types
    return jsonschema.Draft202012Validator(json.loads(_SCHEMA.read_bytes()))


def as_json() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(manifests.encode(manifest_of()))
    return found


def write(folder: Path, data: object) -> Path:
    path = folder / "manifest.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.mark.parametrize("changes", [{}, {"cuda": None}, {"files": (), "definitions": ()}])
def test_what_is_written_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    manifest = manifest_of(**changes)
    data = manifests.encode(manifest)
    (tmp_path / "m.json").write_bytes(data)
    assert manifests.read(tmp_path / "m.json") == manifest
    assert manifests.encode(manifests.read(tmp_path / "m.json")) == data
    assert data.endswith(b"}\n")
    assert len(data.splitlines()) > 20


def test_the_shipped_schema_is_the_records_own() -> None:
    assert json.loads(_SCHEMA.read_bytes()) == json.loads(msgspec.json.encode(manifests.json_schema()))
    jsonschema.Draft202012Validator.check_schema(json.loads(_SCHEMA.read_bytes()))
    assert manifests.json_schema()["title"] == manifests.SCHEMA


@pytest.mark.parametrize("changes", [{}, {"cuda": None}])
def test_a_manifest_holds_against_the_shipped_schema(changes: dict[str, Any]) -> None:
    validator().validate(json.loads(manifests.encode(manifest_of(**changes))))


Change = Callable[[dict[str, Any]], object]

_BAD: dict[str, tuple[Change, str]] = {
    "an unknown version": (lambda m: m.update(schema="sparkbuild/manifest/3"), "schema"),
    "an extra key": (lambda m: m.update(surprise=1), "surprise"),
    "an extra key deep inside": (lambda m: m["source"].update(surprise=1), "source"),
    "a missing key": (lambda m: m.pop("files"), "files"),
    "a missing key deep inside": (lambda m: m["engine"].pop("name"), "engine"),
    "a wrong type": (lambda m: m["build"].update(jobs="4"), "build.jobs"),
    "a wrong digest": (lambda m: m.update(key="A" * 64), "key"),
    "a short digest": (lambda m: m["files"][0].update(sha256="ab"), "files[0].sha256"),
    "an unknown backend": (lambda m: m["target"].update(backend="vulkan"), "target.backend"),
    "no time": (lambda m: m["build"].update(started="yesterday"), "build.started"),
}


@pytest.mark.threat(
    "manifests",
    "an unknown version, keys that are missing or too many, wrong types, digests, times",
    "refused (8), with the place",
)
@pytest.mark.parametrize(("change", "place"), _BAD.values(), ids=_BAD.keys())
def test_a_manifest_that_does_not_hold_is_refused_with_the_key(
    tmp_path: Path, change: Change, place: str
) -> None:
    found = as_json()
    change(found)
    path = write(tmp_path, found)
    with pytest.raises(StoreError, match="not a valid manifest") as caught:
        manifests.read(path)
    assert caught.value.exit_code == 8
    assert caught.value.where == str(path)
    assert place in caught.value.what


@pytest.mark.parametrize("name", [n for n in _BAD if n not in ("an extra key deep inside", "no time")])
def test_the_shipped_schema_refuses_the_same(name: str) -> None:
    found = as_json()
    _BAD[name][0](found)
    assert not validator().is_valid(found)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", "\udcff"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError):
        manifests.read(path)


@pytest.mark.threat("manifests", "a key that is there twice", "refused (8)")
def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = manifests.encode(manifest_of()).replace(b'"key":', b'"key": "%b", "key":' % (b"0" * 64), 1)
    (tmp_path / "m.json").write_bytes(text)
    with pytest.raises(StoreError, match="'key' is there twice"):
        manifests.read(tmp_path / "m.json")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StoreError, match="more than 65536 KiB"):
        manifests.read(tmp_path / "m.json")


def test_an_absent_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        manifests.read(tmp_path / "absent")
