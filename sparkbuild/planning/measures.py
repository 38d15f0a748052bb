"""The flags that keep places and process numbers out of what compilers write.

Every row of what they are against, and proof that they work, is tests/integration/test_what_differs.py.
"""

from __future__ import annotations

import shlex
from pathlib import Path

SOURCE = Path("/var/tmp/sparkbuild/source")
CACHE_NAME = "/sparkbuild"


def host_flags(cache: Path) -> str:
    """Return what CMAKE_C_FLAGS and CMAKE_CXX_FLAGS get, for a build below ``cache``.

    -ffile-prefix-map (__FILE__, debug information) for the source tree's one place, and for the cache
    folder, in which sources that a build generates and an assembled CUDA toolkit lie.
    Quoted for the shell through which ninja runs a compiler.
    """
    return " ".join(shlex.quote(flag) for flag in _maps(cache))


def cuda_flags(cache: Path) -> str:
    """Return what CMAKE_CUDA_FLAGS gets, for a build below ``cache``.

    -objtemp names temporary files after the object instead of the process, and --frandom-seed takes the
    place of the process number in the names of a file's internal symbols: both show in the bytes (nvcc
    13.0). The rest is for the host compiler behind nvcc, as in host_flags.
    """
    maps = " ".join(f"-Xcompiler={shlex.quote(flag)}" for flag in _maps(cache))
    return f"-objtemp --frandom-seed=sparkbuild {maps}"


def _maps(cache: Path) -> tuple[str, ...]:
    return f"-ffile-prefix-map={SOURCE}=.", f"-ffile-prefix-map={cache}={CACHE_NAME}"
