"""Many builds as one schedule: side by side what shares nothing, one after another what does.

Compiling uses all cores well; configuring, linking, checking and probing use one each. So a few builds are
at work at once, and share the jobs (build/jobs.py): each has one of its own from beginning to end, and the
others go to whichever compiles. More builds at once would not be done sooner, only all of them later.

Builds of one engine and backend take turns, because each finds in the compile cache what the one before
compiled. Every build is a process: the umask, the CPU time of children, and what Ctrl-C does belong to one.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Protocol

import msgspec

from sparkbuild import process
from sparkbuild.build.jobs import Pool, Shared, choose_jobs, pool
from sparkbuild.catalog import Catalog
from sparkbuild.errors import ExhaustedError, InterruptedRunError, SparkbuildError
from sparkbuild.faults import refused
from sparkbuild.files import Folders
from sparkbuild.pipeline import Result, build, expected
from sparkbuild.progress import Progress
from sparkbuild.request import Request, Session
from sparkbuild.toolchain.place import why_no_namespace

_AT_ONCE = 3  # builds: one that compiles, one that begins, one that ends
_MOST_JOBS = 4096  # what a pipe holds for certain
_PATIENCE = 30.0  # seconds for a build that was told to end
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SPAWN = multiprocessing.get_context("spawn")


class Done(msgspec.Struct, frozen=True):
    """What became of a request: a result, or the problem."""

    request: Request
    result: Result | None
    problem: SparkbuildError | None


class Board(Protocol):
    """Receives what happens to many builds."""

    def row(self, name: str) -> Progress:
        """Return what is told of one build, which begins now."""

    def done(self, name: str, problem: SparkbuildError | None) -> None:
        """Tell that a build has ended."""

    def left(self, builds: int, seconds: float | None) -> None:
        """Tell how many builds have not ended, and the seconds until all have, if that is known."""


def requests_of(
    request: Request, engines: Sequence[str], archs: Sequence[str], catalog: Catalog
) -> list[Request]:
    """Return a request for each engine and target machine; without engines for all that have the backend.

    Raises UsageError for an unknown name.
    """
    recipes = [catalog.recipe(name).record for name in engines] or [
        shelf.record
        for _, shelf in sorted(catalog.recipes().items())
        if request.backend in shelf.record.targets
    ]
    machines = [catalog.toolchain(name).record.name for name in archs]
    return [
        msgspec.structs.replace(request, engine=engine, arch=arch)
        for engine in dict.fromkeys(r.name for r in recipes)
        for arch in dict.fromkeys(machines)
    ]


def name_of(request: Request) -> str:
    """Return what a build is called among others."""
    return f"{request.engine} {request.arch} {request.backend}"


def build_all(requests: Sequence[Request], session: Session, board: Board) -> tuple[Done, ...]:
    """Build all; one that fails stops no other. Returns what became of each, in the order of ``requests``.

    An interrupt ends all of them, and is raised again when they have ended.
    """
    count = _jobs(requests, session.catalog)
    with pool(count) as jobs:
        schedule = _Schedule(requests, session, jobs, board)
        schedule.run()
    return tuple(schedule.done[name_of(r)] for r in requests)


def _jobs(requests: Sequence[Request], catalog: Catalog) -> int:
    """Return how many jobs fit when each compiles the largest file of any build."""
    memory = max(catalog.recipe(r.engine).record.steps.memory(r.backend) for r in requests)
    return min(choose_jobs(memory, asked=requests[0].jobs).count, _MOST_JOBS)


def _at_once(requests: Sequence[Request], jobs: int) -> int:
    """Return how many builds may be at work at once.

    Without namespaces each build needs the one place of the source to itself. In a sandbox the jobs can not
    be shared: what is in there could take them all.
    """
    if why_no_namespace() or any(r.sandbox for r in requests):
        return 1
    return min(_AT_ONCE, jobs)


class _Worker:
    """A build at work in a process of its own, and the lane of those that wait for it."""

    def __init__(self, lane: Sequence[Request], session: Session, board: Board) -> None:
        self.request, *self.rest = lane
        self.told = board.row(name_of(self.request))
        self.pipe, theirs = _SPAWN.Pipe(duplex=False)
        given = (self.request, session.catalog, session.folders, session.shared, theirs)
        self.child = _SPAWN.Process(target=_work, args=given)
        self.child.start()
        theirs.close()

    def stop(self) -> None:
        """Wait for its end, for a while."""
        self.child.join(_PATIENCE)
        if self.child.is_alive():
            self.child.kill()
            self.child.join()
        self.pipe.close()

    def vanished(self) -> SparkbuildError:
        """Return what is to be said when it ended without a word."""
        self.child.join(_PATIENCE)
        return ExhaustedError(
            f"the build's process was lost ({process.reason(self.child.exitcode or 0)})",
            where=name_of(self.request),
            remedy="run the same command again, with fewer --jobs if memory is short: it goes on from there",
        )


class _Schedule:
    """Builds in their lanes, those at work, and what became of the others."""

    def __init__(self, requests: Sequence[Request], session: Session, jobs: Pool, board: Board) -> None:
        self.done: dict[str, Done] = {}
        self._jobs, self._board = jobs, board
        count = jobs.shared.count
        self._left = {name_of(r): _seconds(r, session, count) for r in requests}
        lanes: dict[tuple[str, str], list[Request]] = {}
        for request in requests:
            lanes.setdefault((request.engine, request.backend), []).append(request)
        # What takes longest is first, so that it is not alone at the end; what nobody knows before all.
        self._lanes = sorted(lanes.values(), key=lambda lane: _sum(self._of(lane)) or math.inf, reverse=True)
        self._most = min(_at_once(requests, count), len(lanes))
        shared = jobs.shared if self._most > 1 else None
        self._session = msgspec.structs.replace(session, shared=shared)
        self._working: list[_Worker] = []

    def _of(self, lane: Sequence[Request]) -> list[float | None]:
        return [self._left[name_of(r)] for r in lane]

    def run(self) -> None:
        """Build all."""
        resource_tracker.ensure_running()  # which unblocks signals when it starts
        self._jobs.deal(self._most)
        try:
            for lane in self._lanes[: self._most]:
                self._start(lane)
            del self._lanes[: self._most]
            while self._working:
                self._listen()
        finally:
            with _deferred():
                for worker in self._working:
                    worker.child.terminate()
                for worker in self._working:
                    worker.stop()

    def _start(self, lane: Sequence[Request]) -> None:
        with _deferred():
            self._working.append(_Worker(lane, self._session, self._board))

    def _listen(self) -> None:
        """Take in what workers tell, once one of them tells something."""
        ready = wait([w.pipe for w in self._working])
        for worker in [w for w in self._working if w.pipe in ready]:
            try:
                kind, *words = worker.pipe.recv()
            except (EOFError, OSError):  # it ended, maybe in the middle of a message
                kind, words = "done", [None, worker.vanished()]
            if kind == "done":
                self._end(worker, *words)
            else:
                getattr(worker.told, kind)(*words)
                if kind == "advance":
                    self._tell_left(worker, words[-1])

    def _end(self, worker: _Worker, result: Result | None, problem: SparkbuildError | None) -> None:
        name = name_of(worker.request)
        worker.stop()
        self._working.remove(worker)
        self.done[name] = Done(worker.request, result, problem)
        self._board.done(name, problem)
        if lane := worker.rest or (self._lanes.pop(0) if self._lanes else []):
            if not self._working:  # a ninja that was killed has lost its jobs
                self._jobs.deal(1)
            self._start(lane)
        else:
            self._jobs.add()
        self._tell_left(worker, 0.0)

    def _tell_left(self, worker: _Worker, seconds: float | None) -> None:
        if seconds is not None:
            self._left[name_of(worker.request)] = seconds
        self._board.left(len(self._left) - len(self.done), _sum(self._left.values()))


def _seconds(request: Request, session: Session, jobs: int) -> float | None:
    found = expected(request, session, jobs)
    return found.seconds if found else None


def _sum(seconds: Iterable[float | None]) -> float | None:
    """Return the sum; None where one is not known."""
    known = list(seconds)
    return None if None in known else sum(s for s in known if s is not None)


@contextlib.contextmanager
def _deferred() -> Iterator[None]:
    """Hold signals back for the block, after which they arrive. What is started in it has them blocked."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {int(n): signal.signal(n, lambda number, _: caught.append(number)) for n in _SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in caught:
        signal.raise_signal(number)


class _Sender:
    """A Progress that tells another process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def stage(self, text: str) -> None:
        self._pipe.send(("stage", text))

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        self._pipe.send(("advance", done, total, text, left))

    def note(self, text: str) -> None:
        self._pipe.send(("note", text))


def _work(
    request: Request, catalog: Catalog, folders: Folders, shared: Shared | None, pipe: Connection
) -> None:
    """Build one request in this process, which is there for nothing else, and send what became of it."""
    process.prepare()
    for number in _SIGNALS:  # Ctrl-C reaches all of a terminal's processes; the one that began us decides
        signal.signal(number, _once if number == signal.SIGTERM else _nothing)
    result: Result | None = None
    problem: SparkbuildError | None = None
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        result = build(request, Session(catalog, folders, _Sender(pipe), shared))
    except KeyboardInterrupt:
        problem = InterruptedRunError(
            "interrupted", remedy="run the same command again: it goes on from there"
        )
    except SparkbuildError as found:
        problem = found
    except Exception as found:  # noqa: BLE001 - the other builds go on
        problem = refused(found) or _bug(found)
    with contextlib.suppress(OSError):  # nobody listens any more
        pipe.send(("done", result, problem))


def _bug(problem: Exception) -> SparkbuildError:
    told = "".join(traceback.format_exception(problem))
    return SparkbuildError(
        f"a bug in sparkbuild: {type(problem).__name__}: {problem}", remedy="please report it", output=told
    )


def _once(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, _nothing)  # a second one would interrupt the cleaning up
    raise KeyboardInterrupt


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Go on."""
