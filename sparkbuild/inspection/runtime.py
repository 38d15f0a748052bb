"""Ask a built tool who it is, natively or under qemu-user. "Not run" is an answer of its own."""

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
# What glibc's loader (natively or emulated) and qemu-user say when a program can not begin.
_NOT_LOADED = re.compile(
    r"^.*(?:error while loading shared libraries: |version `\S+' not found |: Could not open ').*$",
    re.MULTILINE,
)


class VersionReport(msgspec.Struct, frozen=True):
    """What ``--version`` printed.

    ``ran`` is how: native or qemu; "not run" when it could not begin, for want of an emulator or a
    library; "failed" when it ran and did not answer. The last two have a ``reason``.
    """

    ran: str
    reason: str = ""
    output: str = ""
    number: int | None = None
    commit: str = ""


def ask_version(
    tool: Path, machine: str, pattern: str, libraries: Iterable[Path] = (), *, timeout: float = _TIMEOUT
) -> VersionReport:
    """Run ``tool --version`` and read the build number and commit out of it.

    ``libraries`` are folders with what is not beside the tool, such as CUDA's run time; ``timeout``
    is in seconds.
    """
    launcher = launch(machine)
    if isinstance(launcher, str):
        return VersionReport("not run", launcher)
    how = "qemu" if launcher else "native"
    path = ":".join(str(p) for p in libraries)
    with tempfile.TemporaryDirectory() as home:
        env = {"PATH": process.SYSTEM_PATH, "HOME": home, "LC_ALL": "C.UTF-8"} | (
            {"LD_LIBRARY_PATH": path} if path else {}
        )
        argv: list[process.Word] = [*_with_env(launcher, env), tool, "--version"]
        try:
            done = process.run(
                argv, env=process.clean_env() if launcher else env, timeout=timeout, check=False
            )
        except process.NoAnswerError as problem:
            return VersionReport("failed", problem.why, _printable(problem.done))
        except process.ProcessError as problem:
            return VersionReport("not run", str(problem))
    said = _printable(done)
    if done.returncode != 0:
        lost = _NOT_LOADED.search(said)
        why = lost[0].strip() if lost else process.reason(done.returncode)
        return VersionReport("not run" if lost else "failed", why, said)
    match = re.search(pattern, said)
    if not match or not (match["number"] or "").isdecimal():
        return VersionReport("failed", "its answer does not hold the version that is looked for", said)
    return VersionReport(how, "", said, int(match["number"]), match["commit"] or "")


def _printable(done: process.Completed) -> str:
    """Return the beginning of what a program said, without what could steer a terminal."""
    said = (done.output + done.errors).strip()[:4000]
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in said)


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
    """Give an emulated program its environment; qemu itself must not load the target's libraries."""
    if not launcher:
        return []
    return [*launcher, *(word for name, value in env.items() for word in ("-E", f"{name}={value}"))]
