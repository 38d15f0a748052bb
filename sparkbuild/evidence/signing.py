"""Who signed a file: SSH signatures over its exact bytes, made and judged by ssh-keygen.

The signature of FILE is FILE.sig (armoured, as OpenSSH's PROTOCOL.sshsig has it), in one namespace, so that
a signature that was made for something else (git, mail) never holds here. Who may sign stands in an allowed
signers file; its form is in ssh-keygen(1). The messages told apart here are not translated by OpenSSH.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild.errors import MissingError, UsageError
from sparkbuild.files import write_whole
from sparkbuild.handover import plain_bytes
from sparkbuild.process import Completed, ProcessError, clean_env, run

NAMESPACE = "artifact@sparkbuild"
_TOOL = "ssh-keygen"
_PATIENCE = 120.0  # seconds; a key on a security token waits for a touch
_MOST = 64 << 10  # bytes of a signature file; a real one has some hundred
_KEY = re.compile(r" key (SHA256:\S+)")

Verdict = Literal[
    "good",
    "no signature",
    "not a signature",
    "other bytes",
    "wrong namespace",
    "unreadable signers",
    "expired",
    "another's key",
    "not allowed",
]


class Signed(msgspec.Struct, frozen=True):
    """What a signature is worth: the verdict, why in words, who signed, and the key's fingerprint.

    ``signer`` is a principal of the allowed signers file, empty when it names nobody for this key.
    """

    verdict: Verdict
    why: str
    signer: str = ""
    key: str = ""

    @property
    def good(self) -> bool:
        """Whether the bytes were signed by somebody who is allowed to."""
        return self.verdict == "good"


def signature_of(path: Path) -> Path:
    """Return where the signature of a file is."""
    return path.with_name(f"{path.name}.sig")


def sign(path: Path, key: Path) -> Path:
    """Sign a file and return its signature's path, which appears whole or not at all.

    ``key`` is a private key, or a public one whose other half ssh-agent holds (SSH_AUTH_SOCK). Nothing is
    asked: raises UsageError for a key that needs a passphrase, for one or a file that can not be read,
    MissingError without ssh-keygen.
    """
    with tempfile.TemporaryDirectory(prefix="sparkbuild-sign-") as room:
        copy = Path(room, "signed")  # ssh-keygen writes beside what it signs
        try:
            shutil.copyfile(path, copy)
        except OSError as problem:
            raise UsageError(f"cannot read what to sign: {problem.strerror}", where=str(path)) from problem
        done = _ssh_keygen("sign", "-n", NAMESPACE, "-O", "hashalg=sha512", "-f", key.absolute(), copy)
        if done.returncode != 0:
            raise UsageError(
                f"cannot sign with this key: {_last(done)}",
                where=str(key),
                remedy="name a private key without a passphrase, or give the key to ssh-agent "
                "(ssh-add) and name its .pub file",
            )
        write_whole(signature_of(path), signature_of(copy).read_bytes())
    return signature_of(path)


def check(path: Path, allowed: Path, identity: str | None = None) -> Signed:
    """Judge the signature of a file by an allowed signers file.

    It must be of ``identity`` where one is given, else of whom the file's first entry for the key names.
    Raises UsageError when the file itself can not be read, MissingError without ssh-keygen.
    """
    try:
        data = plain_bytes(path)
    except (OSError, ValueError) as problem:
        raise UsageError(f"cannot read what was signed: {problem}", where=str(path)) from problem
    signature = signature_of(path)
    if not signature.is_file():
        return Signed("no signature", f"there is no {signature.name}")
    if signature.stat().st_size > _MOST:
        return Signed("not a signature", f"{signature.name} has more than {_MOST >> 10} KiB")
    of = ("-n", NAMESPACE, "-s", signature.absolute())
    made = _ssh_keygen("check-novalidate", *of, stdin=data)
    if made.returncode != 0:
        return _not_made(made)
    found = _KEY.search(made.output)
    key = found[1] if found else ""
    listed = _ssh_keygen("find-principals", "-s", signature.absolute(), "-f", allowed.absolute())
    names = listed.output.splitlines() if listed.returncode == 0 else []
    if not names:
        return _not_listed(listed, key)
    for name in names if identity is None else [identity]:
        done = _ssh_keygen("verify", *of, "-f", allowed.absolute(), "-I", name, stdin=data)
        if done.returncode == 0:
            return Signed("good", f"signed by {name}", name, key)
    return _not_verified(done, identity, ", ".join(names), key)


def _not_made(done: Completed) -> Signed:
    """Return why this is no signature of these bytes, whoever made it."""
    if "namespace does not match" in done.errors:
        return Signed("wrong namespace", f"it was not made for {NAMESPACE}")
    if "incorrect signature" in done.errors:
        return Signed("other bytes", "the file is not what was signed")
    return Signed("not a signature", _last(done))


def _not_listed(done: Completed, key: str) -> Signed:
    """Return why the allowed signers file names nobody for the key."""
    said = [line for line in done.errors.splitlines() if "No principal matched" not in line]
    for line in said:
        if "key has expired" in line or "key is not yet valid" in line:
            return Signed("expired", line, key=key)
    if said:
        return Signed("unreadable signers", said[0], key=key)
    return Signed("another's key", f"no allowed signer has the key {key}", key=key)


def _not_verified(done: Completed, identity: str | None, names: str, key: str) -> Signed:
    """Return why whom the allowed signers file names for the key does not count."""
    if "not permitted for use in signature namespace" in done.errors:
        return Signed("not allowed", f"the key of {names} may not sign for {NAMESPACE}", names, key)
    if identity is not None:
        return Signed("another's key", f"signed by {names}, not by {identity}", names, key)
    return Signed("not allowed", _last(done), names, key)  # pragma: no cover - the file changed meanwhile


def _ssh_keygen(action: str, *words: str | Path, stdin: bytes = b"") -> Completed:
    agent = os.environ.get("SSH_AUTH_SOCK", "")
    env = clean_env(SSH_ASKPASS_REQUIRE="never", **({"SSH_AUTH_SOCK": agent} if agent else {}))
    if shutil.which(_TOOL, path=env["PATH"]) is None:
        raise MissingError(
            "there is no ssh-keygen, which makes and checks signatures",
            where=env["PATH"],
            remedy="sudo apt-get install openssh-client",
        )
    try:
        return run((_TOOL, "-Y", action, *words), env=env, stdin=stdin, timeout=_PATIENCE, check=False)
    except ProcessError as problem:
        raise UsageError(
            f"ssh-keygen: {problem.why}",
            where=problem.done.command,
            remedy="run it by hand to see what it waits for",
        ) from problem


def _last(done: Completed) -> str:
    """Return the last thing a command said, in one line."""
    said = (line.strip() for line in reversed((done.errors or done.output).split("\n")))
    return next((line for line in said if line), f"exit code {done.returncode}")
