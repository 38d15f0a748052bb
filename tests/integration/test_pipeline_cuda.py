"""CUDA builds of the toy: the right GPU architecture, another one, none at all.

They need a toolkit that sparkbuild has assembled already (1 GB): SPARKBUILD_TEST_CUDA_HOME names a
SPARKBUILD_HOME in which any engine was built for gb10 or host with CUDA.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import Built, with_cuda
from tests.integration.engine import Box, Done, Toy, definitions

_GGML = "ggml/CMakeLists.txt"


@dataclass(frozen=True)
class Cuda:
    """A home with a CUDA toolkit, and the target machine that the toolkit is for."""

    box: Box
    arch: str

    def build(self, toy: Toy, gpu: str = "90") -> Done:
        words = [
            "--arch",
            self.arch,
            "--backend",
            "cuda",
            "--offline",
            "-D",
            f"CMAKE_CUDA_ARCHITECTURES={gpu}",
        ]
        return self.box.build(toy, *words, "--json")


@pytest.fixture
def cuda(built: Built, tmp_path: Path) -> Cuda:
    """Return a home that has the other home's toolkits."""
    return Cuda(*with_cuda(built, tmp_path / "home", "host", "gb10"))


def test_device_code_is_in_the_manifest(built: Built, cuda: Cuda) -> None:
    manifest = cuda.build(built.toy).artifact()["manifest"]
    code = {f["path"]: {c["name"] for c in f["device_code"]} for f in manifest["files"]}
    assert code.pop("bin/libggml-cuda.so") == {"sm_90", "compute_90"}
    assert set(map(len, code.values())) == {0}
    assert manifest["target"]["cuda_arch"] == "90"
    assert manifest["build"]["compile_commands"]["cuda_archs"] == {"90": 3}
    assert definitions(manifest)["GGML_CUDA_FA_QUANTS"] == "all"
    assert manifest["cuda"]["digest"]
    assert cuda.box.debris() == []


@pytest.mark.parametrize("scope", ["all", "one target"])
def test_another_arch_is_refused(scope: str, toy: Toy, cuda: Cuda) -> None:
    if scope == "all":
        on = "enable_language(CUDA)"
        toy.replace(_GGML, on, f"set(CMAKE_CUDA_ARCHITECTURES 90)\n        {on}")
    else:
        toy.append(_GGML, "set_target_properties(ggml-cuda PROPERTIES CUDA_ARCHITECTURES 90)\n")
    error = cuda.build(toy.publish(), "121").error(5, "configure")
    assert "compiled for ['90'], not 121" in error["what"]
    assert cuda.box.steps() == []
    cuda.box.assert_nothing_stored()


def test_cuda_not_found_is_an_error(toy: Toy, cuda: Cuda) -> None:
    """The source looks for CUDA, does not find it and goes on for the CPU alone."""
    toy.replace(_GGML, "find_package(CUDAToolkit)", "set(CUDAToolkit_FOUND FALSE)").publish()
    error = cuda.build(toy).error(5, "configure")
    assert "the build would be for the CPU only" in error["what"]
    cuda.box.assert_nothing_stored()


def test_cuda_turned_off_in_silence_is_an_error(toy: Toy, cuda: Cuda) -> None:
    toy.replace(_GGML, "if (GGML_CUDA)", "if (GGML_CUDA AND FALSE)").publish()
    error = cuda.build(toy).error(5, "configure")
    assert "no CUDA source is compiled" in error["what"]
    cuda.box.assert_nothing_stored()


def test_preflight_stops_what_can_not_link(toy: Toy, cuda: Cuda) -> None:
    """An architecture that this nvcc does not know costs seconds, not the build."""
    error = cuda.build(toy.publish(), "999").error(3, "missing")
    assert "can not compile a kernel for 999" in error["what"]
    assert "nvcc" in error["where"]
    assert "999" in error["output"]
    cuda.box.assert_nothing_stored()


def test_home_whose_path_the_linker_can_not_take(toy: Toy, cuda: Cuda, tmp_path: Path) -> None:
    """The last link of an hour's build is not where a blank in a path should be found."""
    box = Box(tmp_path / "a b" / "home")
    box.home.parent.mkdir()
    cuda.box.home.rename(box.home)
    error = Cuda(box, cuda.arch).build(toy.publish()).error(2, "usage")
    assert "CUDA" in error["what"]
    assert "SPARKBUILD_HOME" in error["remedy"]
