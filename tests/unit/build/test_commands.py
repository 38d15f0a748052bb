"""Compile commands, through a real ninja on hand-written build files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild.build import commands
from sparkbuild.build.commands import Entry, summarise
from sparkbuild.errors import ConfigureError
from sparkbuild.planning import Plan, make_plan
from tests.conftest import compilers_of, cuda_of, inputs_of

_WANTED = "armv8.2-a+dotprod+fp16"


def plan(*, cuda: str = "", flags: tuple[str, ...] = (f"-march={_WANTED}",), **changes: Any) -> Plan:  # noqa: ANN401
    known = inputs_of(compilers=compilers_of(flags=flags))
    if cuda:
        known = msgspec.structs.replace(known, backend="cuda", cuda=cuda_of(), cuda_arch=cuda)
    return msgspec.structs.replace(make_plan(known), **({"targets": ("toy-server",)} | changes))


def write(where: Path, **compiles: str) -> Path:
    """Write a build file: toy-server is linked from a compile of each ``file=flags``."""
    rules = "rule cc\n  command = cc $flags -c $in -o $out\nrule link\n  command = cc $in -o $out\n"
    files = {name.replace("__", "."): flags for name, flags in compiles.items()}
    rows = [f"build {name}.o: cc src/{name}\n  flags = {flags}\n" for name, flags in files.items()]
    mine = " ".join(f"{name}.o" for name in files if not name.startswith("foreign"))
    rows.append(f"build bin/toy-server: link {mine}\nbuild toy-server: phony bin/toy-server\n")
    (where / "build.ninja").write_text(rules + "".join(rows))
    return where


def check(tools: dict[str, Path], wanted: Plan, where: Path) -> commands.Commands:
    return commands.summarise(commands.check(wanted, tools["ninja"], where))


def test_all_is_well(tools: dict[str, Path], tmp_path: Path) -> None:
    where = write(tmp_path, a__c=f"-O3 -march={_WANTED}", b__cpp=f"-march={_WANTED}", c__c="-O2")
    found = check(tools, plan(), where)
    assert (found.total, found.cuda) == (3, 0)
    assert found.march == {_WANTED: 2, "": 1}


def test_an_mcpu_does_not_win_over_a_march(tools: dict[str, Path], tmp_path: Path) -> None:
    where = write(tmp_path, a__c=f"-march={_WANTED} -mcpu=cortex-a76")
    assert check(tools, plan(), where).march == {_WANTED: 1}


@pytest.mark.parametrize("later", ["-march=native", "-march=armv8-a"])
def test_a_flag_that_wins_over_the_toolchains_is_an_error(
    tools: dict[str, Path], tmp_path: Path, later: str
) -> None:
    where = write(tmp_path, a__c=f"-march={_WANTED}", b__cpp=f"-march={_WANTED} {later}")
    with pytest.raises(ConfigureError, match=r"^b\.cpp: .* wins over") as caught:
        check(tools, plan(), where)
    assert later in caught.value.where


def test_a_flag_before_the_toolchains_does_no_harm(tools: dict[str, Path], tmp_path: Path) -> None:
    where = write(tmp_path, a__c=f"-march=native -march={_WANTED}")
    assert check(tools, plan(), where).march == {_WANTED: 1}


def test_other_targets_do_not_count(tools: dict[str, Path], tmp_path: Path) -> None:
    where = write(tmp_path, a__c=f"-march={_WANTED}", foreign__c="-march=native")
    assert check(tools, plan(), where).total == 1


def test_a_flag_that_reaches_nobody_is_an_error(tools: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigureError, match="on no compile command at all"):
        check(tools, plan(), write(tmp_path, a__c="-O2"))


def test_native_asks_for_nothing(tools: dict[str, Path], tmp_path: Path) -> None:
    assert check(tools, plan(flags=()), write(tmp_path, a__c="-march=native")).march == {"native": 1}


_GENCODE = (
    f"--generate-code=arch=compute_{{0}},code=[compute_{{0}},sm_{{0}}] -Xcompiler=-fPIC,-march={_WANTED}"
)


@pytest.mark.parametrize(
    ("asked", "told", "holds"),
    [
        ("121", ("121",), True),
        ("121", ("121a",), True),
        ("121a", ("121a",), True),
        ("121-real", ("121",), True),
        ("121", ("90",), False),
        ("121", ("121", "90"), False),
        ("121", (), False),
        ("native", ("90",), True),
    ],
)
def test_the_gpu_architecture(
    tools: dict[str, Path], tmp_path: Path, asked: str, told: tuple[str, ...], holds: bool
) -> None:
    flags = " ".join([f"-march={_WANTED}", *(_GENCODE.format(t) for t in told)])
    where = write(tmp_path, k__cu=flags, a__c=f"-march={_WANTED}")
    if holds:
        found = check(tools, plan(cuda=asked), where)
        assert found.cuda == 1
        assert found.cuda_archs == dict.fromkeys(told, 1)
    else:
        with pytest.raises(ConfigureError, match=r"^k\.cu: compiled for"):
            check(tools, plan(cuda=asked), where)


def test_a_cuda_build_without_cuda_is_an_error(tools: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigureError, match="no CUDA source is compiled"):
        check(tools, plan(cuda="121"), write(tmp_path, a__c=f"-march={_WANTED}"))


@pytest.mark.parametrize("text", [None, "garbage\n", ""])
def test_a_build_folder_that_ninja_can_not_read(
    tools: dict[str, Path], tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "build.ninja").write_text(text)
    with pytest.raises(ConfigureError, match="lists no compile commands"):
        check(tools, plan(), tmp_path)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _deep(path: Path) -> None:
    path.write_text("[" * 100_000)


@pytest.mark.threat(
    "sandbox", "a pipe or a deep nest as a compilation database", "exit code 5; nothing is waited for"
)
@pytest.mark.parametrize("make", [_pipe, _deep])
def test_a_hostile_database(tools: dict[str, Path], tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "compile_commands.json")
    with pytest.raises(ConfigureError, match="no compile commands to read"):
        commands.read_database(tools["ninja"], tmp_path, ("all",))


@pytest.mark.threat(
    "sandbox", "compile commands whose outputs lead elsewhere, to pipes or nowhere", "not waited for"
)
@pytest.mark.parametrize("name", ["../x", "/", "a\\u0000b", "p"])
def test_a_database_that_leads_elsewhere(tools: dict[str, Path], tmp_path: Path, name: str) -> None:
    (tmp_path / "CMakeFiles/p.dir").mkdir(parents=True)
    os.mkfifo(tmp_path / "CMakeFiles/p.dir/link.txt")
    entry = f'{{"directory": "", "file": "a.c", "command": "cc \'", "output": "CMakeFiles/{name}.dir/a.c.o"}}'
    (tmp_path / "compile_commands.json").write_text(f"[{entry}]")
    assert len(commands.read_database(tools["ninja"], tmp_path, ("all",))) == 1


def test_a_command_with_an_open_quote_is_an_error_too(tools: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigureError, match="wins over"):
        check(tools, plan(), write(tmp_path, a__c="-march=armv8-a -DX='"))


def test_a_folder_with_brackets_in_its_name(tools: dict[str, Path], tmp_path: Path) -> None:
    where = tmp_path / "b [1] {2} ü"
    where.mkdir()
    assert check(tools, plan(), write(where, a__c=f"-march={_WANTED}")).total == 1


@pytest.mark.parametrize(
    ("command", "march", "archs"),
    [
        ("cc -march=a -mcpu=b x.c", "a", set()),
        ("cc -mcpu=a -mcpu=b x.c", "b", set()),
        ("cc -march=a -O2 -march=b x.c", "b", set()),
        ("nvcc -Xcompiler=-fPIC,-march=a,-O2 -gencode=arch=compute_90a,code=sm_90a", "a", {"90a"}),
        ('nvcc -Xcompiler "-march=a" -arch=sm_121f', "a", {"121f"}),
        ("cc x.c", "", set()),
    ],
)
def test_what_a_command_says(command: str, march: str, archs: set[str]) -> None:
    entry = Entry("/", "x.c", command)
    assert (entry.march, set(entry.cuda_archs)) == (march, archs)


def test_a_summary_of_nothing() -> None:
    assert summarise(()) == commands.Commands(0, 0, {}, {})
