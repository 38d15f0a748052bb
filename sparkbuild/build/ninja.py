"""Run ninja, tell how far it is, and read a failure out of its output."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import msgspec

from sparkbuild import process
from sparkbuild.build.costs import Costs, Forecast, Timeline
from sparkbuild.build.jobs import Shared
from sparkbuild.errors import CompileError, ExhaustedError, MissingError, SparkbuildError
from sparkbuild.files import DISK_FAULTS, inside, plain, read_plain
from sparkbuild.progress import Progress

_STEP = re.compile(r"^\[(\d+)/(\d+) (\d+)\] (.*)$")
_STATUS = {"NINJA_STATUS": "[%f/%t %r] "}  # finished, all, running
_LOGGED = re.compile(r"([0-9]{1,18})\t([0-9]{1,18})\t([0-9]{1,19})\t([^\t]*)\t[^\t]*")
_LAST = 20  # lines of a log that are shown
_OUTPUT_LIMIT = 200  # lines of a failing command that are shown

_NO_MEMORY = (
    r"Killed|signal terminated program|died due to signal 9|\[code=(137|-9)\]"
    r"|[Oo]ut of memory|[Cc]annot allocate memory|bad_alloc"
)
_SILENT = 2  # lines of a failure: its output and its command
_FULL = 16 << 20  # bytes free
# What a failed command's output gives away, and what mends it.
_CAUSES = (
    (r"No space left on device", "the disk is full", "free some space and run the same command again"),
    (
        _NO_MEMORY,
        "the compiler was killed, most likely for want of memory",
        "run again with fewer --jobs",
    ),
    (
        r"file format not recognized|file truncated|malformed archive",
        "a file that an earlier run made is damaged",
        "run again with --rebuild: it begins anew",
    ),
    (
        r"target specific option mismatch",
        "the compiler accepts the CPU flag but not its intrinsics (the GCC fault on GB10)",
        "use another compiler version; 'sparkbuild doctor' shows which prove the fix",
    ),
    (
        r"Unsupported gpu architecture|is not defined for option 'gpu-architecture'",
        "this CUDA does not know the GPU",
        "use CUDA 12.9 or newer for sm_121; 'sparkbuild doctor' shows which one is used",
    ),
    (
        r"unsupported GNU version",
        "this CUDA does not support so new a GCC",
        "install an older g++ (see nvcc's host compiler table)",
    ),
    (
        r"undefined reference to [`']cu[A-Z]|libcuda\.so\.1.*not found",
        "the CUDA driver library is missing at link time",
        "use the driver stub; 'sparkbuild doctor' shows the toolkit",
    ),
    (
        r"lib(cudart|cublas)\S*, needed by .* not found",
        "the linker does not find CUDA's libraries behind a library",
        "-Wl,-rpath-link must name the toolkit's library folder",
    ),
)


_READ = 1 << 20  # characters of ninja's log that are looked at after a step
_LONGEST = 16 << 20  # bytes of ninja's log that are read; a real one has some hundred thousand
_PATIENCE = 120.0  # seconds for a dry run
_SLACK = 1.0  # seconds; a file system may keep coarser times than the log


class NinjaFailure(msgspec.Struct, frozen=True):
    """A failed step: the file it should have made, its command, and what that command said."""

    output_file: str
    command: str
    said: str


class _KilledForMemoryError(ExhaustedError):
    """The out-of-memory killer hit a compiler; fewer jobs may do."""


def command(ninja: Path, build_dir: Path, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the build command but for its number of jobs."""
    return (str(ninja), "-C", str(build_dir), *targets)


def build(
    ninja: Path,
    build_dir: Path,
    targets: tuple[str, ...],
    *,
    at: Path | None = None,
    jobs: int,
    shared: Shared | None = None,
    env: Mapping[str, str],
    enter: tuple[str, ...] = (),
    costs: Costs,
    progress: Progress,
) -> Timeline:
    """Build the targets. Raises CompileError with the failing command's own output.

    ``enter`` stands before ninja's command, which sees the folder ``at`` its own path. When a compiler is
    killed for memory the rest is built with half the jobs, once; of ``shared`` jobs as many as come free soon
    are kept from all builds meanwhile.
    """
    argv = (*enter, *command(ninja, at or build_dir, targets))

    def run(jobs: int) -> None:
        meter = _meter(argv, jobs, build_dir, env, costs, progress)
        if shared:  # ninja's own -j would come before them
            _run(argv, build_dir, {**env, **shared.environment}, meter)
        else:
            _run((*argv, "-j", str(jobs)), build_dir, env, meter)

    try:
        run(jobs)
    except _KilledForMemoryError:
        if jobs == 1:
            raise
        fewer = jobs // 2
        with shared.held(jobs - fewer) if shared else contextlib.nullcontext(jobs - fewer) as kept:
            left = f"{jobs - kept} jobs instead of {jobs}"
            progress.note(f"a compiler was killed for want of memory; going on with {left}")
            run(fewer)
    return timeline(build_dir)


def timeline(build_dir: Path) -> Timeline:
    """Return what each step took, from ninja's log."""
    return Timeline({output: (start, end) for start, end, _, output in _log(build_dir)})


def _log(build_dir: Path) -> Iterator[tuple[int, int, int, str]]:
    """Yield start and end (milliseconds), time stamp (nanoseconds since 1970) and output of each step.

    That is .ninja_log, version 5 to 7: start, end, time stamp, output, hash.
    """
    try:
        text = read_plain(build_dir / ".ninja_log", _LONGEST).decode(errors="replace")
    except OSError:
        return
    for line in text.split("\n"):
        if found := _LOGGED.fullmatch(line):
            yield int(found[1]), int(found[2]), int(found[3]), found[4]


def replaced(build_dir: Path) -> tuple[str, ...]:
    """Return the libraries and programs that are not the ones ninja made: newer than their step, or older.

    The stamp in ninja's log is when the step began, in older versions when the file was written.
    """
    steps = {output: (stamp / 1e9, (end - start) / 1e3) for start, end, stamp, output in _log(build_dir)}
    changed = []
    for output, (began, took) in steps.items():
        path = build_dir / output
        linked = ".so" in path.name or not path.suffix
        if not linked or not began or not inside(build_dir, output) or not _is_elf(path):
            continue
        if not began - _SLACK <= path.stat().st_mtime <= began + took + _SLACK:
            changed.append(output)
    return tuple(sorted(changed))


def _is_elf(path: Path) -> bool:
    try:
        return read_plain(path, 4) == b"\x7fELF"
    except OSError:
        return False


class _Meter:
    """Turns finished steps into progress, with the seconds left."""

    def __init__(self, log: Path, forecast: Forecast, progress: Progress) -> None:
        self._log = log
        self._read = log.lstat().st_size if log.exists() else 0
        self._worst = (0.0, "")
        self._forecast = forecast
        self._progress = progress
        self._began = time.monotonic()

    def step(self, number: int, total: int, running: int, text: str) -> None:
        """Tell of a step that ended; ``running`` steps ran until then."""
        output = text.rpartition(" ")[2]
        self._learn()
        left = self._forecast.left(output, time.monotonic() - self._began, running)
        seconds, slowest = self._worst
        slow = f" (slowest: {slowest} {seconds:.0f} s)" if seconds > 1 else ""
        self._progress.advance(number, total, f"{_shown(output)}{slow}", left)

    def _learn(self) -> None:
        """Take in what steps took, from what ninja has appended to its log since last time."""
        try:
            with open(self._log, errors="replace", opener=plain) as log:
                log.seek(self._read)
                new = log.read(_READ)
                self._read = log.tell()
        except (OSError, ValueError):  # ValueError: its place in a file that is another by now
            return
        for line in new.splitlines():
            if found := _LOGGED.fullmatch(line):
                seconds = max(0, int(found[2]) - int(found[1])) / 1000
                self._forecast.measured(found[4], seconds)
                self._worst = max(self._worst, (seconds, _shown(found[4])))


def _shown(output: str) -> str:
    return Path(output).name.removesuffix(".o")


def _meter(
    argv: tuple[str, ...],
    jobs: int,
    build_dir: Path,
    env: Mapping[str, str],
    costs: Costs,
    progress: Progress,
) -> _Meter:
    """Return a meter for what there is to do, having told how long that should take."""
    todo = _planned(argv, env)
    forecast = Forecast(todo, costs, jobs)
    if todo:
        progress.advance(0, len(todo), "", forecast.beforehand)
    return _Meter(build_dir / ".ninja_log", forecast, progress)


def _planned(argv: tuple[str, ...], env: Mapping[str, str]) -> list[str]:
    """Return the outputs that ninja would make, from a dry run."""
    try:
        done = process.run([*argv, "-n"], env={**env, **_STATUS}, check=False, timeout=_PATIENCE)
    except process.NoAnswerError as problem:
        raise CompileError(
            f"ninja does not say what there is to do: {problem.why}",
            where=argv[-1],
            remedy="a pipe or the like may be among its files: --rebuild begins anew",
        ) from problem
    found = (_STEP.match(line) for line in done.output.splitlines())
    return [m[4].rpartition(" ")[2] for m in found if m]


def _run(args: tuple[str, ...], build_dir: Path, env: Mapping[str, str], meter: _Meter) -> None:
    log = build_dir / "build.log"
    failing: list[list[str]] = []
    last: deque[str] = deque(maxlen=_LAST)
    try:
        with (
            _opened(log) as out,
            process.stream(args, env={**env, **_STATUS}, cwd=build_dir) as running,
        ):
            for line in running:
                out.write(line + "\n")
                last.append(line)
                if match := _STEP.match(line):
                    meter.step(int(match[1]), int(match[2]), int(match[3]), match[4])
                if line.startswith("FAILED: "):
                    failing.append([line])
                elif failing and not match and not line.startswith("ninja: "):
                    failing[-1].append(line)
                elif failing and match:
                    failing.append([])
    except process.ProcessError as problem:
        raise MissingError(f"ninja did not start: {problem}", remedy="install sparkbuild again") from problem
    if running.returncode:
        raise _explain([f for f in failing if f], running.returncode, log, "\n".join(last))


def _opened(log: Path) -> TextIO:
    """Open build.log to add to it. Raises CompileError where the source's code put something else there."""
    try:
        return open(log, "a", buffering=1, encoding="utf-8", opener=plain)
    except OSError as problem:
        if problem.errno in DISK_FAULTS:
            raise
        raise CompileError(
            f"the build's own log can not be written: {problem.strerror}",
            where=str(log),
            remedy="what the source runs put something else in its place",
        ) from problem


def _explain(failing: list[list[str]], code: int, log: Path, tail: str) -> SparkbuildError:
    if not failing:
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):  # the latter from bubblewrap
            what = "ninja was killed, most likely for want of memory"
            return _KilledForMemoryError(
                what, where=str(log), remedy="run again with fewer --jobs", output=tail
            )
        return CompileError(
            f"ninja failed with exit code {code}", where=str(log), remedy="see the log", output=tail
        )
    if len(failing[0]) == _SILENT:  # ccache does not say why
        if shutil.disk_usage(log.parent).free < _FULL:
            failing[0].append("No space left on device")
        elif "[code=255]" in failing[0][0]:
            failing[0].append("Killed")
    failure = read_failure(failing[0])
    cause = next(((why, mend) for text, why, mend in _CAUSES if re.search(text, "\n".join(failing[0]))), None)
    what = f"{failure.output_file} could not be made" + (f": {cause[0]}" if cause else "")
    kinds = {"memory": _KilledForMemoryError, "disk": ExhaustedError}
    kind = next((k for word, k in kinds.items() if cause and word in cause[0]), CompileError)
    return kind(
        what,
        where=f"{failure.command[:2000]}\n  log: {log}",
        remedy=cause[1] if cause else "the output above is that command's own",
        output=failure.said,
    )


def read_failure(lines: list[str]) -> NinjaFailure:
    """Read one FAILED block: ``FAILED: [code=1] OUTPUT``, the command, then what it said."""
    head = re.sub(r"^FAILED: (\[code=\d+\] )?", "", lines[0]).strip()
    command = lines[1] if len(lines) > 1 else ""
    return NinjaFailure(head, command, "\n".join(lines[2 : 2 + _OUTPUT_LIMIT]))
