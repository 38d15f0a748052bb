"""What a power cut left of an earlier run's files: ninja's log says that they are made, the disk has a part.

The linker takes an empty object for an empty linker script and goes on without its code.
"""

from __future__ import annotations

import struct
from pathlib import Path

from sparkbuild.build import ninja
from sparkbuild.files import inside

_HEADER = struct.Struct("<4sB35xQ10xHH2x")  # magic, class, e_shoff, e_shentsize, e_shnum (elf(5), 64 bits)
_BITS_64 = 2


def drop_damaged(build_dir: Path) -> tuple[str, ...]:
    """Remove objects, libraries and programs that are empty or cut short, so that ninja makes them again.

    Returns their names. Compilers and linkers write a file's section headers last, so a file that has
    them is not cut; that no byte in it has changed is not said.
    """
    dropped = []
    for output in ninja.timeline(build_dir).steps:
        path = inside(build_dir, output)  # what the source ran may have written the log
        if path and (path.suffix in ("", ".o") or ".so" in path.name) and _is_cut(path):
            path.unlink()
            dropped.append(output)
    return tuple(sorted(dropped))


def _is_cut(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if not head.startswith(b"\x7fELF"):
        return size == 0 or not any(head)  # a file system may leave zeros
    if len(head) < _HEADER.size:
        return True
    _, bits, offset, entry, number = _HEADER.unpack(head)
    return bool(bits == _BITS_64 and size < offset + entry * number)
