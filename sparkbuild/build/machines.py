"""The settings of machines that compile for others: a scheduler, build servers, and who may ask them.

Source: sccache 0.16, docs/DistributedQuickstart.md and docs/Distributed.md ("Security").
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from collections.abc import Sequence
from json import dumps as quoted
from pathlib import Path

from sparkbuild import process
from sparkbuild.build.builders import find_sccache
from sparkbuild.errors import UsageError
from sparkbuild.files import disk_faults, whole_folder

_MOST_PORT = 65535
_SCHEDULER = """public_addr = {address}
[client_auth]
type = "token"
token = {token}
[server_auth]
type = "jwt_hs256"
secret_key = {key}
"""
_SERVER = """cache_dir = {folder}
public_addr = {address}
scheduler_url = {scheduler}
[builder]
type = "overlay"
build_dir = {build}
bwrap_path = "/usr/bin/bwrap"
[scheduler_auth]
type = "jwt_token"
token = {token}
"""


def settings(
    scheduler: str, servers: Sequence[str], into: Path, *, folder: Path = Path("/var/cache/sccache-dist")
) -> list[Path]:
    """Write what a scheduler, its build servers and a user each need into a new folder; return the files.

    Addresses are IP:PORT, as the others reach them. ``folder`` is where a server keeps toolchains and builds.
    Each file holds a secret and is readable by its owner alone. Raises UsageError for a bad address or a
    folder that is there, MissingError without sccache.
    """
    if bad := [a for a in (scheduler, *servers) if not _is_address(a)]:
        raise UsageError(f"{bad[0]!r} is no address", where="builders", remedy="write it as 192.0.2.1:10600")
    if into.exists():
        raise UsageError("the folder is there already", where=str(into), remedy="name a new one")
    dist = find_sccache("sccache-dist")
    key, token = (
        process.run([dist, "auth", "generate-jwt-hs256-key"]).output.strip(),
        secrets.token_urlsafe(32),
    )
    url = f"http://{scheduler}"
    texts = {
        "scheduler.conf": _SCHEDULER.format(address=quoted(scheduler), token=quoted(token), key=quoted(key)),
        "builders.toml": f"scheduler = {quoted(url)}\ntoken = {quoted(token)}\n",
    }
    with disk_faults(into), whole_folder(into) as made:
        for name, text in texts.items():
            _write(made / name, text)
        new: list[process.Word] = [dist, "auth", "generate-jwt-hs256-server-token"]
        new += ["--config", made / "scheduler.conf"]  # the key is for no process's arguments
        for server in servers:
            text = _SERVER.format(
                address=quoted(server),
                scheduler=quoted(url),
                folder=quoted(str(folder / "toolchains")),
                build=quoted(str(folder / "builds")),
                token=quoted(process.run([*new, "--server", server]).output.strip()),
            )
            _write(made / f"server-{server.replace(':', '-')}.conf", text)
        names = sorted(f.name for f in made.iterdir())
    return [into / name for name in names]


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _is_address(text: str) -> bool:
    host, _, port = text.partition(":")
    with contextlib.suppress(ValueError):
        plain = f"{ipaddress.IPv4Address(host)}:{int(port)}"
        return plain == text and 0 < int(port) <= _MOST_PORT
    return False
