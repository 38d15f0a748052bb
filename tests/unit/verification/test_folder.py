"""CMakeCache.txt, read without CMake."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sparkbuild.errors import UsageError
from sparkbuild.verification.folder import read_cache


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", {}),
        (b"# This is the CMakeCache file.\n//A help: of=it\n\nTOY:BOOL=ON\n", {"TOY": ("BOOL", "ON")}),
        (b"TOY-ADVANCED:INTERNAL=1\n", {"TOY-ADVANCED": ("INTERNAL", "1")}),
        (b"TOY:STRING=-DA=b:c -DD:E=f\n", {"TOY": ("STRING", "-DA=b:c -DD:E=f")}),
        (b"TOY:STRING=\nB:PATH=/a b\n", {"TOY": ("STRING", ""), "B": ("PATH", "/a b")}),
        (b"TOY:UNINITIALIZED=1\r\n", {"TOY": ("UNINITIALIZED", "1")}),
        (b"TOY:STRING=\xff\n", {"TOY": ("STRING", "\ufffd")}),
        (b"not a line of a cache\nTOY\n:BOOL=ON\n", {}),
    ],
)
def test_cache(tmp_path: Path, text: bytes, found: dict[str, tuple[str, str]]) -> None:
    path = tmp_path / "CMakeCache.txt"
    path.write_bytes(text)
    assert {n: (e.type, e.value) for n, e in read_cache(path).items()} == found


@pytest.mark.threat(
    "environment", "a CMakeCache.txt that is a pipe, a folder or a device", "refused (2), never waited for"
)
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda p: p.symlink_to("/dev/zero")])
def test_a_cache_that_is_no_file(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "CMakeCache.txt")
    with pytest.raises(UsageError, match="not a folder that CMake configured"):
        read_cache(tmp_path / "CMakeCache.txt")


def test_no_cache(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder that CMake configured") as caught:
        read_cache(tmp_path / "CMakeCache.txt")
    assert (caught.value.exit_code, caught.value.where) == (2, str(tmp_path / "CMakeCache.txt"))
