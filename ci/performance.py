"""docs/performance.md, from docs/performance.json: what ci/bench measured, on which machine and when.

``python -m ci.performance`` writes the page; with ``--check`` it fails where the page is out of date.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
RECORD = ROOT / "docs" / "performance.json"
SCHEMA = 1


class Row(msgspec.Struct, frozen=True):
    """A row of the table: the measure ``top`` divided by ``below``; without one, ``top`` itself in ``unit``.

    ``limits`` is by backend: a median above it fails, a backend that is not named has none. ``field`` is
    what counts of a measurement.
    """

    name: str
    number: int
    what: str
    top: str
    below: str = ""
    unit: str = ""
    limits: dict[str, float] = {}
    field: str = "seconds"


def _both(limit: float) -> dict[str, float]:
    return {"cuda": limit, "cpu": limit}


ROWS = (
    Row("cold", 1, "cold build / the same commands by hand", "cold", "hand", limits=_both(1.02)),
    Row("playbook", 1, "cold build / NVIDIA's playbook's commands, the same targets", "cold", "playbook"),
    Row(
        "warm",
        2,
        "build folder removed, cache warm / cold",
        "warm",
        "cold",
        limits={"cuda": 0.05, "cpu": 0.1},
    ),
    Row("later", 3, "20 upstream commits later / cold", "later", "cold", limits=_both(0.5)),
    Row("variant", 4, "second CPU variant / the first, cold", "variant", "cold", limits={"cuda": 0.25}),
    Row("again", 5, "nothing changed", "again", unit="s", limits=_both(0.5)),
    Row("probe", 6, "probe / cuobjdump + nm + objdump", "probe", "tools", limits=_both(0.5)),
    Row("memory", 6, "the probe's largest memory", "probe", unit="MB", limits=_both(200), field="megabytes"),
    Row("start", 7, '`sparkbuild --help` / `python -c "import click"`', "help", "click", limits=_both(2)),
)


class Measured(msgspec.Struct, frozen=True):
    """One measurement: wall seconds of a command, the largest memory of its processes in MB (10^6 bytes)."""

    of: str
    round: int
    seconds: float
    megabytes: float
    date: str
    note: str = ""


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured; ``memory`` is in GiB."""

    cpu: str
    cores: int
    memory: int
    system: str


class Result(msgspec.Struct, frozen=True):
    """A row's value in each round, the day of the last one, and what is to be said of it."""

    values: tuple[float, ...]
    date: str
    note: str = ""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)


class Bench(msgspec.Struct, frozen=True):
    """All that was measured of one engine's build on one machine; results by row."""

    machine: Machine
    engine: str
    arch: str
    backend: str
    source: str
    compilers: str
    cuda: str
    jobs: int
    sparkbuild: str
    results: dict[str, Result]

    @property
    def which(self) -> tuple[Machine, str, str, str]:
        """What a later measurement replaces."""
        return (self.machine, self.engine, self.arch, self.backend)


class Book(msgspec.Struct, frozen=True):
    """docs/performance.json. ``usual`` says by engine what decides the row "20 upstream commits later"."""

    schema: int
    benches: tuple[Bench, ...]
    usual: dict[str, str] = {}


def results(measured: Iterable[Measured]) -> dict[str, Result]:
    """Return the rows that whole rounds give; of a measure taken twice in a round the last one counts."""
    found = {(m.of, m.round): m for m in measured}
    rounds = sorted({number for _, number in found})
    rows = {}
    for row in ROWS:
        names = (row.top, row.below) if row.below else (row.top,)
        whole = [
            got for n in rounds if len(got := [found[m, n] for m in names if (m, n) in found]) == len(names)
        ]
        if whole:
            last = whole[-1][0]
            rows[row.name] = Result(tuple(_value(row, got) for got in whole), last.date, last.note)
    return rows


def _value(row: Row, got: list[Measured]) -> float:
    values = [float(getattr(m, row.field)) for m in got]
    return round(values[0] / values[1] if row.below else values[0], 4)


def merged(book: Book, bench: Bench) -> Book:
    """Return the book with a bench in the place of the one that it replaces.

    Rows that were not measured anew stay where all that they were measured with is the same.
    """
    kept = {b.which: b for b in book.benches}
    old = kept.get(bench.which)
    same = old and msgspec.structs.replace(old, results=bench.results) == bench
    rows = (old.results if old and same else {}) | bench.results
    kept[bench.which] = msgspec.structs.replace(bench, results=rows)
    return msgspec.structs.replace(book, benches=tuple(kept.values()))


def load(path: Path = RECORD) -> Book:
    """Return what was measured so far."""
    return msgspec.json.decode(path.read_bytes(), type=Book) if path.is_file() else Book(SCHEMA, ())


def save(book: Book, path: Path = RECORD) -> None:
    """Write the record."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(book), indent=2) + b"\n")


_HEAD = """# What it costs

<!-- Written by `ci/bench` from performance.json beside it; do not edit. -->

`ci/bench` measures this anywhere. Times differ from machine to machine, so they are compared within one:
each value is the median of several rounds (in brackets the smallest, the largest, and how many). A round
takes all measures one after the other on the same machine: the cold build, by hand, the playbook; what needs
the cold build's compile cache; then the rest. What is measured against each other without a cache changes
places every second round. Only where a row names no second thing is the value itself in the table.

"Cold" is `sparkbuild build` with source and toolkit fetched and this machine's compilers proved, but an
empty build folder, an empty compile cache and nothing in the store. "By hand" is cmake and ninja with the
plan's own definitions, environment and targets, the source at the same path, and no compile cache.
"NVIDIA's playbook's commands" are cmake with `GGML_CUDA=ON` (for CUDA), `CMAKE_CUDA_ARCHITECTURES` and
`LLAMA_CURL=OFF`, then `make -j8` (and what a DGX Spark has by itself: which compilers, where CUDA is; tests,
examples and the web page off): fewer FlashAttention kernels and never more than 8 jobs, so that row is
told, not judged. "20 upstream commits later" is a newer commit, built with the compile cache that the older
one's cold build filled. Nothing is fetched in any of them. Memory is that of the largest process.
"""


def page(book: Book) -> str:
    """Return the page's text."""
    named = {chr(ord("A") + i): b for i, b in enumerate(book.benches)}
    heads = ["what", "at most", *(f"{n}: {b.engine}, {b.backend}" for n, b in named.items())]
    lines = [_HEAD, f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in ROWS:
        cells = [row.what, _limit(row, named.values()), *(_cell(row, b) for b in named.values())]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Where", ""]
    lines += [_where(name, bench) for name, bench in named.items()]
    notes = [line for name, bench in named.items() for line in _notes(name, bench)]
    notes += [f"- {engine}: {text}" for engine, text in book.usual.items()]
    lines += ["", "## What decided", "", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _limit(row: Row, benches: Iterable[Bench]) -> str:
    limits = {b.backend: row.limits[b.backend] for b in benches if b.backend in row.limits} or row.limits
    unit = f" {row.unit}" if row.unit else ""
    if len(set(limits.values())) <= 1:
        return next((f"{v:g}{unit}" for v in limits.values()), "")
    return ", ".join(f"{v:g}{unit} ({name})" for name, v in limits.items())


def _cell(row: Row, bench: Bench) -> str:
    result = bench.results.get(row.name)
    if result is None:
        return ""
    low, high, count = min(result.values), max(result.values), len(result.values)
    text = f"{_short(result.median)} ({_short(low)} to {_short(high)}; {count})"
    limit = row.limits.get(bench.backend)
    return text if limit is None else f"{text} holds" if result.median <= limit else f"**{text} fails**"


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.0f}"  # noqa: PLR2004 - three or more digits either way


def _where(name: str, bench: Bench) -> str:
    machine, dates = bench.machine, sorted(r.date for r in bench.results.values())
    days = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "never"
    tools = ", ".join(t for t in (bench.compilers, bench.cuda) if t)
    return (
        f"- **{name}**: {bench.engine} ({bench.source}), {bench.arch}, {bench.backend}, {bench.jobs} jobs; "
        f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB, {machine.system}; {tools}; "
        f"sparkbuild {bench.sparkbuild}; {days}."
    )


def _notes(name: str, bench: Bench) -> list[str]:
    known: Mapping[str, str] = {row.name: row.what for row in ROWS}
    return [f"- **{name}**, {known[n]}: {r.note}" for n, r in bench.results.items() if r.note and n in known]


def main(words: list[str]) -> int:
    """Write the page, or compare it; return the exit code."""
    text = page(load())
    if words == ["--check"]:
        same = PAGE.is_file() and PAGE.read_text() == text
        if not same:
            print(f"{PAGE.relative_to(ROOT)} is out of date: run python -m ci.performance", file=sys.stderr)
        return 0 if same else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
