"""docs/threats.md, from the tests: which bad input and which faults are tried, and what is promised.

A test says so with ``@pytest.mark.threat(AREA, TRIED, PROMISED)``; its cases are counted when collected.
``python -m ci.threats`` writes the table, ``python -m ci.threats --check`` fails where it is out of date.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "threats.md"
AREAS = {
    "git": "Git",
    "patches": "Patches",
    "archives": "Archives, wheels and images",
    "environment": "Environment and CMake",
    "binaries": "Binaries that are probed or run",
    "manifests": "Manifests, indexes and signatures",
    "sandbox": "Sources that are not trusted",
    "faults": "Faults: kills, disks, clocks, two at once",
}
_HEAD = """# What is tried against sparkbuild, and what it promises

<!-- Written by `python -m ci.threats` from the tests' marks; do not edit. -->

CMake runs a source's own code, so hostile *code* needs the sandbox (`sparkbuild build --sandbox`). Hostile
*data* never runs code, writes outside its folder or passes unnoticed, and no fault leaves an artifact
half-made. Each row is a test that does the thing for real; "cases" is how many times, each another way.
"""

Row = tuple[str, str, str, str]  # area, tried, promised, test


class Collector:
    """A pytest plugin that remembers the marks and starts nothing."""

    def __init__(self) -> None:
        self.rows: Counter[Row] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count each marked case."""
        for item in session.items:
            name = item.nodeid.partition("[")[0]
            for mark in item.iter_markers("threat"):
                area, tried, promised = mark.args
                if area not in AREAS:
                    raise pytest.UsageError(f"{name}: no area {area!r} among {', '.join(AREAS)}")
                self.rows[area, tried, promised, name] += 1


def page(rows: Counter[Row]) -> str:
    """Return the page's text."""
    parts = [_HEAD, f"{sum(rows.values())} cases in {len(rows)} rows.\n"]
    for area, title in AREAS.items():
        found = sorted((row, count) for row, count in rows.items() if row[0] == area)
        if found:
            parts.append(f"## {title}\n\n| tried | promised | test | cases |\n|---|---|---|---|")
            parts += [_line(row, count) for row, count in found]
            parts.append("")
    return "\n".join(parts).rstrip("\n") + "\n"


def _line(row: Row, count: int) -> str:
    _, tried, promised, name = row
    file, _, test = name.partition("::")
    return f"| {tried} | {promised} | [{test}](../{file}) | {count} |"


def main(words: list[str]) -> int:
    """Write the page, or compare it; return the exit code."""
    collector = Collector()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main(["--collect-only", "-q", str(ROOT / "tests")], [collector])
    if code:
        print(f"{said.getvalue()}the tests can not be collected", file=sys.stderr)
        return int(code)
    text = page(collector.rows)
    if words == ["--check"]:
        same = PAGE.is_file() and PAGE.read_text() == text
        if not same:
            print(f"{PAGE.relative_to(ROOT)} is out of date: run python -m ci.threats", file=sys.stderr)
        return 0 if same else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
