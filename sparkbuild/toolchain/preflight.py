"""Prove a CUDA toolkit in seconds: compile, link and link again as the long build will.

A build of an hour once failed at its last step because the linker did not find CUDA's libraries
behind a library. This makes the same three steps with one kernel.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sparkbuild import process
from sparkbuild.errors import MissingError
from sparkbuild.progress import Progress
from sparkbuild.toolchain.compilers import Compilers
from sparkbuild.toolchain.cuda import CudaToolkit
from sparkbuild.toolchain.memory import recall

_KERNEL = """
#include <cuda.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <cublas_v2.h>
#include <cub/version.cuh>
#include <mma.h>
__global__ void twice(__half *v) { v[threadIdx.x] = __hadd(v[threadIdx.x], v[threadIdx.x]); }
extern "C" int preflight() {
    cublasHandle_t handle; int devices = 0;
    twice<<<1, 1>>>(nullptr);
    return cudaGetDeviceCount(&devices) + cublasCreate(&handle) + cuDeviceGetCount(&devices);
}
"""
_PROGRAM = 'extern "C" int preflight(); int main() { return preflight(); }'


def gencode(archs: str) -> list[str]:
    """Return nvcc's options for a CMAKE_CUDA_ARCHITECTURES value, such as 121, 121a-real or 90;121."""
    return [_gencode(arch) for arch in archs.split(";")]


def _gencode(arch: str) -> str:
    name, _, kind = arch.partition("-")
    if name == "native":
        return "-arch=native"
    code = {"real": f"sm_{name}", "virtual": f"compute_{name}"}.get(kind, f"[compute_{name},sm_{name}]")
    return f"-gencode=arch=compute_{name},code={code}"


def preflight(
    cuda: CudaToolkit, compilers: Compilers, arch: str, work: Path, cache: Path, progress: Progress
) -> None:
    """Compile a kernel for ``arch``, link a library, link a program against it as the build will.

    The library needs cuBLAS and the driver. What could do it is remembered in ``cache``. Raises MissingError
    with the failing step's own words.
    """

    def prove() -> tuple[bool, list[Path]]:
        progress.stage(f"preflight: one kernel for {arch}, linked as the build links")
        _prove(cuda, compilers, arch, work)
        lib, headers = cuda.target_dir / "lib", cuda.target_dir / "include"
        linked = (*lib.glob("libcublas*.so*"), *lib.glob("libcudart*"), *lib.glob("stubs/libcuda.so"))
        return True, [cuda.nvcc, compilers.cxx, headers / "cublas_v2.h", headers / "cuda_fp16.h", *linked]

    question = [str(cuda.root), cuda.digest, str(compilers.cxx), compilers.digest, compilers.flags, arch]
    recall(cache, "preflight", question, bool, prove)


def _prove(cuda: CudaToolkit, compilers: Compilers, arch: str, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "kernel.cu").write_text(_KERNEL)
    (work / "program.cpp").write_text(_PROGRAM)
    lib = cuda.target_dir / "lib"
    rpath = "-Wl,-rpath,$ORIGIN"
    flags = ",".join(("-fPIC", *compilers.flags))
    link = ("-L", lib, "-L", lib / "stubs", "-lcudart", "-lcublas", "-lcuda")
    behind = cuda.definitions["CMAKE_EXE_LINKER_FLAGS"]
    steps: dict[str, list[process.Word]] = {
        "compile a kernel": [
            *(cuda.nvcc, "-ccbin", compilers.cxx, "-std=c++17", "-O2"),
            *gencode(arch),
            *(f"-Xcompiler={flags}", "-c", "kernel.cu", "-o", "kernel.o"),
        ],
        "link a library with CUDA": [
            *(
                compilers.cxx,
                "-shared",
                "-o",
                "libkernel.so",
                "kernel.o",
                *link,
                rpath,
                "-Wl,--no-undefined",
                behind,
            ),
        ],
        "link a program with that library": [
            compilers.cxx,
            "-o",
            "program",
            "program.cpp",
            "./libkernel.so",
            rpath,
            behind,
        ],
    }
    for what, argv in steps.items():
        try:
            process.run(argv, cwd=work, timeout=300, env=process.clean_env(HOME=str(work), TMPDIR=str(work)))
        except process.ProcessError as problem:
            raise MissingError(
                f"CUDA {cuda.version} can not {what} for {arch}: {problem.why}",
                where=problem.done.command,
                remedy=f"the toolkit is {cuda.origin} at {cuda.root}",
                output=(problem.done.output + problem.done.errors)[-3000:],
            ) from problem
    shutil.rmtree(work)
