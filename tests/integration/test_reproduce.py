"""Two builds of one thing are the same bytes; where they are not, the first difference is found and named."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.reproduction.variations import VARIATIONS
from sparkbuild.toolchain.place import why_no_namespace
from tests.integration.conftest import Built, seeded, with_cuda
from tests.integration.engine import Box, Toy, argv, build_words, git

_LISTS = "CMakeLists.txt"
_INFO = "common/build-info.cpp.in"
_WHERE = 'set(TOY_WHERE "$ENV{HOME}")\n'  # the build folder itself is at one path for every build
_NOW = "execute_process(COMMAND date +%s.%N OUTPUT_VARIABLE TOY_NOW OUTPUT_STRIP_TRAILING_WHITESPACE)\n"
_NO_NAMESPACES = ("bwrap", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--dev-bind", "/", "/")


needs_bwrap = pytest.mark.skipif(bool(why_no_namespace()), reason=why_no_namespace())


def reproduce(box: Box, toy: Toy, *words: str) -> tuple[int, dict[str, Any]]:
    """Return exit code and report."""
    done = box.run("reproduce", toy.name, "--catalog", toy.catalog, "--json", *words)
    assert "Traceback" not in done.err
    return done.code, json.loads(done.out)


def hashes(manifest: dict[str, Any]) -> dict[str, str]:
    return {f["path"]: f["sha256"] for f in manifest["files"]}


@pytest.fixture
def stored(built: Built, tmp_path: Path) -> Callable[[Toy], Box]:
    """Return what builds a toy in a new home."""

    def build(toy: Toy) -> Box:
        box = seeded(built, tmp_path / "home")
        box.build(toy.publish(), "--json").document()
        return box

    return build


class TestIdentical:
    def test_everything_varied_at_once(self, built: Built) -> None:
        code, report = reproduce(built.box, built.toy)
        assert (code, report["verdict"], report["inputs"]) == (0, "identical", [])
        (rebuild,) = report["rebuilds"]
        files = hashes(built.done.artifact()["manifest"])
        assert {f["path"]: f["recorded"] for f in rebuild["files"]} == files
        assert {f["path"]: f["rebuilt"] for f in rebuild["files"]} == files
        asked = {v["name"] for v in rebuild["varied"]} | {n.partition(" ")[0] for n in report["notes"]}
        assert asked >= {"path", *VARIATIONS}

    def test_one_thing_at_a_time(self, built: Built) -> None:
        code, report = reproduce(built.box, built.toy, "--vary", "path,umask,jobs")
        assert (code, report["verdict"]) == (0, "identical")
        assert [[v["name"] for v in r["varied"]] for r in report["rebuilds"]] == [
            ["path"],
            ["path", "umask"],
            ["path", "jobs"],
        ]

    def test_a_page_that_can_not_be_written_does_not_hide_the_report(self, built: Built) -> None:
        code, report = reproduce(built.box, built.toy, "--vary", "none", "--html", "/proc/nowhere/page.html")
        assert (code, report["verdict"]) == (8, "identical")

    def test_cuda(self, built: Built, tmp_path: Path) -> None:
        box, arch = with_cuda(built, tmp_path / "home", "gb10", "host")
        box.build(built.toy, "--arch", arch, "--backend", "cuda", "--offline", "--json").document()
        code, report = reproduce(box, built.toy, "--offline")
        assert (code, report["verdict"], report["backend"]) == (0, "identical", "cuda")

    @needs_bwrap  # the other artifact was made with them
    def test_without_namespaces_the_bytes_are_the_same(self, built: Built, tmp_path: Path) -> None:
        """As on Ubuntu 24.04, where AppArmor keeps namespaces from most users."""
        box = seeded(built, tmp_path / "home")
        words = [*_NO_NAMESPACES, *argv([*build_words(built.toy), "--json"])]
        done = subprocess.run(words, env=box.env(), capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        (artifact,) = json.loads(done.stdout)["artifacts"]
        expected = built.done.artifact()["manifest"]
        assert (artifact["manifest"]["build"]["place"], expected["build"]["place"]) == ("copy", "namespace")
        assert artifact["manifest"]["key"] == expected["key"]
        assert hashes(artifact["manifest"]) == hashes(expected)


class TestSources:
    """What was built from elsewhere than the recipe's repository is rebuilt from there."""

    @pytest.fixture
    def moved_on(self, toy: Toy) -> Toy:
        """Return a toy whose repository has gone on since the commit that the recipe pins."""
        toy.publish()
        git(toy.source, "branch", "old")
        toy.append("src/llama.cpp", "// later\n")
        git(toy.source, "commit", "--quiet", "--all", "-m", "later")
        return toy

    @pytest.mark.parametrize("words", [("--ref", "old"), ()])
    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_of_ones_own(
        self, scheme: str, words: tuple[str, ...], moved_on: Toy, built: Built, tmp_path: Path
    ) -> None:
        allowed = {"SPARKBUILD_ALLOW_FILE_GIT": "1"}
        box = Box(seeded(built, tmp_path / "home").home, allowed)
        box.build(moved_on, "--source", f"{scheme}{moved_on.source}", *words, "--json").document()
        if scheme:
            moved_on.append("src/llama.cpp", "// later still\n")
            git(moved_on.source, "commit", "--quiet", "--all", "-m", "later still")
        assert reproduce(box, moved_on, "--vary", "none")[0] == 0

    def test_a_repository_of_the_recorded_commit(self, moved_on: Toy, built: Built) -> None:
        box = Box(built.box.home, {"SPARKBUILD_ALLOW_FILE_GIT": "1"})
        assert git(moved_on.source, "rev-parse", "old") == built.toy.commit
        words = ("--vary", "none", "--source", f"file://{moved_on.source}")
        assert reproduce(box, built.toy, *words)[0] == 0


class TestManifests:
    """A manifest from elsewhere: what it says is not believed, and chooses nothing."""

    def lie(self, built: Built, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
        manifest = built.done.artifact()["manifest"]
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    def test_an_author_who_is_not_trusted(self, built: Built, tmp_path: Path) -> None:
        folder = self.lie(built, tmp_path, lambda _: None)
        done = built.box.run("reproduce", folder, "--catalog", built.toy.catalog, "--json")
        assert "--trust" in done.error(2, "usage")["remedy"]

    def test_what_it_says_does_not_steer_the_terminal(self, built: Built, tmp_path: Path) -> None:
        folder = self.lie(built, tmp_path, lambda m: m["source"].update(location="x\x1b]0;y\x07\x1b[2K"))
        done = built.box.run("reproduce", folder, "--catalog", built.toy.catalog)
        assert (done.code, "author chose" in done.err) == (2, True)
        assert done.err.replace("\n", "").isprintable()

    def test_the_binaries_are_elsewhere(self, built: Built, tmp_path: Path) -> None:
        """That they are not the same is seen, by their hashes; how near they come is not."""
        folder = self.lie(built, tmp_path, lambda m: m["files"][0].update(sha256="0" * 64))
        words = ("--catalog", built.toy.catalog, "--vary", "none", "--trust", "--json")
        report = json.loads(built.box.run("reproduce", folder, *words).out)
        assert report["verdict"] == "features"
        assert any("not beside the manifest" in note for note in report["notes"])

    @pytest.mark.threat(
        "manifests", "a binary beside a manifest that is not the recorded one, for `reproduce`", "refused (8)"
    )
    def test_a_binary_that_is_not_the_recorded_one(self, built: Built, tmp_path: Path) -> None:
        home = shutil.copytree(built.box.home, tmp_path / "home")
        (path,) = home.glob("store/toy/*/bin/llama-server")
        path.write_bytes(path.read_bytes() + b"x")
        done = Box(home).run("reproduce", "toy", "--catalog", built.toy.catalog, "--json")
        assert "not the recorded one" in done.error(8, "store")["what"]

    def test_a_name_that_is_too_long(self, built: Built) -> None:
        built.box.run("reproduce", "x" * 5000, "--json").error(2, "usage")

    @needs_bwrap
    def test_a_user_without_a_name(self, built: Built) -> None:
        as_nobody = ["bwrap", "--unshare-user", "--uid", "4711", "--gid", "4711", "--dev-bind", "/", "/"]
        words = ["reproduce", "toy", "--catalog", str(built.toy.catalog), "--vary", "none", "--json"]
        done = subprocess.run(
            [*as_nobody, *argv(words)], env=built.box.env(), capture_output=True, check=False, timeout=300
        )
        assert json.loads(done.stdout)["rebuilt_by"].startswith("4711@")


class TestNotComparable:
    def test_another_source(self, built: Built, toy: Toy) -> None:
        toy.append("src/llama.cpp", "// another\n")
        code, report = reproduce(built.box, built.toy, "--source", str(toy.source))
        assert (code, report["verdict"], report["rebuilds"]) == (3, "not comparable", [])
        assert "source tree, patched" in {i["name"] for i in report["inputs"]}

    def test_another_compiler(self, built: Built, tmp_path: Path) -> None:
        manifest = built.done.artifact()["manifest"]
        manifest["compilers"]["digest"] = "0" * 64
        manifest["key"] = "1" * 64
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(manifest))
        done = built.box.run("reproduce", path, "--catalog", built.toy.catalog, "--trust", "--json")
        report = json.loads(done.out)
        assert (done.code, report["verdict"]) == (3, "not comparable")
        assert [i["name"] for i in report["inputs"]] == ["compilers"]


class TestDifferent:
    """The negative controls: each injects one difference, which must be caught and named."""

    def assert_caught(self, box: Box, toy: Toy, kind: str, output: str, *words: str) -> dict[str, Any]:
        code, report = reproduce(box, toy, *words)
        assert (code, report["verdict"] in ("features", "different")) == (1, True), report["verdict"]
        cause: dict[str, Any] = report["rebuilds"][0]["cause"]
        assert output in cause["output"]
        assert kind in cause["kinds"], cause
        return cause

    def test_a_time_stamp(self, toy: Toy, stored: Callable[[Toy], Box]) -> None:
        toy.replace(_LISTS, "configure_file(", _NOW + "configure_file(")
        toy.append(_INFO, 'const char *toy_built = "@TOY_NOW@";\n')
        cause = self.assert_caught(stored(toy), toy, "time stamp", "build-info.cpp")
        assert cause["replay"] == "the same each time"

    def test_a_path(self, toy: Toy, stored: Callable[[Toy], Box]) -> None:
        toy.replace(_LISTS, "configure_file(", _WHERE + "configure_file(")
        toy.append(_INFO, 'const char *toy_where = "@TOY_WHERE@";\n')
        self.assert_caught(stored(toy), toy, "embedded path", "build-info.cpp")

    def test_the_same_level_is_enough_where_it_is_asked(self, toy: Toy, stored: Callable[[Toy], Box]) -> None:
        toy.replace(_LISTS, "configure_file(", _WHERE + "configure_file(")
        toy.append(_INFO, 'const char *toy_where = "@TOY_WHERE@";\n')
        code, report = reproduce(stored(toy), toy, "--require", "features")
        assert (code, report["verdict"]) == (0, "features")

    def test_an_unseeded_compile_of_host_code(self, built: Built, toy: Toy, tmp_path: Path) -> None:
        """Without -objtemp nvcc puts the number of its process into a FILE symbol."""
        box, arch = with_cuda(built, tmp_path / "home", "gb10", "host")
        on = "enable_language(CUDA)\n"
        toy.replace(
            "ggml/CMakeLists.txt",
            on,
            f'{on}        string(REPLACE "-objtemp" "" CMAKE_CUDA_FLAGS "${{CMAKE_CUDA_FLAGS}}")\n',
        )
        box.build(toy.publish(), "--arch", arch, "--backend", "cuda", "--offline", "--json").document()
        code, report = reproduce(box, toy, "--offline")
        cause = report["rebuilds"][0]["cause"]
        assert (code, report["verdict"]) == (1, "stripped")
        assert (cause["kinds"][0], cause["replay"]) == ("FILE symbol", "differs each time")
        assert "-objtemp" in cause["cure"]

    def test_a_path_in_device_code(self, built: Built, toy: Toy, tmp_path: Path) -> None:
        box, arch = with_cuda(built, tmp_path / "home", "gb10", "host")
        toy.append(
            "ggml/CMakeLists.txt",
            "if (GGML_CUDA)\n"
            '    target_compile_definitions(ggml-cuda PRIVATE "TOY_WHERE=\\"$ENV{HOME}\\"")\n'
            "endif()\n",
        )
        toy.append(
            "ggml/src/ggml-cuda.cu",
            "\n__device__ const char toy_where[] = TOY_WHERE;\n"
            "__global__ void toy_tell(char *out) { for (int i = 0; i < 20; i++) out[i] = toy_where[i]; }\n",
        )
        box.build(toy.publish(), "--arch", arch, "--backend", "cuda", "--offline", "--json").document()
        self.assert_caught(box, toy, "device code", "ggml-cuda.cu", "--offline")


class TestTrust:
    """A manifest from elsewhere may not choose what code runs here."""

    def given(
        self, built: Built, tmp_path: Path, change: Callable[[dict[str, Any]], None]
    ) -> tuple[int, Any]:
        manifest = built.done.artifact()["manifest"]
        change(manifest)
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(manifest))
        done = built.box.run("reproduce", path, "--catalog", built.toy.catalog, "--json")
        return done.code, json.loads(done.out)

    @pytest.mark.threat(
        "manifests",
        "a manifest of others whose source no recipe names, for `reproduce`",
        "refused (2) without --trust",
    )
    def test_a_source_that_no_recipe_names(self, built: Built, tmp_path: Path) -> None:
        def change(manifest: dict[str, Any]) -> None:
            manifest["source"]["location"] = "/somewhere/else"

        code, answer = self.given(built, tmp_path, change)
        assert (code, "/somewhere/else" in answer["error"]["what"]) == (2, True)
        assert "--trust" in answer["error"]["remedy"]

    @pytest.mark.threat(
        "manifests",
        "a manifest of others with definitions of its own, for `reproduce`",
        "refused (2) without --trust",
    )
    def test_definitions_of_its_own(self, built: Built, tmp_path: Path) -> None:
        def change(manifest: dict[str, Any]) -> None:
            manifest["source"] |= {"way": "git", "commit": built.toy.commit}
            manifest["definitions"][0] |= {
                "name": "CMAKE_C_COMPILER_LAUNCHER",
                "asked": "touch;/tmp/x",
                "origin": "user",
                "local": "",
            }

        code, answer = self.given(built, tmp_path, change)
        assert (code, "CMAKE_C_COMPILER_LAUNCHER" in answer["error"]["what"]) == (2, True)

    @pytest.mark.parametrize(
        ("name", "refused"),
        [("../x", (8, "store")), ("", (8, "store")), ("x" * 300, (8, "store")), ("no-such", (2, "usage"))],
    )
    def test_an_engine_that_is_none(
        self, name: str, refused: tuple[int, str], built: Built, tmp_path: Path
    ) -> None:
        before = sorted(built.box.home.rglob("*"))
        code, answer = self.given(built, tmp_path, lambda m: m["engine"].update(name=name))
        assert (code, answer["error"]["kind"]) == refused
        assert sorted(built.box.home.rglob("*")) == before
