"""ci/bench without a build: which rows, in which order, what is kept, what the page says, why it is anew."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import pytest

from ci import anew, bench, performance
from ci.measures import Lab, OutOfTimeError
from ci.performance import SCHEMA, Bench, Book, Machine, Measured, Result
from sparkbuild.toolchain.place import SOURCE
from tests.integration.engine import git

_ROOT = Path(__file__).parents[3]


def taken(of: str, number: int, seconds: float, *, megabytes: float = 50.0, note: str = "") -> Measured:
    return Measured(of, number, seconds, megabytes, f"2026-11-{number + 1:02}", note)


def bench_of(
    results: dict[str, Result], *, engine: str = "toy", backend: str = "cuda", sparkbuild: str = "abc"
) -> Bench:
    return Bench(
        machine=Machine("A CPU", 4, 16, "Some Linux, x86_64"),
        engine=engine,
        arch="host",
        backend=backend,
        source="git 0c1e57098",
        compilers="gcc 13",
        cuda="CUDA 13.0.88, system" if backend == "cuda" else "",
        jobs=4,
        sparkbuild=sparkbuild,
        results=results,
    )


def names(text: str, *, later: bool = True) -> list[str]:
    return [row.name for row in bench.chosen(text, later=later)]


def test_rows_by_number_and_by_name() -> None:
    assert names("1,again") == ["cold", "playbook", "again"]
    assert names("cold") == ["cold"]
    assert len(names("")) == len(performance.ROWS)
    assert "later" not in names("", later=False)
    for text, later, said in (
        ("1,nine", True, "no row nine"),
        ("3", False, "--later"),
        ("later", False, "--later"),
    ):
        with pytest.raises(ValueError, match=said):
            names(text, later=later)


def test_the_sides_change_places_in_every_second_round() -> None:
    rows = bench.chosen("1,2,7", later=False)
    assert bench.order(rows, 0) == ["cold", "hand", "playbook", "warm", "help", "click"]
    assert bench.order(rows, 1) == ["playbook", "hand", "cold", "warm", "click", "help"]


def test_only_whole_pairs_count_and_the_last_of_two() -> None:
    measured = [
        taken("hand", 0, 9.0),
        taken("hand", 0, 10.0),
        taken("cold", 0, 10.1, note="first"),
        taken("cold", 1, 10.4, note="second"),
        taken("hand", 1, 10.0),
        taken("cold", 2, 99.0),
        taken("probe", 0, 1.5, megabytes=123.4),
    ]
    rows = performance.results(measured)
    assert rows["cold"] == Result((1.01, 1.04), "2026-11-02", "second")
    assert rows["cold"].median == pytest.approx(1.025)
    assert rows["memory"].values == (123.4,)
    assert set(rows) == {"cold", "memory"}


def test_a_new_measurement_replaces_its_own_rows_only() -> None:
    old = bench_of({"cold": Result((1.0,), "2026-01-01"), "warm": Result((0.01,), "2026-01-01")})
    other = bench_of({}, engine="other")
    book = performance.merged(Book(SCHEMA, (old, other)), bench_of({"cold": Result((1.01,), "2026-02-02")}))
    assert [b.engine for b in book.benches] == ["toy", "other"]
    assert {n: r.values for n, r in book.benches[0].results.items()} == {"cold": (1.01,), "warm": (0.01,)}


def test_what_was_measured_with_something_else_goes() -> None:
    old = bench_of({"warm": Result((0.01,), "2026-01-01")}, sparkbuild="before")
    book = performance.merged(Book(SCHEMA, (old,)), bench_of({"cold": Result((1.01,), "2026-02-02")}))
    assert [set(b.results) for b in book.benches] == [{"cold"}]


def test_the_page_has_limits_verdicts_machines_and_notes() -> None:
    cuda = bench_of(
        {"cold": Result((1.01, 1.03, 1.0), "2026-02-02"), "warm": Result((0.06,), "2026-02-03", "why")}
    )
    cpu = bench_of(
        {"warm": Result((0.06,), "2026-02-02"), "variant": Result((0.3,), "2026-02-02")}, backend="cpu"
    )
    text = performance.page(Book(SCHEMA, (cuda, cpu)))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert lines["cold build / the same commands by hand"].endswith(
        "| 1.02 | 1.010 (1.000 to 1.030; 3) holds |  |"
    )
    warm = lines["build folder removed, cache warm / cold"]
    assert warm.endswith(
        "| 0.05 (cuda), 0.1 (cpu) | **0.060 (0.060 to 0.060; 1) fails** | 0.060 (0.060 to 0.060; 1) holds |"
    )
    assert lines["second CPU variant / the first, cold"].endswith("| 0.25 |  | 0.300 (0.300 to 0.300; 1) |")
    assert "A CPU, 4 cores, 16 GiB, Some Linux, x86_64; gcc 13, CUDA 13.0.88, system; sparkbuild abc" in text
    assert "2026-02-02 to 2026-02-03." in text
    assert "- **A**, build folder removed, cache warm / cold: why" in text
    assert "0.5 s" in performance.page(Book(SCHEMA, ()))


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    book = Book(SCHEMA, (bench_of({"cold": Result((1.0,), "2026-01-01", "a note")}),))
    performance.save(book, tmp_path / "x.json")
    assert performance.load(tmp_path / "x.json") == book
    assert performance.load(tmp_path / "none.json") == Book(SCHEMA, ())


def test_the_page_of_this_checkout_is_what_its_record_says() -> None:
    words = [sys.executable, "-m", "ci.performance", "--check"]
    assert subprocess.run(words, cwd=_ROOT, check=False).returncode == 0


def test_an_old_page_is_found_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(performance, "ROOT", tmp_path)
    monkeypatch.setattr(performance, "PAGE", tmp_path / "performance.md")
    assert performance.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert performance.main([]) == 0
    assert performance.main(["--check"]) == 0


class Stopwatch:
    """In a lab's place: says how long a measure took, and ends in the middle of one when it is told."""

    def __init__(self, last: str = "") -> None:
        self.taken: list[tuple[str, int]] = []
        self.last = last

    def measure(self, name: str, number: int) -> Measured:
        if name == self.last:
            raise OutOfTimeError
        self.taken.append((name, number))
        return taken(name, number, 100.0)


def go_on(watch: Stopwatch, book: bench.Notebook, *, within: float = 1000.0) -> bool:
    rows = bench.chosen("cold,warm", later=False)
    return bench.go_on(cast("Lab", watch), book, rows, 2, time.monotonic() + within)


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "lab" / "measured.jsonl"
    assert not go_on(Stopwatch("warm"), bench.Notebook(path, "settings"))
    second = Stopwatch()
    assert go_on(second, bench.Notebook(path, "settings"))
    assert second.taken == [("warm", 0), ("hand", 1), ("cold", 1), ("warm", 1)]
    third = Stopwatch()
    assert go_on(third, bench.Notebook(path, "settings"))
    assert third.taken == []
    with pytest.raises(ValueError, match="other settings"):
        bench.Notebook(path, "other settings")


def test_nothing_is_begun_that_would_not_end_in_time(tmp_path: Path) -> None:
    book = bench.Notebook(tmp_path / "measured.jsonl", "settings")
    watch = Stopwatch()
    assert not go_on(watch, book, within=50.0)
    assert watch.taken == [("cold", 0)]  # the other side will take as long


def test_the_files_behind_objects_that_are_compiled_anew(tmp_path: Path) -> None:
    said = "\n".join(
        [
            "a.o: #deps 3, deps mtime 17 (VALID)",
            f"    {SOURCE}/src/../a.c",
            f"    {SOURCE}/all.h",
            "    /usr/include/stdio.h",
            "",
            "b.o: #deps 2, deps mtime 18 (VALID)",
            f"    {SOURCE}/b.c",
            f"    {SOURCE}/all.h",
            "c.o: #deps 1, deps mtime 18 (VALID)",
            f"    {SOURCE}/c.c",
        ]
    )
    sources = anew.sources_of(said)
    assert sources == {"a.o": {"a.c", "all.h"}, "b.o": {"b.c", "all.h"}, "c.o": {"c.c"}}
    for tree, header in (("old", "1"), ("new", "2")):
        (tmp_path / tree).mkdir()
        for name in ("a.c", "b.c", "c.c"):
            (tmp_path / tree / name).write_text(name)
        (tmp_path / tree / "all.h").write_text(header)
    (tmp_path / "old" / "b.c").unlink()
    text = anew.why(sources, tmp_path / "old", tmp_path / "new")
    assert text == "2 of 3 objects see one of 2 changed files: all.h (2), b.c (1)"
    assert (
        anew.why(sources, tmp_path / "new", tmp_path / "new") == "0 of 3 objects see one of 0 changed files"
    )


def test_a_wrong_row_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ci.bench", "--home", str(tmp_path / "lab"), "--rows", "nine"]
    done = subprocess.run(words, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.partition(";")[0]) == (1, "no row nine")
    assert not (tmp_path / "lab").exists()


def test_settings_are_json(tmp_path: Path) -> None:
    options = bench.parse(["--home", str(tmp_path), "--variant", "GGML_NATIVE=OFF", "-D", "A=B"])
    asked = bench.asked_of(options)
    assert asked.later is None
    assert asked.variant is not None
    assert asked.variant.define == {"A": "B", "GGML_NATIVE": "OFF"}
    assert asked.variant.arch == asked.request.arch == "gb10"
    assert json.loads(bench.settings_of(asked, "abc"))[1] == "abc"


def test_how_much_of_a_build_many_commits_usually_change() -> None:
    sources = {"a.o": {"a.c", "all.h"}, "b.o": {"b.c", "all.h"}, "c.o": {"c.c"}}
    seconds = {"a.o": 1.0, "b.o": 6.0, "c.o": 3.0, "linked": 9.0}
    changed: list[set[str]] = [set() for _ in range(22)]
    changed[0], changed[10], changed[21] = {"all.h", "README.md"}, {"c.c"}, {"a.c"}
    assert anew.shares(sources, seconds, changed) == [1.0, 0.3, 0.4]
    text = anew.usual(sources, seconds, changed)
    assert text.startswith("in 67% of 3 runs of 20 upstream commits")
    assert "median 0.40 of it" in text
    assert text.endswith("changed it: all.h (1)")


def test_the_files_that_commits_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for name, text in (("a", "1"), ("b", "1"), ("a", "2")):
        (tmp_path / name).write_text(text)
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "-m", "x")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "nothing")
    assert anew.changes(tmp_path, "HEAD") == [set(), {"a"}, {"b"}, {"a"}]


def test_what_is_usual_is_kept_and_told() -> None:
    book = performance.merged(Book(SCHEMA, (), {"toy": "in 40% of it"}), bench_of({}))
    assert book.usual == {"toy": "in 40% of it"}
    assert "- toy: in 40% of it" in performance.page(book)
