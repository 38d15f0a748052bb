"""Small libraries and programs, probed with the shipped rules: what they have, what is required of them."""

from __future__ import annotations

import platform
import shutil
import subprocess
import zipfile
from pathlib import Path

import msgspec
import pytest

from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.errors import BinaryError, FindingError, UsageError
from sparkbuild.inspection.features import Pair
from sparkbuild.inspection.live import How
from sparkbuild.inspection.probe import Probe, probe, require
from tests import toys
from tests.conftest import Told

_HERE = platform.machine()
_ARM = shutil.which("aarch64-linux-gnu-gcc")
_QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
_CATALOG = Catalog((shipped_root(),))

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or not shutil.which("objcopy"), reason="gcc and binutils are not installed"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    folder = tmp_path_factory.mktemp("toy")
    toys.library(folder)
    toys.tool(folder)
    return probe(folder, _CATALOG, Told())


def test_what_a_library_has(found: Probe) -> None:
    assert [f.name for f in found.files] == ["libllama.so", "llama-server"]
    verdicts = found.verdicts
    assert (verdicts.engine, verdicts.number, verdicts.commit) == ("", 4711, "0c1e570")
    assert {verdicts.state(n) for n in ("cuda", "cpu", "arch_specific")} == {"present"}
    assert {verdicts.state(n) for n in ("vulkan", "llamafile", "tls", "fa_all_quants")} == {"absent"}
    assert verdicts.pairs == (Pair(128, "f16", "f16"), Pair(128, "q8_0", "q4_0"))
    assert {m.name for m in verdicts.models if m.state == "present"} == {
        *("llama", "falcon", "grok", "gptj", "gptneox", "dots1", "smollm3", "plamo", "arctic")
    }
    assert verdicts.options == ("--ctx-size", "--flash-attn", "--help", "--list-devices", "--version")
    assert found.said is None
    assert found.contradictions == ()


@pytest.mark.threat("binaries", "a stripped library", "what can not be known is unknown, not absent")
def test_a_stripped_library_hides_only_what_it_must(found: Probe, tmp_path: Path) -> None:
    path = toys.library(tmp_path)
    subprocess.run(["strip", path], check=True)
    stripped = probe(path, _CATALOG, Told()).verdicts
    alike = msgspec.structs.replace(found.verdicts, findings=(), options=(), external=())
    assert msgspec.structs.replace(stripped, findings=(), options=(), external=()) == alike
    assert (stripped.state("cpu"), stripped.state("cuda"), stripped.state("llamafile")) == (
        *("present", "present", "absent"),
    )
    assert stripped.state("cuda_graphs") == "unknown"


def test_a_wheel_is_probed_and_nothing_is_left(found: Probe, tmp_path: Path, told: Told) -> None:
    path = toys.library(tmp_path)
    with zipfile.ZipFile(tmp_path / "toy.whl", "w") as pack:
        pack.write(path, "toy/lib/libllama.so")
    wheel = probe(tmp_path / "toy.whl", _CATALOG, told)
    assert [f.name for f in wheel.files] == ["toy/lib/libllama.so"]
    assert wheel.verdicts.pairs == found.verdicts.pairs
    assert told.stages == [f"read {tmp_path / 'toy.whl'}"]
    assert told.steps == [(0, 1, "toy/lib/libllama.so", None)]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda _: None, UsageError),
        (lambda p: p.write_text("text"), BinaryError),
        (lambda p: p.write_bytes(b"\x7fELF" + bytes(100)), BinaryError),
        (lambda p: p.mkdir(), BinaryError),
    ],
)
def test_what_can_not_be_probed(tmp_path: Path, make: object, error: type[Exception]) -> None:
    assert callable(make)
    make(tmp_path / "x")
    with pytest.raises(error):
        probe(tmp_path / "x", _CATALOG, Told())


# --- required ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    ["cuda", "cpu", "sm_121a", "model:gptj", "option:--ctx-size", "kv:f16/f16", "kv:q8_0/q4_0@128"],
)
def test_what_is_there_is_met(found: Probe, wanted: str) -> None:
    assert require(found.verdicts, found.files, wanted) is None


@pytest.mark.parametrize(
    ("wanted", "state"),
    [
        ("vulkan", "absent"),
        ("fa_all_quants", "absent"),
        ("sm_121", "absent"),
        ("compute_121a", "absent"),
        ("model:nobody", "absent"),
        ("option:--nothing", "absent"),
        ("option:ctx-size", "absent"),
        ("kv:f16/f16@64", "absent"),
        ("kv:q4_0/q8_0", "absent"),
    ],
)
def test_what_is_not_there(found: Probe, wanted: str, state: str) -> None:
    problem = require(found.verdicts, found.files, wanted)
    assert isinstance(problem, FindingError)
    assert (problem.what, problem.exit_code) == (f"{wanted} is {state}", 1)


@pytest.mark.parametrize("wanted", ["cuda_graphs", "model:llama", "kv:f16/f16"])
def test_what_is_not_known_is_not_met(tmp_path: Path, wanted: str) -> None:
    """A stripped CUDA library without a table of models and without kernels of a known name."""
    (tmp_path / "x.c").write_text("int ggml_init(void) { return 0; }\n")
    (tmp_path / "fat").write_bytes(toys.fat_binary())
    subprocess.run(["gcc", "-shared", "-fPIC", "x.c", "-o", "x.so"], cwd=tmp_path, check=True)
    subprocess.run(["strip", "x.so"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "--add-section", ".nv_fatbin=fat", "x.so"], cwd=tmp_path, check=True)
    found = probe(tmp_path / "x.so", _CATALOG, Told())
    problem = require(found.verdicts, found.files, wanted)
    assert problem
    assert problem.what == f"{wanted} is unknown"


@pytest.mark.parametrize(
    ("wanted", "remedy"),
    [
        ("vulcan", "did you mean vulkan?"),
        ("fa_all_quant", "did you mean fa_all_quants?"),
        ("", "or model:NAME"),
        ("mode:llama", "or model:NAME"),
        ("sm_", "or model:NAME"),
        ("kv:f16", "write kv:q4_0/q8_0@128"),
        ("kv:f16/f16@big", "write kv:q4_0/q8_0@128"),
    ],
)
def test_what_nobody_can_answer_is_a_wrong_call(found: Probe, wanted: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        require(found.verdicts, found.files, wanted)
    assert remedy in caught.value.remedy


# --- run -----------------------------------------------------------------------------------------


def against(found: Probe) -> dict[str, tuple[str, str]]:
    return {c.feature: (c.static.split(" ")[0], c.runtime) for c in found.contradictions}


def test_a_library_that_says_what_it_has_not(tmp_path: Path) -> None:
    toys.library(tmp_path)
    found = probe(tmp_path, _CATALOG, Told(), How({_HERE: ("gcc",)}))
    assert found.said
    assert found.said.system.ran == "native"
    assert against(found)["llamafile"] == ("absent", "present by CPU.LLAMAFILE")
    assert "repack" not in against(found)  # both say no
    assert "openmp" not in against(found)  # it says nothing of it


@pytest.mark.skipif(not _ARM or not _QEMU, reason="needs qemu-aarch64 and its compiler")
def test_dotprod_that_is_reported_and_not_compiled_in(tmp_path: Path) -> None:
    info = "CPU : NEON = 1 | DOTPROD = 1 | CUDA : ARCHS = 1210 | "
    toys.library(tmp_path, compiler="aarch64-linux-gnu-gcc", info=info)
    found = probe(tmp_path, _CATALOG, Told(), How({"aarch64": ("aarch64-linux-gnu-gcc",)}))
    assert found.said
    assert found.said.system.features["CPU"]["DOTPROD"] == "1"
    assert against(found) == {"dotprod": ("absent", "present by CPU.DOTPROD")}


def test_a_line_with_sections_says_by_silence_what_is_off(tmp_path: Path) -> None:
    toys.library(tmp_path, info="CPU : SSE3 = 1 | ")
    found = probe(tmp_path, _CATALOG, Told(), How({_HERE: ("gcc",)}))
    assert against(found) == {"cuda": ("present", "absent by CUDA")}


def test_an_engine_that_says_nothing_contradicts_nothing(tmp_path: Path) -> None:
    toys.library(tmp_path, info="")
    found = probe(tmp_path, _CATALOG, Told(), How({_HERE: ("gcc",)}))
    assert found.said
    assert against(found) == {}


def test_without_a_compiler_it_is_not_run(tmp_path: Path) -> None:
    found = probe(toys.library(tmp_path), _CATALOG, Told(), How({}))
    assert found.said
    assert (found.said.system.ran, against(found)) == ("not run", {})


@pytest.mark.threat("binaries", "one damaged file among good ones", "it is named, the others are read")
def test_one_file_that_can_not_be_read_does_not_end_it(tmp_path: Path) -> None:
    whole = toys.library(tmp_path / "toy").read_bytes()
    (tmp_path / "toy" / "broken.so").write_bytes(whole[: len(whole) // 2])
    found = probe(tmp_path / "toy", _CATALOG, Told())
    assert [f.name for f in found.files] == ["libllama.so"]
    assert list(found.unread) == ["broken.so"]
    assert found.verdicts.state("cpu") == "present"
    assert found.verdicts.state("vulkan") == "unknown"  # it may be in the other one
