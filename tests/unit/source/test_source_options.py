from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparkbuild.source import Option, declared_options, reads_variable
from sparkbuild.source.options import calls

_PROJECT = r"""
cmake_minimum_required(VERSION 3.14)
project(small NONE)
include(CMakeDependentOption)
# option(IN_A_COMMENT "no" ON)
#[[ option(IN_A_BRACKET_COMMENT "no" ON)
]]
message(STATUS "option(IN_A_STRING \"no\" ON)") # )
message(STATUS [=[ option(IN_A_BRACKET "no" ON) ]] ]=])
option(PLAIN "plain: help" ON)
option(NO_DEFAULT "no default")
set(NATIVE_DEFAULT OFF)
option(NESTED "nested" ${NATIVE_DEFAULT})
option(
    SPREAD   # why
    "over
lines"
    ON
)
OPTION(UPPER "upper case command" OFF)
set   (SPACED "32" CACHE STRING
       "a \"quoted\" word; and more")
set(LISTED a b "c d" CACHE STRING "list")
set(WHERE "/opt/x" CACHE PATH "folder")
set(WHICH "/opt/x/y" CACHE FILEPATH "file" FORCE)
set(HIDDEN yes CACHE INTERNAL "not for people")
set(EMPTY "" CACHE STRING "")
cmake_dependent_option(DEPENDENT "depends" ON "PLAIN" OFF)
if (NOT DEFINED READ_ONLY_A AND (PLAIN OR "${READ_ONLY_B}" STREQUAL "x;y"))
    set(ORDINARY 1)
endif()
add_subdirectory(sub)
"""
_SUB = 'option(PLAIN "again" OFF)\noption(DEEP "deep" ON)\nset_property(CACHE DEEP PROPERTY STRINGS "a")\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "p" / "sub").mkdir(parents=True)
    (tmp_path / "p" / "CMakeLists.txt").write_text(_PROJECT)
    (tmp_path / "p" / "sub" / "CMakeLists.txt").write_text(_SUB)
    return tmp_path / "p"


def test_the_scan_agrees_with_cmakes_own_cache(project: Path, tmp_path: Path) -> None:
    cmake = Path(sys.executable).with_name("cmake")
    ninja = Path(sys.executable).with_name("ninja")
    build = tmp_path / "b"
    command: list[str | Path] = [
        cmake,
        "-S",
        project,
        "-B",
        build,
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
    ]
    subprocess.run([*command, "-Wno-dev"], check=True, capture_output=True)
    lines = [line for line in (build / "CMakeCache.txt").read_text().splitlines() if line[:1].isupper()]
    typed = {line.partition(":")[0]: line.partition(":")[2].partition("=")[::2] for line in lines}
    cached = {n: t for n, t in typed.items() if not n.startswith(("CMAKE_", "small_")) and t[0] != "INTERNAL"}
    found = {name: (o.kind, o.default) for name, o in declared_options(project).items()}
    assert found == cached | {"NESTED": ("BOOL", "${NATIVE_DEFAULT}")}


def test_help_file_and_first_declaration(project: Path) -> None:
    options = declared_options(project)
    assert options["PLAIN"] == Option("PLAIN", "BOOL", "ON", "plain: help", "CMakeLists.txt")
    assert options["SPACED"].help == 'a "quoted" word; and more'
    assert options["SPREAD"].help == "over\nlines"
    assert options["DEEP"].file == "sub/CMakeLists.txt"


def test_reads_variable_sees_use_and_not_declaration(project: Path) -> None:
    assert reads_variable(project, "READ_ONLY_A")
    assert reads_variable(project, "READ_ONLY_B")
    assert not reads_variable(project, "ORDINARY")
    assert not reads_variable(project, "ABSENT")


def test_a_macros_own_option_and_an_open_type(tmp_path: Path) -> None:
    (tmp_path / "x.cmake").write_text(
        'option(${NAME} "x" ON)\nset(OPEN 1 CACHE ${TYPE} "t")\nset(SHORT 1 CACHE)\n'
    )
    options = declared_options(tmp_path)
    assert {n: o.kind for n, o in options.items()} == {"OPEN": "variable", "SHORT": "variable"}


def test_a_damaged_record_is_not_believed(project: Path) -> None:
    tree = project.rename(project.with_name("tree"))
    (tree.parent / "source.json").write_text('{"declared": 1')
    assert "PLAIN" in declared_options(tree)


@pytest.mark.threat(
    "environment",
    "CMake files with 200,000 brackets, comments and quotes that nothing closes",
    "read in one pass",
)
@pytest.mark.parametrize("part", ["[[ ", "#[[\n", "[=[ [==[ ", '" ', "( ", "\\ ", 'a" ', "${ "])
def test_what_is_never_closed_ends(part: str) -> None:
    """Gone through anew from each of them, it would take hours."""
    assert len(list(calls("set(A " + part * 200_000))) <= 1


@pytest.mark.parametrize(
    "text", ["", "(", ")", ")))set(", 'set("', "#[[", "[==[", "set(A [[", "if(()", "\\", 'a"b"(c)']
)
def test_broken_files_end(text: str) -> None:
    assert len(list(calls(text))) <= 1
