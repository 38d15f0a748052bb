"""What the building machine has for a target: compilers, CUDA, and the proof that they work."""

from sparkbuild.toolchain.compilers import Compilers, FeatureProof, find_compilers, is_cross, target_processor
from sparkbuild.toolchain.cuda import CudaToolkit, find_cuda, gpu_arch
from sparkbuild.toolchain.preflight import preflight

__all__ = [
    "Compilers",
    "CudaToolkit",
    "FeatureProof",
    "find_compilers",
    "find_cuda",
    "gpu_arch",
    "is_cross",
    "preflight",
    "target_processor",
]
