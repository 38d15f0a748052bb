"""The fault in native detection, with real compilers behind scripts that make of native what a GCC would."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from sparkbuild import process
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.catalog.records import Proof, Toolchain
from sparkbuild.errors import MissingError, UsageError
from sparkbuild.toolchain.fault import try_compiler
from tests.conftest import Script, toolchain_of

_HERE = platform.machine()
_GCC = shutil.which("gcc")
_ARM = _GCC if _HERE == "aarch64" else shutil.which("aarch64-linux-gnu-gcc")
_CATALOG = Catalog((shipped_root(),))
_GB10 = _CATALOG.cpuinfo("gb10")
_FIX = "-march=armv8.2-a+dotprod+fp16"

needs_arm = pytest.mark.skipif(not _ARM, reason="no GCC for aarch64 is installed")
needs_x86 = pytest.mark.skipif(_HERE != "x86_64" or not _GCC, reason="needs gcc on x86_64")


def gb10(*features: str) -> Toolchain:
    """Return gb10, with the proofs of some features only: every compile takes a second."""
    toolchain = _CATALOG.toolchain("gb10").record
    proofs = tuple(p for p in toolchain.proofs if not features or p.feature in features)
    return toolchain_of(cpu_arch=toolchain.cpu_arch, proofs=proofs)


def gcc_with(script: Script, march: str, mcpu: str, *, own: str = '"$a"') -> Path:
    """Return GCC for aarch64 that takes native, and its own -march, for what is given."""
    return script(
        "gcc",
        f"""for a; do shift; case "$a" in
            -march=native) set -- "$@" {march} ;;
            -mcpu=native) set -- "$@" {mcpu} ;;
            -march=*) set -- "$@" {own} ;;
            *) set -- "$@" "$a" ;;
        esac; done
        exec {_ARM} "$@" """,
    )


# --- verdicts ------------------------------------------------------------------------------------


@needs_arm
def test_a_compiler_that_drops_native_in_silence_loses_features(script: Script) -> None:
    found = try_compiler(gcc_with(script, "-march=armv8.2-a+dotprod", ""), gb10(), _GB10)
    assert [(t.flags, t.verdict, t.missing) for t in found.trials] == [
        ("-march=native", "lost", "fp16"),
        ("-mcpu=native", "lost", "dotprod, fp16"),
        (_FIX, "good", ""),
    ]
    assert all(t.accepted and not t.said for t in found.trials)
    assert (found.fault, found.cpuinfo, found.cpu) == ("proved", "gb10.cpuinfo", ("dotprod", "fp16"))
    assert found.reason == "-march=native loses fp16; -mcpu=native loses dotprod, fp16"
    assert found.remedy.startswith(f"give {_FIX} instead")
    assert "GCC 13.4, 14.3 and 15.1" in found.remedy
    assert found.finding == "gcc: native detection loses CPU features"
    assert found.version.startswith("aarch64-linux-gnu-gcc" if _HERE != "aarch64" else "gcc")


@needs_arm
def test_a_macro_whose_intrinsic_does_not_compile_is_a_lie(script: Script) -> None:
    cc = gcc_with(script, "-D__ARM_FEATURE_DOTPROD=1", _FIX)
    found = try_compiler(cc, gb10("dotprod"), _GB10)
    march, mcpu, _ = found.trials
    assert (march.verdict, mcpu.verdict, found.fault) == ("lies", "good", "proved")
    (proof,) = march.proofs
    assert (proof.macro, proof.code) == (True, False)
    assert "target specific option mismatch" in proof.error
    assert found.reason == "-march=native claims, and can not compile, dotprod"


@needs_arm
def test_a_compiler_that_keeps_all_disproves_the_fault(script: Script) -> None:
    found = try_compiler(gcc_with(script, _FIX, _FIX), gb10(), _GB10)
    assert [t.verdict for t in found.trials] == ["good", "good", "good"]
    assert (found.fault, found.remedy, found.finding) == ("disproved", "nothing to do", "")
    assert found.reason == "-march=native and -mcpu=native keep dotprod, fp16"


@needs_arm
def test_only_what_the_cpu_has_counts_for_native(script: Script, tmp_path: Path) -> None:
    (tmp_path / "some-cpu").write_text(
        "processor\t: 0\nFeatures\t: fp asimd asimddp fphp\n\nFeatures : asimdhp\n"
    )
    only = "-march=armv8.2-a+dotprod"
    found = try_compiler(gcc_with(script, only, only), gb10(), tmp_path / "some-cpu")
    assert found.cpu == ("dotprod",)
    assert [t.wanted for t in found.trials] == [("dotprod",), ("dotprod",), ("dotprod", "fp16")]
    assert found.fault == "disproved"


@needs_arm
def test_a_cpu_without_any_of_it_shows_nothing(script: Script, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("Features\t: fp asimd\n")
    found = try_compiler(gcc_with(script, "", ""), gb10("dotprod"), tmp_path / "old")
    assert found.fault == "not shown"
    assert [t.verdict for t in found.trials] == ["not run", "not run", "good"]
    assert found.reason == "the CPU has no feature that a toolchain for aarch64 proves"


@needs_arm
def test_a_fix_that_does_not_prove_is_a_finding_with_another_remedy(script: Script) -> None:
    cc = gcc_with(script, _FIX, _FIX, own="-march=armv8.2-a+fp16")
    found = try_compiler(cc, gb10("dotprod"), _GB10)
    assert found.finding == f"gcc does not prove {_FIX}"
    assert found.remedy == f"another compiler: this one does not prove dotprod under {_FIX}"


@needs_arm
def test_other_features_are_tried_and_do_not_count_for_the_fix(script: Script) -> None:
    proofs = [p for p in _CATALOG.proofs("aarch64") if p.feature in ("dotprod", "i8mm")]
    found = try_compiler(gcc_with(script, _FIX, _FIX), gb10("dotprod"), _GB10, proofs)
    *native, fix = found.trials
    assert [t.verdict for t in native] == ["lost", "lost"]
    assert {t.missing for t in native} == {"i8mm"}
    assert (fix.verdict, fix.wanted) == ("good", ("dotprod",))
    assert {p.feature: p.holds for p in fix.proofs} == {"dotprod": True, "i8mm": False}


@needs_arm
def test_the_cpuinfo_reaches_the_compiler_and_nothing_else_does(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCC_CPUINFO", "/nowhere")
    flag = f"$([ \"$GCC_CPUINFO\" = '{_GB10}' ] && echo {_FIX})"
    found = try_compiler(gcc_with(script, flag, flag), gb10("dotprod"), _GB10)
    assert found.fault == "disproved"


# --- what can not be tried -----------------------------------------------------------------------


@needs_x86
@needs_arm
def test_a_cross_compiler_refuses_native_and_proves_the_fix() -> None:
    found = try_compiler(Path(_ARM or ""), gb10("dotprod"), _GB10)
    assert [t.verdict for t in found.trials] == ["refused", "refused", "good"]
    assert not found.trials[0].accepted
    assert "native" in found.trials[0].said
    assert (found.fault, found.finding) == ("not shown", "")
    assert found.reason.startswith("-march=native is refused: ")


@needs_x86
@needs_arm
def test_native_of_another_processor_is_not_run_without_a_cpuinfo() -> None:
    found = try_compiler(Path("aarch64-linux-gnu-gcc"), gb10("dotprod"))
    assert [t.verdict for t in found.trials] == ["not run", "not run", "good"]
    assert found.cc == Path(_ARM or "")
    assert (found.fault, found.cpuinfo) == ("not shown", "this machine")
    assert found.reason.startswith("this machine is x86_64")


@needs_arm
def test_a_compiler_that_reads_no_other_cpuinfo_is_not_judged_by_one(script: Script) -> None:
    cc = script("clang", f'[ "$1" = --version ] && echo "clang version 19" && exit; exec {_ARM} "$@"')
    found = try_compiler(cc, gb10("dotprod"), _GB10)
    assert [t.verdict for t in found.trials] == ["not run", "not run", "good"]
    assert found.reason == "only GCC for aarch64 can be given another machine's cpuinfo"


@needs_x86
def test_this_machines_compiler_keeps_what_this_cpu_has() -> None:
    code = "#include <immintrin.h>\n__m128i probe(__m128i a) { return _mm_shuffle_epi8(a, a); }\n"
    proofs = (Proof("ssse3", "__SSSE3__", code, ("ssse3",)), Proof("unasked", "NO_CPU_HAS_IT", "int x;"))
    found = try_compiler(Path("gcc"), toolchain_of(processor="host", cpu_arch="", proofs=proofs))
    assert [t.flags for t in found.trials] == ["-march=native"]
    assert (found.cpu, found.fault, found.remedy) == (("ssse3",), "disproved", "nothing to do")


# --- what is no compiler -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "exit 1",
        "exit 0",
        "kill -SEGV $$",
        'echo "$@"',
        'case "$1" in -*[en]) echo aarch64-linux-gnu ;; *) kill -SEGV $$ ;; esac',
        'case "$1" in -*[en]) echo aarch64-linux-gnu ;; *) exec sleep 60 ;; esac',
        "exec sleep 60",
    ],
)
def test_what_is_no_compiler_is_missing(script: Script, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(process.run.__kwdefaults__ or {}, "timeout", 1.0)
    cc = script("cc", body)
    with pytest.raises(MissingError, match=str(cc)) as caught:
        try_compiler(cc, gb10(), _GB10)
    assert caught.value.remedy


def test_a_compiler_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"absent does not work: .*No such file"):
        try_compiler(tmp_path / "absent", gb10(), _GB10)


@needs_x86
def test_a_compiler_for_another_processor_is_a_wrong_argument() -> None:
    with pytest.raises(UsageError, match="gcc makes code for x86_64-linux-gnu, not for aarch64") as caught:
        try_compiler(Path("gcc"), gb10())
    assert "--arch" in caught.value.remedy


@needs_arm
@pytest.mark.parametrize("text", ["", "processor : 0\n", None], ids=["empty", "no features", "no file"])
def test_a_cpuinfo_that_says_nothing_is_a_wrong_argument(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"cpuinfo|features") as caught:
        try_compiler(Path(_ARM or ""), gb10(), path)
    assert caught.value.where == str(path)
