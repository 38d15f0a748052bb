"""The real engines, from the package index. Minutes to hours; see the markers.

SPARKBUILD_TEST_HOME names a home that is kept between runs, so that nothing is downloaded twice.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from sparkbuild.artifact.manifest import json_schema
from tests.integration.engine import EMULATED, HOURS, NETWORK, NOWHERE, Box, definitions

_MARCH = "armv8.2-a+dotprod+fp16"
_ROLES = {"server", "cli", "bench", "batched-bench", "perplexity", "quantize"}


def build(box: Box, engine: str, backend: str) -> dict[str, Any]:
    """Build an engine's sdist for gb10 and check what every artifact must show."""
    words = ["build", engine, "--arch", "gb10", "--backend", backend, "--from", "sdist", "--json"]
    artifact = box.run(*words, env=NETWORK, timeout=HOURS).artifact()
    manifest: dict[str, Any] = artifact["manifest"]
    jsonschema.validate(manifest, json_schema())
    found = definitions(manifest)
    assert found["GGML_NATIVE"] == "OFF"
    assert found.get("GGML_CPU_ARM_ARCH", found.get("GGML_ARCH_FLAGS", "").removeprefix("-march=")) == _MARCH
    assert found["GGML_CUDA"] == ("ON" if backend == "cuda" else "OFF")
    assert found["CMAKE_BUILD_TYPE"] == "Release"
    assert set(manifest["build"]["compile_commands"]["march"]) <= {_MARCH, ""}
    assert {f["machine"] for f in manifest["files"]} == {"aarch64"}
    assert {f["runpath"] for f in manifest["files"]} == {"$ORIGIN"}
    assert {f["role"] for f in manifest["files"]} >= _ROLES
    assert manifest["version"]["number"] == manifest["source"]["build_number"]
    assert manifest["source"]["commit"].startswith(manifest["version"]["commit"])
    assert_from_the_store(box, [*words, "--offline"], manifest)
    assert_verified(box, engine, artifact)
    return artifact


def assert_verified(box: Box, engine: str, artifact: dict[str, Any]) -> None:
    """Check that every required flag is in force, and that bytes and running engine agree."""
    assert {f["verdict"] for f in artifact["manifest"]["flags"] if f["required"]} == {"in force"}
    verified = box.run("verify-flags", engine, "--json").document()
    assert verified["builds"][0]["flags"] == artifact["manifest"]["flags"]
    wanted = ("dotprod", "fp16", "openmp", "model:minimax-m2", "option:--cache-type-k")
    required = [word for what in wanted for word in ("--require", what)]
    found = box.run("probe", "--run", f"{artifact['path']}/bin", *required, "--json").document()
    (probe,) = found["probes"]
    assert probe["contradictions"] == []
    assert probe["said"]["system"]["ran"] == EMULATED
    states = {f["name"]: f["state"] for f in probe["verdicts"]["findings"]}
    assert {states[n] for n in ("i8mm", "bf16", "sve", "sme", "vulkan", "rpc")} == {"absent"}


def assert_from_the_store(box: Box, words: list[str], manifest: dict[str, Any]) -> None:
    again = box.run(*words, env=NOWHERE)
    artifact = again.artifact()
    assert artifact["fresh"] is False
    assert artifact["manifest"] == manifest
    assert "configure" not in again.err


@pytest.mark.engine
def test_llama_cpp_for_the_cpu(engines: Box) -> None:
    manifest = build(engines, "llama_cpp", "cpu")["manifest"]
    assert manifest["version"]["ran"] == EMULATED
    assert "build 11312, commit 0c1e57098" in manifest["version"]["output"]
    assert manifest["build"]["deprecated"] == []
    assert manifest["cuda"] is None


@pytest.mark.full
def test_ik_llama_for_the_cpu(engines: Box) -> None:
    manifest = build(engines, "ik_llama", "cpu")["manifest"]
    assert manifest["version"]["ran"] == EMULATED
    assert "version: 4411 (55d3c05bf)" in manifest["version"]["output"]
    assert len(manifest["source"]["patches"]) == 2


# What the linker sees of one FlashAttention kernel: head sizes, then the KV cache's two types.
_KERNEL = re.compile(
    r"ggml_cuda_flash_attn_ext_vec\w*?_caseI(?:Li\d+E)+L9ggml_type(\d+)EL(?:S\d*_|9ggml_type)(\d+)E"
)
_F16, _Q4_0, _Q4_1, _Q5_0, _Q5_1, _Q8_0, _BF16 = 1, 2, 3, 6, 7, 8, 30  # ggml_type, ggml.h


def kernel_pairs(artifact: dict[str, Any]) -> set[tuple[int, int]]:
    """Return the pairs of KV cache types (ggml_type's numbers) that have FlashAttention kernels."""
    pairs = set()
    for row in artifact["manifest"]["files"]:
        if row["device_code"]:
            with (Path(artifact["path"]) / row["path"]).open("rb") as file:
                table = ELFFile(file).get_section_by_name(".dynsym")
                assert isinstance(table, SymbolTableSection)
                names = [s.name for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF"]
            pairs |= {(int(m[1]), int(m[2])) for m in map(_KERNEL.search, names) if m}
    return pairs


def cubins(artifact: dict[str, Any]) -> set[str]:
    """Return the architectures of the machine code for the GPU."""
    names = {c["name"] for f in artifact["manifest"]["files"] for c in f["device_code"]}
    return {n for n in names if n.startswith("sm_")}


@pytest.mark.full
def test_llama_cpp_for_cuda(engines: Box) -> None:
    artifact = build(engines, "llama_cpp", "cuda")
    assert cubins(artifact) == {"sm_121a"}  # the engine turns 121 into 121a by itself
    assert definitions(artifact["manifest"])["GGML_CUDA_FA_QUANTS"] == "all"
    types = (_F16, _Q4_0, _Q4_1, _Q5_0, _Q5_1, _Q8_0, _BF16)
    assert kernel_pairs(artifact) == set(itertools.product(types, types))
    assert len(artifact["manifest"]["verdicts"]["pairs"]) == len(types) ** 2 * 3  # head sizes


@pytest.mark.full
def test_ik_llama_for_cuda(engines: Box) -> None:
    artifact = build(engines, "ik_llama", "cuda")
    assert cubins(artifact) == {"sm_121"}
    assert definitions(artifact["manifest"])["GGML_CUDA_FA_ALL_QUANTS"] == "ON"
    assert kernel_pairs(artifact) >= {
        (_Q4_0, _Q5_1),
        (_Q8_0, _F16),
        (_Q8_0, _Q8_0),
    }  # the first only with "all"


@pytest.mark.full
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
@pytest.mark.parametrize("engine", ["llama_cpp", "ik_llama"])
def test_the_same_bytes_again(engine: str, backend: str, engines: Box) -> None:
    artifact = build(engines, engine, backend)
    words = ["reproduce", artifact["path"], "--offline", "--json"]
    report = engines.run(*words, env=NETWORK, timeout=HOURS).document()
    assert report["verdict"] == "identical"
    assert {f["path"] for f in report["rebuilds"][0]["files"]} == {
        f["path"] for f in artifact["manifest"]["files"]
    }
