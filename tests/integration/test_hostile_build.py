"""Hostile words, places and leftovers around a real build of the toy engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Built
from tests.integration.engine import Box, Toy, file_hashes

_VALUES = [
    "a;b;c",
    """ "quoted" 'too' """.strip(),
    "$(touch {mark}) `touch {mark}` ; touch {mark}",
    "${HOME} $ENV{PATH} @CMAKE_COMMAND@ $<CONFIG> $$ %s",
    "back\\slash \\n \\; C:\\x",
    "-DGGML_NATIVE=ON --debug-output -P {mark}",
    "| & > {mark} # comment ]] ünï",
]


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Return a file that a shell would make; fails where there is one at the end."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


@pytest.mark.threat(
    "environment",
    "semicolons, quotes, $(...), backticks, ${...}, backslashes and options in values of -D",
    "each is one value, as it was asked, or refused (2 or 5); no shell runs it",
)
def test_a_definition_is_a_value_and_nothing_else(toy: Toy, box: Box, mark: Path) -> None:
    names = [f"TOY_TEXT_{n}" for n in range(len(_VALUES))]
    declared = "".join(f'set({name} "" CACHE STRING "text")\n' for name in names)
    toy.append("CMakeLists.txt", declared).publish()
    asked = {n: v.replace("{mark}", str(mark)) for n, v in zip(names, _VALUES, strict=True)}
    words = [word for name, value in asked.items() for word in ("-D", f"{name}={value}")]
    made = box.build(toy, *words, "--json").artifact()["manifest"]
    found = {d["name"]: d["in_force"] for d in made["definitions"]}
    assert {name: found[name] for name in names} == asked
    for odd in ("TOY_TEXT_0=a\nb", "TOY_TEXT_0=\x1b[2J", "TOY TEXT=1", "../x=1", "TOY_TEXT_0"):
        box.build(toy, "-D", odd, "--json").error(2, "usage")


@pytest.mark.threat(
    "environment",
    "a build folder with another's CMakeCache, toolchain file, launcher, presets and ninja file in it",
    "made anew: the same bytes, no command of it run",
)
def test_a_hostile_build_folder(built: Built, box: Box, mark: Path) -> None:
    plain = built.done.artifact()["manifest"]
    folder = box.home / "cache" / "build" / built.box.build_dirs[0].name
    (folder / ".cmake/api/v1/reply").mkdir(parents=True)
    touch = mark.with_name("touch")
    touch.write_text(f"#!/bin/sh\ntouch {mark}\n")
    touch.chmod(0o755)
    hostile = "".join(
        f"{name}:STRING={touch}\n"
        for name in (
            "CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER", "CMAKE_TOOLCHAIN_FILE",
            "CMAKE_LINKER",
            "CMAKE_PROJECT_INCLUDE", "CMAKE_C_COMPILER", "CMAKE_AR", "CMAKE_MAKE_PROGRAM", "CMAKE_CXX_FLAGS",
        )
    )  # fmt: skip
    (folder / "CMakeCache.txt").write_text(hostile)
    (folder / "build.ninja").write_text(f"rule x\n  command = {touch}\nbuild llama-server: x\n")
    (folder / "CMakeUserPresets.json").write_text("{")
    (folder / ".cmake/api/v1/reply/index-9.json").write_text("[" * 9999)
    made = box.build(built.toy, "--json").artifact()["manifest"]
    assert box.build_dirs == [folder]
    assert made["key"] == plain["key"]
    assert file_hashes(made) == file_hashes(plain)


@pytest.mark.threat(
    "environment",
    "a source below blanks, Unicode, semicolons, quotes, dollars, line breaks and escape codes",
    "the same key: every build sees its source at one path",
)
@pytest.mark.parametrize(
    "name", ["a b", "ünï", "a;b", "q\"u'o", "$(touch x)${HOME}", "new\nline", "e\x1b[2J", "-DX=1", "[y]*?"]
)
def test_a_source_may_lie_anywhere(name: str, built: Built, tmp_path: Path) -> None:
    place = tmp_path / name / "source"
    shutil.copytree(built.toy.source, place, symlinks=True)
    plan = built.box.plan(built.toy, "--source", place)
    assert plan["key"] == built.done.artifact()["manifest"]["key"]


@pytest.mark.threat(
    "git",
    "a git on PATH that writes other files than those of the commit",
    "refused (4): the tree's id is computed without git",
)
def test_a_git_that_lies(built: Built, box: Box, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text(
        f'#!/bin/sh\n{shutil.which("git")} "$@" || exit\n'
        'case "$*" in *read-tree*-u*) echo evil >> "$GIT_WORK_TREE/CMakeLists.txt";; esac\n'
    )
    fake.chmod(0o755)
    env = {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    error = box.build(built.toy, "--ref", "main", "--json", env=env).error(4, "source")
    assert "gave the files" in error["what"]
    box.assert_nothing_stored()
