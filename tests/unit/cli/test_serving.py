"""unit at the command line: which artifact, which folder, and how a profile is changed."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from sparkbuild.artifact import store, use
from sparkbuild.cli.main import run
from sparkbuild.files import Folders
from tests.conftest import manifest_of
from tests.unit.artifact.test_store import put
from tests.unit.serving.test_unit import gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return gguf(tmp_path / "m.gguf")


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Stored:
    monkeypatch.setenv("SPARKBUILD_HOME", str(tmp_path / "home"))
    folders, manifest = Folders.default(), manifest_of()
    put(folders, manifest)
    return store.Stored(store.folder("toy", manifest.key, folders), manifest)


def unit(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert run(["unit", *words, "--json"]) == 0
    command = json.loads(capsys.readouterr().out)["service"]["command"]
    assert isinstance(command, list)
    return command


_SETTINGS = ("--set", "mmap=off", "--set", "threads=3")
_UNKNOWN = (
    *("gpu_layers", "context", "cache_type_k", "cache_type_v", "flash_attention", "threads_batch"),
    *("batch", "ubatch", "continuous_batching", "host", "port"),
    *("temperature", "repeat_penalty", "frequency_penalty"),
)
_LESS = tuple(word for name in _UNKNOWN for word in ("--set", f"{name}="))


def test_a_key_names_the_artifact_and_an_engine_what_is_in_use(
    stored: store.Stored, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", str(model), *_SETTINGS, *_LESS)
    expected = ["--model", str(model), "--threads", "3", "--no-mmap"]
    command = unit(capsys, f"toy@{stored.manifest.key[:8]}", *words)
    assert command == [str(stored.path / "bin/toy-server"), *expected]
    assert run(["unit", "toy", *words]) == 2
    assert "'sparkbuild use ENGINE@KEY'" in capsys.readouterr().err
    use.use(stored, Folders.default())
    command = unit(capsys, "toy", *words)
    assert command == [str(Folders.default().store / "current/toy/bin/toy-server"), *expected]


def test_text_is_a_unit_and_notes_go_elsewhere(
    stored: store.Stored, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"toy@{stored.manifest.key[:8]}"
    assert run(["unit", name, "--model", str(model), *_LESS, "--user", "daemon"]) == 0
    out, err = capsys.readouterr()
    assert "[Service]" in out
    assert "User=daemon" in out
    assert err.startswith("note: ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--set", "port"), 2),
        (("--set", "prot=9"), 2),
        (("--profile", "none"), 2),
        ((), 1),  # the toy's server can not do all of production
    ],
)
def test_what_is_refused(
    words: tuple[str, ...], code: int, stored: store.Stored, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"toy@{stored.manifest.key[:8]}"
    assert run(["unit", name, "--model", str(model), *words, "--json"]) == code
    assert msgspec.json.decode(capsys.readouterr().out)["error"]["exit_code"] == code
