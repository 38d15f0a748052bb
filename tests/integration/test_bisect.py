"""sparkbuild bisect on a real history of the toy engine: real git, real builds, real commands."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.source.mirror import create, mirror_path
from tests.integration.conftest import Built, seeded
from tests.integration.engine import Box, Done, Toy, git

DOT = ("sh", "-c", 'echo heard; grep -q "dot:" "$SPARKBUILD_BIN/llama-bench"')
"""A command that fails from the commit named ``dot`` on."""

PATCH = (
    "Why: a test.\n\n"
    "--- a/ggml/src/ggml-quants.c\n+++ b/ggml/src/ggml-quants.c\n@@ -1,3 +1,4 @@\n"
    ' #include "ggml.h"\n \n+int toy_patched(void) { return 1; }\n'
    " int toy_quantize(float value, float scale) { return (int) (value / scale + 0.5f); }\n"
)


class Story:
    """A repository, its commits by name, and a home in which what was built stays.

    base - notes - main2 ------------ merge - quiet - broken - moved - mended - threads
                `- side - dot -----'
    """

    def __init__(self, built: Built, folder: Path) -> None:
        self.toy = Toy(folder / "toy").publish()
        self.box = Box(seeded(built, folder / "home").home, {"SPARKBUILD_ALLOW_FILE_GIT": "1"})
        self.ids = {"base": self.toy.commit}
        patch = self.toy.catalog / "patches" / "toy" / "0001-patched.patch"
        patch.parent.mkdir(parents=True)
        patch.write_text(PATCH)
        tool = "tools/tool.cpp"
        threads, quants = "ggml/src/ggml-threads.cpp", "ggml/src/ggml-quants.c"
        self._commit("notes", "NOTES", "one\n")
        git(self.toy.source, "branch", "side")
        self._commit("main2", "NOTES", "two\n")
        git(self.toy.source, "checkout", "--quiet", "side")
        self._commit("side", "SIDE", "one\n")
        self.toy.replace(tool, "dot: ", "sum: ")
        self._commit("dot", "SIDE", "two\n")
        git(self.toy.source, "checkout", "--quiet", "main")
        git(self.toy.source, "merge", "--quiet", "--no-ff", "-m", "merge", "side")
        self.ids["merge"] = git(self.toy.source, "rev-parse", "HEAD")
        self._commit("quiet", "NOTES", "three\n")
        self._commit("broken", threads, "#error not today\n")
        self.toy.replace(threads, "#error not today\n", "").replace(quants, "0.5f", ".5f")
        self._commit("moved", "NOTES", "four\n")
        self.toy.replace(quants, ".5f", "0.5f")
        self._commit("mended", "NOTES", "five\n")
        self.toy.replace(tool, "%d threads,", "%d workers,")
        self._commit("threads", "NOTES", "six\n")
        # The recipe's own host is away, as ever in tests: its mirror is what an earlier run left.
        gitdir = mirror_path(self.box.home / "cache", "https://127.0.0.1:9/toy.git")
        create(gitdir)
        git(gitdir, "fetch", "--quiet", str(self.toy.source), "+refs/heads/*:refs/heads/*")

    def _commit(self, name: str, file: str, text: str) -> None:
        with (self.toy.source / file).open("a") as out:
            out.write(text)
        git(self.toy.source, "add", "--all")
        git(self.toy.source, "commit", "--quiet", "-m", f"the commit {name}")
        self.ids[name] = git(self.toy.source, "rev-parse", "HEAD")

    def words(self, good: str, bad: str, *options: str | Path) -> list[str | Path]:
        """Return the words before the command; ends are names of the story, or refs."""
        ends = ["--good", self.ids.get(good, good), "--bad", self.ids.get(bad, bad)]
        target = ["--arch", "gb10", "--backend", "cpu", "-j", "2", "--catalog"]
        return ["bisect", "toy-alias", *ends, *target, self.toy.catalog, *options, "--"]

    def bisect(self, good: str, bad: str, *options: str | Path, command: tuple[str, ...] = DOT) -> Done:
        return self.box.run(*self.words(good, bad, *options), *command)

    def only(self, *names: str) -> tuple[str, ...]:
        """Return a command that is content with these commits alone."""
        ids = "|".join(self.ids[n] for n in names)
        return ("sh", "-c", f'case "$SPARKBUILD_COMMIT" in {ids}) exit 0;; esac; exit 1')

    def name(self, commit: dict[str, Any]) -> str:
        return next(n for n, i in self.ids.items() if i == commit["id"])


@pytest.fixture(scope="module")
def story(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Return the story; its tests run in order, and what one builds the next finds in the store."""
    return Story(built, tmp_path_factory.mktemp("story"))


class TestFound:
    """The first bad commit is named."""

    def test_behind_a_merge(self, story: Story) -> None:
        done = story.bisect("base", "threads")
        assert done.code == 0, done.err
        lines = done.out.splitlines()
        assert lines[0] == f"the first bad commit is {story.ids['dot']}"
        assert lines[1] == "  the commit dot"
        assert lines[2].startswith("  of 2023-11-14T22:13:20")
        assert lines[2].endswith("build 5")
        assert "heard" not in done.out
        assert "heard\n" in done.err
        assert "» 10 commits from" in done.err
        assert f"» commit 1 of about 6: {story.ids['base'][:12]} the toy engine" in done.err
        command = lines[-1].removeprefix("look further: sparkbuild ")
        assert story.box.run(*shlex.split(command)).code == 0

    def test_again_it_builds_nothing_whatever_the_way_to_the_source(self, story: Story) -> None:
        url = story.toy.source.as_uri()
        before = (story.box.artifacts(), story.box.build_dirs)
        for words in (("--offline",), ("--source", story.toy.source), ("--source", url)):
            found = story.bisect("base", "threads", "--json", *words).document()
            assert found["schema"] == "sparkbuild/bisect/1"
            result = found["bisection"]
            assert story.name(result["first_bad"]) == "dot"
            assert [story.name(c) for c in result["candidates"]] == ["dot"]
            assert not any(t["fresh"] for t in result["tried"])
            told = [(story.name(t["commit"]), t["verdict"], t["exit_code"]) for t in result["tried"]]
            assert told[:2] == [("base", "good", 0), ("threads", "bad", 1)]
            assert ("dot", "bad", 1) in told
        assert (story.box.artifacts(), story.box.build_dirs) == before
        assert story.box.debris() == []

    def test_past_commits_that_can_not_be_built(self, story: Story) -> None:
        command = ("sh", "-c", 'grep -q "%d threads," "$SPARKBUILD_BIN/llama-bench"')
        result = story.bisect("merge", "threads", "--json", command=command).document()["bisection"]
        assert story.name(result["first_bad"]) == "threads"
        skipped = {story.name(t["commit"]): t for t in result["tried"] if t["verdict"] == "skipped"}
        assert skipped.keys() == {"broken", "moved"}
        assert skipped["broken"]["why"].startswith("compile: ggml/")
        assert skipped["moved"]["why"].startswith("source: the patch 0001-patched.patch does not apply")
        assert {(t["key"], t["exit_code"]) for t in skipped.values()} == {("", None)}

    def test_a_commit_next_to_the_good_one(self, story: Story) -> None:
        result = story.bisect("side", "dot", "--json").document()["bisection"]
        assert story.name(result["first_bad"]) == "dot"
        assert (result["between"], len(result["tried"])) == (1, 2)

    def test_the_command_runs_as_the_caller(self, story: Story, tmp_path: Path) -> None:
        (tmp_path / "told.py").write_text(
            "import os, pathlib, sys\n"
            "e = os.environ\n"
            "assert e['MINE'] == 'ours' and sys.stdin.read() == ''\n"
            "assert pathlib.Path(e['SPARKBUILD_MANIFEST']).parent == pathlib.Path(e['SPARKBUILD_ARTIFACT'])\n"
            "assert pathlib.Path(e['SPARKBUILD_BIN']).is_dir()\n"
            "print(e['SPARKBUILD_COMMIT'], file=pathlib.Path('commits').open('a'))\n"
            "print('caf\\u00e9 ' * 3000 + 'end')\n"
            f"sys.exit(e['SPARKBUILD_COMMIT'] == '{story.ids['dot']}')\n"
        )
        words = story.words("side", "dot")
        command = (sys.executable, "told.py", "--json")  # which is the command's own
        done = story.box.run(*words, *command, cwd=tmp_path, env={"MINE": "ours", "PYTHONUTF8": "1"})
        assert done.code == 0, done.err
        assert done.err.count("café " * 3000 + "end\n") == 2
        assert (tmp_path / "commits").read_text().split() == [story.ids["side"], story.ids["dot"]]


class TestRange:
    """Where skips hide it, all candidates are named."""

    def test_only_skipped_ones_are_left(self, story: Story) -> None:
        """Two can not be built, of one the command can not tell."""
        skip = f"case $SPARKBUILD_COMMIT in {story.ids['mended']}) exit 125;; esac"
        command = ("sh", "-c", f'{skip}; grep -q "%d threads," "$SPARKBUILD_BIN/llama-bench"')
        done = story.bisect("quiet", "threads", command=command)
        assert done.code == 1
        assert f"» skipped: {story.ids['broken'][:12]} compile: ggml/" in done.err
        assert "the first bad one is one of 4" in done.err
        lines = done.out.splitlines()
        assert lines[0] == "the first bad commit is one of these:"
        named = {line.strip() for line in lines[1:13:3]}
        assert named == {story.ids[n] for n in ("broken", "moved", "mended", "threads")}
        done = story.bisect("quiet", "threads", "--json", command=command)
        result = json.loads(done.out)["bisection"]
        assert (done.code, result["first_bad"], len(result["candidates"])) == (1, None, 4)
        whys = {story.name(t["commit"]): t["why"] for t in result["tried"] if t["verdict"] == "skipped"}
        assert whys.keys() == {"broken", "moved", "mended"}
        assert "exit code 125" in whys["mended"]


class TestRefused:
    """What makes no sense is said before anything is built, or as soon as it is known."""

    @pytest.mark.parametrize(
        ("good", "bad", "what"),
        [
            ("dot", "dot", "are the same"),
            ("threads", "base", "is older than the good one"),
            ("main2", "dot", "is not an ancestor"),
        ],
    )
    def test_ends_in_no_order(self, story: Story, good: str, bad: str, what: str) -> None:
        done = story.bisect(good, bad, "--json")
        error = done.error(2, "usage")
        assert what in error["what"]
        if good == "main2":
            assert story.ids["notes"][:12] in error["remedy"]
        assert "heard" not in done.err

    @pytest.mark.parametrize(
        ("command", "end"),
        [
            (("false",), "good"),
            (("true",), "bad"),
            (("sh", "-c", "nosuch"), "good"),
            (("sh", "-c", "exit 125"), "good"),
        ],
    )
    def test_an_end_is_not_what_it_is_called(self, story: Story, command: tuple[str, ...], end: str) -> None:
        error = story.bisect("side", "dot", "--json", command=command).error(2, "usage")
        assert error["what"].startswith(f"the {end} commit is not {end}: ")
        assert ("can not run" in error["what"]) == ("nosuch" in command)

    def test_an_end_that_does_not_build(self, story: Story) -> None:
        error = story.bisect("broken", "threads", "--json").error(6, "compile")
        assert error["what"].startswith(f"--good {story.ids['broken'][:12]}: ")
        assert "not today" in error["output"]

    @pytest.mark.parametrize(
        ("good", "words", "what"),
        [
            ("nosuch", ("--offline",), "does not have nosuch"),
            ("a..b", (), "not a branch, tag or commit id"),
            ("base", ("--source", "{archive}"), "an archive has no history"),
            ("base", ("--source", "{folder}"), "it is no git repository"),
            ("base", ("--source", "http://127.0.0.1/x"), "only https"),
        ],
    )
    def test_no_history(
        self, story: Story, tmp_path: Path, good: str, words: tuple[str, ...], what: str
    ) -> None:
        (tmp_path / "x.tar").write_bytes(b"")
        given = [w.format(archive=tmp_path / "x.tar", folder=tmp_path) for w in words]
        done = story.bisect(good, "threads", "--json", *given)
        assert done.code in (2, 3)
        assert what in done.out

    def test_a_command_that_is_not_there(self, story: Story) -> None:
        done = story.bisect("base", "threads", "--json", command=("./nosuch",))
        assert done.error(2, "usage")["where"] == "./nosuch"
        assert "»" not in done.err
        assert story.bisect("base", "threads", command=()).code == 2

    @pytest.mark.threat(
        "faults", "bisect's command crashes, or ends with 128 or more", "it stops and blames no commit"
    )
    @pytest.mark.parametrize(("end", "said"), [("kill -SEGV $$", "SIGSEGV"), ("exit 200", "exit code 200")])
    def test_a_command_that_crashes(self, story: Story, end: str, said: str) -> None:
        ends = f"{story.ids['base']}) exit 0;; {story.ids['threads']}) exit 1;;"
        command = ("sh", "-c", f"case $SPARKBUILD_COMMIT in {ends} esac; {end}")
        done = story.bisect("base", "threads", "--json", command=command)
        error = done.error(2, "usage")
        assert "» bad: " in done.err, "it was not an end"
        assert said in error["what"]
        assert "exit 125" in error["remedy"]


@pytest.mark.threat(
    "faults", "a compile in bisect lacks disk space or memory", "it stops; the commit is not skipped"
)
def test_a_fault_of_the_machine_is_no_skip(story: Story) -> None:
    """The compiler says so because the source makes it: what counts is what is made of its words."""
    toy, threads = story.toy, "ggml/src/ggml-threads.cpp"
    git(toy.source, "checkout", "--quiet", "-b", "full", story.ids["quiet"])
    toy.append(threads, "#error No space left on device\n")
    git(toy.source, "commit", "--quiet", "--all", "-m", "full")
    toy.replace(threads, "#error No space left on device\n", "")
    git(toy.source, "commit", "--quiet", "--all", "-m", "room")
    git(toy.source, "checkout", "--quiet", "main")
    words = ("--source", toy.source, "--json")
    error = story.bisect("quiet", "full", *words, command=story.only("quiet")).error(6, "compile")
    assert "the disk is full" in error["what"]
    assert "free some space" in error["remedy"]


@pytest.mark.threat("faults", "SIGINT while bisect's command runs", "its family ends; run again it goes on")
def test_an_interrupt_ends_the_command(story: Story, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f'echo pid $$; test -e {go} || sleep 200; test "$SPARKBUILD_COMMIT" != {story.ids["dot"]}'
    words = [*story.words("side", "dot"), "sh", "-c", script]
    run = story.box.start(*words)
    try:
        assert run.stderr
        pid = next(line.split()[1] for line in run.stderr if line.startswith("pid "))
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 130
    assert not Path("/proc", pid).exists()
    go.touch()
    assert story.box.run(*words).code == 0
