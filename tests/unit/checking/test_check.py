from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.index import entry_of
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.checking.check import Asked, check, signed
from sparkbuild.checking.checked import Check, differences, json_of
from sparkbuild.checking.documents import read, statements
from sparkbuild.errors import StoreError, UsageError
from sparkbuild.evidence import signing
from sparkbuild.evidence.sbom import SBOM, sbom
from sparkbuild.evidence.statements import PROBE, PROVENANCE, provenance
from sparkbuild.files import sha256_bytes, sha256_file
from sparkbuild.handover import INDEX, Entry, Index
from sparkbuild.transport import archive
from tests import artifacts
from tests.conftest import digest, manifest_of

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("objcopy"), reason="gcc and binutils are not installed"
)
SERVER, LIBRARY = f"bin/{artifacts.SERVER}", f"bin/{artifacts.LIBRARY}"


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    artifacts.make(folder)
    return folder


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Path:
    """Return an artifact of one's own to spoil."""
    return Path(shutil.copytree(original, tmp_path / "artifact"))


def verify(place: Path, asked: Asked | None = None) -> tuple[Check, ...]:
    return check(place, asked or Asked())


def failures(place: Path, asked: Asked | None = None) -> list[tuple[str, str]]:
    return [(c.file, c.field) for c in verify(place, asked) if c.verdict == "failed"]


def rewrite(place: Path, **changes: Any) -> Manifest:  # noqa: ANN401 - any field
    """Change a manifest and make all that is said of it anew, as one would who wants to deceive."""
    manifest = msgspec.structs.replace(manifests.read(place / "manifest.json"), **changes)
    artifacts.write(place, manifest)
    return manifest


def test_an_artifact_as_it_was_built_holds(place: Path) -> None:
    checks = verify(place)
    assert {c.verdict for c in checks} == {"held", "not run"}
    held = {(c.file, c.field) for c in checks if c.verdict == "held"}
    for name in (SERVER, LIBRARY):
        assert {(name, f) for f in ("size", "sha256", "mode", "build_id", "device_code", "glibc")} <= held
    assert {("provenance.json", "content"), ("probe.json", "content"), ("manifest.json", "/run")} <= held
    assert not signed(checks)
    assert verify(place / "manifest.json") == checks


def test_an_archive_is_checked_as_its_folder_is(place: Path, tmp_path: Path) -> None:
    archive.pack(place, tmp_path / "toy.tar.zst", top="toy")
    assert verify(tmp_path / "toy.tar.zst") == verify(place)
    os.truncate(place / SERVER, 100)
    archive.pack(place, tmp_path / "cut.tar.zst", top="toy")
    assert (SERVER, "size") in failures(tmp_path / "cut.tar.zst")


# Every field of a manifest, one after another.

Keys = tuple[str | int, ...]


def nodes(part: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:  # noqa: ANN401 - any JSON
    """Yield every part of a document and the keys that lead to it."""
    yield keys, part
    for key in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
        yield from nodes(part[key], (*keys, key))


def changed(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value[:-1] + ("0" if value[-1:] != "0" else "1")
        case None:
            return "x"
    return [*value, "x"] if isinstance(value, list) else {"x": "x"}


def put(document: Any, keys: Keys, change: Callable[[Any, Any], None]) -> bytes:  # noqa: ANN401 - any JSON
    """Return a document as JSON in which something was done to the part that the keys lead to."""
    spoiled = copy.deepcopy(document)
    inner = spoiled
    for key in keys[:-1]:
        inner = inner[key]
    change(inner, keys[-1])
    return json.dumps(spoiled).encode()


def change_it(inner: Any, key: Any) -> None:  # noqa: ANN401 - any JSON
    inner[key] = changed(inner[key])


def delete_it(inner: Any, key: Any) -> None:  # noqa: ANN401 - any JSON
    del inner[key]


def add_to_it(inner: Any, key: Any) -> None:  # noqa: ANN401 - any JSON
    if isinstance(inner[key], dict):
        inner[key]["surprise"] = 1
    else:
        inner[key].append(copy.deepcopy(inner[key][-1]))


def named(folder: Path, keys: Keys, data: bytes) -> bool:
    """Return whether the field that was tampered with is named, in full or by two levels of it."""
    (folder / "manifest.json").write_bytes(data)
    document, schema = read(folder)
    checks = [schema, *(statements(folder, document) if document else ())]
    pointers = [c.field for c in checks if c.file == "manifest.json" and c.verdict == "failed"]
    wanted = "".join(f"/{k}" for k in keys)
    short = "".join(f"/{k}" for k in keys[:2])
    return any(p == short or (p.startswith("/") and f"{wanted}/".startswith(f"{p}/")) for p in pointers)


@pytest.mark.threat(
    "manifests", "each field of a manifest changed, deleted, added to", "each is named by `verify`"
)
def test_every_field_that_is_changed_deleted_or_added_to_is_named(place: Path) -> None:
    verdicts = manifests.read(place / "manifest.json").verdicts
    few = msgspec.structs.replace(verdicts, models=verdicts.models[:3], findings=verdicts.findings[:5])
    rewrite(place, verdicts=few)  # hundreds more of the same kind would only take time
    whole = json.loads((place / "manifest.json").read_bytes())
    trials: list[tuple[Keys, Keys, Callable[[Any, Any], None]]] = []
    for keys, part in nodes({"": whole}):
        if len(keys) < 2:
            continue
        trials.append((keys, keys, delete_it))
        if isinstance(part, dict | list) and part:
            new = "surprise" if isinstance(part, dict) else len(part)
            trials.append((keys, (*keys, new), add_to_it))
        else:
            trials.append((keys, keys, change_it))
    trials.append((("",), ("", "surprise"), add_to_it))
    spoiled = [(to, kind, put({"": whole}, keys, kind)) for keys, to, kind in trials]
    missed = [(to[1:], kind.__name__) for to, kind, data in spoiled if not named(place, to[1:], inner(data))]
    assert missed == []
    assert len(trials) > 700


def inner(data: bytes) -> bytes:
    return json.dumps(json.loads(data)[""]).encode()


def test_each_part_that_is_changed_fails_the_whole_check_too(place: Path) -> None:
    whole = json.loads((place / "manifest.json").read_bytes())
    for keys in [k for k, v in nodes(whole) if len(k) == 2 and not isinstance(v, dict | list)]:
        (place / "manifest.json").write_bytes(put(whole, keys, change_it))
        bad = [field for file, field in failures(place) if file == "manifest.json"]
        assert f"/{keys[0]}/{keys[1]}" in bad, keys


@pytest.mark.threat("manifests", "any two fields swapped", "both are named")
@settings(max_examples=30)
@given(data=st.data())
def test_any_two_fields_that_are_swapped_are_named(
    original: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = json.loads((original / "manifest.json").read_bytes())
    leaves = [k for k, v in nodes(whole) if isinstance(v, str)]
    one, two = data.draw(st.sampled_from(leaves)), data.draw(st.sampled_from(leaves))

    def value(keys: Keys) -> object:
        return dict(nodes(whole))[keys]

    folder = tmp_path_factory.mktemp("swapped")
    shutil.copy(original / PROVENANCE, folder)
    swapped = put(whole, one, lambda inner, key: inner.__setitem__(key, value(two)))
    swapped = put(json.loads(swapped), two, lambda inner, key: inner.__setitem__(key, value(one)))
    if value(one) != value(two):
        assert named(folder, one, swapped)
        assert named(folder, two, swapped)


# What is not a change of a field.


@pytest.mark.threat("manifests", "JSON that is re-ordered or re-serialised", "told as another form")
@pytest.mark.parametrize(
    "again",
    [
        lambda found: json.dumps(found).encode(),
        lambda found: json.dumps(found, indent=2).encode() + b"\n",
        lambda found: json.dumps(dict(reversed(found.items())), indent=2).encode() + b"\n",
    ],
    ids=["compact", "ASCII", "another order"],
)
def test_the_same_in_other_bytes_is_told(place: Path, again: Callable[[dict[str, Any]], bytes]) -> None:
    title = msgspec.structs.replace(manifest_of().engine, title="Töy")
    rewrite(place, engine=title)
    found = json.loads((place / "manifest.json").read_bytes())
    (place / "manifest.json").write_bytes(again(found))
    bad = failures(place)
    assert ("manifest.json", "form") in bad
    assert ("manifest.json", "digest in provenance.json") in bad
    assert [field for _, field in bad if field.startswith("/")] == []


@pytest.mark.threat("manifests", "manifests that are no valid JSON or schema", "told where")
@pytest.mark.parametrize(
    ("old", "new", "field", "said"),
    [
        (b'"sparkbuild/manifest/2"', b'"sparkbuild/manifest/9"', "/schema", "this sparkbuild reads"),
        (b'"key":', b'"key": "x", "key":', "", "'key' is there twice"),
        (b'"title":', b'"title": "x", "title":', "", "'title' is there twice"),
        (b"bin/toy-bench", b"bin/../../x", "/files/1/path", "matching regex"),
        (b"bin/toy-bench", b"/etc/passwd", "/files/1/path", "matching regex"),
        (b"bin/toy-bench", b"bin/sub/bench", "/files/1/path", "matching regex"),
        (b'"homepage"', b'"homepages"', "/engine/homepages", "unknown field"),
        (b"{", b'{"a":' + b"[" * 90 + b"]" * 90 + b",", "", "nested too deep"),
        (b"{", b"[" * 99999, "", "nested too deep"),
        (b"{", b"", "", "Extra data"),
        (b"Toy", b"\xff", "", "can't decode"),
    ],
)
def test_a_manifest_that_is_none_is_told_where(
    place: Path, old: bytes, new: bytes, field: str, said: str
) -> None:
    text = (place / "manifest.json").read_bytes()
    if field.startswith("/files"):
        head, files = text.split(b'"files": [')
        text = head + b'"files": [' + files.replace(old, new, 1)
    else:
        text = text.replace(old, new, 1)
    (place / "manifest.json").write_bytes(text)
    bad = [c for c in verify(place) if c.verdict == "failed" and c.file == "manifest.json"]
    assert any(c.field == field and said in c.said for c in bad)


def test_a_tool_outside_of_the_artifact_is_no_path(place: Path) -> None:
    whole = json.loads((place / "manifest.json").read_bytes())
    whole["run"]["tools"][0]["path"] = "bin/../../../bin/sh"
    (place / "manifest.json").write_text(json.dumps(whole))
    bad = failures(place)
    assert ("manifest.json", "/run/tools/0/path") in bad
    assert ("manifest.json", "/run/tools") in bad


@pytest.mark.parametrize("what", ["gone", "link", "folder", "pipe", "large"])
def test_what_is_no_manifest_file_is_not_read(place: Path, what: str) -> None:
    path = place / "manifest.json"
    shutil.move(path, place.parent / "moved.json")
    match what:
        case "gone":
            path.symlink_to("absent")
        case "link":
            path.symlink_to("../moved.json")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "large":
            path.touch()
            os.truncate(path, 1 << 40)
    assert ("manifest.json", "") in failures(place)


# Statements.


_SAID: dict[str, Keys] = {
    PROVENANCE: ("predicate", "runDetails", "builder", "id"),
    PROBE: ("predicate", "verdicts", "title"),
    SBOM: ("metadata", "component", "name"),
}


@pytest.mark.parametrize(("name", "keys"), _SAID.items())
def test_a_statement_that_says_something_else_is_named(place: Path, name: str, keys: Keys) -> None:
    made = manifests.read(place / "manifest.json")
    (place / SBOM).write_bytes(sbom(made, sha256_file(place / "manifest.json")))
    assert failures(place) == []
    found = json.loads((place / name).read_bytes())
    spoiled = put(found, keys, change_it)
    (place / name).write_bytes(json.dumps(json.loads(spoiled), indent=2, sort_keys=True).encode() + b"\n")
    assert failures(place) == [(name, "".join(f"/{k}" for k in keys))]
    (place / name).write_bytes(json.dumps(found).encode())
    assert failures(place) == [(name, "form")]
    (place / name).write_bytes(b"{")
    assert failures(place) == [(name, "")]


@pytest.mark.parametrize("name", [PROVENANCE, PROBE])
@pytest.mark.parametrize(
    "text", [b"[]", b"{}", b'{"subject": [1]}', b'{"subject": [{"digest": {"sha256": 1}}]}']
)
def test_a_statement_about_nothing_is_told(place: Path, name: str, text: bytes) -> None:
    (place / name).write_bytes(text)
    assert ("manifest.json", f"digest in {name}") in failures(place)


def test_a_statement_about_a_manifest_that_does_not_hold_is_not_made_again(place: Path) -> None:
    data = put(json.loads((place / "manifest.json").read_bytes()), ("engine",), add_to_it)
    (place / "manifest.json").write_bytes(data)
    found = json.loads((place / PROVENANCE).read_bytes())
    found["subject"][0]["digest"]["sha256"] = sha256_bytes(data)
    (place / PROVENANCE).write_text(json.dumps(found))
    assert ("manifest.json", "/engine/surprise") in failures(place)
    assert Check(PROVENANCE, "content", "not run", "its manifest does not hold") in verify(place)


@pytest.mark.threat("manifests", "provenance, probe or SBOM of another artifact", "told")
@pytest.mark.parametrize("name", [PROVENANCE, PROBE, SBOM])
def test_anothers_statement_is_told(place: Path, name: str, tmp_path: Path) -> None:
    other = msgspec.structs.replace(manifests.read(place / "manifest.json"), key=digest("another"))
    (tmp_path / "other").mkdir()
    sum_ = artifacts.write(tmp_path / "other", other)
    (tmp_path / "other" / SBOM).write_bytes(sbom(other, sum_))
    shutil.copy(tmp_path / "other" / name, place)
    bad = failures(place)
    if name == SBOM:
        assert (SBOM, "/serialNumber") in bad
    else:
        assert ("manifest.json", f"digest in {name}") in bad
    assert (("manifest.json", "/key") in bad) == (name == PROVENANCE)


def test_without_provenance_the_rest_is_checked(place: Path) -> None:
    (place / PROVENANCE).unlink()
    (place / PROBE).unlink()
    assert failures(place) == []
    assert Check(PROVENANCE, "", "not run", "there is none, so no changed field could be named") in verify(
        place
    )


def test_another_version_of_sparkbuild_may_write_another_form(place: Path) -> None:
    rewrite(place, sparkbuild="0.0.1")
    assert failures(place) == []
    found = json.loads((place / PROVENANCE).read_bytes())
    (place / PROVENANCE).write_text(json.dumps(found | {"more": 1}))
    told = next(c for c in verify(place) if (c.file, c.field) == (PROVENANCE, "content"))
    assert (told.verdict, told.said[:24]) == ("not run", "sparkbuild 0.0.1 wrote i")


def test_what_was_found_later_is_about_this_manifest(place: Path) -> None:
    sum_ = sha256_file(place / "manifest.json")
    for name in ("reproduction.json", "smoke.json"):
        (place / name).write_text(json.dumps({"manifest": sum_, "verdict": "identical"}))
    assert failures(place) == []
    (place / "smoke.json").write_text(json.dumps({"manifest": digest("another")}))
    (place / "reproduction.json").write_text('{"manifest": 1}')
    assert failures(place) == [("reproduction.json", ""), ("smoke.json", "/manifest")]
    (place / "smoke.json").unlink()
    (place / "smoke.json").symlink_to("reproduction.json")
    assert ("smoke.json", "") in failures(place)


# A manifest at odds with itself although all that is said of it was made anew.


def with_run(place: Path, **changes: Any) -> None:  # noqa: ANN401 - any field
    rewrite(place, run=msgspec.structs.replace(manifests.read(place / "manifest.json").run, **changes))


def test_the_run_part_says_what_the_rest_says(place: Path) -> None:
    run = manifests.read(place / "manifest.json").run
    replace = msgspec.structs.replace
    tool, command = run.tools[0], run.commands[0]
    trials: list[tuple[dict[str, Any], str]] = [
        ({"tools": (replace(tool, path="bin/sh"), run.tools[1])}, "/run/tools/0/path"),
        ({"tools": (replace(tool, path=run.tools[1].path), run.tools[1])}, "/run/tools/0/role"),
        ({"tools": (replace(tool, path=LIBRARY), run.tools[1])}, "/run/tools/0/role"),
        ({"libraries": ()}, "/run/libraries"),
        ({"needs": replace(run.needs, processor="riscv64")}, "/run/needs/processor"),
        ({"needs": replace(run.needs, glibc="2.1")}, "/run/needs/glibc"),
        ({"needs": replace(run.needs, cuda_major=99)}, "/run/needs/cuda_major"),
        ({"needs": replace(run.needs, libraries=())}, "/run/needs/libraries"),
        ({"pairs": ()}, "/run/pairs"),
        ({"needs": replace(run.needs, cpu_features=())}, "/run/needs/cpu_features"),
        ({"commands": (replace(command, words=("--evil",)),)}, "/run/commands/0/words"),
        ({"commands": (replace(command, words=(*command.words, "--evil")),)}, "/run/commands/0/words"),
        ({"commands": (replace(command, left_out=("threads",)),)}, "/run/commands/0/left_out"),
        ({"commands": (replace(command, role="cli"),)}, "/run/commands/0/role"),
        ({"commands": (replace(command, profile="other"),)}, "/run/commands/0/profile"),
    ]
    for changes, pointer in trials:
        with_run(place, **changes)
        assert ("manifest.json", pointer) in failures(place), pointer
        with_run(place, **msgspec.structs.asdict(run))
    assert failures(place) == []


def test_a_setting_that_does_not_concern_a_tool_may_be_missing(place: Path) -> None:
    command = manifests.read(place / "manifest.json").run.commands[0]
    assert command.words == ("--model", "{model}", "--threads", "16", "--no-mmap")
    with_run(place, commands=(msgspec.structs.replace(command, words=command.words[:-1]),))
    assert failures(place) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("machine", "riscv64"),
        ("role", "library"),
        ("build_id", "00"),
        ("runpath", "/opt"),
        ("glibc", "2.1"),
        ("needed", ("libevil.so",)),
        ("external", ()),
        ("device_code", ()),
    ],
)
def test_what_is_said_of_a_file_is_read_from_it_again(place: Path, field: str, value: object) -> None:
    name = LIBRARY if field == "device_code" else SERVER
    made = manifests.read(place / "manifest.json")
    changes = {field: value}
    listed = tuple(msgspec.structs.replace(f, **changes) if f.path == name else f for f in made.files)
    rewrite(place, files=listed)
    assert (name, field) in failures(place)


def test_a_file_that_nobody_can_run_is_named_although_its_hash_holds(place: Path) -> None:
    (place / SERVER).write_bytes(b"\x7fELF, but no more")
    made = manifests.read(place / "manifest.json")
    told = {"sha256": sha256_file(place / SERVER), "size": (place / SERVER).stat().st_size}
    rewrite(
        place, files=tuple(msgspec.structs.replace(f, **told) if f.path == SERVER else f for f in made.files)
    )
    assert failures(place) == [(SERVER, "facts")]


def test_a_file_that_is_there_twice(place: Path) -> None:
    made = manifests.read(place / "manifest.json")
    rewrite(place, files=(*made.files, made.files[0]))
    assert ("manifest.json", "/files/3/path") in failures(place)


# Files.


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(place: Path) -> None:
    (place / SERVER).rename(place / "bin/x")
    (place / LIBRARY).rename(place / SERVER)
    (place / "bin/x").rename(place / LIBRARY)


def link(path: Path) -> None:
    shutil.move(path, path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


def another(path: Path) -> Path:
    path.unlink()
    return path


_SPOILED: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "cut": (lambda p: os.truncate(p, 1000), {"size", "sha256"}),
    "empty": (lambda p: os.truncate(p, 0), {"size", "sha256"}),
    "grown": (lambda p: os.truncate(p, p.stat().st_size + 1), {"size", "sha256"}),
    "a bit": (flip, {"sha256"}),
    "missing": (lambda p: p.unlink(), {""}),
    "a link": (link, {""}),
    "a folder": (lambda p: another(p).mkdir(), {""}),
    "a pipe": (lambda p: os.mkfifo(another(p)), {""}),
    "setuid": (lambda p: p.chmod(0o4755), {"mode"}),
    "writable": (lambda p: p.chmod(0o777), {"mode"}),
    "can not run": (lambda p: p.chmod(0o644), {"mode"}),
}


@pytest.mark.parametrize("name", [SERVER, LIBRARY])
@pytest.mark.parametrize("what", _SPOILED)
def test_a_file_that_is_not_the_one_is_named(place: Path, name: str, what: str) -> None:
    spoil, fields = _SPOILED[what]
    spoil(place / name)
    assert set(failures(place)) == {(name, f) for f in fields}


@pytest.mark.threat("manifests", "two files of an artifact swapped", "both are named")
def test_files_that_were_swapped_are_both_named(place: Path) -> None:
    swap(place)
    assert {(SERVER, "sha256"), (LIBRARY, "sha256")} <= set(failures(place))


@pytest.mark.threat("manifests", "a bin folder that is a link", "not followed, told")
def test_a_bin_folder_elsewhere_is_not_followed(place: Path) -> None:
    shutil.move(place / "bin", place.parent / "bin")
    (place / "bin").symlink_to("../bin")
    assert failures(place) == [("bin", "")]


@pytest.mark.threat("manifests", "files that no manifest speaks of", "named")
@pytest.mark.parametrize(
    "name",
    [
        "x",
        ".hidden",
        "bin/libevil.so",
        "bin/sub/x",
        "sub/x",
        "timeline.json.sig",
        "provenance.json.bak",
        "smoke.json.sig",
    ],
)
def test_what_no_manifest_speaks_of_is_named(place: Path, name: str) -> None:
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).touch()
    expected = name.removesuffix("/x") if name.count("/") else name
    assert failures(place) == [(expected, "")]


def test_what_no_claim_depends_on_may_be_there(place: Path) -> None:
    for name in ("timeline.json", "published.json"):
        (place / name).write_text("{}")
    assert failures(place) == []
    (place / "timeline.json").unlink()
    (place / "timeline.json").symlink_to("published.json")
    assert failures(place) == [("timeline.json", "")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_can_not_be_read(place: Path) -> None:
    (place / SERVER).chmod(0o311)
    assert failures(place) == [(SERVER, "")]


@pytest.mark.threat("manifests", "any bit of any file or document flipped", "noticed")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bit_of_anything_can_change_unnoticed(place: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(p for p in place.rglob("*") if p.is_file())))
    before = path.read_bytes()
    where = data.draw(st.integers(0, len(before) - 1))
    bit = data.draw(st.integers(0, 7))
    path.write_bytes(before[:where] + bytes([before[where] ^ 1 << bit]) + before[where + 1 :])
    try:
        assert any(place / file == path or file == "manifest.json" for file, _ in failures(place))
    finally:
        path.write_bytes(before)


@pytest.mark.threat("manifests", "any file or document cut", "noticed")
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_can_be_cut_unnoticed(place: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(p for p in place.rglob("*") if p.is_file())))
    before = path.read_bytes()
    path.write_bytes(before[: data.draw(st.integers(0, len(before) - 1))])
    try:
        assert failures(place)
    finally:
        path.write_bytes(before)


# Signatures.


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Return a folder with the keys of two people, of whom one may sign."""
    if not shutil.which("ssh-keygen"):
        pytest.skip("ssh-keygen is not installed")
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("me", "other"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name]
        subprocess.run(words, check=True, capture_output=True)
    (folder / "allowed").write_text(f"me@example.invalid {(folder / 'me.pub').read_text()}")
    both = f"other@example.invalid {(folder / 'other.pub').read_text()}"
    (folder / "both").write_text((folder / "allowed").read_text() + both)
    return folder


def sign(place: Path, key: Path) -> None:
    for name in ("manifest.json", PROVENANCE, PROBE):
        signing.sign(place / name, key)


def test_signed_documents_hold(place: Path, keys: Path) -> None:
    sign(place, keys / "me")
    assert failures(place) == []
    assert not signed(verify(place))
    asked = Asked(keys / "allowed", "me@example.invalid")
    assert failures(place, asked) == []
    assert signed(verify(place, asked))
    assert signed(verify(place, Asked(keys / "allowed")))


@pytest.mark.threat(
    "manifests",
    "a manifest changed with all that is said of it made anew",
    "found out by the signature alone",
)
def test_who_changes_everything_is_found_out_by_the_signature_alone(place: Path, keys: Path) -> None:
    sign(place, keys / "me")
    rewrite(place, engine=msgspec.structs.replace(manifest_of().engine, title="Another"))
    assert failures(place) == []
    bad = failures(place, Asked(keys / "allowed"))
    assert bad == [("manifest.json", "signature"), (PROVENANCE, "signature"), (PROBE, "signature")]


@pytest.mark.threat("manifests", "a signature that is missing, swapped, garbage, by another key", "named")
@pytest.mark.parametrize(
    ("spoil", "bad"),
    [
        (lambda p, _: (p / "manifest.json.sig").unlink(), ["manifest.json"]),
        (lambda p, _: shutil.copy(p / "probe.json.sig", p / f"{PROVENANCE}.sig"), [PROVENANCE]),
        (lambda p, _: (p / "probe.json.sig").write_text("x"), [PROBE]),
        (lambda p, k: sign(p, k / "other"), ["manifest.json", PROVENANCE, PROBE]),
        (lambda p, k: signing.sign(p / PROBE, k / "other"), [PROBE]),
    ],
    ids=["missing", "another's", "none", "not allowed", "one not allowed"],
)
def test_a_signature_that_does_not_hold_is_named(
    place: Path, keys: Path, spoil: Callable[[Path, Path], object], bad: list[str]
) -> None:
    sign(place, keys / "me")
    spoil(place, keys)
    assert failures(place, Asked(keys / "allowed")) == [(name, "signature") for name in bad]


def test_one_signer_alone_can_be_asked_for(place: Path, keys: Path) -> None:
    sign(place, keys / "other")
    assert failures(place, Asked(keys / "both")) == []
    assert len(failures(place, Asked(keys / "both", "me@example.invalid"))) == 3
    sum_ = sha256_file(place / "manifest.json")
    (place / "smoke.json").write_text(json.dumps({"manifest": sum_}))
    assert failures(place, Asked(keys / "both")) == []
    assert Check("smoke.json", "signature", "not run", "nobody signed it") in verify(
        place, Asked(keys / "both")
    )
    (place / "smoke.json.sig").write_text("x")
    assert failures(place, Asked(keys / "both")) == [("smoke.json", "signature")]
    sign(place, keys / "me")
    signing.sign(place / "smoke.json", keys / "other")  # who found it out need not be who built it
    assert failures(place, Asked(keys / "both", "me@example.invalid")) == []


# The binaries, judged again.


def catalog() -> Asked:
    return Asked(catalog=Catalog((shipped_root(),)))


@pytest.mark.threat(
    "manifests", "verdicts that the binaries do not bear out", "named where the catalogue is given"
)
def test_verdicts_are_proved_by_the_binaries(place: Path) -> None:
    assert failures(place, catalog()) == []
    made = manifests.read(place / "manifest.json")
    findings = made.verdicts.findings
    lie = msgspec.structs.replace(findings[0], state="unknown")
    rewrite(place, verdicts=msgspec.structs.replace(made.verdicts, findings=(lie, *findings[1:]), number=1))
    bad = failures(place, catalog())
    assert ("manifest.json", "/verdicts/findings/0/state") in bad
    assert ("manifest.json", "/verdicts/number") in bad
    assert failures(place) == []


def test_binaries_that_can_not_be_judged(place: Path) -> None:
    for path in (place / "bin").iterdir():
        path.write_bytes(b"\x7fELF" + b"x" * 100)
    assert ("bin", "verdicts") in failures(place, catalog())


# A folder of artifacts.


def write_index(root: Path, *entries: Entry) -> None:
    (root / INDEX).write_bytes(msgspec.json.encode(Index("sparkbuild/index/1", entries)))


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """Return a folder with two artifacts and an index."""
    top = tmp_path / "root"
    for name in ("one", "two"):
        folder = top / "toy" / digest(name)[:16]
        shutil.copytree(original, folder)
        rewrite(folder, key=digest(name))
    (top / "toy" / ".half").mkdir()
    write_index(top, *(entry_of(top, f) for f in sorted(top.glob("toy/[!.]*"))))
    return top


def test_a_folder_of_artifacts_holds(root: Path) -> None:
    checks = verify(root)
    assert [c for c in checks if c.verdict == "failed"] == []
    assert {c.file.rpartition("/manifest.json")[0] for c in checks if c.field == "/run"} == {
        f"toy/{digest(n)[:16]}" for n in ("one", "two")
    }
    (root / INDEX).unlink()
    assert failures(root) == []
    assert Check(INDEX, "", "not run", "there is none") in verify(root)


def test_an_artifact_of_many_that_is_damaged_is_named(root: Path) -> None:
    flip(root / "toy" / digest("two")[:16] / SERVER)
    assert failures(root) == [(f"toy/{digest('two')[:16]}/{SERVER}", "sha256")]


def test_who_changes_all_of_an_artifact_is_found_out_by_the_index(root: Path) -> None:
    folder = root / "toy" / digest("one")[:16]
    rewrite(folder, engine=msgspec.structs.replace(manifest_of().engine, title="Another"))
    assert failures(folder) == []
    assert {f.rpartition("/")[2] for _, f in failures(root)} == {"digest", "title"}


@pytest.mark.threat("manifests", "an index that says other things than its manifests", "named")
def test_an_index_that_says_something_else_is_named(root: Path) -> None:
    one, two = (entry_of(root, f) for f in sorted(root.glob("toy/[!.]*")))
    changes: dict[str, object] = {
        "engine": "other",
        "title": "Other",
        "state": "deprecated",
        "key": digest("x"),
        "arch": "x",
        "backend": "cpu",
        "processor": "x",
        "commit": "f" * 40,
        "build_number": 9,
        "size": 1,
        "digest": digest("x"),
        "manifest": two.manifest,
        "reproduction": "identical",
        "smoke": "passed",
    }
    for name, value in changes.items():
        write_index(root, msgspec.structs.replace(one, **{name: value}), two)
        assert (INDEX, f"/artifacts/0/{name}") in failures(root), name
    for path in ("../toy/manifest.json", "/etc/manifest.json", "toy/none/manifest.json", "x\0/manifest.json"):
        write_index(root, msgspec.structs.replace(one, manifest=path), two)
        assert (INDEX, "/artifacts/0/manifest") in failures(root), path
    write_index(root, one)
    assert failures(root) == [(INDEX, "/artifacts")]


def test_an_index_does_not_lead_through_a_link(root: Path) -> None:
    one, two = (entry_of(root, f) for f in sorted(root.glob("toy/[!.]*")))
    shutil.move(root / "toy" / one.key[:16], root.parent / "away")
    (root / "toy" / one.key[:16]).symlink_to(root.parent / "away")
    assert failures(root) == [(INDEX, f"/artifacts/{0 if one.key < two.key else 1}/manifest")]


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "x", "artifacts": []}', '{"a": 1, "a": 1}'])
def test_an_index_that_is_none_is_told(root: Path, text: str) -> None:
    (root / INDEX).write_text(text)
    assert failures(root) == [(INDEX, "")]


def test_a_manifest_that_the_index_knows_and_nobody_can_read(root: Path) -> None:
    path = next(root.glob("toy/[!.]*/manifest.json"))
    os.truncate(path, 100)
    bad = failures(root)
    assert (f"{path.relative_to(root)}", "") in bad
    assert any(f.endswith("/digest") for _, f in bad)


def test_a_manifest_that_is_a_link_is_not_followed_from_the_index(root: Path) -> None:
    path = root / "toy" / digest("one")[:16] / "manifest.json"
    shutil.move(path, root.parent / "away.json")
    path.symlink_to(root.parent / "away.json")
    bad = failures(root)
    assert (str(path.relative_to(root)), "") in bad
    assert any(file == INDEX and field.endswith("/manifest") for file, field in bad)


def test_what_can_not_be_checked_is_an_error(tmp_path: Path, place: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        verify(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no artifact"):
        verify(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        verify(tmp_path / "file")
    with pytest.raises(UsageError, match="without knowing the key"):
        verify(place, Asked(signer="me"))


# How documents are compared.


def test_differences_are_named_as_deep_as_can_be() -> None:
    one = {"a": [1, {"b": 2}], "c/d": 1, "e": [1], "same": 1}
    two = {"a": [1, {"b": 3}], "f": 1, "e": [1, 2], "same": 1}
    assert differences(one, two) == ["/a/1/b", "/c~1d", "/e", "/f"]
    assert differences(1, 1.0) == ["/"]
    assert differences({str(n): n for n in range(99)}, {})[-1] == "and more"
    assert len(differences({str(n): n for n in range(99)}, {})) == 13


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        json_of(data)
    except ValueError:
        return
    assert json.loads(data) is not NotImplemented


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_a_document_does_not_differ_from_itself(document: object) -> None:
    assert differences(document, copy.deepcopy(document)) == []


@pytest.mark.threat("manifests", "any JSON for a provenance", "told, never a crash")
def test_a_hostile_provenance_does_not_break_the_check(place: Path) -> None:
    made = manifests.read(place / "manifest.json")
    found = json.loads(provenance(made, sha256_bytes((place / "manifest.json").read_bytes())))
    hostile: tuple[object, ...] = (
        {"fields": []},
        [],
        None,
        {"fields": {"/engine/title": 1}},
        {"fields": {"x": {}}},
    )
    for notes in hostile:
        found["subject"][0]["annotations"] = notes
        (place / PROVENANCE).write_text(json.dumps(found))
        assert failures(place)
