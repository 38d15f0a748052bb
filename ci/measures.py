"""What ci/bench measures: commands, timed from outside; docs/performance.md says what each one means."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ci.anew import sources_in, why
from ci.performance import ROOT, Measured
from sparkbuild import build as building
from sparkbuild import process
from sparkbuild.build import configure, ninja
from sparkbuild.build.cache import FOLDER, find_cache
from sparkbuild.build.tools import find_tools
from sparkbuild.catalog import Catalog
from sparkbuild.files import Folders
from sparkbuild.inspection.elf import is_elf
from sparkbuild.planning import Plan
from sparkbuild.progress import Silent
from sparkbuild.request import Request, Session, plan
from sparkbuild.toolchain import preflight
from sparkbuild.toolchain.place import BUILD, SOURCE, Isolation, placed

_QUICK = 5  # runs of what takes less than a second; their median counts
_ALWAYS = ("CMAKE_SYSTEM_NAME", "CMAKE_SYSTEM_PROCESSOR", "CMAKE_C_COMPILER", "CMAKE_CXX_COMPILER")
# Would be downloaded while it builds; is not among the targets; a compile cache, where one is installed.
_OFF = ("LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "GGML_CCACHE")

Word = str | Path
Cost = tuple[float, float]  # wall seconds, MB of the largest process


class OutOfTimeError(Exception):
    """What was measured did not end before the deadline, or would not."""


class Failed(Exception):  # noqa: N818 - a measure that failed, not a fault of this program
    """A command that is measured failed."""


class Asked(msgspec.Struct, frozen=True):
    """What is built: the request, its second CPU variant, its later commit; catalogues of one's own."""

    request: Request
    jobs: int
    variant: Request | None = None
    later: Request | None = None
    catalogs: tuple[Path, ...] = ()
    artifact: Path | None = None


class Lab:
    """A folder to measure in: a SPARKBUILD_HOME of its own, and build folders for what is done by hand."""

    def __init__(self, folder: Path, asked: Asked, until: float) -> None:
        self.folder, self.asked, self.until = folder, asked, until
        self.home = folder / "home"
        self.folders = Folders(self.home / "cache", self.home / "store", self.home / "config")
        self.session = Session(Catalog.default(self.folders, asked.catalogs), self.folders, Silent())
        self._filled = folder / "ccache.cold"  # the compile cache as a cold build leaves it
        self._plans: dict[str, Plan] = {}

    def plan(self, which: str = "request") -> Plan:
        """Return a plan; ``which`` is a field of Asked.

        What it needs is fetched, compilers and compile cache are proved: once for a machine, so not measured.
        """
        if which not in self._plans:
            made = self._plans[which] = plan(getattr(self.asked, which), self.session)
            if why := find_cache(made, self.folders)[1]:
                print(why, file=sys.stderr)
            if made.cuda:
                arch = made.value("CMAKE_CUDA_ARCHITECTURES") or ""
                work, cache = self.folder / "preflight", self.folders.cache
                preflight(made.cuda, made.compilers, arch, work, cache, Silent())
        return self._plans[which]

    def measure(self, name: str, number: int) -> Measured:
        """Take one measurement, by the name that rows have for it. Raises Failed, OutOfTimeError."""
        made: dict[str, Callable[[], tuple[Cost, str]]] = {
            "cold": self._cold,
            "hand": self._hand,
            "playbook": self._playbook,
            "warm": lambda: self._cached("request"),
            "later": lambda: self._cached("later"),
            "variant": lambda: self._cached("variant"),
            "again": self._again,
            "probe": self._probe,
            "tools": self._tools,
            "help": lambda: (self._quick([sys.executable, "-m", "sparkbuild", "--help"]), ""),
            "click": lambda: (self._quick([sys.executable, "-c", "import click"]), ""),
        }
        (seconds, megabytes), note = made[name]()
        today = dt.datetime.now(tz=dt.UTC).date().isoformat()
        return Measured(name, number, round(seconds, 4), round(megabytes, 1), today, note)

    def _cold(self) -> tuple[Cost, str]:
        for used in (*(self.folders.cache / n for n in ("build", FOLDER, "timings")), self.folders.store):
            shutil.rmtree(used, ignore_errors=True)
        cost, _ = self._build("request")
        shutil.rmtree(self._filled, ignore_errors=True)
        _copy(self.folders.cache / FOLDER, self._filled)
        return cost, ""

    def _cached(self, which: str) -> tuple[Cost, str]:
        """Build with the compile cache that a cold build left, and without any build folder."""
        if not self._filled.is_dir():
            self._cold()
        for used in ("build", FOLDER):
            shutil.rmtree(self.folders.cache / used, ignore_errors=True)
        _copy(self._filled, self.folders.cache / FOLDER)
        cost, said = self._build(which, "--rebuild")
        note = _from_cache(said)
        if which == "later":
            trees = (self.plan().source.path, self.plan(which).source.path)
            sources = sources_in(building.build_dir(self.plan(which), self.folders))
            note = "; ".join(filter(None, (why(sources, *trees), note)))
        return cost, note

    def _hand(self) -> tuple[Cost, str]:
        """Configure and compile with the words and the environment of the plan, and no compile cache."""
        plan, tools, where = self.plan(), find_tools(), self._emptied("hand")
        argv = configure.command(plan, tools.cmake, tools.ninja, BUILD)
        env = building.environment(plan, where.with_name("hand.env"))
        with placed(plan.source.path, where, Isolation(), Silent()) as place:
            compiling = (*ninja.command(tools.ninja, BUILD, plan.targets), "-j", str(self.asked.jobs))
            return self._steps([(*place.enter, *argv), (*place.enter, *compiling)], env, where), ""

    def _playbook(self) -> tuple[Cost, str]:
        """Do what NVIDIA's playbook says (dgx-spark-playbooks, nvidia/llama-cpp), for the plan's targets.

        Added is what it takes for granted on a DGX Spark: which compilers, where CUDA is.
        """
        plan, where = self.plan(), self._emptied("playbook")
        given = {n: v for n in _ALWAYS if (v := plan.value(n))} | dict.fromkeys(_OFF, "OFF")
        given |= {"LLAMA_CURL": "OFF"} | ({"GGML_NATIVE": "OFF"} if plan.compilers.cross else {})
        if plan.cuda:
            given |= plan.cuda.definitions | {"GGML_CUDA": "ON"}
            given |= {"CMAKE_CUDA_ARCHITECTURES": plan.value("CMAKE_CUDA_ARCHITECTURES") or ""}
        defined = [f"-D{name}={value}" for name, value in given.items()]
        cmake = find_tools().cmake
        with placed(plan.source.path, where, Isolation(), Silent()) as place:
            first: list[Word] = [*place.enter, cmake, SOURCE, "-G", "Unix Makefiles", *defined]
            second = (*place.enter, "make", "-j8", *plan.targets)
            return self._steps([first, second], process.clean_env(HOME=str(self.folder)), where), ""

    def _emptied(self, name: str) -> Path:
        where = self.folder / name
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        return where

    def _again(self) -> tuple[Cost, str]:
        self._build("request")  # now the store has it
        return _median([self._build("request")[0] for _ in range(_QUICK)]), ""

    def _probe(self) -> tuple[Cost, str]:
        words: list[Word] = [sys.executable, "-m", "sparkbuild", "probe", self._artifact() / "bin", "--json"]
        return self._timed(words, self._env()), ""

    def _tools(self) -> tuple[Cost, str]:
        """Run the tools that say the same, one after the other: code for GPUs, names, instructions."""
        cuobjdump = shutil.which("cuobjdump", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")
        if self.asked.request.backend == "cuda" and not cuobjdump:
            raise Failed("no cuobjdump on PATH or in /usr/local/cuda/bin")
        target = self.plan().compilers.target
        objdump, nm = (shutil.which(f"{target}-{t}") or t for t in ("objdump", "nm"))
        commands: list[Sequence[Word]] = []
        for path in sorted(p for p in (self._artifact() / "bin").iterdir() if is_elf(p)):
            if cuobjdump:
                commands += [(cuobjdump, "-lelf", path), (cuobjdump, "-lptx", path)]
            commands += [
                (nm, "--defined-only", path),
                (nm, "-D", "--defined-only", path),
                (objdump, "-d", path),
            ]
        return self._steps(commands, process.clean_env(), self.folder, unheard=True), ""

    def _artifact(self) -> Path:
        """Return the artifact that is looked at, built where it is not there."""
        if self.asked.artifact:
            return self.asked.artifact
        return Path(self._build("request")[1]["artifacts"][0]["path"])

    def _build(self, which: str, *more: str) -> tuple[Cost, dict[str, Any]]:
        self.plan(which)  # all is fetched: nothing of that is measured
        answer = self.folder / "build.json"
        words = [sys.executable, "-m", "sparkbuild", "build", *self._words(getattr(self.asked, which)), *more]
        with answer.open("wb") as out:
            try:
                cost = self._timed(words, self._env(), out=out.fileno())
            except Failed as problem:
                raise Failed(f"{problem}\n{answer.read_text()[-3000:]}") from problem
        return cost, json.loads(answer.read_bytes())

    def _words(self, request: Request) -> list[Word]:
        """Return a request as the command line takes it."""
        words: list[Word] = [request.engine, "--arch", request.arch, "--backend", request.backend]
        words += ["--from", request.way, "-j", str(self.asked.jobs), "--offline", "--json"]
        words += [w for n, v in (("--ref", request.ref), ("--source", request.source)) if v for w in (n, v)]
        words += [w for n, v in request.define.items() for w in ("-D", f"{n}={v}")]
        return words + [w for folder in self.asked.catalogs for w in ("--catalog", folder)]

    def _env(self) -> dict[str, str]:
        return os.environ | {"SPARKBUILD_HOME": str(self.home), "PYTHONPATH": str(ROOT)}

    def _quick(self, words: Sequence[Word]) -> Cost:
        return _median([self._timed(words, self._env()) for _ in range(_QUICK)])

    def _steps(
        self, commands: Sequence[Sequence[Word]], env: Mapping[str, str], cwd: Path, *, unheard: bool = False
    ) -> Cost:
        """Run commands one after the other. ``unheard``: nobody reads them, and they may find nothing."""
        out = subprocess.DEVNULL if unheard else None
        costs = [self._timed(words, env, cwd=cwd, out=out, may_fail=unheard) for words in commands]
        return sum(s for s, _ in costs), max(m for _, m in costs)

    def _timed(
        self,
        words: Sequence[Word],
        env: Mapping[str, str],
        *,
        out: int | None = None,
        cwd: Path | None = None,
        may_fail: bool = False,
    ) -> Cost:
        """Run a command to its end; what it says goes to the lab's log, its answer to ``out``."""
        if (left := self.until - time.monotonic()) <= 0:
            raise OutOfTimeError
        log = self.folder / "log"
        with log.open("wb") as err:
            begun = time.monotonic()
            child = subprocess.Popen(
                [str(w) for w in words],
                env=dict(env),
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=err if out is None else out,
                stderr=err,
                start_new_session=True,
                preexec_fn=process.prepare,  # noqa: PLW1509 - two system calls, resolved beforehand
            )
            late = threading.Timer(min(left, threading.TIMEOUT_MAX), os.killpg, (child.pid, signal.SIGTERM))
            late.start()
            try:
                _, status, used = os.wait4(child.pid, 0)
                seconds = time.monotonic() - begun
                child.returncode = os.waitstatus_to_exitcode(status)
            finally:
                late.cancel()
                process.end(child)
        if child.returncode and time.monotonic() >= self.until:
            raise OutOfTimeError
        if child.returncode and not may_fail:
            said = log.read_text(errors="replace")[-3000:]
            raise Failed(f"exit code {child.returncode}: {' '.join(map(str, words))}\n{said}")
        return seconds, used.ru_maxrss * 1024 / 1e6  # getrusage(2): kilobytes


def _median(costs: Sequence[Cost]) -> Cost:
    return statistics.median(s for s, _ in costs), max(m for _, m in costs)


def _copy(old: Path, new: Path) -> None:
    """Copy a compile cache by hard links: ccache never writes into a file that is there."""
    new.mkdir(parents=True, exist_ok=True)
    if old.is_dir():
        ignore = shutil.ignore_patterns("tmp", "lock")
        shutil.copytree(old, new, copy_function=os.link, ignore=ignore, dirs_exist_ok=True)


def _from_cache(said: Mapping[str, Any]) -> str:
    """Return what a build says of its compile cache."""
    cache = said["artifacts"][0]["manifest"]["build"].get("cache")
    if not cache:
        return ""
    return f"{cache['hits']} of {cache['hits'] + cache['misses']} compiles were in the cache"
