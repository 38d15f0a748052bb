"""Find out in seconds, not minutes, that a host can not be reached."""

from __future__ import annotations

import socket
import time
import urllib.parse
import urllib.request

_PATIENCE = 10.0  # seconds for all of a host's addresses together; the kernel's are two minutes for each
_LEAST = 1.0  # seconds for one address


def dial(url: str) -> None:
    """Connect to a URL's host once and hang up; a proxy is left to who speaks through it.

    Raises OSError when no address of the host answers.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    proxied = {parts.scheme, "all"} & set(urllib.request.getproxies())
    if proxied and not urllib.request.proxy_bypass(host):
        return
    try:
        port = parts.port or {"http": 80}.get(parts.scheme, 443)
    except ValueError:  # no number: whoever asks will say so
        return
    until = time.monotonic() + _PATIENCE
    problem: OSError = TimeoutError("it has no address")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(found):
        share = (until - time.monotonic()) / (len(found) - number)
        with socket.socket(family, kind, protocol) as tried:
            tried.settimeout(max(share, _LEAST))
            try:
                tried.connect(address)
            except OSError as refused:
                problem = refused
            else:
                return
    raise problem
