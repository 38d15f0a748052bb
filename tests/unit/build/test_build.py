from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
import pytest

from sparkbuild import build as building
from sparkbuild.build.tools import find_tools
from sparkbuild.errors import MissingError
from sparkbuild.files import Folders
from sparkbuild.planning import make_plan
from sparkbuild.process import run
from tests.conftest import inputs_of

_HOSTILE = {
    "CFLAGS": "-x",
    "CXXFLAGS": "-x",
    "LDFLAGS": "-x",
    "NVCC_PREPEND_FLAGS": "-x",
    "NVCC_APPEND_FLAGS": "-x",
    "CUDAHOSTCXX": "x",
    "CMAKE_TOOLCHAIN_FILE": "x",
    "CMAKE_GENERATOR": "x",
    "CCACHE_DIR": "x",
    "GIT_DIR": "x",
    "PYTHONPATH": "x",
}


@pytest.mark.threat(
    "environment",
    "the caller's compiler flags, NVCC_*, CCACHE_*, CMAKE_*, GIT_DIR, PYTHONPATH, PATH",
    "not in a build's environment",
)
def test_nothing_of_the_callers_environment_reaches_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path / "shadow"))
    plan = make_plan(inputs_of())
    found = building.environment(plan, tmp_path / "work")
    assert not found.keys() & _HOSTILE.keys()
    assert "shadow" not in found["PATH"]
    assert found["SOURCE_DATE_EPOCH"] == "1700000000"
    for name in ("HOME", "TMPDIR"):
        assert Path(found[name]).is_dir()
        assert Path(found[name]).is_relative_to(tmp_path / "work")


def test_the_tools_are_the_installations_own() -> None:
    tools = find_tools()
    assert run([tools.cmake, "--version"]).output.startswith(f"cmake version {tools.cmake_version}")
    assert run([tools.ninja, "--version"]).output.startswith(tools.ninja_version)


def test_a_plan_is_built_in_a_folder_of_its_own(folders: Folders) -> None:
    plan = make_plan(inputs_of())
    other = msgspec.structs.replace(plan, key="0" * 64)
    assert building.build_dir(plan, folders) == building.build_dir(plan, folders)
    assert building.build_dir(plan, folders) != building.build_dir(other, folders)
    assert building.build_dir(plan, folders).is_relative_to(folders.cache)


def test_the_callers_umask_comes_back() -> None:
    before = os.umask(0o077)
    try:
        with building._umask(0o022):
            assert os.umask(0o022) == 0o022
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)


@pytest.mark.threat(
    "sandbox", "a compiler in ~/.local, or in a home behind a link", "refused: it would be shown"
)
@pytest.mark.parametrize("prefix", [".", ".local", ".local/share"])
def test_a_compiler_beside_what_is_private(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = make_plan(inputs_of())
    around, tools = building.Surroundings(sandbox=True), find_tools()
    for folder, refused in ((prefix, True), ("gcc-14", False)):
        cc = tmp_path / "home" / folder / "bin" / "gcc"
        plan = msgspec.structs.replace(made, compilers=msgspec.structs.replace(made.compilers, cc=cc, cxx=cc))
        with pytest.raises(MissingError, match="would have to show") if refused else contextlib.nullcontext():
            building.isolated(plan, around, tmp_path / "cache", tools)
