"""What becomes of many requests before and beside the builds; the builds are in integration/test_many.py."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from sparkbuild import schedule
from sparkbuild.build.costs import Measured, timings
from sparkbuild.build.jobs import Jobs, pool
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.errors import CompileError, UsageError
from sparkbuild.files import Folders, keep
from sparkbuild.progress import Silent
from sparkbuild.request import Request, Session

_CATALOG = Catalog((shipped_root(),))
_ARCHS = ("gb10", "gb10-sve2")


class Board:
    """Remembers the time left."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float | None]] = []

    def row(self, name: str) -> Silent:
        del name
        return Silent()

    def done(self, name: str, problem: object) -> None:
        """Ignore it."""

    def left(self, builds: int, seconds: float | None) -> None:
        self.told.append((builds, seconds))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(_CATALOG, Folders(tmp_path / "cache", tmp_path / "store", tmp_path / "config"), Silent())


def requests(*engines: str, **changes: object) -> list[Request]:
    first = Request("", "", "cpu", **changes)  # type: ignore[arg-type] # any field
    return schedule.requests_of(first, engines, _ARCHS, _CATALOG)


def test_engines_and_machines_are_multiplied_once() -> None:
    found = requests("mainline", "llama_cpp", "ik_llama")
    assert [(r.engine, r.arch) for r in found] == [(e, a) for e in ("llama_cpp", "ik_llama") for a in _ARCHS]


def test_all_are_those_of_the_catalogue() -> None:
    assert {r.engine for r in requests()} == set(_CATALOG.recipes())


@pytest.mark.parametrize(("engine", "arch"), [("nothing", "gb10"), ("llama_cpp", "gb11"), ("llama_cpp", "")])
def test_an_unknown_name_is_an_error(engine: str, arch: str) -> None:
    with pytest.raises(UsageError):
        schedule.requests_of(Request("", "", "cpu"), [engine], [arch], _CATALOG)


def test_jobs_are_for_the_largest_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def choose(memory_mib: int, *, asked: int | None = None) -> Jobs:
        told.append(memory_mib)
        return Jobs(asked or 7, "")

    monkeypatch.setattr(schedule, "choose_jobs", choose)
    assert schedule._jobs(requests(), _CATALOG) == 7
    assert schedule._jobs(requests(jobs=100_000), _CATALOG) == 4096
    assert set(told) == {max(s.record.steps.memory("cpu") for s in _CATALOG.recipes().values())}


def test_the_longest_lane_is_first_and_the_time_left_is_of_all(session: Session) -> None:
    for engine, seconds in {"llama_cpp": 100.0, "ik_llama": 400.0, "llama_dgx": 40.0}.items():
        keep(timings(engine, "cpu", session.folders), Measured({}, seconds, 1.0))
    board = Board()
    with pool(4) as jobs:
        planned = schedule._Schedule(requests(), session, jobs, board)
        assert [lane[0].engine for lane in planned._lanes] == ["ik_llama", "llama_cpp", "llama_dgx"]
        assert schedule._sum(planned._left.values()) == 2 * 540 / 4


def test_of_what_nobody_knows_no_time_is_told(session: Session) -> None:
    assert schedule._sum([1.0, None]) is None
    assert schedule._sum([]) == 0


@pytest.mark.parametrize(
    ("jobs", "sandbox", "most"), [(16, False, 3), (2, False, 2), (1, False, 1), (16, True, 1)]
)
def test_builds_at_once(jobs: int, sandbox: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "why_no_namespace", lambda: "")
    assert schedule._at_once(requests("llama_cpp", sandbox=sandbox), jobs) == most


def test_without_namespaces_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "why_no_namespace", lambda: "not allowed")
    assert schedule._at_once(requests("llama_cpp"), 16) == 1


def test_a_problem_comes_whole_from_another_process() -> None:
    here, there = multiprocessing.Pipe(duplex=False)
    there.send(CompileError("what", where="there", remedy="this", output="said"))
    found = here.recv()
    here.close()
    there.close()
    assert found.as_dict() == CompileError("what", where="there", remedy="this", output="said").as_dict()
    assert type(found) is CompileError
