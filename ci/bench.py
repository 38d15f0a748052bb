"""What builds cost, as ratios of paired runs on one machine; writes docs/performance.json and its page.

Three rounds of all rows are some fifteen compiles of the whole engine. What was measured is kept in --home:
the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from ci import performance
from ci.measures import Asked, Failed, Lab, OutOfTimeError
from ci.performance import ROOT, ROWS, Bench, Machine, Measured, Row
from sparkbuild import process
from sparkbuild.build.jobs import available_cores
from sparkbuild.errors import SparkbuildError
from sparkbuild.request import Request, parse_definitions

_ORDER = (  # what alternates is together; what needs a cold build's cache comes behind that
    ("cold", "hand", "playbook"),
    ("warm",),
    ("later",),
    ("variant",),
    ("again",),
    ("probe", "tools"),
    ("help", "click"),
)
_MORE = 75  # exit code: there is more to do (EX_TEMPFAIL of sysexits.h)
# What a person has set is not measured; without Python's compiled files every start would compile anew.
_LEFT_OUT = ("SPARKBUILD_", "CCACHE_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the command line."""
    numbers = ", ".join(dict.fromkeys(f"{r.number} {r.name}" for r in ROWS))
    parser = argparse.ArgumentParser(prog="ci/bench", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="where it works and keeps what it measured")
    parser.add_argument("--engine", default="llama_cpp")
    parser.add_argument("--arch", default="gb10")
    parser.add_argument("--backend", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rows", default="", help=f"numbers or names, with commas between: {numbers}")
    parser.add_argument("--pairs", type=int, default=3, help="rounds; default 3")
    parser.add_argument("--source", help="as sparkbuild build takes it; else the recipe's own")
    parser.add_argument("--ref", help="the commit that is built")
    parser.add_argument(
        "--later", metavar="REF", help="20 commits later, for row 3: see git rev-list --first-parent"
    )
    parser.add_argument("--later-source", help="where that is; default the same source")
    parser.add_argument(
        "--variant",
        help="for row 4 another --arch or NAME=VALUE; default gb10-sve2 for gb10, else GGML_NATIVE=OFF",
    )
    parser.add_argument("-D", dest="define", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--catalog", dest="catalogs", action="append", default=[], type=Path)
    parser.add_argument(
        "--jobs", type=int, help="compile jobs of both sides (not of the playbook's); default: cores"
    )
    parser.add_argument("--artifact", type=Path, help="for row 6: one that is there; else it is built")
    parser.add_argument("--within", type=float, metavar="SECONDS", help="begin nothing that would end later")
    parser.add_argument(
        "--json", type=Path, default=performance.RECORD, help="the record; its page is beside it"
    )
    parser.add_argument(
        "--version-is", metavar="TEXT", help="sparkbuild's own version, where git can not tell"
    )
    return parser.parse_args(words)


def chosen(text: str, *, later: bool) -> tuple[Row, ...]:
    """Return the rows that are named, all where none is. Raises ValueError."""
    words = {w for w in text.split(",") if w}
    known = {w for r in ROWS for w in (r.name, str(r.number))}
    if words - known:
        raise ValueError(f"no row {', '.join(sorted(words - known))}; there are {', '.join(sorted(known))}")
    rows = tuple(r for r in ROWS if not words or {r.name, str(r.number)} & words)
    if "later" in words | ({"later"} if "3" in words else set()) and not later:
        raise ValueError("row 3 needs --later REF")
    return tuple(r for r in rows if later or r.name != "later")


def order(rows: Iterable[Row], number: int) -> list[str]:
    """Return a round's measures; in every second round the sides change places."""
    wanted = {name for r in rows for name in (r.top, r.below)}
    groups = [group[:: 1 if number % 2 == 0 else -1] for group in _ORDER]
    return [name for group in groups for name in group if name in wanted]


class Notebook:
    """What was measured in a lab so far: a line of JSON each, under the settings they hold for."""

    def __init__(self, path: Path, settings: str) -> None:
        self.path = path
        lines = path.read_bytes().splitlines() if path.is_file() else []
        if lines and msgspec.json.decode(lines[0]) != settings:
            raise ValueError(f"{path} is of other settings: name another --home")
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.encode(settings) + b"\n")
        self.measured = [msgspec.json.decode(line, type=Measured) for line in lines[1:]]

    def add(self, measured: Measured) -> None:
        """Keep a measurement."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(measured) + b"\n")
        self.measured.append(measured)

    def has(self, name: str, number: int) -> bool:
        """Return whether a round has a measure."""
        return any((m.of, m.round) == (name, number) for m in self.measured)

    def longest(self, name: str) -> float:
        """Return the seconds that a measure took at most; never taken, as long as what it is paired with."""
        beside = next(group for group in _ORDER if name in group)
        taken = {of: max((m.seconds for m in self.measured if m.of == of), default=0.0) for of in beside}
        return taken[name] or max(taken.values())


def go_on(lab: Lab, book: Notebook, rows: Sequence[Row], pairs: int, until: float) -> bool:
    """Take what is missing; return False where the time is over before all is there."""
    for number in range(pairs):
        for name in order(rows, number):
            if book.has(name, number):
                continue
            if time.monotonic() + book.longest(name) > until:
                return False
            try:
                book.add(lab.measure(name, number))
            except OutOfTimeError:
                return False
            last = book.measured[-1]
            print(
                f"round {number + 1}: {name} {last.seconds:.2f} s, {last.megabytes:.0f} MB; {last.note}",
                flush=True,
            )
    return True


def machine() -> Machine:
    """Return what this machine is, without its name."""
    said = process.run(["lscpu"]).output
    models = dict.fromkeys(re.findall(r"^\s*Model name:\s*(.*)$", said, re.MULTILINE))
    memory = re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    system = f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.machine()}"
    gib = round(int(memory[1]) / (1 << 20)) if memory else 0
    return Machine(" + ".join(models) or "unknown", available_cores(), gib, system)


def version() -> str:
    """Return the commit of this checkout, or nothing."""
    done = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def asked_of(options: argparse.Namespace) -> Asked:
    """Return what is to be built. Raises SparkbuildError for a definition that is none."""
    source = (
        str(Path(options.source).absolute())
        if options.source and Path(options.source).exists()
        else options.source
    )
    define = parse_definitions(tuple(options.define))
    request = Request(
        engine=options.engine,
        arch=options.arch,
        backend=options.backend,
        ref=options.ref,
        source=source,
        define=define,
    )
    change = msgspec.structs.replace
    other = options.variant or ("gb10-sve2" if options.arch == "gb10" else "GGML_NATIVE=OFF")
    if "=" in other:
        variant = change(request, define=define | parse_definitions((other,)))
    else:
        variant = change(request, arch=other)
    later = None
    if options.later or options.later_source:
        later = change(request, ref=options.later, source=options.later_source or source)
    return Asked(
        request=request,
        jobs=options.jobs or available_cores(),
        variant=variant,
        later=later,
        catalogs=tuple(p.absolute() for p in options.catalogs),
        artifact=options.artifact.absolute() if options.artifact else None,
    )


def settings_of(asked: Asked, known: str) -> str:
    """Return what measurements hold for: what is asked, and sparkbuild's version."""
    return msgspec.json.encode((asked, known), enc_hook=str).decode()


def bench_of(lab: Lab, book: Notebook, known: str) -> Bench:
    """Return what was measured, and of what."""
    plan = lab.plan()
    source = f"{plan.source.way} {plan.source.commit[:9] or plan.source.tree[:9]}"
    return Bench(
        machine=machine(),
        engine=plan.engine,
        arch=plan.arch,
        backend=plan.backend,
        source=source,
        compilers=plan.compilers.version,
        cuda=f"CUDA {plan.cuda.version}, {plan.cuda.origin}" if plan.cuda else "",
        jobs=lab.asked.jobs,
        sparkbuild=known,
        results=performance.results(book.measured),
    )


def main(words: Sequence[str]) -> int:
    """Measure what is missing and write the record; return the exit code."""
    options = parse(words)
    until = time.monotonic() + (options.within or float("inf"))
    for name in [n for n in os.environ if n.startswith(_LEFT_OUT)]:
        del os.environ[name]
    compileall.compile_dir(ROOT / "sparkbuild", quiet=1)  # as an installation does
    known = options.version_is or version() or "unknown"
    try:
        asked = asked_of(options)
        rows = chosen(options.rows, later=asked.later is not None)
        home = options.home.absolute()
        book, lab = Notebook(home / "measured.jsonl", settings_of(asked, known)), Lab(home, asked, until)
        whole = go_on(lab, book, rows, options.pairs, until)
        record = performance.merged(performance.load(options.json), bench_of(lab, book, known))
    except (Failed, ValueError, SparkbuildError) as problem:
        print(problem, file=sys.stderr)
        return 1
    performance.save(record, options.json)
    options.json.with_suffix(".md").write_text(performance.page(record))
    return 0 if whole else _MORE


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
