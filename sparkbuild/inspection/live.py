"""What an engine says of itself while it runs: its system information, its version, its help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sparkbuild.catalog.records import Features
from sparkbuild.inspection.features import State, Verdicts
from sparkbuild.inspection.help import Help, help_question, parse_help
from sparkbuild.inspection.report import SystemReport, ask_library
from sparkbuild.inspection.runtime import Answer, Question, View, ask

if TYPE_CHECKING:
    from sparkbuild.inspection.facts import FileFacts  # with numpy, which who reads a manifest need not load

_LIST_DEVICES = "--list-devices"


class How(msgspec.Struct, frozen=True):
    """What is needed to run a stranger's binary.

    ``compilers`` are the commands that compile C for each machine; ``libraries`` folders with what
    is not beside the binary, such as CUDA's run time. Without ``tools`` only the library is asked. With a
    ``view`` it runs in a sandbox, where it sees that and what is probed, and of a person's nothing else.
    """

    compilers: Mapping[str, Sequence[str | Path]]
    libraries: tuple[Path, ...] = ()
    tools: bool = True
    view: View = None


class Said(msgspec.Struct, frozen=True):
    """What an engine said.

    ``models`` tells of model architectures whether it knows them; ``tool`` is the program that was
    asked for version, devices and help.
    """

    system: SystemReport
    models: dict[str, bool] = {}
    tool: str = ""
    version: Answer = Answer("not run", "no tool was asked")
    devices: Answer = Answer("not run", "no tool was asked")
    options: tuple[str, ...] = ()
    cache_types: tuple[str, ...] = ()
    drafts: tuple[str, ...] = ()


class Contradiction(msgspec.Struct, frozen=True):
    """A feature of which the bytes say one thing and the running program another."""

    feature: str
    static: str
    runtime: str


def listen(
    files: Mapping[str, Path],
    facts: Sequence[FileFacts],
    rules: Features,
    models: Sequence[str],
    how: How,
    work: Path,
) -> Said:
    """Run what can be run of the files (by their names in ``facts``) and return what it said."""
    system, known_models = _library(files, facts, rules, models, how, work)
    named = {name.rpartition("/")[2]: name for name in files}
    tool = next((named[t] for t in rules.asked.tools if t in named), "")
    if not tool or not how.tools:
        return Said(system, known_models)
    machine = next(f.elf.machine for f in facts if f.name == tool)
    path = files[tool]
    known = parse_help(ask(help_question(path), machine, how.libraries, view=how.view).output)
    return Said(
        system=system,
        models=known_models,
        tool=tool,
        version=ask(Question(path, ("--version",)), machine, how.libraries, view=how.view),
        devices=_devices(path, machine, known, how),
        options=known.options,
        cache_types=_values(known, rules.asked.cache_types),
        drafts=_values(known, rules.asked.drafts),
    )


def _devices(path: Path, machine: str, known: Help, how: How) -> Answer:
    if _LIST_DEVICES not in known.options:
        return Answer("not run", f"it has no {_LIST_DEVICES}")
    return ask(Question(path, (_LIST_DEVICES,)), machine, how.libraries, view=how.view)


def _library(
    files: Mapping[str, Path],
    facts: Sequence[FileFacts],
    rules: Features,
    models: Sequence[str],
    how: How,
    work: Path,
) -> tuple[SystemReport, dict[str, bool]]:
    libraries = [f for f in facts if rules.asked.library in f.names.symbols and not f.elf.interpreter]
    if not libraries:
        return SystemReport("not run", f"no shared library here has {rules.asked.library}"), {}
    path, machine = files[libraries[0].name], libraries[0].elf.machine
    compiler = how.compilers.get(machine)
    return ask_library(path, models, machine, compiler, work, how.libraries, view=how.view)


def _values(known: Help, options: Sequence[str]) -> tuple[str, ...]:
    return next((known.values[o] for o in options if o in known.values), ())


def contradictions(verdicts: Verdicts, rules: Features, said: Said) -> tuple[Contradiction, ...]:
    """Return where the bytes and the running engine disagree; what either does not know is none."""
    keys = {f.name: f.runtime for f in rules.features if f.runtime}
    found = []
    for finding in verdicts.findings:
        state = runtime_state(keys[finding.name], said.system) if finding.name in keys else "unknown"
        if "unknown" not in (state, finding.state) and state != finding.state:
            proof = "; ".join(finding.evidence) or finding.reason
            told = f"{state} by {keys[finding.name]}"
            found.append(Contradiction(finding.name, f"{finding.state} ({proof})", told))
    for model in verdicts.models:
        known = said.models.get(model.name)
        if known is not None and model.state == ("absent" if known else "present"):
            told = "known" if known else "not known"
            found.append(Contradiction(f"model:{model.name}", model.state, told))
    return tuple(found)


def with_models(verdicts: Verdicts, known: Mapping[str, bool]) -> Verdicts:
    """Return the verdicts with what the running engine said of the models that the bytes left open."""
    models = tuple(
        msgspec.structs.replace(m, state="present" if known[m.name] else "absent")
        if m.state == "unknown" and m.name in known
        else m
        for m in verdicts.models
    )
    open_ = any(m.state == "unknown" for m in models)
    return msgspec.structs.replace(
        verdicts, models=models, models_reason=verdicts.models_reason if open_ else ""
    )


def runtime_state(key: str, system: SystemReport) -> State:
    """Return what the running engine says of SECTION or SECTION.KEY in its system information.

    Engines with sections list what is on; one without sections lists every key with 0 or 1.
    """
    section, _, name = key.partition(".")
    parts = {s.upper(): v for s, v in system.features.items()}
    if "" in parts:
        value = parts[""].get(name) if name else None
        return "unknown" if value is None else "absent" if value == "0" else "present"
    if not parts:
        return "unknown"
    if not name or section.upper() not in parts:
        return "present" if section.upper() in parts else "absent"
    return "present" if parts[section.upper()].get(name, "0") != "0" else "absent"
