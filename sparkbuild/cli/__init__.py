"""The command line: parse, one library call, render. Nothing else imports this package."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def entry() -> None:
    """Run the command line and exit with its code."""
    from sparkbuild.cli.main import run  # noqa: PLC0415 - keeps "import sparkbuild.cli" cheap

    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    sys.exit(run(sys.argv[1:]))


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
