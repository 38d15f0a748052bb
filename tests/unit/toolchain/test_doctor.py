from __future__ import annotations

import platform
from pathlib import Path

import pytest

from sparkbuild.catalog.records import CudaWheels, Proof
from sparkbuild.files import Folders
from sparkbuild.toolchain.doctor import Check, examine
from tests.conftest import toolchain_of

_WHEELS = CudaWheels(1, "13.0", "13.0.88", ())
_OTHER = "x86_64" if platform.machine() == "aarch64" else "aarch64"


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {c.name: c for c in checks}


def test_a_bare_machine_is_told_what_to_install(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_name(examine(toolchain_of(processor=_OTHER), _WHEELS, folders))
    lost = {name: c.remedy for name, c in found.items() if c.verdict == "missing" and c.needed}
    assert lost["git"] == "apt-get install git"
    assert lost["compilers"].startswith(f"apt-get install g++-{_OTHER}-linux-gnu")
    assert found[f"qemu-{_OTHER}"].verdict == "missing"
    assert not found[f"qemu-{_OTHER}"].needed
    assert found["CUDA"].verdict == "not run"
    assert found["native detection"].verdict == "not run"


def test_what_can_not_be_tried_is_not_run_and_never_ok(folders: Folders) -> None:
    proof = Proof("x", "__x86_64__", "int x;")
    found = by_name(examine(toolchain_of(processor="host", cpu_arch="", proofs=()), _WHEELS, folders))
    assert found["native detection"].verdict == "not run"
    cross = by_name(examine(toolchain_of(processor=_OTHER, cpu_arch="", proofs=(proof,)), _WHEELS, folders))
    assert cross["native detection"].verdict == "not run"


@pytest.mark.parametrize(("macro", "verdict"), [("__linux__", "ok"), ("__NO_CPU_HAS_THIS__", "missing")])
def test_native_detection_is_judged_by_proof(folders: Folders, macro: str, verdict: str) -> None:
    toolchain = toolchain_of(processor="host", cpu_arch="", proofs=(Proof("x", macro, "int x;"),))
    found = by_name(examine(toolchain, _WHEELS, folders))
    assert found["compilers"].verdict == verdict
    assert found["native detection"].verdict == ("ok" if verdict == "ok" else "not run")
