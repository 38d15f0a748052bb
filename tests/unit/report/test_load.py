from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkbuild.artifact.timeline import SCHEMA, Timeline
from sparkbuild.report.load import SLICES, load


def timeline(steps: dict[str, tuple[int, int]], jobs: int = 2, cores: int = 2) -> Timeline:
    return Timeline(SCHEMA, jobs, cores, steps)


def test_two_jobs_and_a_thin_end() -> None:
    known = load(timeline({"a": (0, 1000), "b": (0, 400), "c": (400, 600), "link": (1000, 2000)}))
    assert [(s.outputs, s.lane) for s in known.steps] == [
        (("b",), 0),
        (("a",), 1),
        (("c",), 0),
        (("link",), 0),
    ]
    assert (known.lanes, known.wall, known.work, known.busy, known.tail) == (2, 2000, 2600, 2600, 1400)
    assert known.at_once[0] == pytest.approx(2)
    assert known.at_once[-1] == pytest.approx(1)
    assert [s.outputs[0] for s in known.slowest(2)] == ["a", "link"]
    assert not known.mixed


def test_outputs_of_one_time_are_one_step() -> None:
    known = load(timeline({"libx.so": (0, 5), "libx.so.1": (0, 5)}))
    assert [s.outputs for s in known.steps] == [("libx.so", "libx.so.1")]


def test_more_jobs_than_cores_keep_no_more_than_all_cores_busy() -> None:
    known = load(timeline({n: (0, 1000 + i) for i, n in enumerate("abcd")}, jobs=4, cores=2))
    assert known.busy == 2 * 1002 + 1
    assert known.work == 4006
    assert known.tail == 1


def test_two_runs_in_one_log_are_noticed() -> None:
    assert load(timeline({"a": (0, 9), "b": (1, 9), "c": (2, 9)})).mixed


def test_no_steps_and_steps_without_time() -> None:
    assert load(timeline({})).at_once == ()
    known = load(timeline({"a": (0, 0)}))
    assert (known.wall, known.busy, known.tail) == (0, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=40))
def test_a_lane_holds_one_step_at_a_time_and_nothing_gets_lost(spans: list[tuple[int, int]]) -> None:
    known = load(timeline({str(n): (start, start + took) for n, (start, took) in enumerate(spans)}))
    for lane in range(known.lanes):
        here = sorted((s for s in known.steps if s.lane == lane), key=lambda s: (s.start, s.end))
        assert all(a.end <= b.start for a, b in pairwise(here))
    assert sum(known.at_once) * known.wall / SLICES == pytest.approx(known.work)
    assert known.busy <= min(known.work, 2 * known.wall)
    assert sum(len(s.outputs) for s in known.steps) == len(spans)
