"""Real CMake runs of a project of a few lines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from sparkbuild import process
from sparkbuild.build import configure as configuring
from sparkbuild.build.configure import CacheEntry, Configured, same, unused
from sparkbuild.catalog.records import Failure
from sparkbuild.errors import ConfigureError
from sparkbuild.planning import Definition, Plan, make_plan
from sparkbuild.progress import Silent
from sparkbuild.toolchain.place import SOURCE, Isolation, placed
from tests.conftest import inputs_of, source_of

_PROJECT = """\
cmake_minimum_required(VERSION 3.20)
project(toy NONE)
option(TOY_FAST "be fast" OFF)
set(TOY_NAME "x" CACHE STRING "a name")
set(TOY_DIR "" CACHE PATH "a folder")
if (DEFINED TOY_NUMBER)
  message(STATUS "number ${TOY_NUMBER}")
endif()
"""
_TARGET = "add_custom_target(toy-server)\nadd_custom_target(other)\n"
_FAILURE = Failure("CUDA not found", "there would be no GPU", "install it", ("cuda",))


class Bench:
    """A project, and CMake with definitions on it."""

    def __init__(self, tools: dict[str, Path], folder: Path) -> None:
        self.source, self.build = folder / "src; $x ü", folder / "b ü"
        self.source.mkdir()
        self._tools = tools
        self.write()

    def write(self, more: str = "") -> Bench:
        (self.source / "CMakeLists.txt").write_text(_PROJECT + _TARGET + more)
        return self

    def plan(self, definitions: dict[str, str], origin: str = "recipe:x") -> Plan:
        plan = make_plan(inputs_of(source=source_of(path=self.source)))
        rows = tuple(Definition(n, v, "because", origin) for n, v in definitions.items())
        return msgspec.structs.replace(plan, definitions=rows)

    def configure(
        self,
        definitions: dict[str, str] | None = None,
        failures: tuple[Failure, ...] = (),
        origin: str = "recipe:x",
        **changes: object,
    ) -> Configured:
        plan = msgspec.structs.replace(self.plan(definitions or {}, origin), **changes)
        argv = configuring.command(plan, self._tools["cmake"], self._tools["ninja"], self.build)
        self.build.mkdir(exist_ok=True)
        env = process.clean_env(HOME=str(self.source))
        with placed(self.source, self.build, Isolation(), Silent()) as place:
            return configuring.configure(plan, failures, argv, self.build, env, place.enter)


@pytest.fixture
def bench(tools: dict[str, Path], tmp_path: Path) -> Bench:
    return Bench(tools, tmp_path)


def test_what_was_asked_is_in_force(bench: Bench) -> None:
    asked = {"TOY_FAST": "ON", "TOY_NAME": "a b$c'd", "TOY_DIR": "/x/", "TOY_NUMBER": "7"}
    found = bench.configure(asked)
    assert {n: found.cache[n].value.rstrip("/") for n in asked} == {
        n: v.rstrip("/") for n, v in asked.items()
    }
    assert found.cache["TOY_FAST"] == CacheEntry("TOY_FAST", "BOOL", "ON", "be fast")
    assert found.cache["TOY_NUMBER"].type == "UNINITIALIZED"
    assert {"toy-server", "other"} <= found.targets.keys()
    assert found.deprecated == ()
    assert "number 7" in (bench.build / "configure.log").read_text()


@pytest.mark.parametrize("value", ["on", "TRUE", "1", "yes"])
def test_a_boolean_has_many_spellings(bench: Bench, value: str) -> None:
    assert bench.configure({"TOY_FAST": value}).cache["TOY_FAST"].value == value


def test_a_definition_that_nobody_declares_is_an_error(bench: Bench) -> None:
    with pytest.raises(ConfigureError, match="does not declare or read TOY_FASST") as caught:
        bench.configure({"TOY_FASST": "ON"})
    assert caught.value.exit_code == 5
    assert "did you mean TOY_FAST?" in caught.value.remedy
    assert caught.value.where.startswith("-D TOY_FASST=ON (recipe:x)")


def test_cmakes_own_definitions_need_no_reader(bench: Bench) -> None:
    found = bench.configure({"CMAKE_CUDA_ARCHITECTURES": "121"}, origin="sparkbuild")
    assert found.cache["CMAKE_CUDA_ARCHITECTURES"].value == "121"


@pytest.mark.threat(
    "environment", "a source that overrides a value that was asked for", "an error (5) with both values"
)
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('set(TOY_NAME "mine" CACHE STRING "" FORCE)\n', "became 'mine'"),
        ("unset(TOY_NAME CACHE)\n", "is gone from the cache"),
    ],
)
def test_a_project_that_overrides_a_value_is_an_error(bench: Bench, line: str, found: str) -> None:
    with pytest.raises(ConfigureError, match=f"TOY_NAME was asked to be 'asked' and {found}"):
        bench.write(line).configure({"TOY_NAME": "asked"})


def test_a_forced_boolean_is_an_error(bench: Bench) -> None:
    with pytest.raises(ConfigureError, match="TOY_FAST was asked to be 'ON' and became 'OFF'"):
        bench.write('set(TOY_FAST OFF CACHE BOOL "" FORCE)\n').configure({"TOY_FAST": "ON"})


def test_a_failing_project_shows_cmakes_words(bench: Bench) -> None:
    with pytest.raises(ConfigureError, match="CMake failed with exit code 1") as caught:
        bench.write('message(STATUS "before")\nmessage(FATAL_ERROR "the moon is wrong")\n').configure()
    assert "the moon is wrong" in caught.value.output
    assert caught.value.output.startswith("CMake Error")
    assert caught.value.where == str(bench.build / "configure.log")
    assert "before" in (bench.build / "configure.log").read_text()


@pytest.mark.parametrize(("backend", "fails"), [("cuda", True), ("cpu", False)])
def test_a_line_that_means_failure_is_one(bench: Bench, backend: str, fails: bool) -> None:
    bench.write('message(WARNING "CUDA not found, going on")\n')
    if fails:
        with pytest.raises(
            ConfigureError, match=r"there would be no GPU.*CUDA not found, going on"
        ) as caught:
            bench.configure(failures=(_FAILURE,), backend=backend)
        assert caught.value.remedy == "install it"
    else:
        assert bench.configure(failures=(_FAILURE,), backend=backend).targets


def test_a_target_that_does_not_exist_is_an_error(bench: Bench) -> None:
    with pytest.raises(ConfigureError, match="no target 'toy-servr'") as caught:
        bench.configure(targets=("toy-servr",))
    assert caught.value.remedy.startswith("did you mean toy-server?")


def test_deprecations_are_collected_once(bench: Bench) -> None:
    line = 'message(WARNING "TOY_OLD is deprecated and will be removed, use TOY_FAST")\n'
    found = bench.write(line + line).configure()
    assert found.deprecated == ("TOY_OLD is deprecated and will be removed, use TOY_FAST",)


def test_a_folder_that_was_never_configured_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigureError, match="no readable file API reply"):
        configuring.read(tmp_path)


@pytest.fixture(scope="module")
def good(tools: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that CMake configured; read only."""
    bench = Bench(tools, tmp_path_factory.mktemp("good"))
    bench.configure()
    return bench.build


class TestHostileReply:
    """The project's own code runs before the reply is read, and may write another one."""

    def answer(self, bench: Bench) -> Path:
        bench.configure()
        return bench.build / ".cmake/api/v1/reply"

    def refused(self, bench: Bench) -> None:
        with pytest.raises(ConfigureError, match="file API reply"):
            configuring.read(bench.build)

    @pytest.mark.threat("sandbox", "CMake's reply names a JSON file elsewhere", "exit code 5, not read")
    @pytest.mark.parametrize("key", ["jsonFile", "json\\u0046ile"])
    @pytest.mark.parametrize("place", ["{build}/other.json", "../../../../other.json"])
    def test_a_file_elsewhere(self, key: str, place: str, bench: Bench) -> None:
        index = next(self.answer(bench).glob("index-*"))
        (cache,) = index.parent.glob("cache-v2-*")
        cache.rename(bench.build / "other.json")
        there = place.format(build=bench.build)
        index.write_text(index.read_text().replace(cache.name, there).replace("jsonFile", key))
        self.refused(bench)

    @pytest.mark.threat(
        "sandbox", "a link or pipe in place of CMake's reply", "exit code 5, nothing is waited for"
    )
    @pytest.mark.parametrize("what", ["link", "pipe", "folder", "linked folder"])
    def test_no_plain_file(self, what: str, bench: Bench, tmp_path: Path) -> None:
        reply = self.answer(bench)
        (cache,) = reply.glob("cache-v2-*")
        if what == "linked folder":
            reply.rename(tmp_path / "reply")
            reply.symlink_to(tmp_path / "reply")
        elif what == "link":
            cache.rename(tmp_path / "cache")
            cache.symlink_to(tmp_path / "cache")
        else:
            cache.unlink()
            os.mkfifo(cache) if what == "pipe" else cache.mkdir()
        self.refused(bench)

    @pytest.mark.threat("sandbox", "a reply that is no reply", "exit code 5")
    @pytest.mark.parametrize("part", ["index-", "cache-v2-", "codemodel-v2-", "target-toy-server-"])
    @pytest.mark.parametrize(
        "text",
        [
            *("", "{", "[]", "null", "1", '"x"', "{}", "\xff", "[" * 100_000, '{"reply": []}', "1" * 5000),
            '{"entries": [1], "artifacts": 1, "configurations": [], "name": {}, "jsonFile": null}',
            '{"entries": [{"properties": {}}], "configurations": [{"targets": 1}], "jsonFile": []}',
            '{"reply": {"cache-v2": {"jsonFile": "."}, "codemodel-v2": {"jsonFile": ".."}}}',
        ],
    )
    def test_nonsense(self, part: str, text: str, tmp_path: Path, good: Path) -> None:
        build = shutil.copytree(good, tmp_path / "build")
        for file in (build / ".cmake/api/v1/reply").glob(f"{part}*"):
            file.write_bytes(text.encode("latin-1"))
        try:
            configuring.read(build)
        except ConfigureError as problem:
            assert "file API reply" in problem.what  # noqa: PT017 - some of it may be read all the same


def test_a_definition_is_one_word_of_the_command(bench: Bench) -> None:
    plan = bench.plan({"A": "x y; $(id) \"'"})
    words = configuring.command(plan, Path("cmake"), Path("ninja"), Path("b"))
    assert words[-1] == "-DA=x y; $(id) \"'"
    assert words[:7] == ("cmake", "-S", str(SOURCE), "-B", "b", "-G", "Ninja")


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ("", ()),
        (
            "W:\n  Manually-specified variables were not used by the project:\n\n    A\n    B_C\n\n\n-- x",
            ("A", "B_C"),
        ),
        ("  Manually-specified variables were not used by the project:\n\n    A\n", ("A",)),
    ],
)
def test_unused(output: str, names: tuple[str, ...]) -> None:
    assert unused(output) == names


@pytest.mark.parametrize(
    ("kind", "value", "asked", "equal"),
    [
        ("BOOL", "ON", "on", True),
        ("BOOL", "ON", "1", True),
        ("BOOL", "OFF", "", True),
        ("BOOL", "OFF", "NO", True),
        ("BOOL", "ON", "OFF", False),
        ("BOOL", "ON", "native", False),
        ("BOOL", "maybe", "perhaps", False),
        ("STRING", "ON", "1", False),
        ("STRING", "a", "a", True),
        ("UNINITIALIZED", "ON", "TRUE", False),
        ("PATH", "/a/b", "/a/b/", True),
        ("FILEPATH", "/a//b", "/a/b", True),
        ("PATH", "/a/c", "/a/b", False),
    ],
)
def test_same(kind: str, value: str, asked: str, equal: bool) -> None:
    assert same(CacheEntry("x", kind, value), asked) == equal
