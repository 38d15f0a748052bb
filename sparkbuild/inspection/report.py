"""Ask the shared library of an engine what it was built with and which backends and devices it has.

A small program of ours, report.c, is compiled for the target; it loads the library and calls a few
functions of its public interface. No model is needed, and no GPU.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

import msgspec

from sparkbuild import process
from sparkbuild.inspection.runtime import Run, View, native_or_not, printable, run_alone

_RECORD = 4  # a record's words: its kind and three fields
_HELPER = Path(__file__).with_suffix(".c")
# ggml_backend_dev_type, since it has IGPU
_KINDS = {"0": "cpu", "1": "gpu", "2": "igpu", "3": "accel", "4": "meta"}
# What dlerror(3) says when a library, or a version in it, is not there; else the library is at fault.
_NOT_THERE = re.compile(r": cannot open shared object file: |: version `\S+' not found ")


class Device(msgspec.Struct, frozen=True):
    """A device of a backend; ``kind`` is cpu, gpu, igpu, accel, meta or unknown."""

    name: str
    description: str
    kind: str


class BackendReport(msgspec.Struct, frozen=True):
    """A backend, what it says that it was built with, and its devices on this machine."""

    name: str
    features: dict[str, str]
    devices: tuple[Device, ...] = ()


class SystemReport(msgspec.Struct, frozen=True):
    """What an engine said of itself. ``ran`` and ``reason`` are as in runtime.Answer.

    ``features`` is ``system_info`` taken apart, by section: "CPU" -> {"NEON": "1"}; an engine whose
    line has no sections has one with the name "". One that failed may have told a part.
    """

    ran: str
    reason: str = ""
    system_info: str = ""
    features: dict[str, dict[str, str]] = {}
    backends: tuple[BackendReport, ...] = ()


def ask_library(
    libllama: Path,
    names: Sequence[str],
    machine: str,
    compiler: Sequence[str | Path] | None,
    work: Path,
    libraries: Iterable[Path] = (),
    *,
    timeout: float = 120.0,
    view: View = None,
) -> tuple[SystemReport, dict[str, bool]]:
    """Load ``libllama`` and the backends beside it, and return what they say, and which models it knows.

    ``names`` are architectures of models; each is tried with a model file that holds nothing but its name,
    and those that can not be told are left out. ``compiler`` is the command that compiles C for ``machine``,
    ``work`` a folder to compile in; ``libraries`` are folders with what is not beside the library;
    ``timeout`` is in seconds; with a ``view`` it runs in a sandbox, as in runtime.run_alone.
    """
    done = _helped(libllama, names, machine, compiler, work, libraries, timeout, view)
    if isinstance(done, str):
        return SystemReport("not run", done), {}
    records = (line.split(" ") for line in done.output.split("\n"))
    told = {unquote(r[1]): r[2] for r in records if len(r) == _RECORD and r[0] == "model"}
    return _report(done, machine), {name: answer == "yes" for name, answer in told.items() if answer}


def _helped(
    libllama: Path,
    names: Sequence[str],
    machine: str,
    compiler: Sequence[str | Path] | None,
    work: Path,
    libraries: Iterable[Path],
    timeout: float,
    view: View,
) -> Run | str:
    """Compile the helper and run it; return why not where it can not be compiled."""
    if not compiler:
        return f"there is no C compiler for {machine} to make the helper with"
    library = libllama.absolute()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        helper = Path(folder, "report")
        command = [*compiler, "-std=c99", _HELPER, "-o", helper, "-ldl"]
        try:
            process.run(command, cwd=Path(folder), env=process.clean_env(TMPDIR=folder))
        except process.ProcessError as problem:
            why = next((line for line in problem.done.errors.splitlines() if "error" in line), "")
            return printable(f"the helper does not compile: {problem} {why}".strip())
        words = (str(library), str(library.parent), *names)
        seen = None if view is None else (*view, helper)
        return run_alone(helper, words, machine, libraries, timeout=timeout, view=seen)


def parse_system_info(line: str) -> dict[str, dict[str, str]]:
    """Take ``CUDA : ARCHS = 1210 | CPU : NEON = 1 | `` apart: sections, names, values."""
    features: dict[str, dict[str, str]] = {}
    section = ""
    for item in line.split(" | "):
        words, equals, value = item.partition(" = ")
        *sections, name = words.split(" : ")
        for section in sections:
            features.setdefault(section.strip(), {})
        if equals:
            features.setdefault(section.strip(), {})[name.strip()] = value.strip()
    return features


def _report(done: Run, machine: str) -> SystemReport:
    """Read the records that report.c writes; what else may be between them is not ours."""
    last: dict[str, tuple[str, str]] = {}
    backends: list[BackendReport] = []
    for line in done.output.split("\n")[:-1]:
        match [printable(unquote(word)) for word in line.split(" ")]:
            case ["backend", name, _, _]:
                backends.append(BackendReport(name, {}))
            case ["feature", name, value, _] if backends:
                backends[-1].features[name] = value
            case ["device", kind, name, text] if backends:
                device = Device(name, text, _KINDS.get(kind, "unknown"))
                devices = (*backends[-1].devices, device)
                backends[-1] = msgspec.structs.replace(backends[-1], devices=devices)
            case [kind, first, second, _]:
                last[kind] = (first, second)
    ran, reason = (native_or_not(machine), "") if "end" in last else _verdict(done, last)
    info = last.get("info", ("", ""))[0]
    return SystemReport(ran, reason, info.strip(), parse_system_info(info), tuple(backends))


def _verdict(done: Run, last: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """Return how it ran, and why it did not answer where it did not."""
    if done.ran == "not run":
        return done.ran, done.reason
    if "absent" in last:
        why = last["absent"][0]
        return ("not run" if _NOT_THERE.search(why) else "failed"), why
    if "error" in last:
        return "failed", " ".join(last["error"]).strip()
    said = [line for line in done.errors.splitlines() if line.strip() and not line.startswith("qemu: ")]
    why = f"{done.reason or process.reason(0)} in {last.get('at', ('its beginning', ''))[0]}"
    return "failed", printable(f"{why}, saying: {said[-1].strip()[:200]}" if said else why)
