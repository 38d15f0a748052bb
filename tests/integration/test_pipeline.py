"""From a recipe to an artifact in the store, with real git, compilers, CMake and ninja."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import sparkbuild.artifact
from sparkbuild.inspection.elf import read_elf
from tests.integration.conftest import Built, seeded
from tests.integration.engine import (
    BUILD_NUMBER,
    COMMIT_TIME,
    EMULATED,
    HOST,
    Box,
    Toy,
    build_words,
    definitions,
    file_hashes,
    request_words,
)

_FILES = {"bin/llama-server", "bin/llama-bench", "bin/libllama.so", "bin/libggml.so.0"}
_SCHEMA = json.loads(Path(sparkbuild.artifact.__file__).with_name("manifest-2.schema.json").read_bytes())


def manifest_of(artifact: dict[str, Any]) -> dict[str, Any]:
    """Return an artifact's manifest, which is valid and the same in the store."""
    manifest: dict[str, Any] = artifact["manifest"]
    jsonschema.validate(manifest, _SCHEMA)
    assert json.loads((Path(artifact["path"]) / "manifest.json").read_bytes()) == manifest
    return manifest


def assert_sound(artifact: dict[str, Any], machine: str) -> None:
    """Check the files of an artifact against its manifest, with readelf's eyes where it is there."""
    folder, manifest = Path(artifact["path"]), manifest_of(artifact)
    assert {f["path"] for f in manifest["files"]} == _FILES
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert there - {"reproduction.json"} == _FILES | {"manifest.json", "timeline.json"}  # another test's
    for row in manifest["files"]:
        path = folder / row["path"]
        facts = read_elf(path)
        assert (facts.machine, row["machine"]) == (machine, machine)
        assert (facts.runpath, row["runpath"]) == ("$ORIGIN", "$ORIGIN")
        assert path.stat().st_size == row["size"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert not path.is_symlink()
    server = next(f for f in manifest["files"] if f["path"] == "bin/llama-server")
    assert server["role"] == "server"
    assert {"libllama.so", "libggml.so.0"} >= set(server["needed"]) - set(server["external"])


class TestCross:
    """gb10 from any machine."""

    def test_artifact(self, built: Built) -> None:
        artifact = built.done.artifact()
        assert artifact["fresh"] is True
        assert_sound(artifact, "aarch64")
        assert built.box.debris() == []

    def test_version_is_what_the_source_says(self, built: Built) -> None:
        version = manifest_of(built.done.artifact())["version"]
        assert version["ran"] == EMULATED
        assert version["number"] == BUILD_NUMBER
        assert version["commit"] == built.toy.commit[:9]
        assert version["output"] == f"version: {BUILD_NUMBER} ({built.toy.commit[:9]})"

    def test_tool_runs_from_the_store(self, built: Built) -> None:
        tool = Path(built.done.artifact()["path"]) / "bin" / "llama-server"
        start = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"] if EMULATED == "qemu" else []
        if start and not shutil.which(start[0]):
            pytest.skip("qemu-aarch64 is not installed")
        said = subprocess.run([*start, tool], capture_output=True, text=True, check=True, env={}).stdout
        assert "CPU : NEON = 1 | FP16_VA = 1 | DOTPROD = 1 | " in said

    def test_manifest_says_what_was_asked_and_what_holds(self, built: Built) -> None:
        manifest = manifest_of(built.done.artifact())
        found = definitions(manifest)
        assert found["GGML_NATIVE"] == "OFF"
        assert found["GGML_CPU_ARM_ARCH"] == "armv8.2-a+dotprod+fp16"
        assert found["GGML_CCACHE"] == "OFF"
        assert found["LLAMA_BUILD_NUMBER"] == str(BUILD_NUMBER)
        types = {d["name"]: d["type"] for d in manifest["definitions"]}
        assert types["LLAMA_BUILD_NUMBER"] == "UNINITIALIZED"
        assert types["GGML_CPU_ARM_ARCH"] == "STRING"
        skipped = {s["intent"]: s["reason"] for s in manifest["skipped"]}
        assert "does not declare LLAMA_LLGUIDANCE" in skipped["llguidance_off"]
        assert "not for the cpu backend" in skipped["fa_all_quants"]
        assert manifest["build"]["compile_commands"]["march"]["armv8.2-a+dotprod+fp16"] == 4
        assert manifest["build"]["deprecated"] == []
        assert manifest["source"]["commit"] == built.toy.commit
        assert manifest["source"]["commit_time"] == COMMIT_TIME

    def test_second_run_answers_from_the_store(self, built: Built) -> None:
        log = built.box.build_dirs[0] / "build.log"
        before, steps = log.stat().st_mtime_ns, built.box.steps()
        again = built.box.build(built.toy)
        assert again.code == 0, again.err
        assert "already in the store" in again.out
        assert "configure" not in again.err
        assert log.stat().st_mtime_ns == before
        assert built.box.steps() == steps
        artifact = built.box.build(built.toy, "--json", "--offline").artifact()
        assert artifact["fresh"] is False
        assert artifact["manifest"] == built.done.artifact()["manifest"]

    def test_another_checkout_and_home_give_the_same_key(self, built: Built, box: Box, toy: Toy) -> None:
        assert box.plan(toy.publish())["key"] == built.done.artifact()["manifest"]["key"]

    def test_rebuild_makes_everything_again_and_the_same(self, built: Built, box: Box) -> None:
        first = box.build(built.toy, "--json").artifact()
        (box.build_dirs[0] / "bin" / "llama-bench").write_bytes(b"damaged later than all else")
        again = box.build(built.toy, "--json", "--rebuild").artifact()
        assert again["fresh"] is True
        assert again["manifest"]["build"]["started"] > first["manifest"]["build"]["started"]
        assert file_hashes(again["manifest"]) == file_hashes(first["manifest"])
        assert len(box.artifacts()) == 1
        assert box.debris() == []


class TestHost:
    """This machine, for itself."""

    def test_native_build(self, built: Built, tmp_path: Path) -> None:
        box = Box(tmp_path / "home")
        artifact = box.build(built.toy, "--arch", "host", "--json").artifact()
        assert_sound(artifact, HOST)
        manifest = manifest_of(artifact)
        assert manifest["version"]["ran"] == "native"
        assert manifest["version"]["number"] == BUILD_NUMBER
        assert definitions(manifest)["GGML_NATIVE"] == "ON"
        assert "GGML_CPU_ARM_ARCH" not in definitions(manifest)
        assert manifest["key"] != built.done.artifact()["manifest"]["key"]


class TestSources:
    """How the source comes."""

    def test_git_with_a_patch(self, built: Built, box: Box, toy: Toy) -> None:
        toy.publish()
        patch = toy.catalog / "patches" / toy.name / "0001-number.patch"
        patch.parent.mkdir(parents=True)
        patch.write_text(
            "Why: a test.\n\n"
            "--- a/ggml/src/ggml-quants.c\n+++ b/ggml/src/ggml-quants.c\n@@ -1,3 +1,4 @@\n"
            ' #include "ggml.h"\n \n+int toy_patched(void) { return 1; }\n'
            " int toy_quantize(float value, float scale) { return (int) (value / scale + 0.5f); }\n"
        )
        url = toy.source.as_uri()
        allow = {"SPARKBUILD_ALLOW_FILE_GIT": "1"}
        manifest = box.build(toy, "--source", url, "--json", env=allow).artifact()["manifest"]
        assert manifest["source"]["way"] == "git"
        assert manifest["source"]["commit"] == toy.commit
        assert [p["name"] for p in manifest["source"]["patches"]] == ["0001-number.patch"]
        assert manifest["source"]["patched_tree"] != manifest["source"]["tree"]
        assert manifest["key"] != built.done.artifact()["manifest"]["key"]
        assert box.debris() == []

    def test_folder_without_git_has_no_number_and_says_so(self, box: Box, toy: Toy) -> None:
        toy.publish()
        shutil.rmtree(toy.source / ".git")
        manifest = box.build(toy, "--json").artifact()["manifest"]
        assert manifest["source"]["commit"] == ""
        assert manifest["source"]["build_number"] == 0
        assert manifest["version"]["output"] == "version: 0 (unknown)"


class TestNewEngine:
    """An engine is a file."""

    @pytest.mark.parametrize("way", ["config", "SPARKBUILD_CATALOG"])
    def test_recipe_in_a_users_own_folder(self, way: str, box: Box, tmp_path: Path) -> None:
        folder = box.home / "config" if way == "config" else tmp_path / "mine"
        toy = Toy(tmp_path / "new", "brand-new").publish(catalog=folder)
        env = {} if way == "config" else {way: str(folder)}
        words = ["brand-new-alias", "--backend", "cpu", "--source", str(toy.source), "--json"]
        if way == "config":
            artifact = box.run("build", *words, env=env).artifact()
            assert artifact["manifest"]["engine"]["name"] == "brand-new"
            assert Path(artifact["path"]).parent == box.home / "store" / "brand-new"
        else:
            assert box.run("plan", *words, env=env).document()["plan"]["engine"] == "brand-new"
        assert "brand-new" in box.run("recipes", "list", env=env).out


class TestTwoAtOnce:
    """Two processes want the same key."""

    @pytest.mark.threat(
        "faults",
        "two builders of one key at once",
        "one builds, the other takes what it made; nothing is compiled twice",
    )
    def test_one_builds_and_the_other_waits(self, built: Built, box: Box) -> None:
        words = [*build_words(built.toy), "--json"]
        runs = [box.start(*words) for _ in range(2)]
        outs = [run.communicate(timeout=300) for run in runs]
        assert [run.returncode for run in runs] == [0, 0], outs
        artifacts = [json.loads(out)["artifacts"][0] for out, _ in outs]
        assert sorted(a["fresh"] for a in artifacts) == [False, True]
        assert artifacts[0]["manifest"] == artifacts[1]["manifest"]
        steps = box.steps()
        assert len(steps) == len(set(steps))
        assert box.debris() == []


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with a cmake, ninja, shell and more that leave a mark when they are run."""
    folder, mark = tmp_path / "traps", tmp_path / "sprung"
    folder.mkdir()
    for name in (
        *("cmake", "ninja", "ccache", "make", "bwrap", "nvcc", "ld", "as", "ar", "sh", "python3"),
        *("pkg-config", "cc", "c++"),
    ):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> '{mark}'\nexit 1\n")
        (folder / name).chmod(0o755)
    yield folder
    assert not mark.exists(), f"these were run: {mark.read_text()}"


class TestHostileEnvironment:
    """What the caller's environment says changes nothing."""

    @pytest.mark.threat(
        "environment",
        "CFLAGS, LDFLAGS, CC, NVCC_*, CUDAHOSTCXX, LD_PRELOAD, CMAKE_*, CCACHE_*, GIT_*, PATH of the caller",
        "the same key, bytes and recorded environment",
    )
    @pytest.mark.threat(
        "environment",
        "fake cmake, ninja, ccache, make, bwrap, nvcc, ld, as, ar, sh, python3, pkg-config first on PATH",
        "none is run",
    )
    def test_same_key_and_bytes(self, built: Built, box: Box, traps: Path, tmp_path: Path) -> None:
        plain = box.build(built.toy, "--json").artifact()["manifest"]
        nowhere = str(tmp_path / "nonexistent")
        hostile = {
            "PATH": f"{traps}:{os.environ['PATH']}",
            "CFLAGS": "-DHOSTILE -O0 -march=native",
            "CXXFLAGS": "-DHOSTILE -O0",
            "CPPFLAGS": "-DHOSTILE",
            "LDFLAGS": f"-L{nowhere} -lnonexistent",
            "CC": nowhere,
            "CXX": nowhere,
            "CMAKE_TOOLCHAIN_FILE": nowhere,
            "CMAKE_GENERATOR": "Unix Makefiles",
            "CMAKE_BUILD_TYPE": "Debug",
            "CMAKE_PREFIX_PATH": nowhere,
            "CMAKE_C_COMPILER_LAUNCHER": nowhere,
            "NVCC_APPEND_FLAGS": "-hostile",
            "NVCC_PREPEND_FLAGS": "-hostile",
            "CUDAHOSTCXX": nowhere,
            "CCACHE_DIR": nowhere,
            "CCACHE_PREFIX": nowhere,
            "LD_PRELOAD": nowhere,
            "CPATH": nowhere,
            "LIBRARY_PATH": nowhere,
            "COMPILER_PATH": nowhere,
            "GCC_EXEC_PREFIX": nowhere,
            "NINJA_STATUS": "hostile",
            "MAKEFLAGS": "-j99",
            "DESTDIR": nowhere,
            "SOURCE_DATE_EPOCH": "1",
            "LC_ALL": "tr_TR.UTF-8",
            "GIT_DIR": nowhere,
            "GIT_WORK_TREE": nowhere,
            "GIT_INDEX_FILE": nowhere,
            "GIT_CONFIG_PARAMETERS": "'core.bare=true'",
        }
        made = box.build(built.toy, "--json", "--rebuild", env=hostile).artifact()["manifest"]
        assert made["key"] == plain["key"]
        assert file_hashes(made) == file_hashes(plain)
        assert made["build"]["environment"] == plain["build"]["environment"]
        assert definitions(made) == definitions(plain)


class TestPlaces:
    """Where SPARKBUILD_HOME may be."""

    @pytest.mark.threat(
        "environment", "SPARKBUILD_HOME with blanks, Unicode and a shell's characters", "the same key"
    )
    def test_blanks_unicode_and_shell_characters(self, built: Built, tmp_path: Path) -> None:
        box = seeded(built, tmp_path / "a b ünï $HOME 'q' #1 (x) & [y]" / "home")
        artifact = box.build(built.toy, "--json").artifact()
        assert artifact["manifest"]["key"] == built.done.artifact()["manifest"]["key"]
        assert_sound(artifact, "aarch64")

    @pytest.mark.threat(
        "environment",
        "SPARKBUILD_HOME with semicolons, quotes, backslashes, line breaks, no UTF-8",
        "refused (2) before anything is made",
    )
    @pytest.mark.parametrize(
        "name", ["semi;colon", 'quo"te', "back\\slash", "new\nline", "pi|pe", "not-utf8-\udcff"]
    )
    def test_refused_early_where_cmake_can_not(self, name: str, built: Built, tmp_path: Path) -> None:
        box = Box(tmp_path / name)
        error = box.build(built.toy, "--json").error(2, "usage")
        assert "CMake and ninja can not build below" in error["what"]
        assert "SPARKBUILD_HOME" in error["remedy"]
        assert not box.home.exists()

    def test_relative_home(self, built: Built, tmp_path: Path) -> None:
        box = seeded(built, tmp_path / "rel")
        relative = Box(box.home, {"SPARKBUILD_HOME": "rel"})
        words = ["plan", *request_words(built.toy), "--json"]
        plan = relative.run(*words, cwd=tmp_path).document()["plan"]
        assert plan["key"] == built.done.artifact()["manifest"]["key"]
        assert Path(plan["source"]["path"]).is_relative_to(box.home)
