from __future__ import annotations

import socket
import time
from typing import Any, Self

import pytest

from sparkbuild.network import dial


class _Silent:
    """A socket of a host that never answers, and a clock that goes as long as it is waited for."""

    now = 0.0
    tried = 0

    def __init__(self, *_: object) -> None:
        self.left = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        self.left = seconds

    def connect(self, _: object) -> None:
        _Silent.now += self.left
        _Silent.tried += 1
        raise TimeoutError("timed out")


@pytest.mark.parametrize("addresses", [1, 8])
@pytest.mark.threat(
    "faults",
    "a network that swallows everything; a host with one or eight addresses",
    "ten seconds for all of them together, then exit 3",
)
def test_a_host_that_is_silent_at_all_its_addresses(addresses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Silent, "now", 0.0)
    monkeypatch.setattr(_Silent, "tried", 0)
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))] * addresses
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
    monkeypatch.setattr(socket, "socket", _Silent)
    monkeypatch.setattr(time, "monotonic", lambda: _Silent.now)
    with pytest.raises(TimeoutError, match="timed out"):
        dial("https://example.invalid/x.git")
    assert _Silent.tried == addresses
    assert _Silent.now == pytest.approx(10.0)


def test_one_address_that_answers_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = server.getsockname()
        rows: list[Any] = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (("127.0.0.1", 9), there)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
        dial(f"http://localhost:{there[1]}/simple")


def test_a_host_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(TimeoutError, match="no address"):
        dial("https://example.invalid/")
