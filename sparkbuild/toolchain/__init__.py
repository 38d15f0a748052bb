"""What the building machine has for a target: compilers, CUDA, and the proof that they work."""

from sparkbuild.toolchain.compilers import (
    Compilers,
    FeatureProof,
    describe,
    find_compilers,
    is_cross,
    target_processor,
)
from sparkbuild.toolchain.cuda import CudaToolkit, find_cuda, gpu_arch, runtime_dirs
from sparkbuild.toolchain.preflight import preflight
from sparkbuild.toolchain.runners import runners

__all__ = [
    "Compilers",
    "CudaToolkit",
    "FeatureProof",
    "describe",
    "find_compilers",
    "find_cuda",
    "gpu_arch",
    "is_cross",
    "preflight",
    "runners",
    "runtime_dirs",
    "target_processor",
]
