"""Whether ccache gives, with these compilers on this machine, exactly what a compile gives."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from sparkbuild import process
from sparkbuild.build import ccache
from sparkbuild.planning import Plan

_SOURCE = """
#include "part.h"
#ifdef __CUDACC__
__global__ void kernel(int *x) {
#ifdef __CUDA_ARCH__
    x[0] = 11;
#endif
}
#endif
#ifndef __CUDA_ARCH__
int host() { return PART + 21; }
#endif
"""
_PART = "#define PART 31\n"
_SAME = ("", "")
_CHANGES = {  # what is other than at first: in the source, in the header
    "first": (_SAME, _SAME),
    "the same again": (_SAME, _SAME),
    "other host code": (("21", "22"), _SAME),
    "other device code": (("11", "12"), _SAME),
    "another header": (_SAME, ("31", "32")),
    "as at first": (_SAME, _SAME),
}
_KNOWN = 2  # of these ccache must have: the same again, as at first
_NVCC = ("-objtemp", "--frandom-seed=sparkbuild")
_PATIENCE = 300.0  # seconds for a compile


def faults(program: Path, plan: Plan) -> list[str]:
    """Return where what ccache gives is not what a compile gives; empty when it may be used.

    The host compilers and nvcc compile a small source, by themselves and through ccache, as it changes.
    Raises ProcessError when a compiler fails.
    """
    nvcc = [str(plan.cuda.root / "bin/nvcc"), f"-ccbin={plan.compilers.cxx}", *_NVCC] if plan.cuda else []
    compilers = {".c": [str(plan.compilers.cc)], ".cpp": [str(plan.compilers.cxx)], ".cu": nvcc}
    return [f for suffix, words in compilers.items() if words for f in _compare(program, words, suffix)]


def _compare(program: Path, compiler: list[str], suffix: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="sparkbuild-ccache-") as name:
        folder = Path(name)
        source, made, log = folder / f"x{suffix}", folder / "x.o", folder / "log"
        env = ccache.configure(folder / "conf", folder / "cache", "proof", log)
        env = process.clean_env(HOME=name, TMPDIR=name, **env)
        command = [*compiler, "-O1", "-MD", "-MT", "x.o", "-MF", "x.d", "-c", source.name, "-o", made.name]
        for change, (in_source, in_part) in _CHANGES.items():
            source.write_text(_SOURCE.replace(*in_source))
            (folder / "part.h").write_text(_PART.replace(*in_part))
            objects = []
            for words in (command, [str(program), *command]):
                made.unlink(missing_ok=True)
                process.run(words, env=env, cwd=folder, timeout=_PATIENCE)
                objects.append(made.read_bytes() if made.exists() else b"")
            if objects[0] != objects[1]:
                yield f"{Path(compiler[0]).name}, {change}: not the object that a compile gives"
        if (found := sum("direct_cache_hit" in words for _, words in ccache.calls(log))) < _KNOWN:
            yield f"{Path(compiler[0]).name}: it found {found} of {_KNOWN} objects that it had"
