from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sparkbuild import process
from sparkbuild.process import NoAnswerError, ProcessError


def alive(mark: str) -> list[int]:
    """Return the processes, zombies aside, whose command line holds ``mark``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it ended while we looked
            continue
        if mark.encode() in words and state != "Z" and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def gone(mark: str) -> bool:
    """Return whether all processes with ``mark`` end; a signal is on its way, so look twice."""
    for _ in range(200):
        if not alive(mark):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a number of seconds to sleep that no other process uses, and end who still does."""
    seconds = f"1{os.getpid():07d}.{abs(hash(request.node.name)) % 10**6:06d}"
    yield seconds
    for left in alive(seconds):
        os.kill(left, signal.SIGKILL)


# --- run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["a b", "$HOME", "`id`", "; echo x", "'", '"', "*", "\\", "-n", "ü\n", ""])
def test_arguments_arrive_as_they_are(word: str) -> None:
    code = "import sys; sys.stdout.buffer.write(sys.argv[1].encode())"
    assert process.run([sys.executable, "-c", code, word]).output == word


def test_paths_are_words_and_the_command_can_be_pasted(tmp_path: Path) -> None:
    done = process.run(["ls", "-d", tmp_path / ".", "/"], cwd=tmp_path)
    assert done.returncode == 0
    assert done.argv == ("ls", "-d", str(tmp_path), "/")
    assert process.Completed(("a", "b c", "$d"), 0, "", "").command == "a 'b c' '$d'"


def test_the_environment_is_the_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-hostile")
    monkeypatch.setenv("LD_PRELOAD", "")
    assert set(process.clean_env(A="b")) == {"PATH", "LC_ALL", "TZ", "A"}
    seen = process.run(["/usr/bin/env"]).output.splitlines()
    assert {line.partition("=")[0] for line in seen} == {"PATH", "LC_ALL", "TZ"}
    assert process.run(["/usr/bin/env"], env={"X": "1"}).output == "X=1\n"


def test_both_outputs_and_the_input(tmp_path: Path) -> None:
    done = process.run(["sh", "-c", "pwd; cat; echo bad >&2"], stdin="in\n", cwd=tmp_path)
    assert (done.output, done.errors) == (f"{tmp_path}\nin\n", "bad\n")


def test_input_larger_than_a_pipe_goes_through_and_may_be_ignored() -> None:
    text = "0123456789\n" * 50_000
    assert process.run(["cat"], stdin=text).output == text
    assert process.run(["true"], stdin=text).output == ""


def test_bytes_that_are_no_text_become_text() -> None:
    assert process.run(["printf", r"a\377\033b"]).output == "a\\xff\x1bb"


@pytest.mark.parametrize(
    ("body", "code", "why"),
    [("exit 3", 3, "exit code 3"), ("kill -SEGV $$", -11, "SIGSEGV"), ("kill -KILL $$", -9, "SIGKILL")],
)
def test_a_failure_says_what_and_why(body: str, code: int, why: str) -> None:
    with pytest.raises(ProcessError, match=f"^sh: .*{why}$") as caught:
        process.run(["sh", "-c", f"echo out; echo err >&2; {body}"])
    done = caught.value.done
    assert (done.returncode, done.output, done.errors) == (code, "out\n", "err\n")
    assert process.run(["sh", "-c", body], check=False).returncode == code


@pytest.mark.parametrize("command", [["/nowhere/to/be/found"], ["a\0b"], ["/"]])
def test_what_can_not_be_started(command: list[str]) -> None:
    with pytest.raises(ProcessError, match="could not be started"):
        process.run(command)
    with (
        pytest.raises(ProcessError, match="could not be started"),
        process.stream(command, env={}, cwd=Path("/")),
    ):
        pytest.fail("it started")


@pytest.mark.threat("binaries", "a program that hangs with its children", "the whole family is ended")
@pytest.mark.parametrize("ignoring", ["", "trap '' TERM; "])
def test_a_timeout_ends_the_whole_family(mark: str, ignoring: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.2)
    with pytest.raises(NoAnswerError, match="no answer within") as caught:
        process.run(
            ["sh", "-c", f"{ignoring}echo said; (sleep {mark} & sleep {mark}) & sleep {mark}"], timeout=1.5
        )
    assert caught.value.done.output == "said\n"
    assert gone(mark)


@pytest.mark.parametrize("where", ["", ">/dev/null 2>&1"], ids=["holds the pipes", "holds nothing"])
def test_what_a_program_leaves_behind_is_ended(mark: str, where: str) -> None:
    done = process.run(["sh", "-c", f"sleep {mark} {where} & echo over"], timeout=300)
    assert done.output == "over\n"
    assert gone(mark)


def test_a_child_that_closes_its_outputs_is_still_waited_for(mark: str) -> None:
    assert process.run(["sh", "-c", "exec >&- 2>&-; sleep 0.1; exit 4"], check=False).returncode == 4
    with pytest.raises(NoAnswerError):
        process.run(["sh", "-c", f"exec >&- 2>&-; sleep {mark}"], timeout=0.3)
    assert gone(mark)


def test_a_flood_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LIMIT", 100_000)
    done = process.run(["sh", "-c", "yes | head -c 3000000; yes no | head -c 3000000 >&2"])
    assert len(done.output) == len(done.errors) == 100_000


@pytest.mark.threat("binaries", "a program that floods without end", "ended with its time; 8 MiB kept")
def test_an_endless_flood_ends_with_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LIMIT", 1000)
    with pytest.raises(NoAnswerError) as caught:
        process.run(["yes"], timeout=1.0)
    assert len(caught.value.done.output) == 1000


# --- stream --------------------------------------------------------------------------------------


def test_lines_arrive_one_by_one_from_both_outputs(tmp_path: Path) -> None:
    code = "echo one; echo two >&2; pwd; read x || echo no input; exit 5"
    with process.stream(["sh", "-c", code], env=process.clean_env(), cwd=tmp_path) as running:
        assert running.returncode is None
        assert list(running) == ["one", "two", str(tmp_path), "no input"]
    assert running.returncode == 5


def test_a_line_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "_LIMIT", 1000)
    with process.stream(
        ["head", "-c", "5000", "/dev/zero"], env=process.clean_env(), cwd=tmp_path
    ) as running:
        assert [len(line) for line in running] == [1000] * 5


@pytest.mark.parametrize("way", ["leave", "break", "error", "interrupt"])
def test_leaving_a_stream_early_leaves_no_process(mark: str, tmp_path: Path, way: str) -> None:
    code = f"sleep {mark} & echo go; sleep {mark}"

    def use() -> None:
        with process.stream(["sh", "-c", code], env=process.clean_env(), cwd=tmp_path) as running:
            if way == "leave":
                return
            for line in running:
                assert line == "go"
                if way == "break":
                    break
                raise KeyboardInterrupt if way == "interrupt" else RuntimeError

    if way in ("leave", "break"):
        use()
    else:
        with pytest.raises(KeyboardInterrupt if way == "interrupt" else RuntimeError):
            use()
    assert gone(mark)


@pytest.mark.threat(
    "faults",
    "a program that floods its output while it is ended",
    "it ends, and nothing waits for it",
)
def test_a_child_that_floods_while_it_is_ended_does_not_block(tmp_path: Path, mark: str) -> None:
    code = f"trap 'yes | head -c 1000000; exit' TERM; echo go; while :; do sleep 0.05; done; sleep {mark}"
    with process.stream(["sh", "-c", code], env=process.clean_env(), cwd=tmp_path) as running:
        assert next(iter(running)) == "go"
    assert gone(mark)


# --- running -------------------------------------------------------------------------------------


def in_background(body: str, **env: str) -> AbstractContextManager[process.Running]:
    return process.running(["sh", "-c", body], env=process.clean_env(**env), cwd=Path("/"))


def until_it_says(child: process.Running, text: str) -> None:
    while text not in child.output and child.returncode is None:
        time.sleep(0.01)


def test_a_background_command_is_stopped_by_sigterm(mark: str) -> None:
    with in_background(f"trap 'echo bye; exit 7' TERM; echo up >&2; sleep {mark} & wait") as child:
        until_it_says(child, "up")
        assert child.returncode is None
        assert child.stop() == 7
    assert child.output == "up\nbye\n"
    assert gone(mark)


@pytest.mark.parametrize("how", [KeyboardInterrupt, ValueError])
@pytest.mark.threat(
    "faults",
    "an interrupt or an error while a server runs in the background",
    "the server and what it started end",
)
def test_leaving_the_block_ends_a_background_command(mark: str, how: type[BaseException]) -> None:
    def leave() -> None:
        with in_background(f"sleep {mark} & echo up; wait") as child:
            until_it_says(child, "up")
            raise how

    with pytest.raises(how):
        leave()
    assert gone(mark)


@pytest.mark.threat("faults", "a command with a time limit is interrupted, or leaves it running", "it ends")
@pytest.mark.parametrize("last", ["wait", "exit 0"])
def test_a_process_group_of_its_own_ends_too(mark: str, last: str) -> None:
    with in_background(f"timeout 300 sleep {mark} & sleep 0.2; echo up; {last}") as child:
        until_it_says(child, "up")
    assert gone(mark)


@pytest.mark.threat(
    "faults",
    "a server that ignores SIGTERM",
    "it is killed with what it started",
)
def test_a_background_command_that_ignores_sigterm_is_killed(
    mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.3)
    with in_background(f"trap '' TERM; echo up; sleep {mark}; sleep {mark}") as child:
        until_it_says(child, "up")
        assert child.stop() == -signal.SIGKILL
    assert gone(mark)


def test_a_background_flood_neither_blocks_nor_fills_memory() -> None:
    with in_background("yes | head -c 50000000; echo over >&2; exit 3") as child:
        while child.returncode is None:
            time.sleep(0.01)
        assert child.returncode == 3
    assert len(child.output) == process._LIMIT


@pytest.mark.threat(
    "faults",
    "a program that leaves a flooding child in a session of its own",
    "nobody waits for it, and it ends",
)
def test_an_orphan_that_floods_does_not_hold_the_block(mark: str) -> None:
    with in_background(f"setsid yes {mark} & echo up") as child:
        until_it_says(child, "up")
    assert gone(mark)  # it is in a session of its own, but nobody reads its pipe any more


def test_a_background_command_that_can_not_start_says_so() -> None:
    tool = process.running(["/nowhere/tool"], env={}, cwd=Path("/"))
    with pytest.raises(ProcessError, match="could not be started"), tool:
        pass
