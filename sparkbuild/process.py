"""The one door to other programs: argument lists only, a given environment, bounded output.

Every child leads its own process group, so that a timeout or an interrupt ends its whole family.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import selectors
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

SYSTEM_PATH = "/usr/bin:/bin"
_LIMIT = 8 * 1024 * 1024  # bytes of output kept for one command
_BLOCK = 1 << 16
_PATIENCE = 0.5  # seconds for the output of a command that has ended
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # prctl(2)


Word = str | Path
Child = subprocess.Popen[Any]


class Completed(msgspec.Struct, frozen=True):
    """A finished command. ``output`` is stdout; ``returncode`` is negative for a signal."""

    argv: tuple[str, ...]
    returncode: int
    output: str
    errors: str

    @property
    def command(self) -> str:
        """The command as a shell would take it."""
        return shlex.join(self.argv)


class ProcessError(Exception):
    """A command that failed, could not be started, or took too long."""

    def __init__(self, done: Completed, why: str) -> None:
        super().__init__(f"{done.argv[0]}: {why}")
        self.done = done
        self.why = why


class NoAnswerError(ProcessError):
    """A command that ran and did not end in time."""


def clean_env(**extra: str) -> dict[str, str]:
    """Return an environment with nothing of the caller's, plus ``extra``."""
    return {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC"} | extra


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | bytes = "",
    timeout: float = 60.0,
    check: bool = True,
) -> Completed:
    """Run a short command and return what it said.

    Of each output the first 8 MiB are kept; what it leaves running is ended. Raises ProcessError
    when it cannot start or (``check``) fails, NoAnswerError when it exceeds ``timeout`` seconds.
    """
    with begun(argv, env=env, cwd=cwd) as answer:
        done = answer(stdin if isinstance(stdin, bytes) else stdin.encode(), timeout)
    if check and done.returncode != 0:
        raise ProcessError(done, reason(done.returncode))
    return done


@contextlib.contextmanager
def begun(
    argv: Sequence[Word], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Callable[[bytes, float], Completed]]:
    """Start a short command; what is given takes its input and seconds, waits and returns what it said.

    Leaving the block ends it. Raises ProcessError when it cannot start; the waiting raises NoAnswerError.
    """
    args = tuple(str(a) for a in argv)
    with started(args, env=env, cwd=cwd) as child:

        def answer(stdin: bytes, timeout: float) -> Completed:
            out, err, ended = _talk(child, stdin, timeout)
            if not ended:
                said = Completed(args, -1, _text(out), _text(err))
                raise NoAnswerError(said, f"no answer within {timeout:.0f} s")
            return Completed(args, child.returncode, _text(out), _text(err))

        yield answer


class Stream:
    """A running command whose lines (stdout and stderr together) arrive one by one."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.returncode: int | None = None

    def __iter__(self) -> Iterator[str]:
        stdout = self._child.stdout
        if stdout is None:  # pragma: no cover - stream() always opens the pipe
            return
        for raw in iter(lambda: stdout.readline(_LIMIT), b""):
            yield _text(raw).rstrip("\n")
        self.returncode = self._child.wait()


@contextlib.contextmanager
def stream(argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path) -> Iterator[Stream]:
    """Start a long command and iterate over its lines; leaving the block early ends its family."""
    args = tuple(str(a) for a in argv)
    with started(args, env=env, cwd=cwd, stderr=subprocess.STDOUT) as child:
        if child.stdin is not None:
            child.stdin.close()
        try:
            yield Stream(child)
        except BaseException:
            end(child)
            _kill_session(child.pid)
            raise


class Running:
    """A command at work in the background."""

    def __init__(self, child: subprocess.Popen[bytes], kept: bytearray, reader: threading.Thread) -> None:
        self._child = child
        self._kept = kept
        self._reader = reader

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._child.poll()

    @property
    def output(self) -> str:
        """What it said so far, stdout and stderr together: the first 8 MiB."""
        if self.returncode is not None:
            self._reader.join(_PATIENCE)  # its last words may still be in the pipe
        return _text(bytes(self._kept))

    def stop(self) -> int:
        """End it and its family and return its exit code; -9 means that it did not end on SIGTERM in 5 s."""
        end(self._child)
        code = self.returncode
        return -signal.SIGKILL if code is None else code


@contextlib.contextmanager
def running(argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path) -> Iterator[Running]:
    """Start a command in the background; leaving the block ends its family.

    Its output is read all the time, so that it never waits for a reader. Raises ProcessError when it
    cannot start.
    """
    args = tuple(str(a) for a in argv)
    over, kept = threading.Event(), bytearray()
    reading, writing = os.pipe()
    reader = threading.Thread(target=_drain, args=(reading, kept, over), daemon=True)
    try:
        with contextlib.ExitStack() as stack:
            try:
                child = stack.enter_context(started(args, env=env, cwd=cwd, stdout=writing, stderr=writing))
            finally:
                os.close(writing)
            if child.stdin is not None:
                child.stdin.close()
            reader.start()  # after the fork, which threads would endanger
            try:
                yield Running(child, kept, reader)
            finally:
                end(child)
                _kill_session(child.pid)
    finally:
        over.set()
        if reader.ident is not None:
            reader.join()
        os.close(reading)


def _drain(handle: int, kept: bytearray, over: threading.Event) -> None:
    """Read a pipe to its end, or, once it is over, until it is empty or enough is kept."""
    while True:
        ready = select.select([handle], [], [], _PATIENCE / 10)[0]
        if over.is_set() and (not ready or len(kept) >= _LIMIT):
            return
        if ready:
            block = os.read(handle, _BLOCK)
            if not block:
                return
            kept += block[: _LIMIT - len(kept)]


@contextlib.contextmanager
def started(
    args: tuple[str, ...],
    *,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    stdin: int = subprocess.PIPE,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> Iterator[Child]:
    """Start a command whose pipes the block reads and writes; leaving it ends the command's family.

    Raises ProcessError when it cannot start.
    """
    # One that came while Python's own hooks for a fork run would be swallowed there.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)

    def begin() -> None:
        prepare()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        child = subprocess.Popen(
            args,
            env=dict(env) if env is not None else clean_env(),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=begin,  # noqa: PLW1509 - three system calls, resolved beforehand
        )
    except BaseException as problem:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if not isinstance(problem, OSError | ValueError):
            raise
        raise ProcessError(Completed(args, -1, "", ""), f"could not be started: {problem}") from problem
    with child:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            yield child
        finally:
            end(child)


def _talk(child: subprocess.Popen[bytes], stdin: bytes, timeout: float) -> tuple[bytes, bytes, bool]:
    """Return a child's two outputs, and whether it ended in time.

    ``Popen.communicate`` would keep in memory all that a flooding program says.
    """
    until = time.monotonic() + timeout
    kept: dict[IO[bytes] | None, bytearray] = {child.stdout: bytearray(), child.stderr: bytearray()}
    with selectors.DefaultSelector() as waiting:
        for pipe, event in ((child.stdin, selectors.EVENT_WRITE), *((p, selectors.EVENT_READ) for p in kept)):
            if pipe is not None:
                waiting.register(pipe, event, pipe)
        while waiting.get_map() and (left := until - time.monotonic()) > 0:
            events = waiting.select(min(left, _PATIENCE))
            if not events and child.poll() is not None:
                break  # it ended, and what it left running holds its pipes open
            for key, _ in events:
                if key.data is child.stdin:
                    stdin = _feed(key.fd, stdin)
                    over = not stdin
                else:
                    block = os.read(key.fd, _BLOCK)
                    kept[key.data] += block[: _LIMIT - len(kept[key.data])]
                    over = not block
                if over:
                    waiting.unregister(key.data)
                    key.data.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(max(0.0, until - time.monotonic()))
    return bytes(kept[child.stdout]), bytes(kept[child.stderr]), child.returncode is not None


def _feed(handle: int, data: bytes) -> bytes:
    """Write what a pipe takes at once and return the rest; nothing is left when nobody reads it."""
    with contextlib.suppress(BrokenPipeError):
        return data[os.write(handle, data[: select.PIPE_BUF]) :]
    return b""


def end(child: Child) -> None:
    """End a child and everything it started: SIGTERM, then SIGKILL when it ended or after five seconds."""
    pipes = [p for p in (child.stdout, child.stderr) if p and not p.closed]
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        until = time.monotonic() + _GRACE
        while child.poll() is None and time.monotonic() < until:
            # Draining keeps a child that is writing its last words from blocking on a full pipe.
            for pipe in select.select(pipes, [], [], 0.02)[0]:
                if not os.read(pipe.fileno(), _BLOCK):
                    pipes.remove(pipe)


def _kill_session(leader: int) -> None:
    """Kill what is left of a session: ninja and timeout(1) give a command a process group of its own.

    They end it themselves when they are asked to, unless it does not listen.
    """
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text(errors="replace").rpartition(")")[2].split()  # proc_pid_stat(5)
            if fields[3] == str(leader):
                os.kill(int(path.parent.name), signal.SIGKILL)


def end_marked(mark: str) -> None:
    """Kill every process that began with ``mark`` in its environment, whatever session it went to."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # somebody else's, or it has ended
            if mark.encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


def prepare() -> None:
    """In a child: no core files, which qemu-user writes by itself, and SIGTERM when sparkbuild is killed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def reason(code: int) -> str:
    """Return what an exit code, negative for a signal, means."""
    if code < 0:
        names = {s.value: s.name for s in signal.Signals}  # all but most real-time signals
        return f"ended by signal {names.get(-code, -code)}"
    return f"exit code {code}"


def _text(raw: bytes) -> str:
    return raw[:_LIMIT].decode("utf-8", "backslashreplace")
