from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sparkbuild import process
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.catalog.records import Cuda, CudaWheels, Refusal
from sparkbuild.errors import MissingError, UsageError
from sparkbuild.files import Folders
from sparkbuild.progress import Silent
from sparkbuild.toolchain import CudaToolkit, find_cuda, preflight
from sparkbuild.toolchain.cuda import gpu_arch, nvcc_version, refusal
from sparkbuild.toolchain.preflight import gencode
from tests.conftest import Script, compilers_of, cuda_of, digest, toolchain_of
from tests.wheels import toolkit_wheels

_SHIPPED = Catalog((shipped_root(),)).toolchains()


@pytest.mark.parametrize("arch", ["gb10", "gb10-sve2"])
@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("12.8", "unknown"),
        ("12.8.93", "unknown"),
        ("11.8", "unknown"),
        ("12.9", ""),
        ("12.9.86", ""),
        ("13.0.88", ""),
        ("13.1.80", ""),
        ("13.2.51", "miscompile"),
        ("13.2.78", "miscompile"),
        ("13.2.90", ""),
        ("13.3.1", ""),
        ("", "does not tell"),
        ("13", "does not tell"),
        ("V13.0", "does not tell"),
    ],
)
def test_refused_versions(arch: str, version: str, refused: str) -> None:
    why = refusal(_SHIPPED[arch].record, version)
    assert (refused in why) if refused else (why == "")


@pytest.mark.parametrize("arch", _SHIPPED)
def test_the_two_miscompiling_versions_are_refused_everywhere(arch: str) -> None:
    assert all(refusal(_SHIPPED[arch].record, v) for v in ("13.2.51", "13.2.78"))


@pytest.mark.parametrize(
    ("arch", "option"),
    [
        ("121", "-gencode=arch=compute_121,code=[compute_121,sm_121]"),
        ("121a-real", "-gencode=arch=compute_121a,code=sm_121a"),
        ("90-virtual", "-gencode=arch=compute_90,code=compute_90"),
        ("native", "-arch=native"),
        ("90-real;121-real", "-gencode=arch=compute_90,code=sm_90 -gencode=arch=compute_121,code=sm_121"),
    ],
)
def test_gencode(arch: str, option: str) -> None:
    assert gencode(arch) == option.split()


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("echo 'Cuda compilation tools, release 13.0, V13.0.88'", "13.0.88"),
        ("echo 'no version here'", ""),
        ("echo V13.0.88; exit 1", ""),
    ],
)
def test_nvcc_tells_its_version(script: Script, said: str, version: str) -> None:
    assert nvcc_version(script("nvcc", said)) == version


def test_an_absent_nvcc_has_no_version(tmp_path: Path) -> None:
    assert nvcc_version(tmp_path / "nvcc") == ""


# --- assembled from wheels -----------------------------------------------------------------------


@pytest.fixture
def assembled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CudaToolkit:
    monkeypatch.setattr("sparkbuild.toolchain.cuda.installed_roots", list)  # this machine may have one
    folders = Folders(tmp_path / "cache", tmp_path / "store", tmp_path / "config")  # no space in a path
    wheels = toolkit_wheels(folders)
    gcc = Path(shutil.which("gcc") or "gcc")
    return find_cuda(toolchain_of(), wheels, compilers_of(cc=gcc), folders, offline=True, progress=Silent())


def test_wheels_become_a_toolkit(assembled: CudaToolkit) -> None:
    root, target = assembled.root, assembled.target_dir
    assert assembled.origin == "wheels"
    assert target == root / "targets/sbsa-linux"
    names = {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}
    assert names == {
        ".sparkbuild-sum",
        "bin/nvcc",
        "nvvm/bin/cicc",
        "targets/sbsa-linux/include/fatbinary_section.h",
        "targets/sbsa-linux/include/cuda.h",
        "targets/sbsa-linux/include/cuda_runtime.h",
        "targets/sbsa-linux/lib/libcudart.so.13",
        "targets/sbsa-linux/lib/libcudart.so",
        "targets/sbsa-linux/lib/stubs/libcuda.so",
        "targets/sbsa-linux/lib/stubs/libcuda.so.1",
    }
    assert assembled.nvcc.stat().st_mode & 0o100
    assert (target / "lib/libcudart.so").read_text() == "lib"
    assert target / "lib" in assembled.runtime_dirs


def test_the_driver_stub_has_every_function_of_the_header(assembled: CudaToolkit) -> None:
    said = process.run(["nm", "-D", "--defined-only", assembled.target_dir / "lib/stubs/libcuda.so"]).output
    assert {line.split()[-1] for line in said.splitlines()} >= {
        "cuInit",
        "cuMemAlloc",
        "cuMemAlloc_v2",
        "cuMemcpy",
    }


def test_cmake_is_told_where_all_of_it_is(assembled: CudaToolkit) -> None:
    told = assembled.definitions
    assert told["CMAKE_CUDA_COMPILER"] == str(assembled.nvcc)
    assert told["CUDAToolkit_ROOT"] == str(assembled.root)
    assert str(assembled.target_dir / "lib/stubs") in told["CMAKE_EXE_LINKER_FLAGS"]


@pytest.mark.threat("environment", "a CUDA toolkit at a path that nvcc would split", "refused")
def test_a_path_that_nvcc_would_split_is_refused(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparkbuild.toolchain.cuda.installed_roots", list)
    wheels = Catalog((shipped_root(),)).cuda_wheels("13.0").record
    with pytest.raises(UsageError, match="with ' ' in it"):
        find_cuda(toolchain_of(), wheels, compilers_of(), folders, offline=True, progress=Silent())


def test_offline_without_wheels_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders(tmp_path / "cache", tmp_path / "store", tmp_path / "config")
    monkeypatch.setattr("sparkbuild.toolchain.cuda.installed_roots", list)
    wheels = Catalog((shipped_root(),)).cuda_wheels("13.0").record
    with pytest.raises(MissingError, match="--offline"):
        find_cuda(toolchain_of(), wheels, compilers_of(), folders, offline=True, progress=Silent())
    assert not list(folders.cache.glob("cuda/*/"))


def test_refused_wheels_are_not_assembled(
    folders: Folders, script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nvcc = script("nvcc", "echo V12.8.93")
    (tmp_path / "old" / "bin").mkdir(parents=True)
    nvcc.rename(tmp_path / "old" / "bin" / "nvcc")
    monkeypatch.setattr("sparkbuild.toolchain.cuda.installed_roots", lambda: [tmp_path / "old"])
    wheels = CudaWheels(1, "12.8", "12.8.93", "580", ())
    toolchain = toolchain_of(cuda=Cuda("121", "12.8", (Refusal("<12.9", "it is too old"),)))
    with pytest.raises(MissingError, match="too old") as caught:
        find_cuda(toolchain, wheels, compilers_of(), folders, offline=True, progress=Silent())
    assert f"{tmp_path / 'old'}: CUDA 12.8.93 (<12.9): it is too old" in caught.value.where


def test_an_installed_toolkit_is_taken_when_it_has_everything(
    folders: Folders, script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "cuda"
    (root / "bin").mkdir(parents=True)
    script("nvcc", "echo V13.0.88").rename(root / "bin/nvcc")
    target = root / "targets/sbsa-linux"
    wanted = ("include/cuda_runtime.h", "include/cublas_v2.h", "lib/libcudart.so", "lib/libcublas.so")
    for name in (*wanted, "lib/stubs/libcuda.so"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("")
    monkeypatch.setattr("sparkbuild.toolchain.cuda.installed_roots", lambda: [root])
    wheels = CudaWheels(1, "12.8", "12.8.93", "580", ())
    refused = toolchain_of(cuda=Cuda("121", "12.8", (Refusal("<12.9", "it is too old"),)))
    arguments = (refused, wheels, compilers_of(), folders)
    found = find_cuda(*arguments, offline=True, progress=Silent())
    assert (found.root, found.version, found.origin) == (root, "13.0.88", "installed")
    (target / "lib/libcublas.so").unlink()
    with pytest.raises(MissingError) as caught:
        find_cuda(*arguments, offline=True, progress=Silent())
    assert f"{root}: has no lib/libcublas.so for sbsa-linux" in caught.value.where


def test_a_preflight_that_fails_gives_the_compilers_own_words(script: Script, tmp_path: Path) -> None:
    nvcc = script("nvcc", "echo 'nvcc fatal: Unsupported gpu architecture compute_121' >&2; exit 1")
    (tmp_path / "root" / "bin").mkdir(parents=True)
    nvcc.rename(tmp_path / "root" / "bin" / "nvcc")
    cuda = cuda_of(tmp_path / "root", definitions={"CMAKE_EXE_LINKER_FLAGS": "-Wl,x"}, digest=digest("x"))
    with pytest.raises(MissingError, match="can not compile a kernel for 121") as caught:
        preflight(cuda, compilers_of(), "121", tmp_path / "work", tmp_path / "cache", Silent())
    assert not list(tmp_path.glob("cache/machine/*"))
    assert "Unsupported gpu architecture" in caught.value.output
    assert "nvcc" in caught.value.where


def test_the_gpu_of_a_named_target_is_the_toolchains_own() -> None:
    assert gpu_arch(_SHIPPED["gb10"].record) == "121"


@pytest.mark.parametrize(
    ("said", "arch"), [("echo 9.0", "90"), ("echo 12.1; echo 12.1", "121"), ("echo 12.1; echo 9.0", "121;90")]
)
def test_native_means_the_gpu_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, arch: str
) -> None:
    ask_gpu(tmp_path, monkeypatch, said)
    assert gpu_arch(_SHIPPED["host"].record) == arch


@pytest.mark.parametrize("said", ["exit 9", "echo N/A", "true"])
def test_native_without_a_gpu_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    ask_gpu(tmp_path, monkeypatch, said)
    with pytest.raises(MissingError, match="none to ask") as caught:
        gpu_arch(_SHIPPED["host"].record)
    assert "CMAKE_CUDA_ARCHITECTURES" in caught.value.remedy


def ask_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Put an nvidia-smi that runs ``said`` before every other program."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{said}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{process.SYSTEM_PATH}")
