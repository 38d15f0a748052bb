"""oras' client for one OCI registry, with the credentials that docker keeps for it.

oras reads config.json and asks credential helpers and token services. Three things it leaves to its caller:
which kind of log-in the registry wants, how long to wait for an answer, and what it writes to stderr.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkbuild.errors import MissingError, UsageError

if TYPE_CHECKING:
    from requests import Response

UNAUTHORIZED, _FORBIDDEN = 401, 403
_TIMEOUT = (10.0, 120.0)  # seconds for a connection, and without a byte on it


def logged_in(host: str, origin: str) -> Any:  # noqa: ANN401 - oras has no types
    """Return oras' client for ``host`` at ``origin`` (``https://host/``).

    Raises MissingError when nobody answers, UsageError when a password is wanted and none can be read.
    """
    import oras.provider  # noqa: PLC0415 - few commands need it, and it takes its time
    from oras.logger import logger  # noqa: PLC0415

    logger.log_handler = []
    basic = _challenge(origin).startswith("basic")
    backend = "basic" if basic else "token"
    client = oras.provider.Registry(host, insecure=origin.startswith("http:"), auth_backend=backend)
    client.session.request = functools.partial(client.session.request, timeout=_TIMEOUT)
    client.session.hooks["response"].append(_close_refused)
    config = Path(os.environ.get("DOCKER_CONFIG", ""), "config.json")
    configs = [str(config)] if config.is_absolute() else None  # besides ~/.docker/config.json
    try:
        client.auth.load_configs(oras.container.Container("any", registry=host), configs)
        if basic:  # at once: a body that was read can not be sent again after "401"
            client.session.headers.update(client.auth.get_auth_header())
    except (ValueError, TypeError, LookupError, AttributeError, OSError) as problem:
        raise UsageError(
            "no password for this registry in docker's config.json, or it can not be read",
            where=origin,
            remedy=f"docker login {host}",
        ) from problem
    return client


def _challenge(origin: str) -> str:
    """Return how the registry asks for credentials, in small letters; empty when it does not."""
    import requests  # noqa: PLC0415

    try:
        with requests.get(f"{origin}v2/", timeout=_TIMEOUT, stream=True) as hello:
            return hello.headers.get("WWW-Authenticate", "").lower()
    except requests.RequestException as problem:
        raise MissingError(
            f"the registry can not be reached: {reason(problem)}",
            where=origin,
            remedy="check its name, that it runs, and the network",
        ) from problem


def _close_refused(answer: Response, **_: object) -> None:
    """Close an answer that oras drops unread to ask again with a token."""
    if answer.status_code in (UNAUTHORIZED, _FORBIDDEN):
        answer.close()


def reason(problem: Exception) -> str:
    """Return the innermost cause of what requests raised, without its addresses and objects."""
    found = re.findall(r"\[Errno -?\d+\] ([^'\")]+)|(timed out|[Cc]ertificate [^'\")]+)", str(problem))
    return "".join(found[-1]) if found else type(problem).__name__
