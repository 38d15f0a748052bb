"""From real engines to results: built, published, taken up by a process that has only DEST."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sparkbuild
from sparkbuild.handover import read_index
from sparkbuild.inspection.runtime import launch
from sparkbuild.smoke.model import write
from tests.integration.engine import HOURS, NETWORK, Box, source_words

_STAGE = Path(__file__).with_name("bench_stage.py")


def built(box: Box, engine: str) -> str:
    """Build an engine for gb10's CPU and return its name; skip where its source can not be had."""
    words = ["build", engine, "--arch", "gb10", "--backend", "cpu", *source_words(engine), "--json"]
    done = box.run(*words, env=NETWORK, timeout=HOURS)
    if done.code == 4:
        pytest.skip(f"the source of {engine} can not be had: {json.loads(done.out)['error']['what']}")
    manifest = done.artifact()["manifest"]
    return f"{engine}@{manifest['key'][:12]}"


def benched(root: Path, model: Path) -> dict[str, Any]:
    """Run the benchmark stage on a published folder and return its results."""
    launcher = launch("aarch64")
    if isinstance(launcher, str):
        pytest.skip(launcher)
    command = [sys.executable, str(_STAGE), str(root), str(model), "cpu", *launcher]
    package = str(Path(sparkbuild.__file__).parent.parent)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PYTHONPATH": package}, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def hand_over(box: Box, tmp_path: Path, engines: tuple[str, ...]) -> None:
    names = [built(box, engine) for engine in engines]
    root = tmp_path / "published"
    published = box.run("publish", str(root), *names, "--sbom", "--json").document()["artifacts"]
    assert [one["name"] for one in published] == names
    index = read_index(root)
    assert sorted(e.name for e in index.artifacts) == sorted(names)
    assert box.run("verify", str(root), "--probe").code == 0
    model = tmp_path / "tiny.gguf"
    write(model, head=64, heads=2, kv_heads=2)
    found = benched(root, model)
    assert found["modules"] == ["sparkbuild", "sparkbuild.handover"]
    digests = {one["digest"] for one in published}
    assert {r["artifact"]["manifest_sha256"] for r in found["results"]} == digests
    commits = {e.key: e.commit for e in index.artifacts}
    for result in found["results"]:
        assert len(result["samples"]) == 2  # reading a prompt, generating
        for sample in result["samples"]:
            assert commits[result["artifact"]["key"]].startswith(sample["build_commit"])
            assert (sample["type_k"], sample["type_v"], sample["n_ubatch"]) == ("q8_0", "q8_0", 512)
            assert sample["n_threads"] == 4
            assert sample["avg_ts"] > 0


@pytest.mark.engine
def test_one_engine_is_handed_over(engines: Box, tmp_path: Path) -> None:
    hand_over(engines, tmp_path, ("llama_cpp",))


@pytest.mark.full
def test_three_engines_are_handed_over(engines: Box, tmp_path: Path) -> None:
    hand_over(engines, tmp_path, ("llama_cpp", "ik_llama", "llama_dgx"))
