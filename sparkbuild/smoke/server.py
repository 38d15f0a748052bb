"""Ask a server on this machine one thing over HTTP, within a time and a size."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time

HOST = "127.0.0.1"
_MOST = 1 << 20  # bytes of an answer
_BLOCK = 1 << 16


class _Received:
    """What http.client wants of a socket: here all bytes are there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def ask(port: int, path: str, seconds: float, question: object = None) -> tuple[int, bytes]:
    """Return the status and the body of an answer, GET or with a ``question`` POST.

    All of it takes ``seconds`` at most, however slowly bytes drip. Raises OSError (no connection, no
    answer in time) or http.client.HTTPException (not HTTP).
    """
    until = time.monotonic() + seconds
    body = b"" if question is None else json.dumps(question).encode()
    head = (
        f"{'POST' if body else 'GET'} {path} HTTP/1.0\r\nHost: {HOST}:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    received = bytearray()
    with socket.create_connection((HOST, port), timeout=seconds) as wire:
        wire.sendall(head.encode() + body)
        while len(received) < _MOST:
            wire.settimeout(max(0.001, until - time.monotonic()))
            block = wire.recv(_BLOCK)
            if not block:
                break
            received += block
    answer = http.client.HTTPResponse(_Received(bytes(received)))  # type: ignore[arg-type] # all that it uses
    answer.begin()
    return answer.status, answer.read()
