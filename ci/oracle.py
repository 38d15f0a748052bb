"""Compare what probe reads with what cuobjdump, nm and objdump say of the same files, and what it costs.

    python -m ci.oracle PATH...        files, or folders whose ELF files (objects too) all count

Device code is compared entry by entry with cuobjdump's lists (where it is on PATH or in
/usr/local/cuda/bin; NVIDIA also publishes it as a wheel, nvidia-cuda-cuobjdump), the symbols that rules
look for with nm's, and the instructions that need a CPU feature with objdump's, judged by the
assembler. A difference is named and the exit code is 1. At the end: CPU seconds and largest memory of both.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.inspection.elf import is_elf
from sparkbuild.inspection.facts import FileFacts, file_facts, wanted_names
from tests.unit.inspection.assembler import NEEDS, find

_CATALOG = Catalog((shipped_root(),))
_WANTED = wanted_names(_CATALOG.features().record, [s.record for s in _CATALOG.recipes().values()])
_SYMBOL = re.compile("|".join((*_WANTED.symbols, *(_WANTED.variables or ()))))
_ENTRY = re.compile(r"^(?:ELF|PTX) file +\d+: .*\.sm_(\d+[af]?)\.(?:cubin|ptx)$", re.MULTILINE)
_CUOBJDUMP = shutil.which("cuobjdump", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")


def said(*command: str | Path) -> str:
    """Return what a tool prints; one that finds nothing of its kind may fail."""
    env = os.environ | {"LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env).stdout


def device_code(path: Path) -> dict[str, int]:
    """Return cuobjdump's count of each kind of device code."""
    lists = {"sm_": said(_CUOBJDUMP or "", "-lelf", path), "compute_": said(_CUOBJDUMP or "", "-lptx", path)}
    return dict(Counter(f"{kind}{arch}" for kind, text in lists.items() for arch in _ENTRY.findall(text)))


def symbols(path: Path) -> set[str]:
    """Return the defined symbols, dynamic ones too, that some rule looks for."""
    lines = (said("nm", "--defined-only", path) + said("nm", "-D", "--defined-only", path)).splitlines()
    names = {line.split(" ", 2)[-1].partition("@")[0] for line in lines}
    return {n for n in names if _SYMBOL.fullmatch(n)}


def differences(path: Path, ours: FileFacts) -> Iterator[str]:
    """Yield, in words, where the tools see something else."""
    mine = {d.name: d.entries for d in ours.device_code}
    if _CUOBJDUMP and (theirs := device_code(path)) != mine:
        yield f"device code: {theirs} against {mine}"
    if lost := symbols(path) ^ set(ours.names.symbols):
        yield f"symbols: {', '.join(sorted(lost)[:3])}, {len(lost)} in all"
    machine = ours.elf.machine
    if find(machine, "objdump") and (counts := NEEDS[machine](path)) != ours.instructions:
        yield f"instructions: {counts} against {ours.instructions}"


def main(words: list[str]) -> int:
    """Compare every file; return the exit code."""
    named = [p for w in words for p in ([Path(w)] if Path(w).is_file() else sorted(Path(w).rglob("*")))]
    paths = [p for p in named if p.is_file() and not p.is_symlink() and is_elf(p)]
    found = 0
    begin = resource.getrusage(resource.RUSAGE_SELF)
    facts = {p: file_facts(p.name, p, _WANTED) for p in paths}
    end = resource.getrusage(resource.RUSAGE_SELF)
    for path, ours in facts.items():
        for text in differences(path, ours):
            found += 1
            sys.stdout.write(f"{path}: {text}\n")
    tools = resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime
    theirs = tools.ru_utime + tools.ru_stime
    sys.stdout.write(f"{len(paths)} files, {found} differences; {_CUOBJDUMP or 'no cuobjdump'}\n")
    sys.stdout.write(f"probe {mine:.1f} CPU s, {end.ru_maxrss >> 10} MiB; ")
    sys.stdout.write(f"tools, the assembler among them, {theirs:.1f} CPU s, {tools.ru_maxrss >> 10} MiB\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
