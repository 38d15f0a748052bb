"""What a person meets at the command line around a build: words, JSON, exit codes, suggestions."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Built
from tests.integration.engine import BUILD_NUMBER, COMMIT_TIME, Box, Done, Toy, definitions, git


class TestStore:
    """What is in the store, shown."""

    def test_build_in_a_persons_words(self, built: Built) -> None:
        done = built.box.build(built.toy)
        name, _, how = done.out.splitlines()[0].partition("  ")
        assert how == "already in the store"
        assert name.startswith("toy@")
        assert f"--version: build {BUILD_NUMBER}, commit {built.toy.commit[:9]}" in done.out

    def test_list(self, built: Built) -> None:
        done = built.box.run("list")
        assert done.code == 0
        assert "1 artifacts" in done.out
        assert f"{BUILD_NUMBER} ({built.toy.commit[:9]})" in done.out
        document = built.box.run("list", "--json").document()
        assert document["schema"] == "sparkbuild/list/2"
        artifact = built.done.artifact()
        assert [(a["path"], a["key"]) for a in document["artifacts"]] == [
            (artifact["path"], artifact["manifest"]["key"])
        ]

    def test_list_of_an_empty_store(self, tmp_path: Path) -> None:
        box = Box(tmp_path / "home")
        assert box.run("list", "--json").document()["artifacts"] == []
        assert "0 artifacts" in box.run("list").out

    @pytest.mark.parametrize("form", ["toy", "toy@{key}", "{key}"])
    def test_show(self, form: str, built: Built) -> None:
        artifact = built.done.artifact()
        document = built.box.run(
            "show", form.format(key=artifact["manifest"]["key"][:8]), "--json"
        ).document()
        assert document["schema"] == "sparkbuild/show/1"
        assert (document["path"], document["manifest"]) == (artifact["path"], artifact["manifest"])

    def test_show_in_a_persons_words(self, built: Built) -> None:
        done = built.box.run("show", "toy")
        assert done.code == 0
        for word in ("bin/libggml.so.0", "GGML_CPU_ARM_ARCH", "armv8.2-a+dotprod+fp16", "Toy engine"):
            assert word in done.out

    def test_show_what_is_not_there(self, built: Built) -> None:
        error = built.box.run("show", "toi@1234", "--json").error(2, "usage")
        assert "'sparkbuild list' shows them all" in error["remedy"]


class TestUsage:
    """Wrong words, wrong files."""

    def test_unknown_engine(self, built: Built) -> None:
        done = built.box.build(built.toy)
        assert done.code == 0
        error = built.box.run("build", "toyy", "--catalog", built.toy.catalog, "--json").error(2, "usage")
        assert error["what"] == "unknown engine 'toyy'"
        assert "did you mean toy? " in error["remedy"]

    def test_unknown_arch(self, built: Built) -> None:
        error = built.box.build(built.toy, "--arch", "gb01", "--json").error(2, "usage")
        assert "did you mean gb10? " in error["remedy"]

    def test_unknown_key_in_a_recipe(self, toy: Toy, box: Box) -> None:
        toy.publish().change_recipe("memory_mib =", "memory_mb =")
        error = box.build(toy, "--json").error(2, "usage")
        assert error["what"] == "unknown key 'memory_mb'"
        assert error["where"] == f"{toy.recipe}: steps.memory_mb"
        assert "did you mean memory_mib? " in error["remedy"]
        box.assert_nothing_stored()

    def test_recipe_that_is_no_toml(self, toy: Toy, box: Box) -> None:
        toy.publish().change_recipe("[state]", "[state")
        error = box.build(toy, "--json").error(2, "usage")
        assert str(toy.recipe) in error["where"]

    def test_recipe_for_another_source(self, toy: Toy, box: Box) -> None:
        """A required intent that this source spells in no known way."""
        toy.replace("ggml/CMakeLists.txt", "GGML_CPU_ARM_ARCH", "GGML_CPU_ARM_ARCHITECTURE").publish()
        error = box.build(toy, "--json").error(2, "usage")
        assert "does not declare GGML_CPU_ARM_ARCH, which arm_arch needs" in error["what"]
        assert error["where"] == f"{toy.recipe}: intents.arm_arch"
        assert "did you mean GGML_CPU_ARM_ARCHITECTURE? " in error["remedy"]
        assert box.build_dirs == []

    def test_undeclared_definition(self, built: Built, box: Box) -> None:
        error = box.build(built.toy, "-D", "GGML_CUDA_FA_QUANT=all", "--json").error(2, "usage")
        assert "does not declare GGML_CUDA_FA_QUANT: the build would ignore it" in error["what"]
        assert error["where"] == "-D GGML_CUDA_FA_QUANT=all"
        assert "did you mean GGML_CUDA_FA_QUANTS? " in error["remedy"]
        assert box.build_dirs == []
        box.assert_nothing_stored()

    @pytest.mark.threat("environment", "words for -D that are no NAME=VALUE on one line", "refused (2)")
    @pytest.mark.parametrize("word", ["GGML_NATIVE", "-G=x", "A B=1", "X=a\nb", "=1"])
    def test_no_definition(self, word: str, built: Built) -> None:
        error = built.box.build(built.toy, "-D", word, "--json").error(2, "usage")
        assert "not a definition" in error["what"]

    def test_no_such_backend(self, toy: Toy, box: Box) -> None:
        toy.publish().change_recipe('cuda = ["llama-server", "llama-bench"]', "")
        error = box.build(toy, "--backend", "cuda", "--json").error(2, "usage")
        assert error["remedy"] == "--backend cpu"

    def test_in_a_persons_words(self, built: Built) -> None:
        done = built.box.build(built.toy, "-D", "GGML_CUDA_FA_QUANT=all")
        assert (done.code, done.out) == (2, "")
        what, where, remedy = done.err.splitlines()[-3:]
        assert what.startswith("sparkbuild: Toy engine (toy) does not declare")
        assert where == "  where:  -D GGML_CUDA_FA_QUANT=all"
        assert remedy.startswith("  remedy: did you mean")


class TestDefinitions:
    """A person's own -D."""

    def test_deprecated_one_is_noted(self, built: Built, box: Box) -> None:
        done = box.build(built.toy, "-D", "LLAMA_CURL=ON", "--json")
        manifest = done.artifact()["manifest"]
        told = "LLAMA_CURL option is deprecated and will be ignored"
        assert manifest["build"]["deprecated"] == [told]
        assert f"! deprecated: {told}" in done.err
        (row,) = [d for d in manifest["definitions"] if d["name"] == "LLAMA_CURL"]
        assert (row["asked"], row["in_force"], row["origin"]) == ("ON", "ON", "user")
        assert manifest["key"] != built.done.artifact()["manifest"]["key"]

    def test_it_replaces_the_recipes(self, built: Built, box: Box) -> None:
        plan = box.plan(built.toy, "-D", "GGML_CCACHE=yes")
        (row,) = [d for d in plan["definitions"] if d["name"] == "GGML_CCACHE"]
        assert (row["value"], row["origin"]) == ("yes", "user")
        assert row["why"] == "instead of 'OFF' (recipe:ccache_off)"

    def test_another_spelling_of_a_value_is_the_same_value(self, built: Built, box: Box) -> None:
        manifest = box.build(built.toy, "-D", "LLAMA_CURL=off", "--json").artifact()["manifest"]
        assert definitions(manifest)["LLAMA_CURL"] == "off"
        assert manifest["build"]["deprecated"] == []


class TestMissing:
    """What this machine lacks."""

    def test_compiler(self, built: Built, box: Box, tmp_path: Path) -> None:
        path = tmp_path / "bin"
        path.mkdir()
        for name in ("git", "env"):
            (path / name).symlink_to(str(shutil.which(name)))
        error = box.build(built.toy, "--json", env={"PATH": str(path)}).error(3, "missing")
        assert "no C++ compiler for aarch64 that proves what gb10 asks for" in error["what"]
        assert "gcc is not on PATH" in error["where"]
        assert "apt-get install g++" in error["remedy"]
        box.assert_nothing_stored()

    def test_compiler_that_lacks_a_feature(self, built: Built, box: Box, tmp_path: Path) -> None:
        machine = tmp_path / "mine" / "toolchains" / "future.toml"
        machine.parent.mkdir(parents=True)
        machine.write_text(
            'schema = 1\nname = "future"\ntitle = "no such CPU"\n'
            'processor = "aarch64"\ncpu_arch = "armv8.2-a"\n'
            '[cuda]\narch = "121"\nwheels = "13.0"\n'
            '[[proofs]]\nfeature = "telepathy"\nmacro = "__ARM_FEATURE_TELEPATHY"\ncode = "int x;"\n'
        )
        mine = machine.parent.parent
        done = box.build(built.toy, "--arch", "future", "--catalog", mine, "--json")
        error = done.error(3, "missing")
        assert "-march=armv8.2-a does not give telepathy" in error["where"]

    def test_cuda(self, built: Built, box: Box) -> None:
        error = box.build(built.toy, "--backend", "cuda", "--offline", "--json").error(3, "missing")
        assert "nvidia_cuda_nvcc-13.0.88" in error["what"]
        assert "is not in the cache and --offline forbids fetching it" in error["what"]
        assert error["remedy"] == "run the same command once without --offline"
        box.assert_nothing_stored()
        assert list((box.home / "cache" / "cuda").glob("[!.]*/")) == []

    def test_git(self, built: Built, box: Box, tmp_path: Path) -> None:
        """Without git a folder is still built from, and a repository can not be read."""
        path = tmp_path / "bin"
        path.mkdir()
        (path / "env").symlink_to(str(shutil.which("env")))
        error = box.build(built.toy, "--json", env={"PATH": str(path)})
        assert error.code == 3


# --- the network ---


class Index:
    """A package index on this machine that speaks PEP 691 and serves one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        handler = partial(_Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"
        self.folder = folder
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def offer(self, project: str, file: str) -> None:
        page = self.folder / "simple" / project / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(json.dumps({"files": [{"filename": file, "url": f"/{file}"}]}))


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:  # noqa: ANN401 - as in the base class
        """Say nothing."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    made = Index(tmp_path / "index")
    yield made
    made.server.shutdown()
    made.server.server_close()


_SDIST = """
[sdist]
root = "vendor/toy"
commit = "{commit}"
tree = "{tree}"
build_number = {number}
commit_time = {time}

[sdist.pin]
project = "toy-python"
file = "toy_python-1.0.tar.gz"
sha256 = "{sha256}"
size = {size}

[targets]
"""


@pytest.fixture
def with_sdist(toy: Toy, index: Index) -> Toy:
    """Return a toy whose recipe pins an sdist that the index serves; its git host is unreachable."""
    toy.publish()
    archive = index.folder / "toy_python-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(
            toy.source,
            "toy_python-1.0/vendor/toy",
            filter=lambda m: None if ".git" in Path(m.name).parts else m,
        )
    index.offer("toy-python", archive.name)
    text = _SDIST.format(
        commit=toy.commit,
        tree=git(toy.source, "rev-parse", "HEAD^{tree}"),
        number=BUILD_NUMBER,
        time=COMMIT_TIME,
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        size=archive.stat().st_size,
    )
    return toy.change_recipe("[targets]\n", text)


def plan(box: Box, toy: Toy, *words: str, env: dict[str, str] | None = None) -> Done:
    return box.run("plan", toy.name, "--backend", "cpu", "--catalog", toy.catalog, *words, "--json", env=env)


class TestSdist:
    """The source from a package index."""

    def test_git_host_away_takes_the_sdist_and_says_so(
        self, built: Built, with_sdist: Toy, index: Index, box: Box
    ) -> None:
        found = plan(box, with_sdist, env={"PIP_INDEX_URL": index.url}).document()["plan"]
        assert found["source"]["way"] == "sdist"
        assert any("git host can not be reached" in note for note in found["source"]["notes"])
        assert found["key"] == built.done.artifact()["manifest"]["key"]
        offline = plan(box, with_sdist, "--offline").document()["plan"]
        assert offline["key"] == found["key"]

    def test_wrong_hash(self, with_sdist: Toy, index: Index, box: Box) -> None:
        archive = index.folder / "toy_python-1.0.tar.gz"
        data = bytearray(archive.read_bytes())
        data[-1] ^= 1
        archive.write_bytes(data)
        error = plan(box, with_sdist, "--from", "sdist", env={"PIP_INDEX_URL": index.url}).error(4, "source")
        assert "toy_python-1.0.tar.gz has the wrong SHA-256" in error["what"]
        assert error["where"] == "package toy-python"
        assert "do not use it" in error["remedy"]
        kept = [p.name for p in (box.home / "cache" / "downloads").rglob("*") if p.is_file()]
        assert kept == ["toy_python-1.0.tar.gz.lock"]
        box.assert_nothing_stored()

    def test_wrong_content(self, with_sdist: Toy, index: Index, box: Box) -> None:
        with_sdist.change_recipe('root = "vendor/toy"', 'root = "vendor"')
        error = plan(box, with_sdist, env={"PIP_INDEX_URL": index.url}).error(4, "source")
        assert "holds the tree" in error["what"]
        assert list((box.home / "cache" / "src" / "toy").glob("[!.]*/")) == []
        assert box.debris() == []


class TestNoNetwork:
    """Nothing can be fetched."""

    def test_git_host_away_and_no_sdist(self, toy: Toy, box: Box) -> None:
        error = plan(box, toy.publish()).error(3, "missing")
        assert "the git host can not be reached" in error["what"]
        assert error["where"] == "https://127.0.0.1:9/toy.git"
        box.assert_nothing_stored()

    def test_neither_git_nor_index(self, with_sdist: Toy, box: Box) -> None:
        nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
        error = plan(box, with_sdist, env=nowhere).error(3, "missing")
        assert error["what"].startswith("no source of toy: the git host can not be reached")
        assert "cannot fetch toy_python-1.0.tar.gz" in error["what"]
        box.assert_nothing_stored()

    def test_offline_with_an_empty_cache(self, with_sdist: Toy, box: Box) -> None:
        error = plan(box, with_sdist, "--offline").error(3, "missing")
        assert "the git mirror does not have" in error["what"]
        assert "is not in the cache and --offline forbids fetching it" in error["what"]


class TestPatch:
    """A recipe's patches."""

    def test_that_does_not_apply(self, toy: Toy, box: Box) -> None:
        toy.publish()
        patch = toy.catalog / "patches" / "toy" / "0001-lost.patch"
        patch.parent.mkdir(parents=True)
        patch.write_text(
            "Why: a test.\n\n--- a/src/llama.h\n+++ b/src/llama.h\n"
            "@@ -1,2 +1,2 @@\n #pragma once\n-gone\n+new\n"
        )
        error = box.build(toy, "--json").error(4, "source")
        assert "the patch 0001-lost.patch does not apply" in error["what"]
        assert error["where"] == str(patch)
        assert "adapt the patch" in error["remedy"]
        assert list((box.home / "cache" / "src" / "toy").glob("[!.]*/")) == []
        box.assert_nothing_stored()


def test_the_fixtures_hold_no_place_of_this_machine() -> None:
    """Recipes and sources of the toy are data for every machine."""
    folder = Path(__file__).parent.parent / "data" / "toy_engine"
    text = "".join(p.read_text() for p in folder.rglob("*") if p.is_file())
    assert str(Path.home()) + os.sep not in text
