"""Why objects are compiled anew at another commit: the files that changed, and how many objects see each."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from sparkbuild import process
from sparkbuild.toolchain.place import SOURCE

_NAMED = 4  # files


def sources_of(said: str) -> dict[str, set[str]]:
    """Return what `ninja -t deps` says: by object the files of the source tree that it was made of."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in said.splitlines():
        if line.startswith("    "):
            path = os.path.normpath(line.strip())
            if path.startswith(f"{SOURCE}/"):
                found[name].add(path[len(f"{SOURCE}/") :])
        elif ": #deps" in line:
            name = line.partition(": #deps")[0]
            found[name] = set()
    return found


def why(sources: dict[str, set[str]], older: Path, newer: Path) -> str:
    """Return in a sentence how many objects saw a file that differs between two trees, and which files."""
    every = sorted(set().union(*sources.values())) if sources else []
    changed = {name for name in every if not _same(older / name, newer / name)}
    behind = Counter(name for files in sources.values() for name in files & changed)
    anew = sum(1 for files in sources.values() if files & changed)
    text = f"{anew} of {len(sources)} objects see one of {len(changed)} changed files"
    ranked = sorted(behind.items(), key=lambda item: (-item[1], item[0]))[:_NAMED]
    return f"{text}: {', '.join(f'{name} ({n})' for name, n in ranked)}" if ranked else text


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def decided(ninja: Path, build_dir: Path, older: Path, newer: Path) -> str:
    """Return `why` for what was built of the newer tree in a folder."""
    said = process.run([ninja, "-C", build_dir, "-t", "deps"], timeout=120).output
    return why(sources_of(said), older, newer)
