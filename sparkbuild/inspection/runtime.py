"""Ask a built program something, natively or under qemu-user. "Not run" is an answer of its own."""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sparkbuild import process

_TIMEOUT = 120.0
_LIMIT = 4000  # characters of an answer
# What glibc's loader (natively or emulated) and qemu-user say when a program can not begin.
_NOT_LOADED = re.compile(
    r"^.*(?:error while loading shared libraries: |version `\S+' not found |: Could not open ').*$",
    re.MULTILINE,
)


class Answer(msgspec.Struct, frozen=True):
    """What a program said, with nothing in it that could steer a terminal.

    ``ran`` is how: native or qemu; "not run" when it could not begin, for want of an emulator or a
    library; "failed" when it ran and ended badly. The last two have a ``reason``.
    """

    ran: str
    reason: str = ""
    output: str = ""


class VersionReport(msgspec.Struct, frozen=True):
    """What ``--version`` printed; ``ran`` is as in Answer, and failed also when it held no version."""

    ran: str
    reason: str = ""
    output: str = ""
    number: int | None = None
    commit: str = ""


class Run(msgspec.Struct, frozen=True):
    """How a program ran, as in Answer, and both its outputs, raw."""

    ran: str
    reason: str
    output: str = ""
    errors: str = ""


def ask_version(
    tool: Path, machine: str, pattern: str, libraries: Iterable[Path] = (), *, timeout: float = _TIMEOUT
) -> VersionReport:
    """Run ``tool --version`` and read the build number and commit out of it; the rest is as in ask."""
    answer = ask(tool, ("--version",), machine, libraries, timeout=timeout)
    ran, reason, said = answer.ran, answer.reason, answer.output
    if reason:
        return VersionReport(ran, reason, said)
    match = re.search(pattern, said)
    if not match or not (match["number"] or "").isdecimal():
        return VersionReport("failed", "its answer does not hold the version that is looked for", said)
    return VersionReport(ran, "", said, int(match["number"]), match["commit"] or "")


def ask(
    tool: Path,
    words: tuple[str, ...],
    machine: str,
    libraries: Iterable[Path] = (),
    *,
    timeout: float = _TIMEOUT,
    limit: int = _LIMIT,
) -> Answer:
    """Run ``tool`` with ``words`` and return the first ``limit`` characters of what it said.

    ``libraries`` are folders with what is not beside the tool, such as CUDA's run time; ``timeout``
    is in seconds.
    """
    done = run_alone(tool, words, machine, libraries, timeout=timeout)
    return Answer(done.ran, done.reason, printable((done.output + done.errors).strip()[:limit], "\n\t"))


def run_alone(
    tool: Path, words: tuple[str, ...], machine: str, libraries: Iterable[Path], *, timeout: float
) -> Run:
    """Run a program in an empty home of its own and leave nothing of it behind.

    Its memory is not limited: a CUDA driver reserves more addresses than any machine has memory.
    """
    launcher = launch(machine)
    if isinstance(launcher, str):
        return Run("not run", launcher)
    path = ":".join(str(p) for p in libraries)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        ours = process.clean_env(HOME=home, TMPDIR=home)
        env = ours | ({"LD_LIBRARY_PATH": path} if path else {})
        argv: list[process.Word] = [*_with_env(launcher, env), tool.absolute(), *words]
        try:
            # qemu itself must not load the target's libraries.
            done = process.run(
                argv, env=ours if launcher else env, cwd=Path(home), timeout=timeout, check=False
            )
        except process.NoAnswerError as problem:
            return Run("failed", problem.why, problem.done.output, problem.done.errors)
        except process.ProcessError as problem:
            return Run("not run", str(problem))
        finally:
            process.end_marked(f"HOME={home}\0")
    if done.returncode == 0:
        return Run("qemu" if launcher else "native", "", done.output, done.errors)
    lost = _NOT_LOADED.search(done.errors[:_LIMIT])
    why = printable(lost[0].strip()) if lost else process.reason(done.returncode)
    return Run("not run" if lost else "failed", why, done.output, done.errors)


def printable(text: str, kept: str = "") -> str:
    """Return a text without what could steer a terminal, but for the characters in ``kept``."""
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def launch(machine: str) -> tuple[str, ...] | str:
    """Return the words that start a binary of ``machine`` here (none natively), or why it can not."""
    if machine == platform.machine():
        return ()
    qemu = shutil.which(f"qemu-{machine}") or shutil.which(f"qemu-{machine}-static")
    if not qemu:
        return f"this machine is {platform.machine()} and qemu-{machine} is not installed"
    root = Path(f"/usr/{machine}-linux-gnu")
    return (qemu, "-L", str(root)) if root.is_dir() else f"{root} with the target's C library is missing"


def _with_env(launcher: tuple[str, ...], env: dict[str, str]) -> list[str]:
    """Give an emulated program its environment."""
    if not launcher:
        return []
    return [*launcher, *(word for name, value in env.items() for word in ("-E", f"{name}={value}"))]
