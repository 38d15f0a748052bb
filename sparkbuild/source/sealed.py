"""git in an environment that holds nothing of the caller's; GitPython reads its progress.

No GIT_*, HOME, SSH or pager setting gets through. No configuration file but the repository's own is
read, and the repositories are ours (see repository.py and local.py). What may be secret is in the
environment alone: every user of a machine can read the arguments of every process. git and its helpers
end with sparkbuild, whatever ends that: one that lives on would write into a mirror that the next run holds.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkbuild import process
from sparkbuild.errors import MissingError
from sparkbuild.progress import Progress
from sparkbuild.source.names import legible, redact

if TYPE_CHECKING:
    from git.util import RemoteProgress

_COUNTED = 1e12  # objects or bytes that a fetch can have
_MOST = 8 << 20  # characters of what git says while it works
_PASSED = (
    "PATH",
    "TMPDIR",
    *(n for p in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for n in (p, p.upper())),
)
_FIXED = {
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ALLOW_PROTOCOL": "",  # none; a command that may use the network says which
}
_CONFIG = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.symlinks": "true",
    "core.fileMode": "true",
    "credential.helper": "",
    "protocol.ext.allow": "never",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # Less than a byte a second for half a minute: a server at work sends keep-alives every 5 s.
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "30",
}


class OutOfReachError(MissingError):
    """git can not deliver for a reason of this machine: no git, no network, or --offline."""


class GitFailedError(Exception):
    """A git command failed; the text is what it said, without credentials."""


def ask(
    arguments: Sequence[str],
    *,
    gitdir: Path | str,
    env: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a git command and return its stdout. Raises GitFailedError, OutOfReachError without git."""
    asked = _started(arguments, {"GIT_DIR": str(gitdir), **(env or {})}, config or {}, subprocess.PIPE, cwd)
    with asked as child:
        out, err = (str(said, "utf-8", "surrogateescape") for said in child.communicate())
    if child.returncode != 0:
        raise GitFailedError(redact(legible(err) or f"exit code {child.returncode}"))
    return out.removesuffix("\n")


def tell(
    arguments: Sequence[str],
    *,
    gitdir: Path,
    env: Mapping[str, str],
    config: Mapping[str, str],
    progress: Progress,
) -> None:
    """Run a long git command and tell how far it is. Raises as ``ask`` does."""
    told = _listener(progress)
    hear, said = told.new_message_handler(), 0
    with _started(arguments, {"GIT_DIR": str(gitdir), **env}, config, subprocess.DEVNULL) as child:
        words: Any = child.stderr
        # Read here and not by GitPython: a server's words may be no UTF-8, and have no end.
        with io.TextIOWrapper(words, "utf-8", "backslashreplace") as lines:
            while line := lines.readline(_MOST):
                hear(line)
                said += len(line)
                if said > _MOST:
                    raise GitFailedError(f"the server says more than {_MOST >> 20} MiB")
        code = child.wait()
    if code != 0:
        raise GitFailedError(redact("\n".join([*told.error_lines, *told.other_lines]) or f"exit code {code}"))


def _listener(progress: Progress) -> RemoteProgress:
    """Return GitPython's reader of git's progress, which hands on what it reads."""
    from git.util import CallableRemoteProgress  # noqa: PLC0415 - 0.1 s, which only who fetches pays

    def hear(code: int, done: str | float, total: str | float | None = None, text: str = "") -> None:
        names = {reader.COUNTING: "counting", reader.RECEIVING: "receiving", reader.RESOLVING: "resolving"}
        step = names.get(code & reader.OP_MASK, "git")
        if max(float(done), float(total or 0)) < _COUNTED:  # a server says any number
            progress.advance(float(done), float(total or 0), f"{step} {text}".strip())

    reader = CallableRemoteProgress(hear)
    return reader


@contextlib.contextmanager
def _started(
    arguments: Sequence[str],
    env: Mapping[str, str],
    config: Mapping[str, str],
    stdout: int,
    cwd: Path | None = None,
) -> Iterator[process.Child]:
    """Start a git command, which ends with the block.

    It is named by its absolute path: with "." on the PATH a source's own files would be run.
    """
    program = shutil.which("git")
    if not program:
        raise OutOfReachError("git is not installed", where="PATH", remedy="install git (apt install git)")
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    given = _CONFIG | _certificates() | dict(config)
    settings = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
    command = (str(Path(program).absolute()), *settings, *arguments)
    sealed = {**passed, **_FIXED, **env}
    try:
        with process.started(command, env=sealed, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout) as child:
            yield child
    except process.ProcessError as problem:
        raise GitFailedError(problem.why) from None


def _certificates() -> dict[str, str]:
    bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("CURL_CA_BUNDLE")
    return {"http.sslCAInfo": bundle} if bundle else {}
