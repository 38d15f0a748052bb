"""Compiled programs are asked what they say, the good and the hostile ones."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.catalog.records import Evidence
from sparkbuild.inspection import live, runtime
from sparkbuild.inspection.facts import file_facts, wanted_names
from sparkbuild.inspection.features import Finding, Model, Verdicts
from sparkbuild.inspection.gather import elf_files
from sparkbuild.inspection.live import How, Said, contradictions, listen, runtime_state, with_models
from sparkbuild.inspection.report import SystemReport, parse_system_info
from sparkbuild.inspection.runtime import Answer, Question, View
from tests import toys
from tests.unit.inspection.test_features import feature_of, rules_of

_HERE = platform.machine()
_RULES = Catalog((shipped_root(),)).features().record

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("objcopy"), reason="gcc and binutils are not installed"
)


def said(folder: Path, work: Path, *, tools: bool = True) -> Said:
    work.mkdir()
    wanted = wanted_names(_RULES, ())
    files = dict(elf_files(folder, work))
    facts = [file_facts(name, path, wanted) for name, path in files.items()]
    return listen(files, facts, _RULES, ("known", "strange"), How({_HERE: ("gcc",)}, tools=tools), work)


def test_what_a_tool_says(tmp_path: Path) -> None:
    toys.library(tmp_path / "toy")
    toys.tool(tmp_path / "toy")
    found = said(tmp_path / "toy", tmp_path / "work")
    assert (found.system.ran, found.system.system_info) == ("native", toys.INFO.strip())
    assert found.tool == "llama-server"
    assert (found.version.ran, found.version.output) == ("native", "version: 4711 (0c1e570)")
    assert found.devices.output == "Available devices:\n  CUDA0: \N{REPLACEMENT CHARACTER}[31mSome GPU"
    assert found.options == ("--cache-type-k", "--help", "--list-devices", "--spec-type")
    assert found.cache_types == ("f32", "f16", "q8_0")
    assert found.drafts == ("none", "draft-simple", "ngram-mod")


def test_the_library_alone_is_asked(tmp_path: Path) -> None:
    toys.library(tmp_path / "toy")
    toys.tool(tmp_path / "toy")
    found = said(tmp_path / "toy", tmp_path / "work", tools=False)
    assert (found.system.ran, found.tool, found.version.ran) == ("native", "", "not run")


def test_the_server_is_asked_before_others(tmp_path: Path) -> None:
    toys.tool(tmp_path / "toy", name="llama-cli")
    (tmp_path / "toy" / "bin").mkdir()
    toys.tool(tmp_path / "toy" / "bin")
    toys.tool(tmp_path / "toy", name="other")
    assert said(tmp_path / "toy", tmp_path / "work").tool == "bin/llama-server"


def test_nothing_to_ask(tmp_path: Path) -> None:
    toys.tool(tmp_path / "toy", name="other")
    found = said(tmp_path / "toy", tmp_path / "work")
    assert (found.tool, found.version.ran, found.devices.ran) == ("", "not run", "not run")
    assert found.system.reason == "no shared library here has llama_print_system_info"


def test_devices_are_asked_only_of_what_can_list_them(tmp_path: Path) -> None:
    toys.tool(tmp_path / "toy", toys.TOOL.replace("--list-devices", "--list-nothing"))
    found = said(tmp_path / "toy", tmp_path / "work")
    assert (found.devices.ran, found.devices.reason) == ("not run", "it has no --list-devices")


_HOSTILE = {
    "hangs": ("#include <unistd.h>\nint main(void) { for (;;) pause(); }", "no answer within 1"),
    "floods": ('#include <stdio.h>\nint main(void) { for (;;) puts("--flood x"); }', "no answer within 1"),
    "crashes": ("int main(void) { return *(volatile int *)8; }", "signal 11"),
    "fails": ("int main(void) { return 7; }", "exit code 7"),
    "leaves children": (
        "#include <unistd.h>\nint main(void) { if (!fork()) { setsid(); for (;;) pause(); } return 7; }",
        "exit code 7",
    ),
}


@pytest.mark.threat(
    "binaries",
    "a tool that hangs, crashes, floods, fails or leaves children",
    "ended with its children, bounded, told as failed",
)
@pytest.mark.parametrize("kind", _HOSTILE)
def test_a_hostile_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def ask(question: Question, machine: str, libraries: Sequence[Path], *, view: View) -> Answer:
        hurried = msgspec.structs.replace(question, timeout=1.0)
        return runtime.ask(hurried, machine, libraries, view=view)

    monkeypatch.setattr(live, "ask", ask)
    code, why = _HOSTILE[kind]
    toys.tool(tmp_path / "toy", code)
    found = said(tmp_path / "toy", tmp_path / "work")
    assert found.version.ran == "failed"
    assert why.split(" ")[0] in found.version.reason
    assert len(found.version.output) <= 4000
    assert (found.cache_types, found.drafts) == ((), ())
    assert found.devices.ran == "not run"


@pytest.mark.threat("binaries", "escape codes in what a tool says", "left out")
def test_escape_codes_do_not_come_through(tmp_path: Path) -> None:
    code = (
        r"#include <stdio.h>"
        "\n"
        r'int main(void) { puts("  --\033[31mx, --y\007 {a,\033[2Jb}\r"); return 0; }'
    )
    toys.tool(tmp_path / "toy", code)
    found = said(tmp_path / "toy", tmp_path / "work")
    texts = (found.version.output, found.devices.output, *found.options, *found.cache_types)
    assert all(c.isprintable() or c in "\n\t" for text in texts for c in text)


# --- what the running engine says of a feature ---------------------------------------------------


@pytest.mark.parametrize(
    ("info", "key", "state"),
    [
        ("CPU : NEON = 1 | DOTPROD = 1 | ", "CPU.DOTPROD", "present"),
        ("CPU : NEON = 1 | DOTPROD = 0 | ", "CPU.DOTPROD", "absent"),
        ("CPU : NEON = 1 | ", "CPU.DOTPROD", "absent"),
        ("CPU : NEON = 1 | ", "CUDA", "absent"),
        ("CPU : NEON = 1 | ", "CUDA.USE_GRAPHS", "absent"),
        ("CUDA : ARCHS = 1210 | USE_GRAPHS = 1 | CPU : NEON = 1 | ", "CUDA", "present"),
        ("CUDA : ARCHS = 1210 | FA_QUANTS = all | ", "CUDA.FA_QUANTS", "present"),
        ("NEON = 1 | DOTPROD = 1 | ", "CPU.DOTPROD", "present"),
        ("NEON = 1 | DOTPROD = 0 | ", "CPU.DOTPROD", "absent"),
        ("NEON = 1 | ", "CPU.DOTPROD", "unknown"),
        ("NEON = 1 | ", "CUDA", "unknown"),
        ("", "CPU.DOTPROD", "unknown"),
    ],
)
def test_the_state_of_a_key(info: str, key: str, state: str) -> None:
    report = SystemReport("native", features=parse_system_info(info) if info else {})
    assert runtime_state(key, report) == state


@pytest.mark.parametrize("static", ["present", "absent", "unknown"])
@pytest.mark.parametrize("running", ["FAST = 1", "FAST = 0", "SLOW = 1"])
def test_what_either_does_not_know_is_no_contradiction(static: str, running: str) -> None:
    fast = feature_of("fast", Evidence(symbol="x"), runtime="CPU.FAST")
    finding = Finding("fast", "the fast", "cpu", static, ("proof",))  # type: ignore[arg-type] # a literal
    report = SystemReport("native", features=parse_system_info(running))
    found = contradictions(verdicts_of(findings=(finding,)), rules_of(fast), Said(report))
    differ = (static, running) in [("present", "FAST = 0"), ("absent", "FAST = 1")]
    assert bool(found) == differ
    if differ:
        assert found[0].static == f"{static} (proof)"


@pytest.mark.parametrize(("known", "state"), [(True, "present"), (False, "absent")])
def test_a_model_that_the_bytes_leave_open_is_asked_for(known: bool, state: str) -> None:
    before = verdicts_of(models=(Model("a", "unknown"), Model("b", "absent")), models_reason="two tables")
    after = with_models(before, {"a": known})
    assert [m.state for m in after.models] == [state, "absent"]
    assert after.models_reason == ""
    assert with_models(before, {}) == before


def test_a_model_of_which_bytes_and_engine_disagree() -> None:
    verdicts = verdicts_of(models=(Model("a", "present"), Model("b", "absent"), Model("c", "unknown")))
    said = Said(SystemReport("native"), models={"a": False, "b": True, "c": True})
    found = contradictions(verdicts, _RULES, said)
    assert [(c.feature, c.static, c.runtime) for c in found] == [
        ("model:a", "present", "not known"),
        ("model:b", "absent", "known"),
    ]


def verdicts_of(**fields: Any) -> Verdicts:  # noqa: ANN401 - any field
    empty = Verdicts("", "", "", None, "", (), (), "", (), "", ())
    return msgspec.structs.replace(empty, **fields)
