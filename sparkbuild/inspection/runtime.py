"""Ask a built program something, natively or under qemu-user. "Not run" is an answer of its own."""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from sparkbuild import process
from sparkbuild.errors import StoreError
from sparkbuild.toolchain import sandbox

_LIMIT = 4000  # characters of an answer
# What glibc's loader (natively or emulated) and qemu-user say when a program can not begin.
_NOT_LOADED = re.compile(
    r"^.*(?:error while loading shared libraries: |version `\S+' not found |: Could not open ').*$",
    re.MULTILINE,
)


View = tuple[Path, ...] | None
"""The files and folders that a program sees in a sandbox; None is for no sandbox."""


class Answer(msgspec.Struct, frozen=True):
    """What a program said, with nothing in it that could steer a terminal.

    ``ran`` is how: native or qemu; "not run" when it could not begin, for want of an emulator or a
    library; "failed" when it ran and ended badly. The last two have a ``reason``.
    """

    ran: str
    reason: str = ""
    output: str = ""


class Question(msgspec.Struct, frozen=True):
    """A tool and what it is started with; ``timeout`` in seconds, ``limit`` of its answer in characters."""

    tool: Path
    words: tuple[str, ...]
    timeout: float = 120.0
    limit: int = _LIMIT


class VersionReport(msgspec.Struct, frozen=True):
    """What ``--version`` printed; ``ran`` is as in Answer, and failed also when it held no version."""

    ran: str
    reason: str = ""
    output: str = ""
    number: int | None = None
    commit: str = ""


class Run(msgspec.Struct, frozen=True):
    """How a program ran, as in Answer, and both its outputs, raw."""

    ran: str
    reason: str
    output: str = ""
    errors: str = ""


def version_of(answer: Answer, pattern: str) -> VersionReport:
    """Read the build number and the commit out of what ``--version`` printed."""
    ran, reason, said = answer.ran, answer.reason, answer.output
    if reason:
        return VersionReport(ran, reason, said)
    match = re.search(pattern, said)
    if not match or not (match["number"] or "").isdecimal():
        return VersionReport("failed", "its answer does not hold the version that is looked for", said)
    return VersionReport(ran, "", said, int(match["number"]), match["commit"] or "")


def ask(question: Question, machine: str, libraries: Iterable[Path] = (), *, view: View = None) -> Answer:
    """Ask one question; the rest is as in asking."""
    with asking((question,), machine, libraries, view=view) as answers:
        return answers()[0]


@contextlib.contextmanager
def asking(
    questions: Iterable[Question], machine: str, libraries: Iterable[Path] = (), *, view: View = None
) -> Iterator[Callable[[], list[Answer]]]:
    """Ask all questions at once, beside the block; what is given waits for the answers, in their order.

    ``libraries`` are folders with what is not beside a tool, such as CUDA's run time. The rest is as in
    run_alone.
    """
    asked, folders = tuple(questions), tuple(libraries)
    with contextlib.ExitStack() as stack:
        begun = [_begun(q.tool, q.words, machine, folders, timeout=q.timeout, view=view) for q in asked]
        runs = [stack.enter_context(b) for b in begun]
        yield lambda: [_answer(run(), q.limit) for run, q in zip(runs, asked, strict=True)]


def _answer(done: Run, limit: int) -> Answer:
    return Answer(done.ran, done.reason, printable((done.output + done.errors).strip()[:limit], "\n\t"))


def run_alone(
    tool: Path,
    words: Sequence[str],
    machine: str,
    libraries: Iterable[Path],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    view: View = None,
) -> Run:
    """Run a program in an empty home of its own and leave nothing of it behind.

    With a ``view`` it is in a sandbox, which shows that, ``libraries`` and nothing else of a person's.
    Its memory is not limited: a CUDA driver reserves more addresses than any machine has memory.
    """
    begun = _begun(
        tool, words, machine, tuple(libraries), timeout=timeout, environment=environment, view=view
    )
    with begun as answer:
        return answer()


@contextlib.contextmanager
def _begun(
    tool: Path,
    words: Sequence[str],
    machine: str,
    folders: tuple[Path, ...],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    view: View = None,
) -> Iterator[Callable[[], Run]]:
    """Start a program as run_alone does; what is given waits for its end."""
    launcher = launch(machine)
    if isinstance(launcher, str):
        yield lambda: Run("not run", launcher)
        return
    with contextlib.ExitStack() as stack:
        alone = _alone(launcher, (tool.absolute(), *words), folders, environment or {})
        argv, env, home = stack.enter_context(alone)
        entered = () if view is None else sandbox.enter(sandbox.View((*folders, *view), (home,)))
        try:
            begun = stack.enter_context(process.begun([*entered, *argv], env=env, cwd=home))
        except process.ProcessError as problem:
            why = str(problem)
            yield lambda: Run("not run", why)
            return

        def answer() -> Run:
            try:
                done = begun(b"", timeout)
            except process.NoAnswerError as problem:
                return Run("failed", problem.why, problem.done.output, problem.done.errors)
            return outcome(machine, done.returncode, done.output, done.errors)

        yield answer


@contextlib.contextmanager
def in_background(
    tool: Path,
    words: Sequence[str],
    machine: str,
    libraries: Iterable[Path],
    *,
    environment: Mapping[str, str] | None = None,
) -> Iterator[process.Running | Run]:
    """Run a program as run_alone does, but beside the block; a Run says why it can not begin."""
    launcher = launch(machine)
    if isinstance(launcher, str):
        yield Run("not run", launcher)
        return
    with contextlib.ExitStack() as stack:
        argv, env, home = stack.enter_context(
            _alone(launcher, (tool.absolute(), *words), libraries, environment or {})
        )
        begun: process.Running | Run
        try:
            begun = stack.enter_context(process.running(argv, env=env, cwd=home))
        except process.ProcessError as problem:
            begun = Run("not run", str(problem))
        yield begun


@contextlib.contextmanager
def _alone(
    launcher: tuple[str, ...],
    command: tuple[process.Word, ...],
    libraries: Iterable[Path],
    environment: Mapping[str, str],
) -> Iterator[tuple[list[process.Word], dict[str, str], Path]]:
    """Give command line, environment and home of a program; at the end all that has this home is ended."""
    path = ":".join(str(p) for p in libraries)
    home = tempfile.mkdtemp()
    ours = process.clean_env(HOME=home, TMPDIR=home)
    env = {**environment, **ours} | ({"LD_LIBRARY_PATH": path} if path else {})
    try:
        # qemu itself must not load the target's libraries.
        yield [*_with_env(launcher, env), *command], ours if launcher else env, Path(home)
    finally:
        process.end_marked(f"HOME={home}\0")
        with contextlib.suppress(StoreError):
            sandbox.clear(Path(home))


def native_or_not(machine: str) -> str:
    """Return how a machine's programs run here, as in Answer."""
    return "native" if machine == platform.machine() else "qemu"


def outcome(machine: str, code: int, output: str, errors: str) -> Run:
    """Return what an exit code means: a program that could not be loaded did not run."""
    if code == 0:
        return Run(native_or_not(machine), "", output, errors)
    lost = _NOT_LOADED.search(errors[:_LIMIT])
    why = printable(lost[0].strip()) if lost else process.reason(code)
    return Run("not run" if lost else "failed", why, output, errors)


def printable(text: str, kept: str = "") -> str:
    """Return a text without what could steer a terminal, but for the characters in ``kept``."""
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def launch(machine: str) -> tuple[str, ...] | str:
    """Return the words that start a binary of ``machine`` here (none natively), or why it can not."""
    if machine == platform.machine():
        return ()
    qemu = shutil.which(f"qemu-{machine}") or shutil.which(f"qemu-{machine}-static")
    if not qemu:
        return f"this machine is {platform.machine()} and qemu-{machine} is not installed"
    root = Path(f"/usr/{machine}-linux-gnu")
    return (qemu, "-L", str(root)) if root.is_dir() else f"{root} with the target's C library is missing"


def _with_env(launcher: tuple[str, ...], env: dict[str, str]) -> list[str]:
    """Give an emulated program its environment."""
    if not launcher:
        return []
    return [*launcher, *(word for name, value in env.items() for word in ("-E", f"{name}={value}"))]
