"""Why objects are compiled anew at another commit: the files that changed, and how many objects see each.

    python -m ci.anew ENGINE BUILD_DIR ARTIFACT REPO REF

puts beside ENGINE's measurements how much of a build 20 commits usually change: of the 400 commits up to REF
in REPO, by the files that each object of BUILD_DIR was made of and the seconds in ARTIFACT's timeline.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections import Counter
from pathlib import Path

import msgspec

from ci import performance
from sparkbuild import process
from sparkbuild.artifact import timeline
from sparkbuild.build.tools import find_tools
from sparkbuild.toolchain.place import SOURCE

_NAMED = 4  # files
_COMMITS, _LENGTH, _HALF = 400, 20, 0.5  # of the row "20 upstream commits later" and its limit


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


def sources_in(build_dir: Path) -> dict[str, set[str]]:
    """Return `sources_of` a folder that was built."""
    tool = find_tools().ninja
    return sources_of(process.run([tool, "-C", build_dir, "-t", "deps"], timeout=120).output)


def changes(repo: Path, ref: str) -> list[set[str]]:
    """Return the files that each of the first-parent commits up to ``ref`` changed, the newest first."""
    words = ["log", "-m", "--first-parent", "--name-only", "--no-renames", "--format=%x00", f"-n{_COMMITS}"]
    said = process.run(["git", "-C", repo, *words, ref], timeout=600).output
    return [set(part.split("\n")) - {""} for part in said.split("\0")[1:]]


def shares(sources: dict[str, set[str]], seconds: dict[str, float], changed: list[set[str]]) -> list[float]:
    """Return, for every run of commits so long, the share of the seconds whose objects see a changed file."""
    total = sum(seconds.get(name, 0.0) for name in sources)
    found = []
    for first in range(len(changed) - _LENGTH + 1):
        files = set().union(*changed[first : first + _LENGTH])
        anew = sum(seconds.get(name, 0.0) for name, seen in sources.items() if seen & files)
        found.append(anew / total)
    return found


def usual(sources: dict[str, set[str]], seconds: dict[str, float], changed: list[set[str]]) -> str:
    """Return in words how much so many commits change, and which files decide it."""
    found = shares(sources, seconds, changed)
    held = sum(share <= _HALF for share in found) / len(found)
    low, middle, high = statistics.quantiles(found, n=4)
    half = sum(seconds.get(name, 0.0) for name in sources) * _HALF
    weight = Counter[str]()
    for name, seen in sources.items():
        weight.update(dict.fromkeys(seen, seconds.get(name, 0.0)))
    times = Counter(name for files in changed for name in files if weight[name] > half)
    named = ", ".join(f"{name} ({n})" for name, n in times.most_common(_NAMED)) or "none"
    return (
        f"in {held:.0%} of {len(found)} runs of {_LENGTH} upstream commits at most half of the compile time "
        f"sees a changed file (median {middle:.2f} of it, quartiles {low:.2f} and {high:.2f}). What more "
        f"than half of it sees, and how many of {len(changed)} commits changed it: {named}"
    )


def main(engine: str, build_dir: Path, artifact: Path, repo: Path, ref: str) -> None:
    """Write into the record what `usual` says, and the page anew."""
    times = timeline.read(artifact)
    seconds = {n: (end - begin) / 1000 for n, (begin, end) in times.steps.items()} if times else {}
    text = f"up to {ref[:12]}, {usual(sources_in(build_dir), seconds, changes(repo, ref))}"
    book = performance.load()
    performance.save(msgspec.structs.replace(book, usual=book.usual | {engine: text}))
    performance.main([])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
