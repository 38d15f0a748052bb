"""Manifests, indexes and sidecars of others, through every command that reads them."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild import handover
from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.artifact.store import Stored
from sparkbuild.cli.main import run
from sparkbuild.files import Folders
from sparkbuild.progress import Silent
from sparkbuild.publish import With, publish
from tests.artifacts import make, write

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real small artifact."""
    folder = tmp_path_factory.mktemp("template")
    make(folder)
    return folder


@pytest.fixture
def artifact(template: Path, tmp_path: Path) -> Path:
    """Return a copy of it, in a published folder's shape."""
    folder = tmp_path / "given" / "toy" / ("0" * 16)
    shutil.copytree(template, folder)
    return folder


def text(folder: Path, data: str | bytes) -> None:
    path = folder / "manifest.json"
    path.unlink()
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def edited(folder: Path, old: str, new: str) -> None:
    whole = (folder / "manifest.json").read_text()
    assert old in whole
    text(folder, whole.replace(old, new, 1))


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(1 << 30)


def folder_at(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


_NOT_READ: dict[str, Change] = {
    "a pipe": lambda f: pipe(f / "manifest.json"),
    "a folder": lambda f: folder_at(f / "manifest.json"),
    "a device": lambda f: device(f / "manifest.json"),
    "a gigabyte": lambda f: sparse(f / "manifest.json"),
    "no bytes": lambda f: text(f, ""),
    "nested without end": lambda f: text(f, "[" * 1_000_000),
    "nested deep in a field": lambda f: edited(f, '"schema":', f'"x": {"[" * 9999}{"]" * 9999}, "schema":'),
    "not a number": lambda f: edited(f, '"build_number": 7', '"build_number": NaN'),
    "infinite": lambda f: edited(f, '"build_number": 7', '"build_number": 1e999'),
    "a number of 5,000 digits": lambda f: edited(f, '"build_number": 7', f'"build_number": {"9" * 5000}'),
    "a key twice": lambda f: edited(f, '"schema":', '"schema": "sparkbuild/manifest/2", "schema":'),
    "half a surrogate": lambda f: edited(f, '"Toy"', r'"\ud800"'),
    "not UTF-8": lambda f: text(f, (f / "manifest.json").read_bytes().replace(b'"Toy"', b'"\xff"', 1)),
    "an unknown version": lambda f: edited(f, "manifest/2", "manifest/99"),
    "a byte order mark": lambda f: text(f, b"\xef\xbb\xbf" + (f / "manifest.json").read_bytes()),
    "two documents": lambda f: text(f, (f / "manifest.json").read_bytes() * 2),
    "an engine that climbs": lambda f: edited(f, '"name": "toy"', '"name": "../../x"'),
    "an engine that is a dot": lambda f: edited(f, '"name": "toy"', '"name": ".."'),
    "a file that climbs": lambda f: edited(f, "bin/toy-server", "bin/../../x"),
    "an absolute file": lambda f: edited(f, "bin/toy-server", "/etc/passwd"),
    "a key that climbs": lambda f: edited(f, '"key": "', '"key": "../../'),
}


def commands(folder: Path, out: Path) -> Iterator[list[str]]:
    """Yield every command that reads somebody's manifest."""
    yield ["show", f"{folder}/"]
    yield ["show", str(folder / "manifest.json"), "--json"]
    yield ["verify", str(folder)]
    yield ["import", str(folder)]
    yield ["diff", f"{folder}/", f"{folder}/"]
    yield ["report", f"{folder}/", "--out", str(out / "page.html")]
    yield ["reproduce", str(folder / "manifest.json"), "--offline"]
    yield ["publish", str(out / "to"), f"{folder}/"]
    yield ["export", f"{folder}/", str(out / "x.tar.zst")]
    yield ["smoke", str(folder)]
    yield ["unit", f"{folder}/", "--model", "/m.gguf"]
    yield ["verify-flags", f"{folder}/"]
    yield ["list", str(folder.parent.parent)]


@pytest.mark.threat(
    "manifests",
    "a pipe, a device, 1 GB, no end of brackets, NaN, keys twice, another version, paths that leave: as "
    "manifest of every command",
    "an error, never a crash or a wait; nothing written",
)
@pytest.mark.parametrize("change", _NOT_READ.values(), ids=_NOT_READ.keys())
def test_a_manifest_that_is_none(
    change: Change, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(artifact)
    out = tmp_path / "out"
    out.mkdir()
    listing = sorted(artifact.rglob("*"))
    for words in commands(artifact, out):
        code = run(words)
        said = capsys.readouterr()
        allowed = (0, 8) if words[0] == "list" else (1, 2, 3, 8)  # what is no manifest file is not listed
        assert code in allowed, (words, code, said)
    assert list(out.rglob("*")) == []
    assert sorted(artifact.rglob("*")) == listing
    store = Folders.default().store
    assert not store.exists() or not list(store.glob("*/*"))


_STEER = (
    "\x1b[2J\x9b31m\u202e\r\nExecStartPre=/bin/evil\n</td><script>evil()</script><img src=x onerror=evil()>"
)


def strings(part: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every string of a document."""
    if isinstance(part, str):
        yield path
    rows = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for name, inner in rows:
        yield from strings(inner, (*path, name))


def with_words(document: dict[str, Any], path: tuple[str | int, ...]) -> None:
    part: Any = document
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] += _STEER


def hostile(folder: Path) -> int:
    """Put hostile words behind every string of a manifest that may hold any; return how many."""
    document = json.loads((folder / "manifest.json").read_bytes())
    changed = 0
    for path in strings(document):
        trial = json.loads(json.dumps(document))
        with_words(trial, path)
        try:
            msgspec.convert(trial, Manifest)
        except msgspec.ValidationError:
            continue  # the schema itself allows no such words there
        document, changed = trial, changed + 1
    write(folder, msgspec.json.decode(json.dumps(document), type=Manifest))
    return changed


@pytest.mark.threat(
    "manifests",
    "escape codes, line breaks, script tags and systemd settings behind every string of a manifest",
    "words only: on the terminal, in JSON, in the page, in the unit",
)
def test_hostile_words_everywhere(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hostile(artifact) > 50
    out = tmp_path / "out"
    for words in commands(artifact, out):
        for form in ([], ["--json"]):
            assert run([*words, *form]) != 101
            said = capsys.readouterr()
            shown = said.out + said.err
            assert [c for c in shown if not c.isprintable() and c not in "\n\t"] == []
            assert not re.search(r"^ExecStartPre=", shown, re.MULTILINE), words
    page = (out / "page.html").read_text()
    assert "evil()" in html.unescape(page)
    assert not re.search(r"<(script|img)", page)
    assert [c for c in page if not c.isprintable() and c != "\n"] == []


def with_numbers(part: Any, whole: int, real: float) -> Any:  # noqa: ANN401 - any JSON
    """Return a document with every number replaced."""
    if isinstance(part, dict):
        return {k: with_numbers(v, whole, real) for k, v in part.items()}
    if isinstance(part, list):
        return [with_numbers(v, whole, real) for v in part]
    if isinstance(part, float):
        return real
    return whole if isinstance(part, int) and not isinstance(part, bool) else part


@pytest.mark.threat(
    "manifests",
    "huge, negative and zero numbers, the year 1 and the year 9999 all over a manifest",
    "shown or refused, never a crash",
)
@pytest.mark.parametrize(
    ("whole", "real", "year"), [(2**63 - 1, 1.7e308, "9999"), (-(2**63), -1.7e308, "0001"), (0, 0.0, "1970")]
)
def test_odd_numbers(
    whole: int, real: float, year: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = with_numbers(json.loads((artifact / "manifest.json").read_bytes()), whole, real)
    document["build"]["started"] = f"{year}-01-01T00:00:00+00:00"
    text(artifact, json.dumps(document))
    assert manifests.read(artifact / "manifest.json").engine.name == "toy"
    for words in commands(artifact, tmp_path):
        for form in ([], ["--json"]):
            assert run([*words, *form]) in (0, 1, 2, 3, 4, 7, 8), (words, capsys.readouterr())
            capsys.readouterr()


@pytest.fixture
def shelf(artifact: Path, tmp_path: Path) -> Path:
    """Return a published folder of one artifact."""
    publish(
        Stored(artifact, manifests.read(artifact / "manifest.json")),
        str(tmp_path / "shelf"),
        With(),
        Silent(),
    )
    return tmp_path / "shelf"


@pytest.mark.threat(
    "manifests",
    "an index, a manifest or a file of a published folder that is a pipe",
    "the hand-over refuses it and never waits",
)
def test_a_stage_does_not_wait_for_a_pipe(shelf: Path) -> None:
    (found,) = handover.artifacts(shelf)
    pipe(found.path / "bin/toy-server")
    assert found.changed() == ["bin/toy-server"]
    pipe(found.path / "manifest.json")
    with pytest.raises(handover.HandoverError, match="no plain file"):
        list(handover.artifacts(shelf))
    pipe(shelf / "index.json")
    with pytest.raises(handover.HandoverError, match="no plain file"):
        handover.read_index(shelf)


_SIDECARS: dict[str, Change] = {
    "a pipe": pipe,
    "a gigabyte": sparse,
    "nested": lambda p: p.write_text("[" * 1_000_000),
    "not a number": lambda p: p.write_text('{"manifest": NaN, "places": 1e999, "verdict": Infinity}'),
    "a folder": folder_at,
}


@pytest.mark.threat(
    "manifests",
    "reports and notes beside a manifest that are pipes, folders, huge or nested",
    "left out or told of, never waited for; what they stood beside is shown all the same",
)
@pytest.mark.parametrize("change", _SIDECARS.values(), ids=_SIDECARS.keys())
def test_sidecars(change: Change, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("reproduction.json", "smoke.json", "timeline.json", "published.json"):
        change(artifact / name)
    for words, code in (
        (["show", f"{artifact}/"], 0),
        (["list", str(artifact.parent.parent)], 8),  # its folder is not named by its key
        (["report", f"{artifact}/", "--out", str(tmp_path / "page.html")], 0),
        (["diff", f"{artifact}/", f"{artifact}/"], 0),
        (["verify", str(artifact)], 1),
        (["import", str(artifact)], 8),
    ):
        assert run(words) == code, capsys.readouterr()


@pytest.mark.threat(
    "manifests",
    "a note of where it was published that is a pipe, in the store",
    "gc leaves the artifact alone",
)
def test_gc_does_not_wait_for_a_pipe(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", str(artifact)]) == 0
    (kept,) = Folders.default().store.glob("toy/*/manifest.json")
    pipe(kept.with_name("published.json"))
    assert run(["gc", "--keep", "0"]) == 0
    assert kept.exists()


@pytest.mark.threat(
    "manifests",
    "a store with an artifact that can not be read, published with --all",
    "the others are handed over, this one is named, exit code 1",
)
def test_publish_all_hides_nothing(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import", str(artifact)]) == 0
    (good,) = Folders.default().store.glob("toy/*/manifest.json")
    bad = good.parent.parent / ("f" * 16)
    shutil.copytree(good.parent, bad)
    (bad / "manifest.json").write_text("{}")
    capsys.readouterr()
    assert run(["publish", str(tmp_path / "to"), "--all"]) == 1
    said = capsys.readouterr()
    assert "handed over" in said.out
    assert str(bad) in said.err
    assert "1 artifacts can not be read and were not handed over" in said.err
    assert run(["publish", str(tmp_path / "to"), "--all", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["artifacts"]) == 1
    assert str(bad) in found["unreadable"][0]["where"]
    assert [a.manifest.engine.name for a in handover.artifacts(tmp_path / "to")] == ["toy"]
    shutil.rmtree(good.parent)
    assert run(["publish", str(tmp_path / "to"), "--all"]) == 8


@pytest.mark.threat(
    "manifests", "a password in an address for import, publish, export and build", "shown nowhere"
)
def test_a_password_is_not_repeated(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("oci://me:hunter2@127.0.0.1:9/toy:1", "https://me:hunter2@127.0.0.1:9/toy"):
        for words in (
            ["import", place], ["publish", place, f"{artifact}/"],
            ["export", f"{artifact}/", f"{place}.tar.zst"],

            ["build", "llama_cpp", "--source", place, "--offline"],
        ):  # fmt: skip
            for form in ([], ["--json"]):
                assert run([*words, *form]) in (2, 3, 8), words
                said = capsys.readouterr()
                assert "hunter2" not in said.out + said.err, words
