"""What runs a stranger's binary on this machine: a compiler for our helper, CUDA's libraries."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from sparkbuild.files import Folders
from sparkbuild.toolchain.cuda import PLATFORMS, installed_roots, runtime_dirs


def runners(folders: Folders) -> tuple[dict[str, tuple[str, ...]], tuple[Path, ...]]:
    """Return what runs a stranger's binary here: C compilers by machine, and folders of CUDA libraries."""
    here = platform.machine()
    names = {m: ("cc", "gcc") if m == here else (f"{m}-linux-gnu-gcc",) for m in PLATFORMS}
    found = {m: next((w for n in words if (w := shutil.which(n))), "") for m, words in names.items()}
    assembled = sorted((folders.cache / "cuda").glob("[0-9]*"), reverse=True)
    roots = [*installed_roots(), *(p for p in assembled if p.is_dir())]
    # The loader skips a library of another machine, so the folders of all may be named.
    libraries = [d for root in roots for machine in PLATFORMS for d in runtime_dirs(root, machine)]
    return {m: (cc,) for m, cc in found.items() if cc}, tuple(libraries)
