"""What builds cost: learned, expected, and how the time left comes true, on the steps of a real build."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkbuild.build.costs import (
    Costs,
    Expected,
    Forecast,
    Measured,
    Timeline,
    expected,
    learned,
    machine_pace,
    timings,
    weight,
)
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.catalog.records import Steps
from sparkbuild.files import Folders, keep

_STEPS = Steps(seconds={"*.cu": 10.0, "*.c": 1.0}, default_seconds=2.0, job_seconds={"cuda": 60.0})
_DATA = Path(__file__).parents[2] / "data" / "costs" / "steps.txt"


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "cache", tmp_path / "store", tmp_path / "config")


def real() -> dict[str, float]:
    """Return the seconds of each step of a real build, in the order in which they began."""
    rows = (line.split(" ", 1) for line in _DATA.read_text().splitlines() if not line.startswith("#"))
    return {name: int(ms) / 1000 for ms, name in rows}


def shipped() -> Steps:
    return Catalog((shipped_root(),)).recipe("llama_cpp").record.steps


class TestLearned:
    """What is kept of a build for the next one."""

    def test_a_first_build(self) -> None:
        found = learned(None, Timeline({"a.cu.o": (0, 20_000), "b.c.o": (5, 2005)}), (), _STEPS)
        assert found == Measured({"a.cu.o": 20_000, "b.c.o": 2000}, 22.0, 2.0)

    def test_what_came_from_the_cache_keeps_its_cost(self) -> None:
        earlier = Measured({"a.cu.o": 20_000, "gone.c.o": 7}, 20.0, 2.0)
        line = Timeline({"a.cu.o": (0, 20), "b.cu.o": (5, 25), "c.cu.o": (9, 30_009)})
        found = learned(earlier, line, {"a.cu.o", "b.cu.o"}, _STEPS)
        assert found.steps == {"a.cu.o": 20_000, "gone.c.o": 7, "c.cu.o": 30_000}
        assert found.pace == 3.0  # of c.cu.o alone, which was compiled
        assert found.seconds == 20 + 30 + 30  # b.cu.o by its weight, at this machine's pace

    def test_where_little_was_compiled_the_pace_stays(self) -> None:
        line = Timeline({f"{n}.cu.o": (n, n + 20) for n in range(20)} | {"b.c.o": (5, 9005)})
        found = learned(Measured({}, 20.0, 2.5), line, {f"{n}.cu.o" for n in range(20)}, _STEPS)
        assert found.pace == 2.5

    def test_what_ninja_left_alone_keeps_its_cost(self) -> None:
        earlier, before = Measured({"a.cu.o": 20_000}, 20.0, 2.0), Timeline({"a.cu.o": (0, 20)})
        line = Timeline({"a.cu.o": (0, 20), "b.cu.o": (3, 10_003)})
        found = learned(earlier, line, (), _STEPS, before)
        assert found.steps == {"a.cu.o": 20_000, "b.cu.o": 10_000}

    def test_a_step_with_two_outputs_counts_once(self) -> None:
        found = learned(None, Timeline({"x.c.o": (0, 4000), "x.h": (0, 4000)}), (), _STEPS)
        assert found.seconds == 4.0

    def test_a_log_that_makes_no_sense_costs_nothing(self) -> None:
        found = learned(None, Timeline({"a.cu.o": (900, 5)}), (), _STEPS)
        assert found == Measured({"a.cu.o": 0}, 0.0, 0.0)


class TestExpected:
    """What is said before a build begins."""

    def test_nobody_knows(self, folders: Folders) -> None:
        assert expected(_STEPS, "cpu", "toy", folders, 4) is None

    def test_by_the_recipe(self, folders: Folders) -> None:
        assert expected(_STEPS, "cuda", "toy", folders, 4) == Expected(15.0, 60.0, 4, "the recipe's weights")

    def test_by_the_recipe_at_this_machines_pace(self, folders: Folders) -> None:
        for name, pace in {"one": 1.5, "two": 2.0, "three": 9.0, "four": 0.0}.items():
            keep(timings(name, "cuda", folders), Measured({}, 1.0, pace))
        (folders.cache / "timings" / "five-cpu.json").write_text("{}")
        assert machine_pace(folders) == 2.0
        assert expected(_STEPS, "cuda", "toy", folders, 4) == Expected(30.0, 120.0, 4, "the recipe's weights")

    def test_an_earlier_build_that_compiled_nothing_tells_nothing(self, folders: Folders) -> None:
        keep(timings("toy", "cuda", folders), Measured({"lib.so": 500}, 3.0, 0.0))
        assert expected(_STEPS, "cuda", "toy", folders, 4) == Expected(15.0, 60.0, 4, "the recipe's weights")

    def test_by_an_earlier_build(self, folders: Folders) -> None:
        keep(timings("toy", "cuda", folders), Measured({"a": 30_000, "b": 10_000}, 40.0, 1.0))
        assert expected(_STEPS, "cuda", "toy", folders, 1) == Expected(40.0, 40.0, 1, "an earlier build here")
        # With many jobs the longest step decides.
        assert expected(_STEPS, "cuda", "toy", folders, 8) == Expected(30.0, 40.0, 8, "an earlier build here")

    def test_every_shipped_total_is_the_sum_of_its_weights(self) -> None:
        """Of the one build whose steps are recorded here: within a tenth."""
        steps = shipped()
        assert sum(weight(steps, o) for o in real()) == pytest.approx(steps.job_seconds["cuda"], rel=0.1)

    @pytest.mark.parametrize(
        ("jobs", "took"),
        [(2, 1523), (16, 225), (16, 229), (16, 248)],
        ids=["2 cores, x86_64 cross", "16 cores, sm_121a", "16 cores, sm_121a again", "16 cores, sm_90"],
    )
    def test_within_a_fifth_on_machines_that_never_built_it(self, jobs: int, took: float) -> None:
        """``took`` are seconds measured on two machines, CUDA with every FlashAttention pair."""
        assert shipped().job_seconds["cuda"] / jobs == pytest.approx(took, rel=0.2)

    @pytest.mark.parametrize(("jobs", "took", "other"), [(2, 3378, 1523), (16, 670, 229)])
    def test_within_a_fifth_where_another_engine_was_built(
        self, jobs: int, took: float, other: float, folders: Folders
    ) -> None:
        """``other`` are the seconds that the first engine took there, CUDA with every pair in both."""
        first = shipped().job_seconds["cuda"]
        pace = other * jobs / first
        keep(timings("llama_cpp", "cuda", folders), Measured({}, first * pace, pace))
        steps = Catalog((shipped_root(),)).recipe("ik_llama").record.steps
        found = expected(steps, "cuda", "ik_llama", folders, jobs)
        assert found
        assert found.seconds == pytest.approx(took, rel=0.2)


def ran(steps: dict[str, float], jobs: int) -> list[tuple[float, float, str]]:
    """Return when each step began and ended with so many jobs, in the order of their ends."""
    free, rows = [0.0] * jobs, []
    for output, seconds in steps.items():
        rows.append((free[0], free[0] + seconds, output))
        heapq.heapreplace(free, free[0] + seconds)
    return sorted(rows, key=lambda row: row[1])


def totals(steps: dict[str, float], costs: Costs, jobs: int) -> Iterator[tuple[float, float]]:
    """Yield the share of the time that is over and, in shares of it too, the total that is predicted then."""
    forecast, rows = Forecast(steps, costs, jobs), ran(steps, jobs)
    wall = rows[-1][1]
    yield 0.0, forecast.beforehand / wall
    for _, end, output in rows:
        running = sum(1 for a, b, _ in rows if a < end <= b)
        left = forecast.left(output, end, running)
        forecast.measured(output, steps[output])
        yield end / wall, (end + left) / wall


def worst(steps: dict[str, float], costs: Costs, jobs: int, since: float = 0.0) -> float:
    return max(abs(total - 1) for at, total in totals(steps, costs, jobs) if at >= since)


@pytest.mark.parametrize("jobs", [2, 16])
class TestForecast:
    """The time left, told step by step through a real build's steps."""

    def test_known_steps(self, jobs: int) -> None:
        steps = real()
        known = Measured({o: round(s * 1000) for o, s in steps.items()}, sum(steps.values()), 1.0)
        assert worst(steps, Costs(Steps(), known), jobs) < 0.02

    def test_known_steps_on_a_day_when_all_is_twice_as_slow(self, jobs: int) -> None:
        steps = real()
        known = Measured({o: round(s * 500) for o, s in steps.items()}, sum(steps.values()) / 2, 1.0)
        assert worst(steps, Costs(Steps(), known), jobs, since=0.35) < 0.2

    def test_weights_at_the_machines_pace(self, jobs: int) -> None:
        steps = real()
        pace = sum(steps.values()) / sum(weight(shipped(), o) for o in steps)
        assert worst(steps, Costs(shipped(), None, pace), jobs) < 0.25

    def test_it_ends_at_nothing(self, jobs: int) -> None:
        steps = real()
        assert list(totals(steps, Costs(shipped()), jobs))[-1] == (1.0, 1.0)


def test_builds_that_share_the_jobs_each_tell_their_part() -> None:
    """Two equal builds with half of the jobs each: what each says is left adds up to what is."""
    steps = {f"{n}.cu.o": 10.0 for n in range(40)}
    forecast = Forecast(steps, Costs(_STEPS), 8)
    assert forecast.beforehand == 50.0
    for n in range(20):
        left = forecast.left(f"{n}.cu.o", 10.0 * (n // 4 + 1), 4)
        forecast.measured(f"{n}.cu.o", 10.0)
    assert left == pytest.approx(25.0, rel=0.25)  # of 50 s, as 20 of 40 steps are done


def test_without_steps_nothing_is_left() -> None:
    forecast = Forecast([], Costs(_STEPS), 2)
    assert forecast.beforehand == 0
    assert forecast.left("unheard of", 1.0, 1) == 0
