"""The flags that keep places and process numbers out of the bytes that compilers write.

What each is against, with proof that it works and that it is needed: tests/integration/test_what_differs.py.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from sparkbuild.toolchain.place import BUILD, SOURCE

_CACHE = "/sparkbuild"  # what stands for the cache folder in the bytes


def host_flags(cache: Path) -> str:
    """Return what CMAKE_C_FLAGS and CMAKE_CXX_FLAGS get, for a build below ``cache``.

    -ffile-prefix-map changes __FILE__ and debug information: for the source tree, for what the build itself
    generates, and for the cache, where an assembled CUDA toolkit lies. gcc splits it at the last "=".

    Quoted for one shell, the one that ninja starts, and with "$" doubled for ninja itself, into whose
    variables CMake copies flags as they are. The value does not begin with a quote: CMake takes away
    quotes around a whole value that it stores in its cache.
    """
    return _for_ninja(_maps(cache))


def cuda_flags(cache: Path) -> str:
    """Return what CMAKE_CUDA_FLAGS gets, for a build below ``cache``.

    -objtemp names nvcc's temporary files after the object, without its folder, and --frandom-seed stands
    in for the process number in the names of a file's internal symbols; both are in the bytes otherwise
    (nvcc 13.0).

    The maps are for the host compiler. nvcc pastes them into a command for a shell of its own, so they
    are quoted twice. They are given as they are, which CMake's -forward-unknown-to-host-compiler lets
    through: -Xcompiler would split them at commas, in quotes or not.
    """
    return _for_ninja(["-objtemp", "--frandom-seed=sparkbuild", *map(shlex.quote, _maps(cache))])


def _maps(cache: Path) -> list[str]:
    """Return the maps as words of a shell; what is quoted is the path, so that each begins with "-"."""
    places = {SOURCE: ".", BUILD: f"{_CACHE}/build", cache: _CACHE}
    return [f"-ffile-prefix-map={shlex.quote(str(old))}={new}" for old, new in places.items()]


def _for_ninja(words: list[str]) -> str:
    return " ".join(words).replace("$", "$$")
