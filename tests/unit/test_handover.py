"""The benchmark stage's reader: what it gives, what it refuses, and that it stands alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import sparkbuild
from sparkbuild import handover
from sparkbuild.artifact import manifest as manifests
from sparkbuild.handover import Artifact, HandoverError, Switch, Tool, spell
from tests.conftest import FILE, manifest_of, run_of

_MODEL = Path("/models/m.gguf")


def artifact(folder: Path, **changes: object) -> Artifact:
    run = msgspec.structs.replace(run_of(), **changes)
    data = manifests.encode(manifest_of(run=run))
    (folder / "bin").mkdir()
    (folder / "bin/toy-server").write_bytes(FILE)
    return Artifact(folder, "d" * 64, msgspec.json.decode(data, type=handover.Handed))


def test_it_stands_alone() -> None:
    code = (
        "import sys, sparkbuild.handover as h; print([m for m in sys.modules if m.startswith('sparkbuild')])"
    )
    root = Path(sparkbuild.__file__).parent.parent
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "['sparkbuild', 'sparkbuild.handover']"


def test_a_command_is_the_profile_in_the_tools_words(tmp_path: Path) -> None:
    found = artifact(tmp_path)
    assert found.command("server", "production", _MODEL) == [
        *(str(tmp_path / "bin/toy-server"), "--model", str(_MODEL), "--threads", "16", "--no-mmap")
    ]
    settings = {"model": "{model}", "cache_type_k": "q4_0"}
    assert found.command_of("server", settings, _MODEL)[3:] == ["--cache-type-k", "q4_0"]
    assert found.changed() == []
    (tmp_path / "bin/toy-server").unlink()
    assert found.changed() == ["bin/toy-server"]
    assert found.link() == {"engine": "toy", "key": found.manifest.key, "manifest_sha256": "d" * 64}


def test_what_can_not_be_done_is_an_error(tmp_path: Path) -> None:
    refused = msgspec.structs.replace(run_of().commands[0], refused=("gpu_layers 999 needs cuda",))
    found = artifact(tmp_path, commands=(refused,))
    with pytest.raises(HandoverError, match="gpu_layers 999 needs cuda"):
        found.command("server", "production", _MODEL)
    with pytest.raises(HandoverError, match="no command for 'server' with the profile 'mine'"):
        found.command("server", "mine", _MODEL)
    with pytest.raises(HandoverError, match="no tool with the role 'bench'"):
        found.tool("bench")
    with pytest.raises(HandoverError, match="server has no switch for context"):
        found.command_of("server", {"context": "9"}, _MODEL)
    with pytest.raises(HandoverError, match="server takes cache_type_k f16, q4_0, not q6_0"):
        found.command_of("server", {"cache_type_k": "q6_0"}, _MODEL)


def test_a_value_of_its_own_goes_before_any_value() -> None:
    words = (
        Switch("mmap", "off", ("--no-mmap",)),
        Switch("mmap", "", ("--map", "{value}")),
        Switch("x", "on", ()),
    )
    tool = Tool("server", "bin/s", words, "")
    assert spell(tool, "", {"mmap": "off"}).words == ("--no-mmap",)
    assert spell(tool, "", {"mmap": "huge"}).words == ("--map", "huge")
    assert (spell(tool, "", {"x": "on"}).words, spell(tool, "", {"x": "on"}).left_out) == ((), ())
    assert spell(tool, "", {"x": "off"}).refused == ("server takes x on, not off",)
    assert spell(tool, "", {"y": "off"}).left_out == ("y",)


@pytest.mark.threat("manifests", "a tool or file outside of the artifact", "no manifest")
@pytest.mark.parametrize("path", ["../x", "/bin/sh", "bin/../../x", "bin/", "bin/-x", "bin/a/b", "bin/a\n"])
def test_a_path_that_leaves_the_artifact_is_no_manifest(path: str) -> None:
    data = manifests.encode(manifest_of()).replace(b'"bin/toy-server"', msgspec.json.encode(path))
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data, type=handover.Handed)
