"""Kill a real process before each thing that it does to the disk, one run after another."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

_STEPS = ("mkdir", "open", "fsync", "symlink", "rename", "replace", "unlink", "rmdir")


def killed(step: int, action: Callable[[], object]) -> bool:
    """Run ``action`` in a child that gets SIGKILL before its call number ``step`` (from 0) that counts.

    Returns False when it came to its end before that.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _count(step)
            action()
            code = 0
        except BaseException:  # noqa: BLE001 - it must not go on as a second pytest
            traceback.print_exc()
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def _count(step: int) -> None:
    left = step

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:  # noqa: ANN401 - any function of os
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*words, **options)

        return call

    for name in _STEPS:
        setattr(os, name, wrapped(getattr(os, name)))
