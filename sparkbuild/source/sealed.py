"""git through GitPython, in an environment that holds nothing of the caller's.

GitPython hands its own environment on to git; ``env -u`` in front of the command ends that, so
that no GIT_*, HOME, SSH or pager setting gets through. No configuration file but the repository's
own is read, and the repositories are ours (see repository.py and local.py). What may be secret is in
the environment alone: every user of a machine can read the arguments of every process.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkbuild import process
from sparkbuild.errors import MissingError
from sparkbuild.progress import Progress
from sparkbuild.source.names import legible, redact

if TYPE_CHECKING:
    from git.util import RemoteProgress

_ENV = "/usr/bin/env"
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


# git and its helpers end with sparkbuild, whatever ends that: one that lives on would write into a mirror
# that the next run holds.
_OWN_GROUP: dict[str, Any] = {"start_new_session": True, "preexec_fn": process.prepare}


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
    from git.cmd import Git  # noqa: PLC0415 - 0.2 s, which only who needs git pays

    command, sealed = _command(arguments, {"GIT_DIR": str(gitdir), **(env or {})}, config or {})
    running = Git(str(cwd) if cwd else None).execute(command, env=sealed, as_process=True, **_OWN_GROUP)
    child = _process(running)
    with process.ended(child):
        out, err = (str(said, "utf-8", "surrogateescape") for said in child.communicate())
    if child.returncode != 0:
        raise GitFailedError(redact(legible(err) or f"exit code {child.returncode}"))
    return out.removesuffix("\n")


def _process(answer: object) -> process.Child:
    """Return the process of what GitPython gives for one, and ends when it is forgotten."""
    from git.cmd import Git  # noqa: PLC0415 - as in ask

    if not isinstance(answer, Git.AutoInterrupt) or answer.proc is None:  # pragma: no cover - as_process
        raise TypeError(answer)
    return answer.proc


def tell(
    arguments: Sequence[str],
    *,
    gitdir: Path,
    env: Mapping[str, str],
    config: Mapping[str, str],
    progress: Progress,
) -> None:
    """Run a long git command and tell how far it is. Raises as ``ask`` does."""
    from git.cmd import Git  # noqa: PLC0415 - as in ask

    command, sealed = _command(arguments, {"GIT_DIR": str(gitdir), **env}, config)
    told = _listener(progress)
    running = Git().execute(command, env=sealed, as_process=True, with_stdout=False, **_OWN_GROUP)
    child, hear, said = _process(running), told.new_message_handler(), 0
    words: Any = child.stderr
    # Not GitPython's reader: a server's words may be no UTF-8, and have no end.
    with (
        process.ended(child, read=False),
        io.TextIOWrapper(words, "utf-8", "backslashreplace") as lines,
    ):
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
    from git.util import CallableRemoteProgress  # noqa: PLC0415 - as in ask

    def hear(code: int, done: str | float, total: str | float | None = None, text: str = "") -> None:
        names = {reader.COUNTING: "counting", reader.RECEIVING: "receiving", reader.RESOLVING: "resolving"}
        step = names.get(code & reader.OP_MASK, "git")
        if max(float(done), float(total or 0)) < _COUNTED:  # a server says any number
            progress.advance(float(done), float(total or 0), f"{step} {text}".strip())

    reader = CallableRemoteProgress(hear)
    return reader


def _command(
    arguments: Sequence[str], env: Mapping[str, str], config: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the argument list (git, its configuration, the command) and the whole environment.

    Programs are named by absolute paths: with "." on the PATH a source's own files would be run.
    """
    program = shutil.which("git")
    if not program:
        raise OutOfReachError("git is not installed", where="PATH", remedy="install git (apt install git)")
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    given = _CONFIG | _certificates() | dict(config)
    sealed = passed | _FIXED | dict(env)
    others = (os.environ.keys() | {"LANGUAGE"}) - sealed.keys()  # GitPython adds LANGUAGE
    unset = [word for name in sorted(others) for word in ("-u", name)]
    settings = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
    return [_ENV, *unset, str(Path(program).absolute()), *settings, *arguments], sealed


def _certificates() -> dict[str, str]:
    bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("CURL_CA_BUNDLE")
    return {"http.sslCAInfo": bundle} if bundle else {}
