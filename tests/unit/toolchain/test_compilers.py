"""Compilers are proved with the compilers of this machine, and with scripts that imitate a fault."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.catalog.records import Proof, Toolchain
from sparkbuild.errors import MissingError
from sparkbuild.files import Folders
from sparkbuild.toolchain import find_compilers, is_cross, target_processor
from sparkbuild.toolchain.compilers import describe, prove
from tests.conftest import Script, toolchain_of

_GCC, _ARM = shutil.which("gcc"), shutil.which("aarch64-linux-gnu-gcc")
_HERE = platform.machine()
_OTHER = "x86_64" if _HERE == "aarch64" else "aarch64"

needs_x86 = pytest.mark.skipif(_HERE != "x86_64" or not _GCC, reason="needs gcc on x86_64")
needs_arm = pytest.mark.skipif(not _ARM, reason="aarch64-linux-gnu-gcc is not installed")

_AVX2 = Proof(
    "avx2",
    "__AVX2__",
    "#include <immintrin.h>\n__m256i probe(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }\n",
)
_LIAR = Proof("lie", "__AVX2__", "int probe(void) { return no_such_function_at_all; }\n")
_MACRO_ONLY = Proof("nothing", "NO_SUCH_MACRO", "int x;\n")


def native(*proofs: Proof, cpu_arch: str = "") -> Toolchain:
    return toolchain_of(name="here", processor="host", cpu_arch=cpu_arch, proofs=proofs)


def on_path(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))


@needs_x86
@pytest.mark.parametrize(
    ("flags", "proof", "macro", "code"),
    [
        (("-mavx2",), _AVX2, True, True),
        (("-march=haswell",), _AVX2, True, True),
        (("-march=x86-64",), _AVX2, False, False),
        (("-mavx2",), _LIAR, True, False),
        ((), _MACRO_ONLY, False, True),
        (("-march=no-such-cpu",), _AVX2, False, False),
    ],
)
def test_a_feature_is_proved_by_its_macro_and_its_code(
    flags: tuple[str, ...], proof: Proof, macro: bool, code: bool
) -> None:
    (found,) = prove(Path(_GCC or ""), flags, [proof])
    assert (found.feature, found.macro, found.code, found.holds) == (
        proof.feature,
        macro,
        code,
        macro and code,
    )
    assert bool(found.error) == (not code)


def test_nothing_asked_is_nothing_proved() -> None:
    assert prove(Path("/nowhere/gcc"), (), []) == ()


@needs_arm
@pytest.mark.parametrize("arch", ["gb10", "gb10-sve2", "grace"])
def test_the_shipped_flags_give_every_feature_they_promise(arch: str) -> None:
    toolchain = Catalog((shipped_root(),)).toolchain(arch).record
    found = prove(Path(_ARM or ""), (f"-march={toolchain.cpu_arch}",), toolchain.proofs)
    assert [p for p in found if not p.holds] == []
    assert {p.feature for p in found} >= {"dotprod", "fp16"}


@needs_arm
def test_plain_armv8_has_none_of_them() -> None:
    toolchain = Catalog((shipped_root(),)).toolchain("gb10-sve2").record
    assert not any(p.holds for p in prove(Path(_ARM or ""), ("-march=armv8-a",), toolchain.proofs))


# --- finding -------------------------------------------------------------------------------------


def test_the_host_is_its_own_target_and_the_other_machine_is_not() -> None:
    assert target_processor(native()) == _HERE
    assert not is_cross(native())
    assert is_cross(toolchain_of(processor=_OTHER))
    assert not is_cross(toolchain_of(processor=_HERE))


@pytest.mark.skipif(not _GCC or not shutil.which("g++"), reason="needs gcc and g++")
def test_the_machines_own_compilers_are_found_and_described(folders: Folders) -> None:
    found = find_compilers(native(), folders)
    assert found.cc.name.startswith("gcc")
    assert found.cxx.name.startswith("g++")
    assert found.target.startswith(_HERE)
    assert not found.cross
    assert found.flags == ()
    assert len(found.digest) == 64
    assert find_compilers(native(), folders) == found


@needs_x86
def test_the_digest_is_of_the_files_not_of_their_folder(tmp_path: Path) -> None:
    for name in ("gcc", "g++"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    one, files = describe(Path(shutil.which("gcc") or ""), Path(shutil.which("g++") or ""), native())
    two, _ = describe(tmp_path / "gcc", tmp_path / "g++", native())
    assert one.digest == two.digest
    assert {"cc1", "cc1plus", "ld", "as"} <= {f.name.rpartition("-")[2].partition(".")[0] for f in files} | {
        "ld"
    }


@needs_x86
def test_a_compiler_that_drops_the_flag_in_silence_is_refused(
    folders: Folders, script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The GCC fault: it accepts -march and forgets it."""
    forget = 'for a; do shift; case "$a" in -march=*) ;; *) set -- "$@" "$a";; esac; done\n'
    for name in ("gcc", "g++"):
        script(name, f'{forget}exec {shutil.which(name)} "$@"')
    on_path(monkeypatch, tmp_path / "scripts", Path("/usr/bin"))
    monkeypatch.setattr("sparkbuild.toolchain.compilers._VERSIONS", ("",))
    toolchain = native(_AVX2, cpu_arch="haswell")
    with pytest.raises(MissingError, match="proves what here asks for") as caught:
        find_compilers(toolchain, folders)
    assert caught.value.exit_code == 3
    assert caught.value.where == f"{tmp_path / 'scripts' / 'gcc'}: -march=haswell does not give avx2"
    assert caught.value.remedy.startswith("apt-get install g++ ")


@needs_x86
@pytest.mark.parametrize("body", ["exit 1", "kill -SEGV $$", "exit 0", "garbage"])
def test_a_broken_compiler_is_passed_over_for_the_next(
    folders: Folders, script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str
) -> None:
    for name in ("gcc", "g++"):
        broken = script(name, body)
        if body == "garbage":
            broken.write_bytes(b"\x7fELFgarbage")
        script(f"{name}-15", f'exec {shutil.which(name)} "$@"')
    on_path(monkeypatch, tmp_path / "scripts", Path("/usr/bin"))
    monkeypatch.setattr("sparkbuild.toolchain.compilers._VERSIONS", ("", "-15"))
    found = find_compilers(native(_AVX2, cpu_arch="haswell"), folders)
    assert found.cc == tmp_path / "scripts" / "gcc-15"
    assert [p.holds for p in found.proofs] == [True]


def test_no_compiler_at_all_names_the_package(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_path(monkeypatch, tmp_path)
    with pytest.raises(MissingError, match=f"no C\\+\\+ compiler for {_OTHER}") as caught:
        find_compilers(toolchain_of(processor=_OTHER), folders)
    assert caught.value.where == f"{_OTHER}-linux-gnu-gcc is not on PATH"
    assert caught.value.remedy.startswith(f"apt-get install g++-{_OTHER}-linux-gnu")
    with pytest.raises(MissingError) as caught:
        find_compilers(native(), folders)
    assert caught.value.remedy.startswith("apt-get install g++ ")


@pytest.mark.threat(
    "faults",
    "an upgrade that points a compiler's link at another version; both stay installed",
    "what is remembered of the one is not believed of the other: another digest, so another key",
)
def test_a_link_that_leads_to_another_compiler_is_another_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: Folders
) -> None:
    shown = tmp_path / "bin"
    shown.mkdir()
    for name in ("gcc", "g++"):
        for version in ("1", "2"):
            script = tmp_path / f"{name}-{version}"
            script.write_text(f'#!/bin/sh\n# version {version}\nexec {shutil.which(name)} "$@"\n')
            script.chmod(0o755)
        (shown / name).symlink_to(tmp_path / f"{name}-1")
    monkeypatch.setenv("PATH", f"{shown}:{os.environ['PATH']}")
    host = toolchain_of(processor="host", cpu_arch="", proofs=())
    before = find_compilers(host, folders)
    assert find_compilers(host, folders) == before
    for name in ("gcc", "g++"):
        (shown / name).unlink()
        (shown / name).symlink_to(tmp_path / f"{name}-2")
    assert find_compilers(host, folders).digest != before.digest
