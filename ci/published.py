"""Fetch binaries that others published, by hash, and compare probe with the oracles on each: ci/oracle.py.

python -m ci.published FOLDER      FOLDER keeps the files (350 MB, 490 MB unpacked)
"""

from __future__ import annotations

import sys
from pathlib import Path

from ci import oracle
from sparkbuild.archives import extract
from sparkbuild.files import Folders
from sparkbuild.packages import Pin, obtain
from sparkbuild.progress import Silent

_X86 = "manylinux2014_x86_64.manylinux_2_17_x86_64"
_PINS = (
    Pin(
        project="ik-llama-cpp-python",
        file="ik_llama_cpp_python-0.1.5-cp311-cp311-manylinux_2_28_x86_64.whl",
        sha256="52408f31dd05d16ada53b041155f14ec1fee9acd6ab0b4b4f77de04bd565bd67",
        size=25007029,
    ),
    Pin(
        project="llama-cpp-cffi",  # CUDA 12.6, eleven architectures, linked statically
        file="llama_cpp_cffi-0.4.42-cp311-cp311-manylinux_2_34_x86_64.whl",
        sha256="d46c7e486262521eef6e0a694a62066dff43e8655df96399058e525ec92aa3f1",
        size=291353486,
    ),
    Pin(
        project="xllamacpp",
        file=f"xllamacpp-2026.10.11549-cp310-abi3-{_X86}.whl",
        sha256="c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261",
        size=33827498,
    ),
)


def main(folder: Path) -> int:
    """Return the oracle's exit code over all of them."""
    folders = Folders(folder, folder / "store", folder / "config")
    places = []
    for pin in _PINS:
        place = folder / pin.project
        if not place.is_dir():
            extract(obtain(pin, folders, offline=False, progress=Silent()), place)
        places.append(str(place))
    return oracle.main(places)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
