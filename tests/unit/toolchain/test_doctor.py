from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

from sparkbuild.catalog.records import CudaWheels, Proof
from sparkbuild.files import Folders
from sparkbuild.toolchain.doctor import Check, examine
from tests.conftest import Script, toolchain_of

_WHEELS = CudaWheels(1, "13.0", "13.0.88", "580", ())
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


_FAST = {
    "x86_64": ("haswell", "__AVX2__"),
    "aarch64": ("armv8.2-a+dotprod", "__ARM_FEATURE_DOTPROD"),
}
_WORD = "fp" if platform.machine() == "aarch64" else "fpu"  # every kernel lists it


@pytest.mark.parametrize(
    ("macro", "word", "compilers", "native"),
    [
        ("__linux__", _WORD, "ok", "ok"),
        ("__linux__", "no-cpu-has-this", "ok", "not run"),
        ("__NO_COMPILER_HAS_THIS__", _WORD, "missing", "not run"),
    ],
)
def test_native_detection_is_judged_by_proof(
    folders: Folders, macro: str, word: str, compilers: str, native: str
) -> None:
    toolchain = toolchain_of(processor="host", cpu_arch="", proofs=(Proof("x", macro, "int x;", (word,)),))
    found = by_name(examine(toolchain, _WHEELS, folders))
    assert (found["compilers"].verdict, found["native detection"].verdict) == (compilers, native)


def test_a_compiler_that_forgets_native_is_faulty(
    folders: Folders, script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forget = 'for a; do shift; case "$a" in -m*=native) ;; *) set -- "$@" "$a" ;; esac; done'
    for name in ("gcc", "g++"):
        script(name, f'{forget}\nexec {shutil.which(name)} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'scripts'}:{os.environ['PATH']}")
    arch, macro = _FAST[platform.machine()]
    proofs = (Proof("fast", macro, "int x;", (_WORD,)),)
    found = by_name(examine(toolchain_of(processor="host", cpu_arch=arch, proofs=proofs), _WHEELS, folders))
    assert found["compilers"].verdict == "ok"
    assert found["native detection"].verdict == "faulty"
    assert found["native detection"].detail.startswith("-march=native loses fast")
    assert found["native detection"].remedy == f"nothing to do: sparkbuild uses -march={arch}"
