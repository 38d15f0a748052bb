"""One toolkit folder out of NVIDIA's wheels, and whether it is still what was put there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from sparkbuild import process
from sparkbuild.archives import extract
from sparkbuild.catalog.records import Wheel
from sparkbuild.errors import MissingError
from sparkbuild.files import Folders, sha256_bytes, sha256_file, whole_folder
from sparkbuild.toolchain.compilers import Compilers
from sparkbuild.toolchain.memory import recall

_SUM = ".sparkbuild-sum"


def assemble(files: Iterable[tuple[Wheel, Path]], root: Path, target: Path, compilers: Compilers) -> None:
    """Unpack wheels into the folder ``root``, which is there whole or not at all.

    ``target`` is the folder in it of the target's headers and libraries.
    """
    with whole_folder(root, flush=True) as temp:
        there = temp / target.relative_to(root)
        _unpack(files, temp, there)
        _linker_names(there / "lib")
        _driver_stub(there, compilers)
        (temp / _SUM).write_text(_sum(temp)[0])


def is_whole(root: Path, folders: Folders) -> bool:
    """Return whether a toolkit holds what was assembled; its files are read again when one has changed.

    One from before there was a sum is believed.
    """
    root = root.resolve()
    if not (root / _SUM).is_file():
        return True
    return (root / _SUM).read_bytes() == recall(
        folders.cache, "toolkit", [root], str, lambda: _sum(root)
    ).encode()


def _sum(root: Path) -> tuple[str, list[Path]]:
    """Return the SHA-256 of a folder's file names and contents, and the files."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != _SUM)
    lines = [f"{sha256_file(p)}  {p.relative_to(root)}" for p in files]
    return sha256_bytes("\n".join(lines).encode()), files


def _unpack(files: Iterable[tuple[Wheel, Path]], root: Path, target: Path) -> None:
    """Put programs below the root and the target's headers and libraries below its platform.

    Wheels hold nvidia/cu13/{bin,nvvm,include,lib}. nvcc's wheel also brings fatbinary_section.h,
    which every object file needs and the run time's wheel lacks.
    """
    for wheel, path in files:
        scratch = root / ".wheel"
        extract(path, scratch, below="nvidia/cu13")
        if wheel.part == "build":
            moves = [("bin", root), ("nvvm", root)]
            header = scratch / "include/fatbinary_section.h"
            if header.is_file():
                (target / "include").mkdir(parents=True, exist_ok=True)
                header.rename(target / "include" / header.name)
        else:
            shutil.rmtree(scratch / "lib/cmake", ignore_errors=True)
            moves = [("include", target), ("lib", target)]
        for name, into in moves:
            _merge(scratch / name, into / name)
        shutil.rmtree(scratch)


def _merge(source: Path, into: Path) -> None:
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        place = into / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)


def _linker_names(lib: Path) -> None:
    """Add libNAME.so for each libNAME.so.N: wheels bring only what the loader wants."""
    for path in sorted(lib.glob("lib*.so.*")):
        name = lib / re.sub(r"\.so\..*", ".so", path.name)
        if not name.exists():
            name.symlink_to(path.name)


def _driver_stub(target: Path, compilers: Compilers) -> None:
    """Make a libcuda.so that exports every function of cuda.h: the driver comes with the GPU.

    Newer ABIs of a function are #defines to NAME_v2 and the like; they count too. Each function
    returns 100, CUDA_ERROR_NO_DEVICE.
    """
    header = (target / "include/cuda.h").read_text(errors="replace")
    names = set(re.findall(r"\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(", header))
    renamed = r"^\s*#\s*define\s+cu[A-Z]\w*\s+(?:__CUDA_API_PT[DS][SZ]\()?(cu[A-Z]\w*?)\)?\s*$"
    names |= set(re.findall(renamed, header, re.MULTILINE))
    stubs = target / "lib/stubs"
    stubs.mkdir(parents=True, exist_ok=True)
    code = "".join(f"int {name}(void) {{ return 100; }}\n" for name in sorted(names))
    flags = ("-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libcuda.so.1", "-x", "c", "-")
    try:
        process.run([compilers.cc, *flags, "-o", stubs / "libcuda.so"], stdin=code)
    except process.ProcessError as problem:
        raise MissingError(
            f"the driver stub could not be made: {problem.why}",
            where=problem.done.command,
            remedy="'sparkbuild doctor' checks the compilers",
            output=problem.done.errors[-3000:],
        ) from problem
    (stubs / "libcuda.so.1").symlink_to("libcuda.so")  # what the linker looks for behind a library
