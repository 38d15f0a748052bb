"""git through GitPython, in an environment that holds nothing of the caller's.

GitPython hands its own environment on to git; ``env -i`` in front of the command ends that, so
that no GIT_*, HOME, SSH or pager setting gets through. No configuration file but the repository's
own is read, and the repositories are ours (see repository.py and local.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkbuild import process
from sparkbuild.errors import MissingError
from sparkbuild.progress import Progress
from sparkbuild.source.names import redact

if TYPE_CHECKING:
    from git.util import RemoteProgress

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

    command = _command(arguments, {"GIT_DIR": str(gitdir), **(env or {})}, config or {})
    running = Git(str(cwd) if cwd else None).execute(command, as_process=True, **_OWN_GROUP)
    child = _process(running)
    with process.ended(child):
        out, err = (str(said, "utf-8", "surrogateescape") for said in child.communicate())
    if child.returncode != 0:
        raise GitFailedError(redact(err.strip() or f"exit code {child.returncode}"))
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
    from git.cmd import Git, handle_process_output  # noqa: PLC0415 - as in ask

    command = _command(arguments, {"GIT_DIR": str(gitdir), **env}, config)
    told = _listener(progress)
    running = Git().execute(
        command, as_process=True, with_stdout=False, universal_newlines=True, **_OWN_GROUP
    )
    child = _process(running)
    with process.ended(child, read=False):
        handle_process_output(running, None, told.new_message_handler(), decode_streams=False)
        code = child.wait()
    if code != 0:
        raise GitFailedError(redact("\n".join([*told.error_lines, *told.other_lines]) or f"exit code {code}"))


def _listener(progress: Progress) -> RemoteProgress:
    """Return GitPython's reader of git's progress, which hands on what it reads."""
    from git.util import CallableRemoteProgress  # noqa: PLC0415 - as in ask

    def hear(code: int, done: str | float, total: str | float | None = None, text: str = "") -> None:
        names = {reader.COUNTING: "counting", reader.RECEIVING: "receiving", reader.RESOLVING: "resolving"}
        step = names.get(code & reader.OP_MASK, "git")
        progress.advance(float(done), float(total or 0), f"{step} {text}".strip())

    reader = CallableRemoteProgress(hear)
    return reader


def _command(arguments: Sequence[str], env: Mapping[str, str], config: Mapping[str, str]) -> list[str]:
    """Return the whole argument list: a sealed environment, git, its configuration, the command."""
    program = shutil.which("git")
    if not program:
        raise OutOfReachError("git is not installed", where="PATH", remedy="install git (apt install git)")
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    given = _CONFIG | _certificates() | dict(config)
    sealed = [f"{name}={value}" for name, value in (passed | _FIXED | dict(env)).items()]
    return [
        "env",
        "-i",
        *sealed,
        program,
        *(w for k, v in given.items() for w in ("-c", f"{k}={v}")),
        *arguments,
    ]


def _certificates() -> dict[str, str]:
    bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("CURL_CA_BUNDLE")
    return {"http.sslCAInfo": bundle} if bundle else {}
