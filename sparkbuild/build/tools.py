"""The cmake and ninja that came with this installation."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import msgspec

from sparkbuild.errors import MissingError


class Tools(msgspec.Struct, frozen=True):
    """CMake and ninja, from their packages: paths and versions."""

    cmake: Path
    cmake_version: str
    ninja: Path
    ninja_version: str


def find_tools() -> Tools:
    """Return the cmake and ninja that came with this installation."""
    import cmake as cmake_package  # noqa: PLC0415 - 0.1 s that who reads a manifest need not wait
    import ninja as ninja_package  # noqa: PLC0415 - as above

    cmake, ninja_path = Path(cmake_package.CMAKE_BIN_DIR, "cmake"), Path(ninja_package.BIN_DIR, "ninja")
    versions = (cmake_version(), _installed("ninja"))
    for tool in (cmake, ninja_path):
        if not tool.is_file():
            raise MissingError(
                f"{tool.name} is missing", where=str(tool), remedy="pip install --force-reinstall cmake ninja"
            )
    return Tools(cmake, versions[0], ninja_path, versions[1])


def cmake_version() -> str:
    """Return the version of CMake. Raises MissingError."""
    return _installed("cmake")


def _installed(name: str) -> str:
    """Return a package's version as it is installed now; a module that was imported tells of before."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise MissingError(
            f"{name} is missing", where=sys.prefix, remedy="pip install --force-reinstall cmake ninja"
        ) from None
