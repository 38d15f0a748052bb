from __future__ import annotations

import shlex
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sparkbuild.planning.measures import cuda_flags, host_flags
from sparkbuild.toolchain.place import BUILD, SOURCE

_OF_SOURCE = f"-ffile-prefix-map={SOURCE}=."
_OF_BUILD = f"-ffile-prefix-map={BUILD}=/sparkbuild/build"
# What a cache folder may have in its path: Folders.default refuses the rest.
_paths = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters=';"\\|'), min_size=1
)


def _words(flags: str) -> list[str]:
    """Return the words that ninja's shell makes of flags."""
    return shlex.split(flags.replace("$$", "$"))


def test_a_plain_path_is_not_quoted() -> None:
    maps = f"{_OF_SOURCE} {_OF_BUILD} -ffile-prefix-map=/c=/sparkbuild"
    assert host_flags(Path("/c")) == maps
    assert cuda_flags(Path("/c")) == f"-objtemp --frandom-seed=sparkbuild {maps}"


@given(_paths)
def test_gcc_gets_the_path_through_one_shell(name: str) -> None:
    cache = Path("/home") / name
    assert _words(host_flags(cache)) == [_OF_SOURCE, _OF_BUILD, f"-ffile-prefix-map={cache}=/sparkbuild"]


@given(_paths)
def test_gcc_gets_the_path_through_the_shell_of_nvcc(name: str) -> None:
    cache = Path("/home") / name
    for_nvcc = _words(cuda_flags(cache))
    assert for_nvcc[:2] == ["-objtemp", "--frandom-seed=sparkbuild"]
    assert shlex.split(" ".join(for_nvcc[2:])) == _words(host_flags(cache))


def test_cmake_keeps_the_quotes() -> None:
    """CMake takes quotes away that are around a whole value."""
    for flags in (host_flags, cuda_flags):
        assert not flags(Path("/a b")).startswith("'")
