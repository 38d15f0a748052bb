"""Each of an artifact's tools tried on a model: the command, its time, what its answer must hold."""

from __future__ import annotations

import http.client
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import msgspec

from sparkbuild import process
from sparkbuild.handover import Artifact, HandoverError, Tool
from sparkbuild.inspection.runtime import Run, in_background, outcome, printable, run_alone
from sparkbuild.smoke import answers, server
from sparkbuild.smoke.answers import BadAnswerError, Bench
from sparkbuild.smoke.records import Step, Verdict
from sparkbuild.smoke.words import command, expected

_TEXT = "the quick brown fox jumps over the lazy dog. " * 3  # 136 tokens of the tiny model: four times 32
_QUESTION = {"prompt": "the quick brown fox", "n_predict": 4, "temperature": 0.0}
_ENDED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)  # exit codes of a server that was told to end
_PAUSE = 0.1  # seconds between two looks at a server that is not ready
_LAST_WORDS = 300  # characters


class Trial(msgspec.Struct, frozen=True):
    """What is the same for every tool of a test.

    ``settings`` are used without a profile; ``patience`` is in seconds, for each tool; ``on_gpu``: it must
    use the GPU that is here.
    """

    artifact: Artifact
    profile: str
    settings: Mapping[str, str]
    environment: Mapping[str, str]
    libraries: tuple[Path, ...]
    model: Path
    work: Path
    patience: float
    on_gpu: bool

    @property
    def machine(self) -> str:
        """The processor of its binaries, as in uname -m."""
        return self.artifact.manifest.run.needs.processor


class Tried(msgspec.Struct, frozen=True):
    """A step, what the tool said while it ran, and a benchmark's results."""

    step: Step
    log: str = ""
    benches: tuple[Bench, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    said: str
    figures: dict[str, float]
    log: str
    benches: tuple[Bench, ...] = ()


class _NotRunError(Exception):
    """A tool that could not begin here."""


Attempt = Callable[[Trial, Tool], _Answer]


def attempts(artifact: Artifact, profile: str) -> list[tuple[Tool, Attempt]]:
    """Return what is tried: the benchmarks that the artifact has, and one tool that answers.

    With a profile these are the tools that have a command for it.
    """
    benches: list[tuple[str, Attempt]] = [("bench", _bench), ("sweep-bench", _sweep)]
    answering: list[tuple[str, Attempt]] = [("server", _serve), ("perplexity", _perplexity), ("cli", _cli)]
    known = {c.role for c in artifact.manifest.run.commands if c.profile == profile}
    tools = {t.role: t for t in artifact.manifest.run.tools if not profile or t.role in known}
    found = [(tools[r], a) for r, a in benches if r in tools]
    return found + [(tools[r], a) for r, a in answering if r in tools][:1]


def attempt(trial: Trial, tool: Tool, how: Attempt) -> Tried:
    """Try one tool; whatever it does, the answer is a step."""
    begun = time.monotonic()
    answer = None
    verdict: Verdict = "failed"
    try:
        answer = how(trial, tool)
        verdict, said = "passed", answer.said
    except _NotRunError as problem:
        verdict, said = "not run", str(problem)
    except (BadAnswerError, HandoverError) as problem:
        said = str(problem)
    seconds = round(time.monotonic() - begun, 2)
    step = Step(tool.role, verdict, seconds, said, answer.figures if answer else {})
    return Tried(step, answer.log, answer.benches) if answer else Tried(step)


def _words(trial: Trial, tool: Tool, extra: Mapping[str, str]) -> list[str]:
    return command(trial.artifact, tool, trial.profile, trial.model, trial.settings, extra)


def _run(trial: Trial, tool: Tool, extra: Mapping[str, str]) -> Run:
    """Run a tool to its end, which must be good."""
    done = run_alone(
        trial.artifact.path / tool.path,
        _words(trial, tool, extra),
        trial.machine,
        trial.libraries,
        timeout=trial.patience,
        environment=trial.environment,
    )
    return _good(done)


def _good(done: Run) -> Run:
    if done.ran == "not run":
        raise _NotRunError(done.reason)
    if done.ran == "failed":
        _fail(done.reason, done.errors or done.output)
    return done


def _fail(why: str, said: str) -> NoReturn:
    last = [line for line in said.splitlines() if line.strip()][-1:]
    raise BadAnswerError(f"{why}, saying: {printable(last[0].strip())[:_LAST_WORDS]}" if last else why)


def _bench(trial: Trial, tool: Tool) -> _Answer:
    done = _run(trial, tool, {"log": ""} if trial.on_gpu else {})
    source = trial.artifact.manifest.source
    found = answers.benches(done.output)
    wanted = expected(trial.artifact, tool, trial.profile, trial.settings)
    answers.check_bench(found, source.commit, source.build_number, wanted)
    first = found[0]
    said = f"build {first.build_number} ({first.build_commit}), KV cache {first.type_k}/{first.type_v}"
    return _Answer(printable(said), answers.bench_figures(found), done.errors, tuple(found))


def _sweep(trial: Trial, tool: Tool) -> _Answer:
    done = _run(trial, tool, {})
    log = f"{done.output}\n{done.errors}"  # its table goes where its log goes
    return _Answer("its table holds results", answers.sweep_figures(log), log)


def _perplexity(trial: Trial, tool: Tool) -> _Answer:
    text = trial.work / "text"
    text.write_text(_TEXT)
    done = _run(trial, tool, {"file": str(text)})
    log = f"{done.output}\n{done.errors}"
    return _Answer("it read a text", answers.perplexity(log), log)


def _cli(trial: Trial, tool: Tool) -> _Answer:
    done = _run(trial, tool, {})
    if not done.output.strip():
        _fail("it said nothing", done.errors)
    return _Answer("it wrote a text", {}, done.output + done.errors)


def _serve(trial: Trial, tool: Tool) -> _Answer:
    port = server.free_port()
    begun = time.monotonic()
    with in_background(
        trial.artifact.path / tool.path,
        _words(trial, tool, {"host": server.HOST, "port": str(port)}),
        trial.machine,
        trial.libraries,
        environment=trial.environment,
    ) as child:
        if isinstance(child, Run):
            raise _NotRunError(child.reason)
        until = begun + trial.patience
        _wait(trial, child, port, until)
        ready = round(time.monotonic() - begun, 2)
        text, figures = _complete(trial, child, port, until)
        _wait(trial, child, port, max(until, time.monotonic() + 1))  # it must live on
        code = child.stop()
    if code == -signal.SIGKILL:
        raise BadAnswerError("it answered, but SIGTERM did not end it within 5 s")
    if code not in _ENDED:
        _fail(f"it answered, but told to end: {process.reason(code)}", child.output)
    return _Answer(f"it answered {text!r}", {"seconds until ready": ready, **figures}, child.output)


def _wait(trial: Trial, child: process.Running, port: int, until: float) -> None:
    """Wait until a server says that it is well."""
    said = "it did not answer on its port"
    while (left := until - time.monotonic()) > 0:
        if child.returncode is not None:
            _ended(trial, child)
        try:
            status, body = server.ask(port, "/health", left)
        except (OSError, http.client.HTTPException):
            time.sleep(_PAUSE)
            continue
        if status == http.HTTPStatus.OK:
            return
        said = f"/health says {status} {printable(body[:_LAST_WORDS].decode(errors='replace'))}"
        time.sleep(_PAUSE)
    _fail(f"not ready within {trial.patience:.0f} s: {said}", child.output)


def _complete(trial: Trial, child: process.Running, port: int, until: float) -> tuple[str, dict[str, float]]:
    """Let a server complete a text."""
    try:
        left = max(1.0, until - time.monotonic())
        status, body = server.ask(port, "/completion", left, _QUESTION)
    except (OSError, http.client.HTTPException) as problem:
        time.sleep(_PAUSE)
        if child.returncode is not None:
            _ended(trial, child)
        _fail(f"no answer on /completion: {printable(str(problem))}", child.output)
    if status != http.HTTPStatus.OK:
        text = printable(body[:_LAST_WORDS].decode(errors="replace"))
        raise BadAnswerError(f"/completion says {status} {text}")
    return answers.completion(body)


def _ended(trial: Trial, child: process.Running) -> NoReturn:
    """Say how a server ended that should be there."""
    done = _good(outcome(trial.machine, child.returncode or 0, "", child.output))
    _fail("it ended by itself with exit code 0", done.errors)
