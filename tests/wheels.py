"""Small wheels with what a CUDA toolkit is assembled from, in the cache already."""

from __future__ import annotations

import hashlib
import zipfile
from typing import Literal

from sparkbuild.catalog.records import CudaWheels, Wheel
from sparkbuild.files import Folders
from sparkbuild.packages import Pin

_CUDA_H = """
CUresult CUDAAPI cuInit(unsigned int Flags);
CUresult CUDAAPI cuMemAlloc(CUdeviceptr *dptr, size_t bytesize);
#define cuMemAlloc cuMemAlloc_v2
#define cuMemcpy __CUDA_API_PTDS(cuMemcpy)
"""
_BUILD = {
    "bin/nvcc": "#!/bin/sh\n",
    "nvvm/bin/cicc": "#!/bin/sh\n",
    "include/fatbinary_section.h": "/* section */",
    "include/unwanted.h": "",
}
_TARGET = {
    "include/cuda.h": _CUDA_H,
    "include/cuda_runtime.h": "",
    "lib/libcudart.so.13": "lib",
    "lib/cmake/x.cmake": "",
}


def toolkit_wheels(folders: Folders) -> CudaWheels:
    """Return wheels for both machines, whose files lie in the cache."""
    machines: tuple[Literal["aarch64", "x86_64"], ...] = ("aarch64", "x86_64")
    rows = [_wheel(folders, "build", m, _BUILD) for m in machines]
    rows += [_wheel(folders, "target", m, _TARGET) for m in machines]
    return CudaWheels(1, "13.0", "13.0.88", "580", tuple(rows))


def _wheel(
    folders: Folders,
    part: Literal["build", "target"],
    machine: Literal["aarch64", "x86_64"],
    files: dict[str, str],
) -> Wheel:
    path = folders.cache / f"{part}-{machine}.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as pack:
        for name, text in files.items():
            info = zipfile.ZipInfo(f"nvidia/cu13/{name}")
            info.external_attr = 0o100755 << 16
            pack.writestr(info, text)
        pack.writestr("x-1.dist-info/METADATA", "")
    data = path.read_bytes()
    pin = Pin(project="x", file=path.name, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    cached = folders.cache / "downloads" / pin.sha256[:16] / pin.file
    cached.parent.mkdir(parents=True, exist_ok=True)
    path.rename(cached)
    return Wheel(part, machine, pin)
