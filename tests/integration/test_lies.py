"""Each way in which a flag is asked for and not in force, made for real and found by name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.build.tools import find_tools
from tests.integration.conftest import Built, seeded, with_cuda
from tests.integration.engine import HOST, Box, Done, Toy

_MARCH = "armv8.2-a+dotprod+fp16"
_ARM, _CUDA_ARCH = f"GGML_CPU_ARM_ARCH={_MARCH}", "CMAKE_CUDA_ARCHITECTURES=121"
_GOOD = ("-DGGML_NATIVE=OFF", f"-D{_ARM}")
_GGML = "ggml/CMakeLists.txt"
_CPU = "ggml/src/ggml-cpu.c"
_FOUND = "if (CUDAToolkit_FOUND)"
_NATIVE_SAID = 'message(STATUS "GGML_NATIVE is on, -mcpu=native will be used")'


@dataclass(frozen=True)
class Said:
    """What ``verify-flags --json`` said: the flags' journeys by NAME=VALUE, and what is not known."""

    code: int
    flags: dict[str, dict[str, Any]]
    notes: list[str]

    @classmethod
    def of(cls, done: Done) -> Said:
        assert done.code in (0, 1), done.out + done.err
        (build,) = json.loads(done.out)["builds"]
        return cls(done.code, {f"{f['flag']}={f['asked']}": f for f in build["flags"]}, build["notes"])

    def at(self, flag: str, stage: str) -> str:
        """Return a flag's state at a stage and what was said there."""
        (found,) = [s for s in self.flags[flag]["stages"] if s["name"] == stage]
        return f"{found['state']}: {found['said']}"

    def verdict(self, flag: str) -> str:
        return str(self.flags[flag]["verdict"])


@dataclass(frozen=True)
class Hand:
    """A person at the command line, with plain CMake: ``own`` are the words that choose the compilers."""

    box: Box
    toy: Toy
    folder: Path
    own: tuple[str, ...]
    backend: str = "cpu"

    def configure(
        self, *words: str, generator: str = "Ninja", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run CMake; what it says is in the answer."""
        tools = find_tools()
        made = [f"-DCMAKE_MAKE_PROGRAM={tools.ninja}"] if generator == "Ninja" else []
        place = ["-S", str(self.toy.source), "-B", str(self.folder), "-G", generator]
        return subprocess.run(
            [str(tools.cmake), *place, *made, *self.own, *words],
            env=self.box.env(env),
            check=True,
            capture_output=True,
            text=True,
        )

    def make(self) -> Hand:
        """Build it."""
        argv = [str(find_tools().cmake), "--build", str(self.folder), "-j", "2"]
        done = subprocess.run(argv, env=self.box.env(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return self

    def words(self, *more: str) -> list[str | Path]:
        """Return the words that verify the folder."""
        place: list[str | Path] = ["--build-dir", self.folder, "--catalog", self.toy.catalog]
        return ["verify-flags", self.toy.name, "--backend", self.backend, *place, *more]

    def verify(self, env: Mapping[str, str] | None = None) -> Said:
        """Return what sparkbuild says of the folder."""
        return Said.of(self.box.run(*self.words("--json"), env=env))

    def library(self) -> Path:
        """Return the library with the CPU backend."""
        return self.folder / "bin" / "libggml.so.0.9.1"


def assert_lost(said: Said, flag: str, stage: str, words: str) -> None:
    """Check that a flag (NAME=VALUE) is lost at a stage and not before, why, and the exit code."""
    journey = said.flags[flag]
    assert (journey["verdict"], journey["lost_at"]) == ("lost", stage), journey
    assert words in said.at(flag, stage)
    assert said.code == 1


def refuse(box: Box, toy: Toy, *words: str, codes: tuple[int, ...] = (1, 5)) -> dict[str, str]:
    """Build with sparkbuild, which must refuse and store nothing; return its error."""
    done = box.build(toy, *words, "--json")
    assert done.code in codes, done.out + done.err
    error: dict[str, str] = json.loads(done.out)["error"]
    box.assert_nothing_stored()
    return error


@pytest.fixture
def hand(built: Built, box: Box, toy: Toy, tmp_path: Path) -> Hand:
    """Return a person who wants the toy for gb10's CPU; the toy is not published yet."""
    command = built.done.artifact()["manifest"]["build"]["configure"]
    own = tuple(w for w in command if w.startswith("-DCMAKE_") and "MAKE_PROGRAM" not in w)
    return Hand(box, toy, tmp_path / "by hand", own)


@pytest.fixture
def cuda(built: Built, toy: Toy, tmp_path: Path) -> Hand:
    """Return a person who wants the toy for gb10 with CUDA."""
    box, _ = with_cuda(built, tmp_path / "home", "gb10")
    plan = box.plan(built.toy, "--backend", "cuda", "--offline")
    names = {d["name"]: d["value"] for d in plan["definitions"] if re.match("CMAKE_|CUDAToolkit_", d["name"])}
    own = (*(f"-D{n}={v}" for n, v in names.items()), *_GOOD, "-DGGML_CUDA=ON")
    return Hand(box, toy, tmp_path / "by-hand", own, "cuda")


_CUDA = ("--backend", "cuda", "--offline")


class TestNative:
    """GGML_NATIVE stays on."""

    def test_left_on_by_hand(self, hand: Hand) -> None:
        hand.toy.publish()
        hand.configure(f"-DGGML_CPU_ARM_ARCH={_MARCH}")
        said = hand.verify()
        assert_lost(said, "GGML_NATIVE=OFF", "cache", "ON in the cache")
        assert ": -mcpu=native" in said.at("GGML_NATIVE=OFF", "commands")
        assert_lost(said, _ARM, "commands", "native wins on ")

    def test_in_a_persons_words(self, hand: Hand) -> None:
        hand.toy.publish()
        hand.configure(f"-D{_ARM}")
        done = hand.box.run(*hand.words(), env={"COLUMNS": "200"})
        assert done.code == 1
        line = "GGML_NATIVE=OFF: lost at cache: ON in the cache"
        assert line in done.out.splitlines()
        assert "2 required flags are not in force" in done.err
        assert "not known: binary: no ELF executable or library here" in done.out

    def test_forced_on_by_the_source(self, hand: Hand) -> None:
        forced = 'set(GGML_NATIVE ON CACHE BOOL "ggml: always" FORCE)\n'
        hand.toy.replace(_GGML, "add_library(ggml ", f"{forced}add_library(ggml ").publish()
        hand.configure(*_GOOD)
        assert_lost(hand.verify(), "GGML_NATIVE=OFF", "cache", "ON in the cache")
        assert "-mcpu=native will be used" in refuse(hand.box, hand.toy)["what"]

    def test_forced_on_behind_the_cache(self, hand: Hand) -> None:
        """A variable hides the cache's entry of the same name, and nothing is said about it."""
        hand.toy.replace(_GGML, "add_library(ggml ", "set(GGML_NATIVE ON)\nadd_library(ggml ")
        hand.toy.replace(_GGML, _NATIVE_SAID, "").publish()
        hand.configure(*_GOOD)
        said = hand.verify()
        assert_lost(said, "GGML_NATIVE=OFF", "commands", ": -mcpu=native")
        assert_lost(said, _ARM, "commands", "native wins on ")
        assert "-march=native wins over" in refuse(hand.box, hand.toy)["what"]


class TestRenamed:
    """GGML_CUDA_FA_ALL_QUANTS is GGML_CUDA_FA_QUANTS now."""

    def test_old_name_that_still_holds(self, cuda: Hand) -> None:
        cuda.toy.publish()
        assert "is deprecated" in cuda.configure("-DGGML_CUDA_FA_ALL_QUANTS=ON").stderr
        said = cuda.make().verify()
        assert said.code == 0
        assert {f["verdict"] for f in said.flags.values()} == {"in force"}
        quants = "GGML_CUDA_FA_QUANTS=all"
        assert said.at(quants, "cache") == "held: by its other name, GGML_CUDA_FA_ALL_QUANTS=ON"
        assert said.at(quants, "binary") == "held: fa_all_quants present"

    def test_old_name_that_is_dead(self, cuda: Hand) -> None:
        text = (cuda.toy.source / _GGML).read_text()
        alias = text[text.index("if (GGML_CUDA_FA_ALL_QUANTS)") : text.index("if (GGML_CCACHE)")]
        option = next(x for x in text.splitlines() if x.startswith("option(GGML_CUDA_FA_ALL_QUANTS"))
        cuda.toy.replace(_GGML, alias, "").replace(_GGML, option, "").publish()
        cuda.configure("-DGGML_CUDA_FA_ALL_QUANTS=ON")
        said = cuda.make().verify()
        assert_lost(said, "GGML_CUDA_FA_QUANTS=all", "cache", "default in the cache")
        assert_lost(said, "GGML_CUDA_FA_ALL_QUANTS=ON", "declared", "neither declares nor reads it")
        assert "3 of 36 pairs" in said.at("GGML_CUDA_FA_QUANTS=all", "binary")
        error = refuse(cuda.box, cuda.toy, *_CUDA, "-D", "GGML_CUDA_FA_ALL_QUANTS=ON", codes=(2,))
        assert "did you mean GGML_CUDA_FA_QUANTS? " in error["remedy"]

    def test_new_name_that_changes_nothing(self, cuda: Hand) -> None:
        """All is right up to the commands, and the kernels are not there."""
        cuda.toy.replace(_GGML, 'GGML_CUDA_FA_QUANTS STREQUAL "all"', "FALSE").publish()
        cuda.configure("-DGGML_CUDA_FA_QUANTS=all")
        said = "fa_all_quants is absent: 3 of 36 pairs of f16, q4_0, q4_1, q5_0, q5_1, q8_0 at head size 128"
        assert_lost(cuda.make().verify(), "GGML_CUDA_FA_QUANTS=all", "binary", said)
        error = refuse(cuda.box, cuda.toy, *_CUDA, codes=(1,))
        assert "the build is not stored" in error["what"]
        assert f"GGML_CUDA_FA_QUANTS=all: lost at binary: {said}" in error["output"]


class TestDead:
    """A definition that nobody reads."""

    def test_by_hand(self, hand: Hand) -> None:
        hand.toy.publish()
        hand.configure(*_GOOD, "-DLLAMA_CUBLAS=ON", "-DLLAMA_BUILD_NUMBER=7")
        said = hand.make().verify()
        assert_lost(said, "LLAMA_CUBLAS=ON", "declared", "this source neither declares nor reads it")
        assert said.at("LLAMA_BUILD_NUMBER=7", "declared") == "held: read, not declared"
        assert said.verdict("LLAMA_BUILD_NUMBER=7") == "set"
        assert not said.flags["LLAMA_BUILD_NUMBER=7"]["required"]
        assert said.verdict(_ARM) == "in force"
        error = refuse(hand.box, hand.toy, "-D", "LLAMA_CUBLAS=ON", codes=(2,))
        assert "does not declare LLAMA_CUBLAS" in error["what"]

    def test_declared_where_cmake_does_not_come(self, hand: Hand) -> None:
        other = 'if (WIN32)\n    option(GGML_TURBO "ggml: faster" OFF)\nendif()\n'
        hand.toy.append(_GGML, other).publish()
        hand.configure(*_GOOD, "-DGGML_TURBO=ON")
        assert_lost(hand.verify(), "GGML_TURBO=ON", "cache", "CMake met no declaration of it")
        error = refuse(hand.box, hand.toy, "-D", "GGML_TURBO=ON")
        assert "does not declare or read GGML_TURBO" in error["what"]


_OVERRIDES: dict[str, tuple[str, str]] = {
    "on one file": (
        "set_source_files_properties(src/ggml-cpu.c PROPERTIES COMPILE_OPTIONS -march=armv8-a)\n",
        "armv8-a wins on ggml-cpu.c, of ",
    ),
    "on all files": (
        "target_compile_options(ggml PRIVATE -march=armv8-a)\n",
        "armv8-a wins on ggml.c, ggml-cpu.c, ggml-quants.c and 1 more, of ",
    ),
}


class TestOverridden:
    """A later -march wins."""

    @pytest.mark.parametrize("where", _OVERRIDES)
    def test_by_the_source(self, where: str, hand: Hand) -> None:
        change, words = _OVERRIDES[where]
        hand.toy.append(_GGML, change).publish()
        hand.configure(*_GOOD)
        said = hand.make().verify()
        assert_lost(said, _ARM, "commands", words)
        assert said.at(_ARM, "binary").startswith("lost: dotprod is absent: looked for in bin/libggml.so")
        if shutil.which("qemu-aarch64") or HOST == "aarch64":
            assert said.at(_ARM, "run time") == "lost: it reports dotprod, fp16 as absent"
        error = refuse(hand.box, hand.toy)
        assert f"-march=armv8-a wins over -march={_MARCH}" in error["what"]

    def test_for_all_files_by_hand(self, hand: Hand) -> None:
        """What CMAKE_C_FLAGS says stands before the engine's own flag, and wins where that is not."""
        hand.toy.publish()
        hand.configure(*_GOOD, "-DCMAKE_C_FLAGS=-march=armv8-a", "-DCMAKE_CXX_FLAGS=-march=armv8-a")
        said = hand.make().verify()
        assert_lost(said, _ARM, "commands", "armv8-a wins on ")
        assert "ggml-cpu.c" not in said.at(_ARM, "commands")
        assert said.at(_ARM, "binary").startswith("held: ")

    def test_by_the_code_itself(self, hand: Hand) -> None:
        """No command shows it: only the instructions do."""
        pragma = '#pragma GCC target("arch=armv8-a")\n'
        path = hand.toy.source / _CPU
        path.write_text(pragma + path.read_text())
        hand.toy.publish()
        error = refuse(hand.box, hand.toy, codes=(1,))
        assert error["output"].startswith(f"{_ARM}: lost at binary: dotprod is absent: ")
        assert error["remedy"].startswith("see 'sparkbuild verify-flags --build-dir'")
        (folder,) = hand.box.build_dirs
        said = Hand(hand.box, hand.toy, folder, ()).verify()
        assert_lost(said, _ARM, "binary", "dotprod is absent")

    def test_for_nvccs_host_compiler(self, cuda: Hand) -> None:
        option = "target_compile_options(ggml-cuda PRIVATE -Xcompiler=-march=armv8-a)\n        "
        cuda.toy.replace(
            _GGML, "target_include_directories(ggml-cuda", f"{option}target_include_directories(ggml-cuda"
        )
        cuda.toy.publish()
        cuda.configure("-DGGML_CUDA_FA_QUANTS=all")
        assert_lost(cuda.verify(), _ARM, "commands", "armv8-a wins on ggml-cuda.cu")
        error = refuse(cuda.box, cuda.toy, *_CUDA)
        assert f"-march=armv8-a wins over -march={_MARCH}" in error["what"]


class TestEnvironment:
    """CMake does not look there."""

    def test_cpu(self, hand: Hand) -> None:
        env = {"GGML_NATIVE": "OFF", "GGML_CPU_ARM_ARCH": _MARCH}
        hand.toy.publish()
        hand.configure(env=env)
        said = hand.verify(env)
        words = "ON in the cache; it is set to 'OFF' in the environment, where CMake does not look"
        assert_lost(said, "GGML_NATIVE=OFF", "cache", words)
        words = f"empty in the cache; it is set to '{_MARCH}' in the environment, where CMake does not look"
        assert_lost(said, _ARM, "cache", words)
        assert_lost(hand.verify(), _ARM, "cache", "empty in the cache")

    def test_another_name_of_the_same(self, hand: Hand) -> None:
        """As the issue that this comes from had it: the older name, in the environment."""
        env = {"GGML_CUDA_FA_ALL_QUANTS": "1"}
        hand.toy.publish()
        hand.configure(*_GOOD, "-DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON", "-DGGML_CUDA=ON", env=env)
        said = Hand(hand.box, hand.toy, hand.folder, (), "cuda").verify(env)
        words = "default in the cache; GGML_CUDA_FA_ALL_QUANTS is set to '1' in the environment, where CMake"
        assert_lost(said, "GGML_CUDA_FA_QUANTS=all", "cache", words)

    def test_sparkbuild_takes_nothing_from_it(self, built: Built, box: Box) -> None:
        env = {"GGML_NATIVE": "ON", "GGML_CPU_ARM_ARCH": "armv8-a", "LLAMA_CUBLAS": "ON"}
        done = box.build(built.toy, "--json", env=env)
        manifest = done.artifact()["manifest"]
        assert "! GGML_NATIVE is set in the environment, where CMake does not look" in done.err
        assert manifest["key"] == built.done.artifact()["manifest"]["key"]
        assert {f["verdict"] for f in manifest["flags"]} == {"in force", "set"}


class TestCudaOff:
    """CUDA is asked for, not found, and the build goes on without."""

    def test_by_hand(self, hand: Hand) -> None:
        hand.toy.publish()
        done = hand.configure(*_GOOD, "-DGGML_CUDA=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON")
        assert "CUDA Toolkit not found" in done.stderr
        person = Hand(hand.box, hand.toy, hand.folder, (), "cuda")
        said = person.make().verify()
        assert_lost(said, "GGML_CUDA=ON", "commands", "0 CUDA sources are compiled")
        assert_lost(said, _CUDA_ARCH, "cache", "not in the cache")
        assert said.at("GGML_CUDA=ON", "cache") == "held: ON"
        assert said.at("GGML_CUDA=ON", "binary").startswith("lost: cuda is absent: looked for in ")

    def test_sparkbuild_refuses(self, cuda: Hand) -> None:
        cuda.toy.replace(_GGML, _FOUND, f"set(CUDAToolkit_FOUND FALSE)\n    {_FOUND}").publish()
        assert "the build would be for the CPU only" in refuse(cuda.box, cuda.toy, *_CUDA)["what"]


class TestOtherGpu:
    """121 is asked for and another GPU's code comes out."""

    def test_by_the_source(self, cuda: Hand) -> None:
        cuda.toy.append(
            _GGML, "set_target_properties(ggml-cuda PROPERTIES CUDA_ARCHITECTURES 90)\n"
        ).publish()
        cuda.configure("-DGGML_CUDA_FA_QUANTS=all")
        said = cuda.make().verify()
        assert_lost(said, _CUDA_ARCH, "commands", "90 on ggml-cuda.cu, fattn-vec.cu, ")
        assert said.at(_CUDA_ARCH, "binary") == "lost: compute_90, sm_90"
        assert "compiled for ['90'], not 121" in refuse(cuda.box, cuda.toy, *_CUDA)["what"]

    def test_by_a_flag(self, cuda: Hand) -> None:
        """What -gencode adds is compiled too: a second GPU's code in every file."""
        cuda.toy.publish()
        flag = "-gencode=arch=compute_90,code=sm_90"
        cuda.configure("-DGGML_CUDA_FA_QUANTS=all", f"-DCMAKE_CUDA_FLAGS={flag}")
        said = cuda.make().verify()
        assert_lost(said, _CUDA_ARCH, "commands", "121, 90 on ggml-cuda.cu, ")
        assert said.at(_CUDA_ARCH, "binary").startswith("lost: compute_121, sm_121, sm_90")
        error = refuse(cuda.box, cuda.toy, *_CUDA, "-D", f"CMAKE_CUDA_FLAGS={flag}")
        assert "compiled for ['121', '90'], not 121" in error["what"]


def _rebuilt(path: Path) -> None:
    """Append to a library, which goes on to work."""
    path.write_bytes(path.read_bytes() + b"\0" * 16)


def _same_size(path: Path) -> None:
    data = path.read_bytes()
    assert b"DOTPROD = 1" in data
    path.write_bytes(data.replace(b"DOTPROD = 1", b"DOTPROD = 0"))


@pytest.mark.parametrize("change", [_rebuilt, _same_size])
class TestReplaced:
    """A library is another one than was built."""

    def test_in_the_store(self, change: Callable[[Path], None], built: Built, tmp_path: Path) -> None:
        box = seeded(built, tmp_path / "home")
        shutil.copytree(built.box.home / "store", box.home / "store")
        words = ("verify-flags", "toy", "--catalog", built.toy.catalog)
        assert box.run(*words).code == 0
        (artifact,) = box.artifacts()
        change(artifact / "bin" / "libggml.so.0")
        said = Said.of(box.run(*words, "--json"))
        assert_lost(said, _ARM, "binary", "not the file that was built: bin/libggml.so.0")

    def test_in_a_build_folder(self, change: Callable[[Path], None], hand: Hand) -> None:
        hand.toy.publish()
        hand.configure(*_GOOD)
        assert hand.make().verify().code == 0
        before = hand.library().stat()
        change(hand.library())
        for when in (time.time() + 60, before.st_mtime - 3600):  # by a later file, by one from elsewhere
            os.utime(hand.library(), (when, when))
            assert_lost(hand.verify(), _ARM, "binary", "not the file that was built: bin/libggml.so.0.9.1")


_with_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


class TestFolders:
    """What a folder can not show is said."""

    @_with_make
    def test_makefiles(self, hand: Hand) -> None:
        hand.toy.publish()
        hand.configure(*_GOOD, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", generator="Unix Makefiles")
        said = hand.make().verify()
        assert said.code == 0
        assert said.at(_ARM, "commands") == "held: the last on 4, no other on 4"
        assert said.verdict(_ARM) == "in force"
        note = "changed: whether a file was replaced after the build: only ninja's log could tell"
        assert note in said.notes

    @_with_make
    def test_no_compile_commands(self, hand: Hand) -> None:
        hand.toy.publish()
        hand.configure(*_GOOD, "-DCMAKE_EXPORT_COMPILE_COMMANDS=OFF", generator="Unix Makefiles")
        said = hand.make().verify()
        words = "there are no compile commands to read; configure with -G Ninja"
        assert words in said.at("GGML_NATIVE=OFF", "commands")
        assert said.verdict("GGML_NATIVE=OFF") == "unknown"
        assert said.code == 1
        assert said.verdict(_ARM) == "in force"  # the instructions show it
        assert any(words in note for note in said.notes)

    def test_source_is_gone(self, hand: Hand) -> None:
        hand.toy.publish()
        hand.configure(*_GOOD, "-DLLAMA_CUBLAS=ON")
        hand.make()
        hand.toy.source.rename(hand.toy.source.with_name("moved"))
        said = hand.verify()
        assert f"declared: its source {hand.toy.source} is not here" in said.notes
        assert said.verdict(_ARM) == "in force"
        assert said.verdict("LLAMA_CUBLAS=ON") == "unknown"
        assert said.code == 1

    def test_not_built(self, hand: Hand) -> None:
        hand.toy.publish()
        hand.configure(*_GOOD)
        said = hand.verify()
        assert "binary: no ELF executable or library here" in said.notes
        assert said.at(_ARM, "binary").startswith("unknown: no ELF")
        assert (said.verdict(_ARM), said.code) == ("in force", 0)  # the commands show it

    def test_cmake_stopped(self, hand: Hand) -> None:
        hand.toy.append("CMakeLists.txt", 'message(FATAL_ERROR "the toy is broken")\n').publish()
        with pytest.raises(subprocess.CalledProcessError):
            hand.configure(*_GOOD)
        error = hand.box.run(*hand.words("--json")).error(2, "usage")
        assert "CMake did not finish configuring this folder" in error["what"]

    def test_cmake_was_never_here(self, hand: Hand) -> None:
        hand.toy.publish()
        error = hand.box.run(*hand.words("--json")).error(2, "usage")
        assert error["what"] == "not a folder that CMake configured"

    def test_engine_is_guessed(self, hand: Hand) -> None:
        """By what its source declares; here by a recipe of a catalogue that has no other."""
        hand.toy.publish()
        hand.configure(*_GOOD)
        words = [w for w in hand.words("--json") if w != hand.toy.name]
        (build,) = hand.box.run(*words).document()["builds"]
        assert build["name"] == f"{hand.folder} (taken for {hand.toy.name})"
