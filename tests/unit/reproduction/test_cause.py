"""Two builds by real ninja, CMake and compilers, each with one reason to differ."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sparkbuild import process
from sparkbuild.inspection.layout import WINDOW
from sparkbuild.reproduction.cause import CURES, find_cause, first_difference
from sparkbuild.reproduction.kinds import kinds
from sparkbuild.reproduction.records import Kind
from tests.conftest import Script

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("g++", "as", "ar", "objcopy"))), reason="g++ and binutils are not installed"
)
_HOME = os.environ.get("SPARKBUILD_TEST_CUDA_HOME", "")  # before tests/conftest.py seals the environment
_NINJA = """
rule cc
  command = gcc $flags -c $in -o $out
rule make
  command = sh $in > $out
rule ar
  command = rm -f $out && ar rc$mode $out $in
rule link
  command = gcc -shared $flags $in -o $out
"""


class Build:
    """A folder in which ninja builds what its rules say."""

    def __init__(self, folder: Path, ninja: Path, rules: str, **files: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "build.ninja").write_text(_NINJA + rules)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)
        self.run(str(ninja))

    def run(self, command: str) -> object:
        return process.run(["sh", "-c", command], cwd=self.folder)


@pytest.fixture
def both(tmp_path: Path, tools: dict[str, Path]) -> Callable[..., tuple[Build, Build]]:
    """Return a maker of two builds: of each value that is a pair, each gets its own."""

    def make(rules: str, **files: str | tuple[str, str]) -> tuple[Build, Build]:
        sides = []
        for number, name in enumerate(("before", "after")):
            texts = {k: v if isinstance(v, str) else v[number] for k, v in files.items()}
            sides.append(Build(tmp_path / name, tools["ninja"], rules, **texts))
        return sides[0], sides[1]

    return make


Both = Callable[..., tuple[Build, Build]]
_TWO = "build a.o: cc a.c\nbuild b.o: cc b.c\nbuild 0.so: link b.o a.o\n  flags = -Wl,--build-id=sha1\n"


def test_the_first_difference_is_an_object_and_not_what_is_linked_from_it(both: Both) -> None:
    code = ('const char *s = "one";', 'const char *s = "two";')
    old, new = both(_TWO, a__c="int a;", b__c=code)
    assert (old.folder / "0.so").read_bytes() != (new.folder / "0.so").read_bytes()
    assert first_difference(old.folder, new.folder) == "b.o"
    assert first_difference(old.folder, old.folder) is None
    assert [kind for kind, _ in kinds(old.folder / "b.o", new.folder / "b.o")] == ["read-only data"]


def test_only_what_ninja_made_in_both_counts(both: Both) -> None:
    old, new = both(_TWO, a__c="int a;", b__c="int b;")
    for folder, text in ((old.folder, "1"), (new.folder, "2")):
        (folder / "CMakeCache.txt").write_text(text)
        (folder / "note.txt").write_text(text)
    (old.folder / "a.o").unlink()
    (new.folder / "b.o").unlink()
    (new.folder / "b.o").symlink_to("a.o")
    assert first_difference(old.folder, new.folder) is None
    assert find_cause(old.folder, new.folder, str, None) is None


@pytest.mark.threat("sandbox", "ninja's log names files outside the build folder", "they are left alone")
@pytest.mark.parametrize("name", ["../x.o", "link/x.o", "build/../../x.o"])
def test_what_is_elsewhere_is_left_alone(name: str, tmp_path: Path) -> None:
    """What differs is made again, and so would be replaced and removed."""
    folders = []
    for side in ("old", "new"):
        folders.append(tmp_path / side / "build")
        (folders[-1] / "build").mkdir(parents=True)
        (folders[-1] / "link").symlink_to("..")
        (tmp_path / side / "x.o").write_text(side)
        (folders[-1] / ".ninja_log").write_text(f"1\t5\t1\t{name}\tabc\n")
        assert (folders[-1] / name).read_text() == side
    assert first_difference(*folders) is None


def test_a_time_in_a_source_that_the_build_generates(both: Both) -> None:
    rules = "build t.h: make t.sh\nbuild a.o: cc a.c | t.h\n"
    files = {"t__sh": ("echo '#define T \"10:11:12\"'", "echo '#define T \"10:11:13\"'")}
    old, new = both(rules, a__c='#include "t.h"\nconst char *t = T;', **files)
    found = find_cause(old.folder, new.folder, lambda _: "sh t.sh > t.h", new.run)
    assert found
    assert (found.output, found.kinds, found.samples) == ("t.h", ("time stamp",), ("10:11:12 -> 10:11:13",))
    assert (found.replay, found.cure) == ("the same each time", CURES["time stamp", False])
    assert kinds(old.folder / "a.o", new.folder / "a.o") == (("time stamp", "10:11:12 -> 10:11:13"),)


_WITH_DEPENDENCIES = "gcc -MD -MF a.o.d -c a.c -o a.o"


def test_replay_tells_what_differs_each_time_and_leaves_no_trace(both: Both) -> None:
    old, new = both("build a.o: cc a.c\n", a__c=("const char *t = __TIME__;", "const char *t = __TIME__ ;;"))
    (old.folder / "a.c").write_text('const char *t = "00:00:00";')
    old.run("gcc -c a.c -o a.o")
    before = (new.folder / "a.o").stat()
    asked = []

    def command_of(output: str) -> str:
        asked.append(output)
        return _WITH_DEPENDENCIES

    found = find_cause(old.folder, new.folder, command_of, new.run)
    assert found
    assert (found.replay, found.kinds, asked) == ("differs each time", ("time stamp",), ["a.o"])
    assert found.command == _WITH_DEPENDENCIES
    after = (new.folder / "a.o").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(p.name for p in new.folder.glob("a.o*")) == ["a.o"]
    new.run("SOURCE_DATE_EPOCH=1 gcc -c a.c -o a.o")
    cured = find_cause(old.folder, new.folder, lambda _: "SOURCE_DATE_EPOCH=1 gcc -c a.c -o a.o", new.run)
    assert cured
    assert cured.replay == "the same each time"


@pytest.mark.parametrize("command", ["exit 3", "true", ""])
def test_a_replay_that_makes_nothing_was_not_run(both: Both, command: str) -> None:
    old, new = both("build a.o: cc a.c\n", a__c=("int a = 1;", "int a = 2;"))
    before = (new.folder / "a.o").read_bytes()
    found = find_cause(old.folder, new.folder, lambda _: command, new.run)
    assert found
    assert found.replay == "not run"
    assert (new.folder / "a.o").read_bytes() == before


@pytest.mark.threat("sandbox", "a command that is replayed puts links or pipes in its place", "not followed")
@pytest.mark.parametrize(
    "command",
    [
        "rm -rf sub && ln -s {mine} sub",
        "touch sub/a.o; test ! -e once || {{ rm -rf sub; ln -s {mine} sub; }}; touch once",
        "ln -s {mine}/key sub/a.o",
        "mkfifo sub/a.o",
        "mkdir sub/a.o",
        "rm -rf sub",
    ],
)
def test_a_hostile_replay(command: str, both: Both, tmp_path: Path) -> None:
    old, new = both("build sub/a.o: cc a.c\n", a__c=("int a = 1;", "int a = 2;"))
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("key", "a.o", "a.o.aside"):
        (mine / name).write_text(name)
    found = find_cause(old.folder, new.folder, lambda _: command.format(mine=mine), new.run)
    assert found
    assert found.replay == "not run"
    assert {p.name: p.read_text() for p in mine.iterdir()} == {n: n for n in ("key", "a.o", "a.o.aside")}


def test_an_interrupted_replay_puts_the_object_back(both: Both) -> None:
    old, new = both("build a.o: cc a.c\n", a__c=("int a = 1;", "int a = 2;"))
    before = (new.folder / "a.o").read_bytes()

    def interrupted(command: str) -> None:
        (new.folder / "a.o").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_cause(old.folder, new.folder, str, interrupted)
    assert (new.folder / "a.o").read_bytes() == before


def test_a_path_in_an_object_that_cmake_built_in_two_places(tmp_path: Path, tools: dict[str, Path]) -> None:
    names = ("here", "there")
    for flags, differs in (("", True), ("-ffile-prefix-map=${CMAKE_SOURCE_DIR}=.", False)):
        for name in names:
            source = tmp_path / name / "src"
            source.mkdir(parents=True, exist_ok=True)
            (source / "CMakeLists.txt").write_text(
                "cmake_minimum_required(VERSION 3.20)\nproject(toy C)\nadd_library(toy SHARED one.c two.c)\n"
                f"target_compile_options(toy PRIVATE {flags})\n"
            )
            (source / "one.c").write_text("int one(void) { return 1; }\n")
            (source / "two.c").write_text("const char *two(void) { return __FILE__; }\n")
            ninja = f"-DCMAKE_MAKE_PROGRAM={tools['ninja']}"
            cmake: list[process.Word] = [tools["cmake"], "-S", "src", "-B", "build", "-G", "Ninja", ninja]
            process.run(cmake, cwd=tmp_path / name)
            process.run([tools["ninja"], "-C", "build"], cwd=tmp_path / name)
        found = find_cause(tmp_path / "here" / "build", tmp_path / "there" / "build", lambda _: "", None)
        assert (found is not None) == differs
        if found:
            assert (found.output, found.kinds) == ("CMakeFiles/toy.dir/two.c.o", ("embedded path",))
            assert found.samples[0].partition(" -> ")[::2] == tuple(
                str(tmp_path / name / "src" / "two.c") for name in names
            )
            assert found.cure == CURES["embedded path", False]


def compiled(folder: Path, name: str, text: str, *options: str) -> Path:
    out = folder / f"{name}.o"
    source = folder / f"source{'.s' if text.startswith('.') else '.cc'}"
    source.write_text(text)
    subprocess.run(["g++", *options, "-c", source.name, "-o", out.name], cwd=folder, check=True)
    return out


def told(old: Path, new: Path) -> dict[Kind, str]:
    return dict(kinds(old, new))


def test_a_file_symbol_that_a_run_made_up(tmp_path: Path) -> None:
    old, new = (compiled(tmp_path, n, f'.file "tmpxft_{n}.cpp"\n') for n in ("0001", "0002"))
    assert told(old, new) == {"FILE symbol": "tmpxft_0001.cpp -> tmpxft_0002.cpp"}


def test_a_symbol_named_by_a_process(tmp_path: Path) -> None:
    name = "_ZN42_GLOBAL__N__427dcff0_4_n_cu_6f36fab8_%s1kEPi"
    old, new = (compiled(tmp_path, n, f".globl {name % n}\n{name % n}: .quad 0\n") for n in ("111", "222"))
    assert told(old, new) == {"module id": f"{name % 111} -> {name % 222}"}


def test_gccs_random_numbers_and_their_cure(tmp_path: Path) -> None:
    code = "namespace { struct S { S(); int x; }; S::S() : x(3) {} S s; }"
    old, new = (compiled(tmp_path, n, code, "-flto") for n in ("1", "2"))
    found = told(old, new)
    assert set(found) == {"module id"}
    assert "section .gnu.lto_" in found["module id"]
    old, new = (compiled(tmp_path, n, code, "-flto", "-frandom-seed=x") for n in ("1", "2"))
    assert told(old, new) == {}


def test_code_symbols_and_layout(tmp_path: Path) -> None:
    old = compiled(tmp_path, "1", "int f(int a) { return a * 3; }", "-O1")
    assert set(told(old, compiled(tmp_path, "2", "int f(int a) { return a * 5; }", "-O1"))) == {"code"}
    renamed = told(old, compiled(tmp_path, "2", "int g(int a) { return a * 3; }", "-O1"))
    assert renamed == {"symbols": "_Z1fi -> _Z1gi"}
    cut = tmp_path / "cut.o"
    cut.write_bytes(old.read_bytes()[:-40])
    assert list(told(old, cut)) == ["layout"]


def test_a_build_id_comes_last_and_has_a_cure_only_alone(tmp_path: Path, both: Both) -> None:
    rules = "build a.so: link a.c\n  flags = -Wl,--build-id=uuid\n"
    old, new = both(rules, a__c="int a;")
    found = find_cause(
        old.folder, new.folder, lambda _: "gcc -shared -Wl,--build-id=uuid a.c -o a.so", new.run
    )
    assert found
    assert (found.kinds, found.replay) == (("build id",), "differs each time")
    assert found.cure == CURES["build id", False]
    old, new = both(rules, a__c=("int a = 1;", "int a = 2;"))
    found = find_cause(old.folder, new.folder, str, None)
    assert found
    assert found.kinds == ("read-only data", "build id")
    assert found.cure == ""


def test_of_a_library_the_first_member_that_differs(both: Both) -> None:
    old, new = both(
        "build a.o: cc a.c\nbuild b.o: cc b.c\nbuild x.a: ar a.o b.o\n  mode = D\n",
        a__c="int a;",
        b__c=('const char *b = "/one/b.c";', 'const char *b = "/two/b.c";'),
    )
    assert first_difference(old.folder, new.folder) == "b.o"
    assert kinds(old.folder / "x.a", new.folder / "x.a") == (("embedded path", "b.o/: /one/b.c -> /two/b.c"),)


def test_a_library_that_only_its_dates_change(tmp_path: Path) -> None:
    made = []  # without an index, whose date is now
    member = compiled(tmp_path, "a", "int a;")
    for moment in (1000000, 2000000):
        os.utime(member, (moment, moment))
        made.append(tmp_path / f"{moment}.a")
        subprocess.run(["ar", "rcUS", made[-1], member], check=True)
    assert told(*made) == {"time stamp": "a.o/: 1000000 -> 2000000"}
    subprocess.run(["ar", "sU", made[0]], check=True)
    subprocess.run(["ar", "rcU", made[1], compiled(tmp_path, "b", "int b;")], check=True)
    assert told(*made) == {"layout": "one has more members"}


@pytest.mark.parametrize(
    ("old", "new", "kind", "sample"),
    [
        ("// made Nov  1 2026\n", "// made Nov 23 2026\n", "time stamp", "Nov  1 2026 -> Nov 23 2026"),
        ("x = 1700000000;\n", "x = 1700000001;\n", "time stamp", "1700000000 -> 1700000001"),
        ('"/a/b/c.h"\n', '"/a/d/c.h"\n', "embedded path", "/a/b/c.h -> /a/d/c.h"),
        ("int x = 1;\n", "int x = 2;\n", "text", "int x = 1; -> int x = 2;"),
        ("one\n", "one\ntwo\n", "text", " -> two"),
        ("\0\1", "\0\2", "layout", "bytes from offset 1"),
        ("a\33[2J\n", "b\n", "text", "a\ufffd[2J -> b"),
    ],
)
def test_texts(tmp_path: Path, old: str, new: str, kind: Kind, sample: str) -> None:
    (tmp_path / "old").write_text(old)
    (tmp_path / "new").write_text(new)
    assert kinds(tmp_path / "old", tmp_path / "new") == ((kind, sample),)
    assert kinds(tmp_path / "old", tmp_path / "old") == ()


def with_data(folder: Path, name: str, data: bytes) -> Path:
    """Return an object with a section of these bytes."""
    bare, out = compiled(folder, "bare", "int a;"), folder / f"{name}.o"
    (folder / "data").write_bytes(data)
    added = f".rodata.x={folder / 'data'}"
    subprocess.run(["objcopy", "--add-section", added, str(bare), str(out)], check=True)
    return out


@pytest.mark.parametrize(
    ("count", "found"),
    [
        (150_000, {"embedded path": "nothing -> /new/path.c"}),
        (300_000, {"read-only data": ".rodata.x from byte 0"}),  # too many to compare
    ],
)
def test_a_text_across_the_edge_of_a_window_is_not_taken_for_another(
    tmp_path: Path, count: int, found: dict[Kind, str]
) -> None:
    """A shift of a few bytes moves the edges, so that each side cuts other texts."""
    texts = b"".join(b"/where/many/files/of/a/build/are/file%07d.c\0" % n for n in range(count))
    assert len(texts) > WINDOW
    made = [with_data(tmp_path, n, lead + texts) for n, lead in (("1", b"x\0"), ("2", b"/new/path.c\0"))]
    assert told(*made) == found


def test_what_diffoscope_says_is_bounded(both: Both, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = both("build a.o: cc a.c\n", a__c=("int a = 1;", "int a = 2;"))
    monkeypatch.setenv("PATH", process.SYSTEM_PATH)
    if not shutil.which("diffoscope"):
        found = find_cause(old.folder, new.folder, str, None)
        assert found
        assert found.detail == ""
    tool = script("diffoscope", 'printf "\\033[2J$2\\n"; seq 1000; exit 1')
    monkeypatch.setenv("PATH", f"{tool.parent}:{process.SYSTEM_PATH}")
    found = find_cause(old.folder, new.folder, str, None)
    assert found
    lines = found.detail.splitlines()
    assert (len(lines), lines[-1]) == (200, "199")
    assert lines[0] == f"\ufffd[2J{old.folder / 'a.o'}"


# -- nvcc ----------------------------------------------------------------------------------------

_KERNELS = (
    "namespace { __global__ void k(int *p) { *p = 3; } struct S { S() { k<<<1, 1>>>(nullptr); } } s; }\n"
)


@pytest.fixture(scope="session")
def nvcc() -> Path:
    """Return an nvcc of SPARKBUILD_TEST_CUDA_HOME that can compile for this machine."""
    for toolkit in sorted(Path(_HOME).glob("cache/cuda/*/bin/nvcc")) if _HOME else ():
        if f"-{os.uname().machine}-" in str(toolkit):
            return toolkit
    pytest.skip("SPARKBUILD_TEST_CUDA_HOME names no home with a CUDA toolkit for this machine")


def cuda(nvcc: Path, folder: Path, *options: str) -> Path:
    """Compile the kernels and return a copy of the object, whose name is in the bytes."""
    (folder / "k.cu").write_text(_KERNELS)
    command: list[process.Word] = [nvcc, "-arch=sm_90", *options, "-c", folder / "k.cu", "-o", "k.cu.o"]
    process.run(command, cwd=folder.parent, timeout=300)
    return (folder.parent / "k.cu.o").replace(folder / "k.cu.o")


def test_what_nvcc_makes_up_and_its_cure(nvcc: Path, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    first = cuda(nvcc, tmp_path / "src").rename(tmp_path / "first.o")
    found = told(first, cuda(nvcc, tmp_path / "src"))
    assert list(found) == ["FILE symbol", "module id", "device code"]
    assert found["FILE symbol"].startswith("tmpxft_")
    flags = ("-objtemp", "--frandom-seed=x")
    first = cuda(nvcc, tmp_path / "src", *flags).rename(tmp_path / "first.o")
    assert told(first, cuda(nvcc, tmp_path / "src", *flags)) == {}
    (tmp_path / "other").mkdir()
    moved = told(first, cuda(nvcc, tmp_path / "other", *flags))
    assert list(moved) == ["module id", "device code"]
    assert {(kind, True) for kind in (*found, *moved)} <= CURES.keys()
