"""The compilers that another machine needs for a step of a build, with their libraries, as one archive."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from sparkbuild import process
from sparkbuild.files import disk_faults, sha256_bytes, sha256_file, to_json
from sparkbuild.planning import Plan
from sparkbuild.rooms import room

_PARTS = ("cc1", "cc1plus", "as")  # what the driver starts for a compile; it links nothing elsewhere
_CUDA = {"cudafe++": "bin", "ptxas": "bin", "cicc": "nvvm/bin"}
_INSIDE = "/sparkbuild"  # where CUDA's programs are in the archive; the host compilers keep their paths
_LIBRARY = re.compile(r"(/\S+) \(0x")
_LEVEL = 1  # of gzip: 240 MB of programs become 85 MB in some seconds, and 75 MB in a minute at 9


def steps(plan: Plan) -> dict[Path, str]:
    """Return the programs whose work another machine may do, each with its path in the archive."""
    host = {path.resolve(): str(path.resolve()) for path in (plan.compilers.cc, plan.compilers.cxx)}
    root = plan.cuda.root.resolve() if plan.cuda else None
    cuda = (
        {(root / folder / name).resolve(): f"{_INSIDE}/{name}" for name, folder in _CUDA.items()}
        if root
        else {}
    )
    return host | cuda


def pack(plan: Plan, folder: Path) -> Path:
    """Return the archive of a plan's tools: a gzip-compressed tar as sccache-dist takes it.

    It is below ``folder``, named by its content, and its bytes depend on nothing else. Raises ProcessError
    when a compiler does not say where its parts are, StoreError when the archive can not be written.
    """
    content: dict[str, Path] = {}
    for program, name in steps(plan).items():
        _add(content, name, program)
    for part in _PARTS:
        said = process.run([plan.compilers.cxx, f"-print-prog-name={part}"]).output.strip()
        if found := shutil.which(said, path=process.SYSTEM_PATH):
            _add(content, str(_plain(Path(found))), Path(found))
    digest = sha256_bytes(to_json(sorted((name, sha256_file(path)) for name, path in content.items())))
    archive = folder / f"{digest[:16]}.tar.gz"
    if not archive.is_file():
        with disk_faults(archive), room(archive) as own:
            _write(own / archive.name, content)
            (own / archive.name).replace(archive)
    return archive


def _plain(path: Path) -> Path:
    """Return a path without "..", its links as they are: where the loader or a driver looks for it."""
    kept: list[str] = []
    for part in path.parts:
        if part == "..":
            kept.pop()
        else:
            kept.append(part)
    return Path(*kept)


def _add(content: dict[str, Path], name: str, path: Path) -> None:
    """Add a program, and the libraries that it loads."""
    content[name] = path
    for library in _LIBRARY.findall(process.run(["ldd", path], check=False).output):
        content[str(_plain(Path(library)))] = Path(library)


def _write(path: Path, content: Mapping[str, Path]) -> None:
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        temp = tarfile.TarInfo("tmp")
        temp.type, temp.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temp)
        for name in sorted(content):
            info = tarfile.TarInfo(name.lstrip("/"))
            info.size, info.mode = content[name].stat().st_size, 0o755
            with content[name].open("rb") as file:
                tar.addfile(info, file)
