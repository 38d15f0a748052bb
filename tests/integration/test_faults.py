"""What goes wrong while a real build runs: the right exit code, the right words, nothing half made."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Built
from tests.integration.engine import HOST, Box, Done, Toy, Wrapped, argv, build_words
from tests.integration.gates import Gate, assert_all_free, at_the_gate, family, wait_for

_TOP, _GGML = "CMakeLists.txt", "ggml/CMakeLists.txt"
_POST = (
    "add_custom_command(TARGET llama-bench POST_BUILD "
    "COMMAND ${CMAKE_COMMAND} -E copy %s $<TARGET_FILE:llama-bench>)\n"
)
Change = Callable[[Toy], Toy]
_ARM = "list(APPEND arch_flags -march=${GGML_CPU_ARM_ARCH})"

# name: how the source is changed, further words, what the error says, its remedy
_CONFIGURE: dict[str, tuple[Change, tuple[str, ...], str, str]] = {
    "a value overridden": (
        lambda t: t.append(_GGML, 'set(GGML_NATIVE ON CACHE BOOL "" FORCE)\n'),
        (),
        "GGML_NATIVE was asked to be 'OFF' and became 'ON'",
        "overrides it",
    ),
    "a definition that CMake never reads": (
        lambda t: t,
        ("-D", "TOY_ONLY_ON_WINDOWS=1"),
        "does not declare or read TOY_ONLY_ON_WINDOWS",
        "must go",
    ),
    "CUDA not found": (
        lambda t: t.replace(_GGML, "find_package(CUDAToolkit)", "set(CUDAToolkit_FOUND FALSE)"),
        ("-D", "GGML_CUDA=ON"),
        "for the CPU only (CMake said: CUDA Toolkit not found)",
        "sparkbuild doctor",
    ),
    "native detection": (
        lambda t: t.replace(_GGML, "    if (GGML_NATIVE)\n        message", "    if (TRUE)\n        message"),
        (),
        "falls back to the compiler's native detection",
        "GGML_NATIVE off",
    ),
    "-march=native after the fix": (
        lambda t: t.append(_GGML, "target_compile_options(ggml PRIVATE -march=native)\n"),
        (),
        "-march=native wins over -march=armv8.2-a+dotprod+fp16",
        "overrides the toolchain's flag",
    ),
    "a plain -march after the fix, in one file": (
        lambda t: t.append(
            _GGML, 'set_source_files_properties(src/ggml-cpu.c PROPERTIES COMPILE_OPTIONS "-march=armv8-a")\n'
        ),
        (),
        "ggml-cpu.c: -march=armv8-a wins over",
        "overrides the toolchain's flag",
    ),
    "a -march that reaches nothing": (
        lambda t: t.replace(_GGML, _ARM, "message(STATUS nothing)"),
        (),
        "is on no compile command at all",
        "does not reach the compiler",
    ),
    "a target that is missing": (
        lambda t: t.replace(_TOP, "foreach (tool server bench)", "foreach (tool server)"),
        (),
        "no target 'llama-bench'",
        "mend the recipe's targets",
    ),
    "CMake's own failure": (
        lambda t: t.append(_TOP, 'message(FATAL_ERROR "the toy is broken")\n'),
        (),
        "CMake failed with exit code 1",
        "its own words",
    ),
}


@pytest.mark.parametrize("name", _CONFIGURE)
def test_configure(name: str, toy: Toy, box: Box) -> None:
    change, words, what, remedy = _CONFIGURE[name]
    done = box.build(change(toy).publish(), *words, "--json")
    error = done.error(5, "configure")
    assert what in error["what"]
    assert remedy in error["remedy"]
    assert error["where"]
    if name == "CMake's own failure":
        assert "the toy is broken" in error["output"]
        assert Path(error["where"]).read_text().count("the toy is broken") == 1
    assert box.steps() == []  # found before a compiler ran
    box.assert_nothing_stored()


_COMPILE: dict[str, tuple[Change, int, str, str, str]] = {
    "a link error": (
        lambda t: t.replace(
            "tools/tool.cpp", "llama_print_system_info(),", "llama_print_system_info() + lost(),"
        ).replace("tools/tool.cpp", "int main(", "extern int lost();\nint main("),
        6,
        "bin/llama-",
        "c++",
        "",
    ),
    "another build number": (
        lambda t: t.replace("common/build-info.cpp.in", "@LLAMA_BUILD_NUMBER@", "@LLAMA_BUILD_NUMBER@99"),
        6,
        "says build 299",
        "build",
        "build_number",
    ),
    "another commit": (
        lambda t: t.replace("common/build-info.cpp.in", "@LLAMA_BUILD_COMMIT@", "0bad@LLAMA_BUILD_COMMIT@"),
        6,
        "says build 2, commit 0bad",
        "build",
        "build_commit",
    ),
    "a tool that can not tell its version": (
        lambda t: t.replace("tools/tool.cpp", "return 0;\n    }", "return 3;\n    }"),
        6,
        "does not answer --version (exit code 3)",
        "build",
        "version_pattern",
    ),
    "a tool for another machine": (
        lambda t: t.append(_TOP, _POST % "/bin/true"),
        6,
        "llama-bench is for x86_64, not aarch64",
        "llama-bench",
        "toolchain",
    ),
    "a tool that is no program": (
        lambda t: t.append(_TOP, _POST % "${CMAKE_SOURCE_DIR}/CMakeLists.txt"),
        7,
        "not a readable ELF file",
        "llama-bench",
        "build",
    ),
    "a tool that looks elsewhere for its libraries": (
        lambda t: t.append(
            _TOP, "set_target_properties(llama-bench PROPERTIES INSTALL_RPATH /nonexistent)\n"
        ),
        6,
        "looks for libraries in /nonexistent",
        "llama-bench",
        "RPATH",
    ),
}


@pytest.mark.parametrize("name", _COMPILE)
def test_compile(name: str, toy: Toy, box: Box) -> None:
    if name == "a tool for another machine" and HOST != "x86_64":
        pytest.skip("needs a program that is not for aarch64")
    change, code, what, where, remedy = _COMPILE[name]
    done = box.build(change(toy).publish(), "--json")
    error = done.error(code, "binary" if code == 7 else "compile")
    assert what in error["what"]
    assert where in error["where"] or where.replace("c++", "g++") in error["where"]
    assert remedy in error["remedy"]
    box.assert_nothing_stored()


def test_compile_error_in_a_persons_words(toy: Toy, box: Box) -> None:
    """One file fails: its own output, its command, the log; then mended, the rest is not made again."""
    bad = "#error the toy does not compile\n"
    toy.append("ggml/src/ggml-quants.c", bad).append(
        "ggml/src/ggml.c", "#warning another file's words\n"
    ).publish()
    done = box.build(toy, "-j", "1")
    assert done.code == 6
    said, _, told = done.err.partition("sparkbuild: ")
    assert "#error the toy does not compile" in said
    assert "another file's words" not in done.err
    assert told.startswith("ggml/CMakeFiles/ggml.dir/src/ggml-quants.c.o could not be made\n")
    log = box.build_dirs[0] / "build.log"
    assert f"log: {log}" in told
    assert "-c " in told
    assert "remedy:" in told
    assert "#error the toy does not compile" in log.read_text()
    assert done.out == ""
    box.assert_nothing_stored()


@pytest.mark.threat(
    "faults",
    "a compiler that exits 0 and writes nothing",
    "exit 6 that says so; nothing stored",
)
def test_a_compiler_that_exits_0_and_writes_nothing(built: Built, box: Box, tmp_path: Path) -> None:
    env = Wrapped(tmp_path / "bin").when("*' -o bin/llama-bench '*", "exit 0")
    error = box.build(built.toy, "--json", env=env).error(6, "compile")
    assert error["what"] == "llama-bench was not made in the build folder although ninja reported success"
    assert "exits 0 and writes nothing" in error["remedy"]
    assert error["where"].endswith("bin/llama-bench")
    box.assert_nothing_stored()


_QUANTS = "*ggml-quants.c|*'ggml-quants.c '*"  # ccache adds words to a compile's


class TestMemory:
    """The kernel kills a compiler for want of memory."""

    @pytest.mark.threat(
        "faults",
        "a compiler killed for want of memory, once",
        "the build goes on with half the jobs and says so",
    )
    def test_once_goes_on_with_fewer_jobs(self, built: Built, box: Box, tmp_path: Path) -> None:
        kill_once = '[ -e "$mark" ] || { : > "$mark"; kill -9 $$; }'
        env = Wrapped(tmp_path / "bin").when(_QUANTS, kill_once)
        done = box.build(built.toy, env=env)
        assert done.code == 0, done.err
        assert "going on with 1 jobs instead of 2" in done.err
        assert len(box.artifacts()) == 1

    @pytest.mark.threat(
        "faults",
        "a compiler killed for want of memory, every time",
        "exit 6 that advises fewer --jobs; nothing stored",
    )
    def test_always_is_an_error(self, built: Built, box: Box, tmp_path: Path) -> None:
        env = Wrapped(tmp_path / "bin").when(_QUANTS, "kill -9 $$")
        error = box.build(built.toy, "--json", env=env).error(6, "compile")
        assert "killed, most likely for want of memory" in error["what"]
        assert "--jobs" in error["remedy"]
        box.assert_nothing_stored()


class TestDamage:
    """State files that were cut short."""

    @pytest.mark.threat(
        "faults",
        "a tool, then the manifest of a stored artifact cut short",
        "exit 8 that names the file and the folder to remove",
    )
    def test_store(self, built: Built, box: Box) -> None:
        shutil.copytree(built.box.home / "store", box.home / "store")
        (artifact,) = box.artifacts()
        tool, manifest = artifact / "bin" / "llama-bench", artifact / "manifest.json"
        os.truncate(tool, 100)
        error = box.build(built.toy, "--json").error(8, "store")
        assert "damaged: bin/llama-bench" in error["what"]
        assert str(artifact) in error["remedy"]
        os.truncate(manifest, 100)
        assert "not a valid manifest" in box.build(built.toy, "--json").error(8, "store")["what"]
        listed = box.run("list", "--json")
        assert listed.code == 8
        assert "not a valid manifest" in listed.out

    @pytest.mark.threat(
        "faults",
        "each file of a kept build folder and each memory of the cache cut in half, at once",
        "made anew; the build ends well",
    )
    def test_build_folder_and_memories(self, built: Built, box: Box) -> None:
        assert box.build(built.toy).code == 0
        (folder,) = box.build_dirs
        replies = (folder / ".cmake" / "api" / "v1" / "reply").glob("*.json")
        names = ("CMakeCache.txt", "build.ninja", ".ninja_log", ".ninja_deps", "compile_commands.json")
        memories = [
            *(box.home / "cache").glob("machine/*.json"),
            *(box.home / "cache").glob("timings/*.json"),
        ]
        records = (box.home / "cache").glob("src/*/*/source.json")
        for path in [*(folder / n for n in names), *replies, *memories, *records]:
            os.truncate(path, path.stat().st_size // 2)
        shutil.rmtree(box.artifacts()[0])
        assert box.build(built.toy, "--json").artifact()["fresh"] is True
        assert box.debris() == []


# --- a full or unwritable disk ---

_IN_A_NAMESPACE = """
mount -t tmpfs -o "$1" none "$2" || exit 77
shift 2
"$@"
code=$?
find "$SPARKBUILD_HOME/store" -type f ! -name '*.lock' >&2 2>/dev/null
exit $code
"""


@pytest.fixture
def mounts() -> None:
    """Skip where this user may not mount."""
    tried = subprocess.run(
        ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"may not mount: {tried.stderr.decode().strip()}")


def on_tmpfs(options: str, box: Box, toy: Toy) -> tuple[Done, list[str]]:
    """Build in a home on a tmpfs; return the run and the files that were then in its store."""
    box.home.mkdir(exist_ok=True)
    command = ["unshare", "-m", "sh", "-c", _IN_A_NAMESPACE, "sh", options, str(box.home)]
    ran = subprocess.run(
        [*command, *argv([*build_words(toy), "--json"])],
        env=box.env(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    stored = [line for line in ran.stderr.splitlines() if line.startswith(str(box.home / "store"))]
    return Done(ran.returncode, ran.stdout, ran.stderr), stored


@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize("size", ["4k", "16k", "64k", "256k", "512k", "800k", "900k"])
@pytest.mark.threat(
    "faults",
    "a disk of 4 to 900 KiB (tmpfs) that a build fills, at each of its stages",
    "exit 6 or 8 that says so and what to do; nothing stored",
)
def test_disk_full(size: str, built: Built, tmp_path: Path) -> None:
    done, stored = on_tmpfs(f"size={size}", Box(tmp_path / "home"), built.toy)
    assert done.code in (6, 8)
    error = done.error(done.code, {6: "compile", 8: "store"}[done.code])
    assert "space" in error["what"] or "disk is full" in error["what"]
    assert "space" in error["remedy"]
    assert error["where"]
    assert stored == []


@pytest.mark.usefixtures("mounts")
def test_disk_large_enough(built: Built, tmp_path: Path) -> None:
    """The sizes above are small for want of room alone."""
    done, stored = on_tmpfs("size=8m", Box(tmp_path / "home"), built.toy)
    assert done.artifact()["fresh"] is True
    assert len(stored) == 8  # three files, manifest and timeline; the store's index, its sum and lock


@pytest.mark.usefixtures("mounts")
@pytest.mark.threat(
    "faults",
    "a home that is read-only",
    "exit 8 that says so and what to do",
)
def test_read_only_home(built: Built, tmp_path: Path) -> None:
    done, stored = on_tmpfs("ro", Box(tmp_path / "home"), built.toy)
    error = done.error(8, "store")
    assert "Read-only file system" in error["what"]
    assert "SPARKBUILD_HOME" in error["remedy"]
    assert stored == []


@pytest.mark.threat(
    "faults",
    "a file where the home should be",
    "exit 8 that says so",
)
def test_home_below_a_file(built: Built, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = Box(tmp_path / "file" / "home").build(built.toy, "--json").error(8, "store")
    assert "Not a directory" in error["what"]


# --- signals ---


_SIGNALS = [
    pytest.param(signal.SIGINT, True, id="Ctrl-C: SIGINT to the group"),
    pytest.param(signal.SIGINT, False, id="SIGINT to the parent"),
    pytest.param(signal.SIGTERM, False, id="SIGTERM"),
    pytest.param(signal.SIGHUP, False, id="SIGHUP"),
    pytest.param(signal.SIGKILL, False, id="SIGKILL"),
]


@pytest.mark.parametrize(("number", "group"), _SIGNALS)
@pytest.mark.threat(
    "faults",
    "SIGINT to the group and alone, SIGTERM, SIGHUP, SIGKILL while compilers run",
    "no process left, every lock free, nothing stored; the next run makes only what is missing",
)
def test_signal_while_compiling(number: signal.Signals, group: bool, toy: Toy, box: Box, gate: Gate) -> None:
    toy.append("ggml/src/ggml-quants.c", f'#include "{gate.path}"\n').publish()
    words = [*build_words(toy), "--json"]
    run = box.start(*words)
    # Everything but the file at the gate and what needs it is made meanwhile.
    wait_for(lambda: at_the_gate(gate, box, "cc1") and len(box.steps()) == 7)
    (os.killpg if group else os.kill)(run.pid, number)
    out, err = run.communicate(timeout=30)
    if number is signal.SIGKILL:
        assert run.returncode == -signal.SIGKILL
    else:
        error = Done(run.returncode, out, err).error(130, "interrupted")
        assert "run the same command again" in error["remedy"]
        assert box.debris() == []
    assert_all_free(box)

    before = box.steps()
    gate.open()
    assert box.run(*words).artifact()["fresh"] is True
    made = Counter(box.steps())
    assert {o: made[o] for o in before} == dict.fromkeys(before, 1)
    assert made["ggml/CMakeFiles/ggml.dir/src/ggml-quants.c.o"] == 1
    assert box.debris() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.threat(
    "faults",
    "SIGINT, SIGKILL while CMake configures",
    "no process left, every lock free, nothing stored; the next run makes only what is missing",
)
def test_signal_while_configuring(number: signal.Signals, toy: Toy, box: Box, gate: Gate) -> None:
    toy.append("CMakeLists.txt", f'execute_process(COMMAND cat "{gate.path}")\n').publish()
    run = box.start(*build_words(toy))
    wait_for(lambda: any(words.startswith("cat ") for words in family(box).values()))
    os.kill(run.pid, number)
    _, err = run.communicate(timeout=30)
    assert run.returncode == (130 if number is signal.SIGINT else -number)
    assert "Traceback" not in err
    if number is signal.SIGKILL:
        gate.open()  # CMake is ended by the kernel, what CMake started ends by itself
    assert_all_free(box)
    gate.open()
    assert box.build(toy, "--json").artifact()["fresh"] is True


@pytest.mark.threat(
    "faults",
    "SIGINT while a compiler ignores SIGTERM, SIGINT and SIGHUP",
    "it is killed after five seconds; no process left, every lock free",
)
def test_a_compiler_that_does_not_listen(built: Built, box: Box, tmp_path: Path) -> None:
    """SIGTERM is not enough for it; neither ninja nor the compiler may outlive the interrupt."""
    deaf = "trap '' TERM INT HUP; : > \"$mark\"; while :; do sleep 1; done"
    wrapped = Wrapped(tmp_path / "bin")
    box = Box(box.home, wrapped.when(_QUANTS, deaf))
    run = box.start(*build_words(built.toy))
    try:
        wait_for(wrapped.mark.exists)
        os.kill(run.pid, signal.SIGINT)
        run.communicate(timeout=30)
        assert run.returncode == 130
        assert_all_free(box)
    finally:
        for pid in family(box):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
