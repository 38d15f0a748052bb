"""``recipes update`` on real commits of the toy engine: what it shows, what it refuses, what it writes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.toolchain import sandbox
from tests.integration.conftest import Built, with_cuda
from tests.integration.engine import BUILD_NUMBER, COMMIT_TIME, Box, Done, Toy, git

_TOP, _GGML = "CMakeLists.txt", "ggml/CMakeLists.txt"
_FILE_GIT = {"SPARKBUILD_ALLOW_FILE_GIT": "1"}


def commit(toy: Toy) -> str:
    """Commit the source as it is; return the commit's id."""
    git(toy.source, "add", "--all")
    git(toy.source, "commit", "--quiet", "-m", "further")
    return git(toy.source, "rev-parse", "HEAD")


def patch(toy: Toy, name: str, file: str, old: str, new: str) -> None:
    """Write a patch that turns one line of a file, which need not be there, into another one."""
    path = toy.catalog / "patches" / toy.name / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"Why: a test.\n\n--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-{old}\n+{new}\n")


def update(box: Box, toy: Toy, *words: str | Path, source: str = "") -> Done:
    place = ["--source", source or str(toy.source), "--catalog", str(toy.catalog)]
    return box.run("recipes", "update", toy.name, *place, *words, env=_FILE_GIT)


def only(rows: list[dict[str, Any]], **members: object) -> dict[str, Any]:
    """Return the one row with these members."""
    (row,) = [r for r in rows if members.items() <= r.items()]
    return row


def test_a_pin_that_can_be_proved_is_written(box: Box, toy: Toy) -> None:
    old = toy.publish().commit
    # A patch that fits only what comes: whoever adapts it before the pin moves is not stopped by that.
    (toy.source / "note.txt").write_text("new\n")
    patch(toy, "0001-note.patch", "note.txt", "new", "newer")
    toy.replace(_GGML, 'GGML_CUDA_GRAPHS "ggml: use CUDA graphs" ON', 'GGML_CUDA_GRAPHS "ggml: graphs" OFF')
    toy.replace(
        _GGML, 'set(GGML_CUDA_FA_QUANTS "default" CACHE STRING', 'set(GGML_CUDA_FA "default" CACHE STRING'
    )
    toy.replace(_GGML, "CACHE GGML_CUDA_FA_QUANTS", "CACHE GGML_CUDA_FA")
    toy.append(
        _TOP, 'option(TOY_MORE "more" ON)\nmessage(WARNING "GGML_OPENMP is deprecated, use TOY_MORE")\n'
    )
    toy.replace(_TOP, "foreach (tool server bench)", "foreach (tool server bench quantize)")
    new = commit(toy)
    text = toy.recipe.read_text().replace("[git]", "[git] # moved by hand until now").replace("\n", "\r\n")
    toy.recipe.write_bytes(text.encode())

    shut_in = [] if sandbox.why_not() else ["--sandbox"]
    done = update(box, toy, "--backend", "cpu", *shut_in, "--json", source=toy.source.as_uri())
    found = done.document()
    assert (found["schema"], found["verdict"], found["written"]) == ("sparkbuild/update/1", "provable", True)
    assert (found["old"]["commit"], found["new"]["commit"]) == (old, new)
    assert found["new"]["tree"] == git(toy.source, "rev-parse", "HEAD^{tree}")
    assert (found["new"]["build_number"], found["new"]["commit_time"]) == (BUILD_NUMBER + 1, COMMIT_TIME)
    changes = found["changes"]
    assert (changes["ahead"], changes["behind"]) == (1, 0)
    options = {o["name"]: (o["change"], o["before"], o["after"], o["intent"]) for o in changes["options"]}
    assert options == {
        "GGML_CUDA_FA": ("added", "", "default", ""),
        "GGML_CUDA_FA_QUANTS": ("removed", "default", "", "fa_all_quants"),
        "GGML_CUDA_GRAPHS": ("default", "ON", "OFF", ""),
        "TOY_MORE": ("added", "", "ON", ""),
    }
    (renamed,) = [i for i in changes["intents"] if i["change"] not in ("same", "none")]
    assert (renamed["intent"], renamed["change"]) == ("fa_all_quants", "renamed")
    assert (renamed["before"], renamed["after"]) == (
        "GGML_CUDA_FA_QUANTS=all",
        "GGML_CUDA_FA_ALL_QUANTS=ON",
    )
    assert changes["patches"] == [{"name": "0001-note.patch", "fit": "applies", "said": ""}]
    cpu = only(changes["backends"], backend="cpu")
    assert (cpu["state"], cpu["new"], cpu["gone"]) == ("proved", ["llama-quantize"], [])
    assert cpu["deprecated"] == ["GGML_OPENMP is deprecated, use TOY_MORE"]
    assert only(changes["backends"], backend="cuda")["state"] == "not tried"
    notes = " ".join(found["notes"])
    assert "cuda was not tried" in notes
    assert "the next build proves it" in notes

    tree, was = found["new"]["tree"], found["old"]["tree"]
    moved = text.replace(old, new).replace(was, tree)
    moved = moved.replace(f"build_number = {BUILD_NUMBER}\r", f"build_number = {BUILD_NUMBER + 1}\r")
    assert toy.recipe.read_bytes() == moved.encode()

    again = update(box, toy, "--backend", "cpu")
    assert (again.code, again.out.count("is the pin already")) == (0, 1)
    back = update(box, toy, "--backend", "cpu", "--to", old, "--dry-run", source=toy.source.as_uri())
    assert back.code == 1  # the patch was adapted to what is pinned now
    assert "goes back; 1 commits of the pin are not in it" in back.out
    assert "0001-note.patch no longer applies" in back.err
    assert toy.recipe.read_bytes() == moved.encode()


@pytest.mark.threat(
    "git", "upstream renames options, takes in a patch, breaks another", "pin stays; each is named"
)
def test_each_loss_is_named_and_nothing_is_written(box: Box, toy: Toy) -> None:
    for name in ("one", "two"):
        (toy.source / f"{name}.txt").write_text("old\n")
    patch(toy, "0001-taken.patch", "one.txt", "old", "new")
    patch(toy, "0002-broken.patch", "two.txt", "old", "new")
    toy.publish()
    (toy.source / "one.txt").write_text("new\n")
    (toy.source / "two.txt").write_text("other\n")
    toy.replace(_GGML, "set(GGML_CPU_ARM_ARCH", "set(GGML_CPU_ARCH_ARM")  # required
    toy.replace(_TOP, "option(LLAMA_OPENSSL", "option(LLAMA_USE_OPENSSL")  # not required
    toy.replace(_TOP, "foreach (tool server bench)", "foreach (tool server bench2)")
    commit(toy)
    before = toy.recipe.read_bytes()
    done = update(box, toy, "--offline", "--json")
    assert done.code == 1
    found = document(done)
    assert (found["verdict"], found["written"]) == ("refused", False)
    problems = {p["what"].partition("\n")[0]: p for p in found["problems"]}
    arch = problems["arm_arch: the new source does not know GGML_CPU_ARM_ARCH"]
    assert "did you mean GGML_CPU_ARCH_ARM? add the new spelling" in arch["remedy"]
    tls = problems["tls_off: the new source does not know LLAMA_OPENSSL"]
    assert "did you mean LLAMA_USE_OPENSSL?" in tls["remedy"]
    assert "or drop the intent" in tls["remedy"]
    assert "remove the patch" in problems["0001-taken.patch is in the source already"]["remedy"]
    broken = problems["0002-broken.patch no longer applies: error: patch failed: two.txt:1"]
    assert "adapt the patch" in broken["remedy"]
    assert "did you mean llama-bench2?" in problems["this source has no target 'llama-bench'"]["remedy"]
    # Neither a toolkit nor a network to get one: CUDA is not proved, and that alone would be enough.
    (cuda,) = [p for p in found["problems"] if p["what"].startswith("cuda is not proved")]
    assert "--backend" in cuda["remedy"]
    cpu = only(found["changes"]["backends"], backend="cpu")
    assert (cpu["state"], cpu["targets_gone"], cpu["new"]) == ("failed", ["llama-bench"], ["llama-bench2"])
    assert "tried without arm_arch, tls_off, 0002-broken.patch" in cpu["why"]
    assert toy.recipe.read_bytes() == before


@pytest.mark.threat(
    "environment", "upstream overrides flags on its way to the compiler", "pin stays; each is named"
)
def test_what_only_a_real_configure_step_shows(box: Box, toy: Toy) -> None:
    toy.publish()
    toy.append(_GGML, 'set(GGML_CCACHE ON CACHE BOOL "" FORCE)\n')
    toy.append(_GGML, 'message(STATUS "-mcpu=native will be used")\n')
    toy.append(_GGML, "target_compile_options(ggml PRIVATE -march=armv8-a)\n")
    overridden = commit(toy)
    toy.append(_TOP, 'message(FATAL_ERROR "the toy is broken")\n')
    commit(toy)
    before = toy.recipe.read_bytes()
    done = update(box, toy, "--backend", "cpu", "--json", "--to", overridden)
    assert done.code == 1
    said = "\n".join(p["what"] for p in document(done)["problems"])
    assert "GGML_CCACHE was asked to be 'OFF' and became 'ON'" in said
    assert "falls back to the compiler's native detection (CMake said: -- -mcpu=native will be used)" in said
    assert "GGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16: lost at commands: armv8-a wins on" in said
    assert len(document(done)["problems"]) == 3
    done = update(box, toy, "--backend", "cpu")
    assert done.code == 1
    assert "CMake failed" in done.out
    assert "falls back to the compiler's native detection" in done.err
    assert toy.recipe.read_bytes() == before


def test_what_can_not_be_asked(box: Box, toy: Toy, tmp_path: Path) -> None:
    toy.publish()
    shallow = tmp_path / "shallow"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth=1", toy.source.as_uri(), shallow],
        check=True,
        capture_output=True,
    )
    other = Toy(tmp_path / "other").append(_TOP, "# another history\n").publish()
    old = toy.recipe.read_bytes()
    cases = [
        (4, "no branch, tag or (unique) commit 'mian'", update(box, toy, "--to", "mian")),
        (4, "a shallow clone does not tell", update(box, toy, source=str(shallow))),
        (4, "no branch, tag or (unique) commit", update(box, toy, source=str(other.source))),
        (2, "it is no git repository", update(box, toy, source=str(tmp_path))),
        (2, "only https is spoken", update(box, toy, source="ssh://127.0.0.1/x.git")),
    ]
    commit(toy.append(_TOP, "# further\n"))
    toy.recipe.chmod(0o444)
    cases.append((2, "this recipe may not be written", update(box, toy)))
    for code, what, done in cases:
        assert (done.code, what in done.err) == (code, True), done.err
    assert toy.recipe.read_bytes() == old


def test_a_flag_that_cuda_alone_loses(built: Built, toy: Toy, tmp_path: Path) -> None:
    box, arch = with_cuda(built, tmp_path / "home", "gb10", "host")
    toy.publish()
    toy.replace(_GGML, 'GGML_CUDA_FA_QUANTS=\\"${GGML_CUDA_FA_QUANTS}\\"', "GGML_CUDA_FA_LESS=1")
    commit(toy)
    found = document(update(box, toy, "--arch", arch, "--offline", "--json"))
    assert {b["backend"]: b["state"] for b in found["changes"]["backends"]} == {
        "cpu": "proved",
        "cuda": "failed",
    }
    (lost,) = found["problems"]
    assert lost["what"].startswith("GGML_CUDA_FA_QUANTS=all: lost at commands: missing on")
    assert lost["backends"] == ["cuda"]


def document(done: Done) -> dict[str, Any]:
    """Return the document of a run that found something bad: that is its whole answer, too."""
    return Done(0, done.out, done.err).document()
