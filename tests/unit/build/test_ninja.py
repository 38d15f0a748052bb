"""Real ninja on small hand-written build files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkbuild import process
from sparkbuild.build import ninja
from sparkbuild.build.costs import Costs, Measured, Timeline
from sparkbuild.build.jobs import Shared, pool
from sparkbuild.build.ninja import NinjaFailure, read_failure, replaced, timeline
from sparkbuild.catalog.records import Steps
from sparkbuild.errors import CompileError, ExhaustedError, MissingError
from tests.conftest import Told

_RULES = """\
rule make
  command = $do && echo done > $out
  description = Making $out
"""
_STEPS = Steps(seconds={"*.cu": 10.0, "*.c": 1.0}, default_seconds=2.0)


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """Return a build folder whose name a careless program would stumble over."""
    folder = tmp_path / "b [1] {x} ü"
    folder.mkdir()
    return folder


def write(where: Path, **steps: str) -> None:
    """Write a build file: each step's name and the command that comes before its output is made."""
    rows = [f"build {n.replace('__', '.')}: make\n  do = {do}\n" for n, do in steps.items()]
    (where / "build.ninja").write_text(
        _RULES + "".join(rows) + f"build all: phony {' '.join(steps).replace('__', '.')}\n"
    )


def build(
    tools: dict[str, Path],
    where: Path,
    told: Told,
    *,
    jobs: int = 1,
    earlier: Measured | None = None,
    shared: Shared | None = None,
) -> Timeline:
    env = process.clean_env()
    return ninja.build(
        tools["ninja"],
        where,
        ("all",),
        jobs=jobs,
        shared=shared,
        env=env,
        costs=Costs(_STEPS, earlier),
        progress=told,
    )


def test_it_builds_and_tells_what_each_step_took(tools: dict[str, Path], where: Path, told: Told) -> None:
    write(where, a__c__o="true", b__cu__o="true", tool="true")
    found = build(tools, where, told)
    assert set(found.steps) == {"a.c.o", "b.cu.o", "tool"}
    assert all(0 <= start <= end for start, end in found.steps.values())
    assert found.cpu_like_seconds >= 0
    assert [(done, total) for done, total, _, _ in told.steps] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert "Making a.c.o" in (where / "build.log").read_text()


def test_the_estimate_goes_down_to_zero(tools: dict[str, Path], where: Path, told: Told) -> None:
    write(where, a__c__o="true", b__cu__o="true", c__c__o="true", tool="true")
    build(tools, where, told)
    left = [left for *_, left in told.steps]
    assert left == sorted(left, key=lambda x: -(x or 0))
    assert left[-1] == 0
    assert left[0] is not None
    assert left[0] > 0


def test_the_estimate_of_a_build_that_goes_on_is_for_what_is_left(
    tools: dict[str, Path], where: Path, told: Told
) -> None:
    write(where, a__cu__o="true", b__c__o="true")
    process.run([tools["ninja"], "-C", where, "a.cu.o"])
    build(tools, where, told)
    assert [(done, total, left) for done, total, _, left in told.steps] == [(0, 1, 1), (1, 1, 0)]


def test_earlier_builds_teach_the_estimate(tools: dict[str, Path], where: Path, told: Told) -> None:
    rows = "build a.c.o: make\n  do = true\nbuild b.c.o: make a.c.o\n  do = true\nbuild all: phony b.c.o\n"
    (where / "build.ninja").write_text(_RULES + rows)
    build(tools, where, told, jobs=2, earlier=Measured({"a.c.o": 500, "b.c.o": 900_000}, 900.5, 1.0))
    beforehand, left, end = [left for *_, left in told.steps]
    assert (beforehand, end) == (900.0, 0.0)  # one step is one job, whatever their number
    assert left == pytest.approx(900.0, rel=0.2)  # less what a.c.o said of the pace


def test_nothing_to_do_is_fine(tools: dict[str, Path], where: Path, told: Told) -> None:
    write(where, a="true")
    assert build(tools, where, told) == build(tools, where, told)


def test_a_failure_shows_the_failing_commands_own_words(
    tools: dict[str, Path], where: Path, told: Told
) -> None:
    write(where, a__c__o="echo first; echo second >&2; exit 3")
    with pytest.raises(CompileError, match=r"^a\.c\.o could not be made$") as caught:
        build(tools, where, told)
    assert caught.value.exit_code == 6
    assert caught.value.output == "first\nsecond"
    assert caught.value.where.startswith("echo first;")
    assert str(where / "build.log") in caught.value.where


def test_of_two_failures_each_keeps_its_words(tools: dict[str, Path], where: Path, told: Told) -> None:
    write(where, a="sleep 0.2; echo from a; exit 1", b="sleep 0.2; echo from b; exit 1")
    with pytest.raises(CompileError) as caught:
        build(tools, where, told, jobs=2)
    assert caught.value.output in ("from a", "from b")
    assert caught.value.what.startswith(caught.value.output[-1])


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("fatal error: error writing to x: No space left on device", "disk is full"),
        ("error: inlining failed in call to vdotq_s32: target specific option mismatch", "GCC fault"),
        ("nvcc fatal   : Unsupported gpu architecture 'compute_121'", "does not know the GPU"),
        ("nvcc fatal: Value 'sm_121' is not defined for option 'gpu-architecture'", "does not know the GPU"),
        ("error: -- unsupported GNU version! gcc versions later than 15 are not supported!", "so new a GCC"),
        ("undefined reference to `cuMemCreate'", "driver library"),
        ("warning: libcudart.so.13, needed by libggml-cuda.so, not found", "behind a library"),
    ],
)
def test_known_causes_are_named_with_what_mends_them(
    tools: dict[str, Path], where: Path, told: Told, said: str, cause: str
) -> None:
    (where / "said").write_text(f"{said}\n")
    write(where, x="cat said; exit 1")
    with pytest.raises(CompileError, match=cause) as caught:
        build(tools, where, told)
    assert caught.value.remedy
    assert said in caught.value.output
    assert isinstance(caught.value, ExhaustedError) == ("disk" in cause)


_NO_MEMORY = [
    "g++: fatal error: Killed signal terminated program cc1plus",
    "nvcc error   : cicc died due to signal 9 (Kill signal)",
    "collect2: fatal error: ld terminated with signal 9 [Killed]",
    "cc1plus: out of memory allocating 65536 bytes after a total of 1048576 bytes",
    "terminate called after throwing an instance of std::bad_alloc",
]


@pytest.mark.threat(
    "faults",
    "a compiler's own words for want of memory: GCC, nvcc, the linker",
    "the build goes on with half the jobs and says so",
)
@pytest.mark.parametrize("said", _NO_MEMORY)
def test_a_kill_for_memory_is_tried_again_with_half_the_jobs(
    tools: dict[str, Path], where: Path, told: Told, said: str
) -> None:
    write(where, a="true", b=f"test -e killed || {{ touch killed; echo '{said}'; exit 1; }}")
    assert set(build(tools, where, told, jobs=4).steps) == {"a", "b"}
    assert told.notes == [
        "a compiler was killed for want of memory; going on with 2 jobs instead of 4",
    ]


@pytest.mark.threat(
    "faults",
    "a compiler killed for want of memory while builds share the jobs",
    "half of the jobs are kept from all of them until this build is done",
)
def test_a_kill_for_memory_leaves_fewer_jobs_to_all(
    tools: dict[str, Path], where: Path, told: Told, tmp_path: Path
) -> None:
    steps = {
        f"s{n}": f"test -e '{tmp_path}/killed' || {{ touch '{tmp_path}/killed'; kill -KILL $$$$; }}; "
        f"echo + >> '{tmp_path}/log'; sleep 0.1; echo - >> '{tmp_path}/log'"
        for n in range(8)
    }
    write(where, **steps)
    with pool(4) as held:
        held.deal(1)
        assert set(build(tools, where, told, jobs=4, shared=held.shared).steps) == set(steps)
        with held.shared.held(3) as all_but_ones_own:
            assert all_but_ones_own == 3
    assert "going on with 2 jobs instead of 4" in told.notes[0]
    assert "Jobserver mode detected" in (where / "build.log").read_text()


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.threat(
    "faults",
    "a step that SIGKILL ends every time",
    "tried once more with fewer jobs, then exit 6",
)
def test_a_kill_for_memory_is_tried_again_only_once(
    tools: dict[str, Path], where: Path, told: Told, jobs: int
) -> None:
    write(where, a="echo x >> tries; kill -KILL $$$$")
    with pytest.raises(ExhaustedError, match="want of memory") as caught:
        build(tools, where, told, jobs=jobs)
    assert caught.value.exit_code == 6
    assert caught.value.remedy == "run again with fewer --jobs"
    assert (where / "tries").read_text() == "x\n" * min(jobs, 2)


@pytest.mark.threat(
    "faults",
    "ninja itself killed for want of memory",
    "tried once more with half the jobs, then exit 6 that advises fewer --jobs",
)
def test_a_ninja_that_is_killed(tools: dict[str, Path], where: Path, told: Told) -> None:
    write(where, a="echo x >> tries; kill -KILL $$PPID")
    with pytest.raises(CompileError, match="ninja was killed, most likely for want of memory") as caught:
        build(tools, where, told, jobs=4)
    assert caught.value.remedy == "run again with fewer --jobs"
    assert "going on with 2 jobs instead of 4" in told.notes[0]


def test_a_failure_of_ninja_itself_shows_the_log(tools: dict[str, Path], where: Path, told: Told) -> None:
    (where / "build.ninja").write_text("build a: no_such_rule\n")
    with pytest.raises(CompileError, match="ninja failed with exit code 1") as caught:
        build(tools, where, told)
    assert "no_such_rule" in caught.value.output


def test_an_absent_ninja_is_missing(where: Path, told: Told) -> None:
    write(where, a="true")
    with pytest.raises((MissingError, process.ProcessError)):
        build({"ninja": where / "absent"}, where, told)


def test_the_environment_of_a_step_is_the_given_one(
    tools: dict[str, Path], where: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", "-hostile")
    write(where, a="env > environment")
    build(tools, where, told)
    assert "hostile" not in (where / "environment").read_text()


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "failure"),
    [
        (["FAILED: a.o ", "cc a.c", "error 1", "error 2"], NinjaFailure("a.o", "cc a.c", "error 1\nerror 2")),
        (["FAILED: [code=2] a.o", "cc a.c"], NinjaFailure("a.o", "cc a.c", "")),
        (["FAILED: a.o"], NinjaFailure("a.o", "", "")),
    ],
)
def test_read_failure(lines: list[str], failure: NinjaFailure) -> None:
    assert read_failure(lines) == failure


def test_a_very_long_failure_is_cut() -> None:
    assert len(read_failure(["FAILED: a", "cc", *["x"] * 10_000]).said) < 1000


@pytest.mark.parametrize(
    ("log", "steps"),
    [
        ("# ninja log v7\n1\t5\t0\ta.o\tabc\n3\t9\t0\tb.o\tdef\n", {"a.o": (1, 5), "b.o": (3, 9)}),
        ("# ninja log v7\n1\t5\t0\ta.o\tabc\n7\t9\t0\ta.o\tabc\n", {"a.o": (7, 9)}),
        ("garbage\n1\t2\n\t\t\t\t\nx\t5\t0\ta\tb\n1\t5\t0\ta.o", {}),
        ("", {}),
    ],
)
def test_timeline(tmp_path: Path, log: str, steps: dict[str, tuple[int, int]]) -> None:
    (tmp_path / ".ninja_log").write_text(log)
    assert timeline(tmp_path) == Timeline(steps)
    os.truncate(tmp_path / ".ninja_log", len(log) // 2)
    assert timeline(tmp_path).steps.keys() <= steps.keys()


def test_no_log_is_no_timeline(tmp_path: Path) -> None:
    assert timeline(tmp_path) == Timeline({})


@pytest.mark.threat(
    "sandbox", "nonsense, a link or a pipe as ninja's log", "it is no log; nothing is waited for"
)
@pytest.mark.parametrize(
    "log",
    [
        "²\t5\t0\ta.o\tabc\n",
        "1\t" + "9" * 5000 + "\t0\ta.o\tabc\n",
        "1\t-5\t0\ta.o\tabc\n",
        None,
        "pipe",
        "folder",
    ],
)
def test_a_hostile_log(log: str | None, tmp_path: Path) -> None:
    path = tmp_path / ".ninja_log"
    if log is None:
        (tmp_path / "elsewhere").write_text("1\t5\t0\ta.o\tabc\n")
        path.symlink_to(tmp_path / "elsewhere")
    elif log == "pipe":
        os.mkfifo(path)
    elif log == "folder":
        path.mkdir()
    else:
        path.write_text(log)
    assert timeline(tmp_path) == Timeline({})
    assert replaced(tmp_path) == ()


@pytest.mark.threat("sandbox", "ninja's log names files elsewhere, or pipes", "they are not looked at")
def test_a_log_that_names_what_is_elsewhere(tmp_path: Path) -> None:
    where = tmp_path / "build"
    where.mkdir()
    (tmp_path / "tool").write_bytes(b"\x7fELF")
    os.mkfifo(where / "pipe")
    names = ("../tool", str(tmp_path / "tool"), "pipe", "a\0b", "x" * 5000)
    (where / ".ninja_log").write_text("".join(f"1\t5\t1\t{name}\tabc\n" for name in names))
    assert replaced(where) == ()


@pytest.mark.threat("sandbox", "build.log replaced by a link to a private file", "not written, not shown")
@pytest.mark.parametrize("fails", [True, False])
def test_a_log_that_is_replaced(
    fails: bool, tools: dict[str, Path], where: Path, told: Told, tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.write_text("a secret\n")
    pipe = "rm -f .ninja_log && mkfifo .ninja_log && kill -9 $$$$PPID" if fails else "true"
    write(where, a=f"rm build.log && ln -s {private} build.log && {pipe}")
    if fails:
        with pytest.raises(CompileError) as caught:
            build(tools, where, told)
        assert "a secret" not in f"{caught.value} {caught.value.output}"
    else:
        build(tools, where, told)
    assert private.read_text() == "a secret\n"
    (where / ".ninja_log").unlink()
    write(where, b="true")
    with pytest.raises(CompileError, match="own log can not be written"):
        build(tools, where, told)
    assert private.read_text() == "a secret\n"


def test_replaced_libraries_and_programs(tools: dict[str, Path], where: Path, told: Told) -> None:
    """What is no ELF file may keep a time of its own: a copied text is not a replaced program."""
    elf = "printf '\\177ELF' >"
    write(where, liba__so=f"{elf} liba.so", tool=f"{elf} tool", stamp="touch -d 2020-01-01 stamp")
    rules = where / "build.ninja"
    rules.write_text(rules.read_text().replace("echo done > $out", "true"))
    build(tools, where, told)
    assert replaced(where) == ()
    for name, seconds in (("liba.so", 60), ("tool", -60), ("stamp", 60)):
        when = (where / name).stat().st_mtime + seconds
        os.utime(where / name, (when, when))
    assert replaced(where) == ("liba.so", "tool")
