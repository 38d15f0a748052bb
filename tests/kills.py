"""Kill, interrupt or fail a real process at each thing that it does to the disk, one run after another."""

from __future__ import annotations

import builtins
import io
import mmap
import os
import signal
import struct
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from sparkbuild.errors import SparkbuildError
from sparkbuild.faults import refused

_STEPS = ("mkdir", "open", "fsync", "symlink", "rename", "replace", "unlink", "rmdir")
_MORE = (*_STEPS, "link", "chmod")
_FSYNC = os.fsync
_COUNTER = struct.Struct("i")
Fault = signal.Signals | int
"""A signal, or an errno with which the call fails."""


def killed(step: int, action: Callable[[], object]) -> bool:
    """Run ``action`` in a child that gets SIGKILL before its call number ``step`` (from 0) that counts.

    Returns False when it came to its end before that.
    """
    code, _ = _run(step, action, signal.SIGKILL, _STEPS)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def broken(step: int, action: Callable[[], object], fault: Fault) -> tuple[int, int]:
    """Run ``action`` in a child that meets ``fault`` at its call number ``step`` (from 0) that counts.

    The files that Python opens count too. Returns the exit code as the command line would give it,
    negative for a signal, and how many calls there were. An error without a remedy counts as a bug.
    """
    return _run(step, action, fault, _MORE)


def _run(step: int, action: Callable[[], object], fault: Fault, names: Iterable[str]) -> tuple[int, int]:
    met = mmap.mmap(-1, _COUNTER.size)
    child = os.fork()
    if child == 0:
        code = 101
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _count(step, fault, names, met)
            code = _outcome(action)
        except BaseException:  # noqa: BLE001 - it must not go on as a second pytest
            traceback.print_exc()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, _COUNTER.unpack_from(met)[0]


def _outcome(action: Callable[[], object]) -> int:
    try:
        action()
    except KeyboardInterrupt:
        return 130
    except SparkbuildError as problem:
        return problem.exit_code if problem.remedy else 101
    except OSError as problem:
        if said := refused(problem):
            return said.exit_code
        raise
    return 0


def _count(step: int, fault: Fault, names: Iterable[str], met: mmap.mmap) -> None:
    left = step

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:  # noqa: ANN401 - any function of os
            nonlocal left
            if isinstance(words[0], int) and real is not _FSYNC:  # a pipe's end is not on the disk
                return real(*words, **options)
            left -= 1
            _COUNTER.pack_into(met, 0, step - left)
            if left == -1:
                if not isinstance(fault, signal.Signals):
                    raise OSError(fault, os.strerror(fault), *words[:1])
                os.kill(os.getpid(), fault)
            return real(*words, **options)

        return call

    for name in names:
        setattr(os, name, wrapped(getattr(os, name)))
    if names is _MORE:
        io.open = builtins.open = wrapped(io.open)
