"""The one door to other programs: argument lists only, a given environment, bounded output.

Every child leads its own process group, so that a timeout or an interrupt ends its whole family.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

_LIMIT = 8 * 1024 * 1024  # bytes of output kept for one command
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL


Word = str | Path


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


def clean_env(**extra: str) -> dict[str, str]:
    """Return an environment with nothing of the caller's but PATH, plus ``extra``."""
    base = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return base | extra


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
    timeout: float = 60.0,
    check: bool = True,
) -> Completed:
    """Run a short command and return what it said.

    Raises ProcessError when it cannot start, exceeds ``timeout`` seconds or (``check``) fails.
    """
    args = tuple(str(a) for a in argv)
    with _started(args, env=env, cwd=cwd, stderr=subprocess.PIPE) as child:
        try:
            out, err = child.communicate(stdin.encode(), timeout=timeout)
        except subprocess.TimeoutExpired:
            end(child)
            raise ProcessError(Completed(args, -1, "", ""), f"no answer within {timeout:.0f} s") from None
    done = Completed(args, child.returncode, _text(out), _text(err))
    if check and done.returncode != 0:
        raise ProcessError(done, _reason(done.returncode))
    return done


class Stream:
    """A running command whose lines (stdout and stderr together) arrive one by one."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.returncode: int | None = None

    def __iter__(self) -> Iterator[str]:
        stdout = self._child.stdout
        if stdout is None:  # pragma: no cover - stream() always opens the pipe
            return
        for raw in stdout:
            yield _text(raw).rstrip("\n")
        self.returncode = self._child.wait()


@contextlib.contextmanager
def stream(argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path) -> Iterator[Stream]:
    """Start a long command and iterate over its lines; leaving the block early ends its family."""
    args = tuple(str(a) for a in argv)
    with _started(args, env=env, cwd=cwd, stderr=subprocess.STDOUT) as child:
        if child.stdin is not None:
            child.stdin.close()
        yield Stream(child)


@contextlib.contextmanager
def _started(
    args: tuple[str, ...], *, env: Mapping[str, str] | None, cwd: Path | None, stderr: int
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        child = subprocess.Popen(
            args,
            env=dict(env) if env is not None else clean_env(),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    except (OSError, ValueError) as problem:
        raise ProcessError(Completed(args, -1, "", ""), f"could not be started: {problem}") from problem
    with child:
        try:
            yield child
        except BaseException:
            end(child)
            raise


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child and everything it started: SIGTERM, then SIGKILL after five seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        # Draining keeps a child that is writing its last words from blocking on a full pipe.
        drain = threading.Thread(target=lambda: child.stdout and child.stdout.read(), daemon=True)
        drain.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
        drain.join(0.2)


def _reason(code: int) -> str:
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _text(raw: bytes) -> str:
    return raw[:_LIMIT].decode("utf-8", "backslashreplace")
