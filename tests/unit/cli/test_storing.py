"""list, show, use and gc as a person and a script meet them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import sparkbuild
from sparkbuild import handover
from sparkbuild.artifact import index, store, use
from sparkbuild.artifact import manifest as manifests
from sparkbuild.cli.main import run
from sparkbuild.files import Folders, sha256_file, to_json
from sparkbuild.reproduce import keep
from tests.conftest import run_of
from tests.reproductions import reproduction_of
from tests.unit.artifact.test_index import settle
from tests.unit.artifact.test_store import another, put


def document(capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401 - any JSON
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


@pytest.fixture
def two() -> dict[str, Path]:
    """Put two artifacts into the default store, b the newer."""
    return {key: put(Folders.default(), another(key, day=day)) for day, key in enumerate("ab", 1)}


def sidecar(folder: Path, name: str, verdict: str) -> None:
    schema = f"sparkbuild/{name}/1"
    record = {"schema": schema, "manifest": sha256_file(folder / "manifest.json"), "verdict": verdict}
    (folder / f"{name}.json").write_text(json.dumps(record))


def test_list(two: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    sidecar(two["a"], "reproduction", "identical")
    sidecar(two["a"], "smoke", "passed")
    assert run(["use", "toy@a"]) == 0
    capsys.readouterr()
    assert run(["list"]) == 0
    title, _, newer, older, note = capsys.readouterr().out.splitlines()
    assert title == "2 artifacts"
    assert newer.split() == [
        *("toy@b00000000000", "board", "cuda", "7", "(aaaaaaaaa)", "2026-01-02", "00:00", "0", "MB"),
        *("-", "-", "active"),
    ]
    assert older.split() == [
        *("*", "toy@a00000000000", "board", "cuda", "7", "(aaaaaaaaa)", "2026-01-01", "00:00", "0", "MB"),
        *("identical", "passed", "active"),
    ]
    assert note == "* in use"


def test_a_long_list_is_not_laid_out(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(501):
        made = another(f"{number:04x}")
        folder = store.folder("toy", made.key, Folders.default())
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(manifests.encode(made))
    assert run(["list"]) == 0
    title, heads, *rows = capsys.readouterr().out.splitlines()
    assert (title, len(rows)) == ("501 artifacts", 501)
    assert {row.index("board") for row in rows} == {heads.index("arch")}
    assert all(row.endswith("active") for row in rows)


def test_list_needs_no_manifests(two: dict[str, Path]) -> None:
    for folder in two.values():
        settle(folder)
    index.update(Folders.default().store)
    code = "import sys; from sparkbuild.cli.main import run; run(['list']); print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(Path(sparkbuild.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert "toy@a00000000000" in done.stdout
    assert not {"sparkbuild.artifact.manifest", "numpy"} & set(done.stdout.split())


def test_list_in_json(two: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["use", "toy@a"]) == 0
    capsys.readouterr()
    assert run(["list", "--json"]) == 0
    found = document(capsys)
    assert found["schema"] == "sparkbuild/list/2"
    assert [(a["name"], a["path"], a["in_use"]) for a in found["artifacts"]] == [
        ("toy@b00000000000", str(two["b"]), False),
        ("toy@a00000000000", str(two["a"]), True),
    ]
    assert found["artifacts"][0]["digest"] == sha256_file(two["b"] / "manifest.json")


def test_list_a_published_folder(
    two: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even one that may not be written to, and without an index."""
    use.use(store.pick("toy@a", Folders.default()), Folders.default())
    shutil.copytree(two["a"], tmp_path / "place/toy" / two["a"].name)
    assert run(["list", str(tmp_path / "place"), "--json"]) == 0
    (row,) = document(capsys)["artifacts"]
    assert (row["path"], row["in_use"]) == (str(tmp_path / "place/toy" / two["a"].name), False)
    assert sorted(p.name for p in (tmp_path / "place").iterdir()) == ["toy"]
    assert run(["list", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_list_tells_what_is_damaged(two: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(two["a"] / "manifest.json", 100)
    assert run(["list"]) == 8
    out, err = capsys.readouterr()
    assert "1 artifacts" in out
    assert str(two["a"]) in err
    assert run(["list", "--json"]) == 8
    found = document(capsys)
    assert len(found["artifacts"]) == len(found["damaged"]) == 1


def test_no_words_of_a_stranger_s_manifest_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = another("a")
    target = msgspec.structs.replace(made.target, arch="\x1b[2J")
    place = Folders(tmp_path / "c", tmp_path / "place", tmp_path / "d")
    path = put(place, msgspec.structs.replace(made, target=target))
    assert run(["list", str(place.store)]) == 0
    assert run(["show", f"{path}/"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_show(two: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("toy", "toy@b0000", "b00", f"{two['b']}/"):
        assert run(["show", name]) == 0
        out = capsys.readouterr().out
        words = ("bin/toy-server", "3 sm_121", "TOY_FAST", "0001-x.patch", "gcc 13", "toy@b00000000000")
        assert all(word in out for word in words)
        assert all(
            word in out for word in ("not tried: 'sparkbuild smoke'", "2.34", "1; others are converted")
        )
        assert "--threads 16 --no-mmap" in out


def test_show_what_is_known_by_now(two: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    sidecar(two["a"], "reproduction", "stripped")
    sidecar(two["a"], "smoke", "failed")
    for key, said in (("a", "yes"), ("b", "yes"), ("a", "no, but 'use --back' returns to it")):
        if said == "yes":
            use.use(store.pick(f"toy@{key}", Folders.default()), Folders.default())
        assert run(["show", f"toy@{key}"]) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert f"in use {said}" in lines
        assert ("smoke test failed" in lines) == (key == "a")
    assert run(["show", "toy@a", "--json"]) == 0
    found = document(capsys)
    manifest = json.loads((two["a"] / "manifest.json").read_bytes())
    assert found == {
        "schema": "sparkbuild/show/1",
        "name": "toy@a00000000000",
        "path": str(two["a"]),
        "manifest": manifest,
        "digest": sha256_file(two["a"] / "manifest.json"),
        "reproduction": "stripped",
        "smoke": "failed",
        "in_use": False,
        "previous": True,
    }


def test_show_what_a_build_can_not_do(capsys: pytest.CaptureFixture[str]) -> None:
    run_part = run_of()
    command = handover.Command("other", "server", (), ("fast",), ("server takes x 1, not 2",))
    needs = msgspec.structs.replace(run_part.needs, cuda_major=None)
    run_part = msgspec.structs.replace(
        run_part, commands=(command,), environment={"A": "1"}, needs=needs, pairs=()
    )
    put(Folders.default(), msgspec.structs.replace(another("a"), run=run_part))
    assert run(["show", "toy"]) == 0
    out = capsys.readouterr().out
    assert "server takes x 1, not 2; no switch for fast" in out
    assert "A=1" in out
    assert "none: no kernels for a GPU" in out  # and nothing of what becomes of pairs on one
    assert run_part.pairs_note not in out


def test_use_and_back(two: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    link = Folders.default().store / "current/toy"
    assert run(["use", "toy@a"]) == 0
    assert capsys.readouterr().out == f"toy@a00000000000 is in use\n  {link}\n"
    assert run(["use", "toy"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == f"  before it: {two['a']}"
    assert link.resolve() == two["b"].resolve()
    assert run(["use", "toy", "--back", "--json"]) == 0
    assert document(capsys) == {
        "schema": "sparkbuild/use/1",
        "name": "toy@a00000000000",
        "path": str(two["a"]),
        "link": str(link),
        "previous": str(two["b"]),
    }
    assert link.resolve() == two["a"].resolve()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["use", "toy@a", "--back"], 2, "--back takes an engine's name alone"),
        (["use", "toy", "--back"], 2, "nothing of 'toy' is in use"),
        (["use", "../toy", "--back"], 2, "nothing of '../toy' is in use"),
        (["use", "tox"], 2, "no artifact 'tox'"),
        (["gc", "--max-size", "20X"], 2, "'20X' is no size such as 20G"),
        (["gc", "--max-size", "-1"], 2, "'-1' is no size"),
        (["gc", "--keep", "-1"], 2, "-1 is not in the range"),
        (["gc", "--older-than", "x"], 2, "'x' is not a valid float"),
    ],
)
def test_wrong_words(
    words: list[str], code: int, said: str, two: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "removed"), [("0", "toy@a"), ("19", "toy@a"), ("1K", ""), ("0.02k", "toy@a"), ("1.5GB", "")]
)
def test_gc(given: str, removed: str, two: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Each has 19 bytes."""
    words = ["gc", "--keep", "1", "--max-size", given]
    assert run([*words, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert removed in planned
    assert f"{int(bool(removed))} would be removed, 0 MB" in planned
    assert run([*words, "--json"]) == 0
    found = document(capsys)
    assert (found["schema"], found["dry_run"]) == ("sparkbuild/gc/1", False)
    assert [r["name"][:5] for r in found["removed"] if removed] == [removed] * bool(removed)
    assert found["size"] == 19 * bool(removed)
    assert two["a"].exists() != bool(removed)
    assert two["b"].exists()


def test_gc_without_a_rule_removes_debris(two: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    debris = two["a"].with_name(f".{two['a'].name}.abcdefgh")
    debris.mkdir()
    assert run(["gc"]) == 0
    out = capsys.readouterr().out
    assert f"toy/{debris.name}" in out
    assert "1 removed" in out
    assert not debris.exists()


@pytest.mark.parametrize(
    ("verdict", "other", "kept"),
    [("identical", False, "identical"), ("not comparable", False, ""), ("stripped", True, "")],
)
def test_a_reproduction_is_kept_with_what_it_is_about(
    verdict: str, other: str, kept: str, two: dict[str, Path]
) -> None:
    folders = Folders.default()
    digest = sha256_file(two["b" if other else "a"] / "manifest.json")
    report = reproduction_of(key="a".ljust(64, "0"), manifest=digest, verdict=verdict)
    keep(report, folders)
    found = {e.key[0]: e.reproduction for e in store.entries(folders)[0]}
    assert found == {"a": kept, "b": ""}
    if kept:
        assert (two["a"] / "reproduction.json").read_bytes() == to_json(report) + b"\n"
        assert handover.read_index(folders.store).artifacts[0].reproduction == kept
