"""What runs show is judged on real kernels' names; what can not be here, a GPU, is a script's word."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import product
from pathlib import Path

import msgspec
import pytest

from ci.attention import (
    TYPES,
    Found,
    Pair,
    Run,
    against,
    backends_of,
    compare,
    grid,
    judge,
    pair_of,
    record_of,
)
from sparkbuild import process
from tests.conftest import Script

_ROOT = Path(__file__).parents[3]
_PAIR = Pair(128, "q4_0", "q8_0")
_CUDA = "_Z18flash_attn_ext_vecILi{}ELi1EL9ggml_type{}ELS0_{}ELb0EEvPKcS2_S2_S2_S2_PKiPfP6float2"
_VECTOR = _CUDA.format(128, 2, 8)
_F16 = _CUDA.format(128, 1, 1)
_IK = "_Z22flash_attn_vec_ext_f32ILi128ELi128ELi1EL9ggml_type2ELS0_8ELb0EEvPKcS2_S2_S2_PfP6float2"
_MATRIX = "_Z18flash_attn_ext_f16ILi128ELi128ELi1ELi8ELb0ELb0ELb0EEvPKcS1_S1_S1_S1_PKiPfP6float2"
_FIXUP = "_Z33flash_attn_stream_k_fixup_uniformILi128ELi1ELi8EEvPfPK6float2"
_OTHER = "_Z12rms_norm_f32ILi256ELb1ELb0EEvPKfPfilllf"
_GPU = (
    "node # 31 (FLASH_ATTN):          __fattn__-0 (   1K) [CUDA0         ] use=1,c=1:  q [  CPU         ]\n"
)
_CPU = _GPU.replace("[CUDA0 ", "[  CPU ", 1)
_WARNED = "no FlashAttention vector kernel compiled for K/V types q4_0-q8_0, converting K and V to f16\n"

needs_gcc = pytest.mark.skipif(not shutil.which("cc"), reason="cc is not installed")


def run_of(*kernels: str, errors: str = "", code: int | None = 0) -> Run:
    return Run(_PAIR, code, kernels, "", errors, 1.0)


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        (_VECTOR, _PAIR),
        (_IK, _PAIR),
        (_MATRIX, None),
        (_OTHER, None),
        (_CUDA.format(64, 30, 41), Pair(64, "bf16", "41")),
    ],
)
def test_a_kernels_name_tells_its_pair(name: str, pair: Pair | None) -> None:
    assert pair_of(name) == pair


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (run_of(_OTHER, _VECTOR, _FIXUP, errors=_CPU + _GPU), "vector"),
        (run_of(_IK), "vector"),
        (run_of(_F16, errors=_WARNED + _GPU), "converted"),
        (run_of(_VECTOR, _F16), "converted"),
        (run_of(_CUDA.format(64, 2, 8)), "converted"),
        (run_of(_MATRIX, _FIXUP, _OTHER, errors=_GPU), "matrix"),
        (run_of(_OTHER, errors=_GPU + _CPU), "cpu"),
        (run_of(_FIXUP), "cpu"),
        (run_of(errors=_CPU), "no-gpu"),
        (run_of(_OTHER, errors=_GPU), "unclear"),
        (run_of(_VECTOR, errors=_CPU), "unclear"),
        (run_of(_VECTOR, errors=_WARNED + _GPU), "unclear"),
        (run_of(_VECTOR, code=None), "timeout"),
        (run_of(_VECTOR, code=-6, errors="abort"), "failed"),
        (run_of(code=1, errors="error: invalid parameter for argument: -ctk"), "refused"),
    ],
)
def test_a_run_is_judged(run: Run, verdict: str) -> None:
    assert judge(run).verdict == verdict


@pytest.mark.parametrize(
    ("kernels", "there", "bad"),
    [
        ((_VECTOR,), True, False),
        ((_VECTOR,), False, True),
        ((_F16,), True, True),
        ((_F16,), False, False),
        ((_MATRIX,), True, False),
        ((_OTHER,), True, True),
        ((_OTHER,), False, False),
        ((), True, True),
    ],
)
def test_a_verdict_is_compared(kernels: tuple[str, ...], there: bool, bad: bool) -> None:
    verdict = compare(judge(run_of(*kernels)), Found(frozenset({_PAIR} if there else ())))
    assert (verdict.in_file, verdict.contradiction) == (there, bad)


def test_what_did_not_end_contradicts_anything() -> None:
    assert compare(judge(run_of(code=None)), Found(frozenset())).contradiction


def test_backends_and_architectures_are_compared() -> None:
    found = Found(frozenset(), ("sm_90", "compute_90"), ("CUDA", "CPU"))
    assert against(("CPU", "CUDA"), "9.0", found, ()) == ()
    assert against(("CPU", "CUDA"), "12.1", found, ()) == (
        "device code: the GPU is 12.1, the file holds sm_90 compute_90",
    )
    assert against(("CPU",), "", found, ()) == ("backends: the tool has CPU, the file CPU CUDA",)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"backends": "CUDA,BLAS"}, ("BLAS", "CPU", "CUDA")),
        ({"backends": "CPU"}, ("CPU",)),
        ({"cuda": True, "vulkan": False}, ("CPU", "CUDA")),
        ({}, ("CPU",)),
    ],
)
def test_engines_name_their_backends_in_two_ways(record: dict[str, object], names: tuple[str, ...]) -> None:
    assert backends_of(record) == names


def test_an_answer_that_is_no_json_says_nothing() -> None:
    assert record_of("[\nhalf of it") == record_of("") == record_of("[\nx\n]\n") == {}


def test_the_table_marks_contradictions() -> None:
    runs = tuple(
        msgspec.structs.replace(judge(run_of(_OTHER)), pair=Pair(64, k, v)) for k, v in product(TYPES, TYPES)
    )
    wrong = Found(frozenset({Pair(64, "f16", "f16")}))
    lines = grid(tuple(compare(r, wrong) for r in runs)).splitlines()
    assert [line.split()[0] for line in lines] == ["head", *TYPES]
    assert lines[1].split() == ["f16", "cpu!", *["cpu"] * 6]


_CUDART_H = """
typedef struct { unsigned x, y, z; } dim3;
void __cudaRegisterFunction(void **image, const char *stub, char *device, const char *name, int limit,
                            void *tid, void *bid, void *block, void *grid, int *warp);
int __cudaGetKernel(void **handle, const void *stub);
int __cudaLaunchKernel(const void *, dim3, dim3, void **, unsigned long, void *);
int cudaLaunchKernel(const void *, dim3, dim3, void **, unsigned long, void *);
int cudaLaunchKernelExC(const void *, const void *, void **);
"""
_CUDART = """
#include "cudart.h"
void __cudaRegisterFunction(void **image, const char *stub, char *device, const char *name, int limit,
                            void *tid, void *bid, void *block, void *grid, int *warp) {}
int __cudaGetKernel(void **handle, const void *stub) { *handle = (char *) stub + 1; return 0; }
int __cudaLaunchKernel(const void *k, dim3 g, dim3 b, void **a, unsigned long s, void *t) { return b.z; }
int cudaLaunchKernel(const void *k, dim3 g, dim3 b, void **a, unsigned long s, void *t) { return b.z; }
int cudaLaunchKernelExC(const void *c, const void *k, void **a) { return 3; }
"""
_PROGRAM = """
#include "cudart.h"
static char stubs[4][8], *names[] = { "first", "second", "third", "never" };
int main(void) {
    for (int i = 0; i < 4; i++) __cudaRegisterFunction(0, stubs[i], 0, names[i], -1, 0, 0, 0, 0, 0);
    dim3 grid = { 1, 1, 1 }, block = { 1, 1, 3 };
    void *handle = 0;
    __cudaGetKernel(&handle, stubs[0]);
    int sum = 0;
    for (int i = 0; i < 2; i++) sum += __cudaLaunchKernel(handle, grid, block, 0, 0, 0);
    sum += cudaLaunchKernelExC(0, stubs[1], 0);
    sum += cudaLaunchKernel(stubs[2], grid, block, 0, 0, 0);
    sum += cudaLaunchKernel(main, grid, block, 0, 0, 0); /* not registered: the recorder can not name it */
    return sum != 15;
}
"""


@needs_gcc
def test_launches_are_recorded_through_versioned_symbols(tmp_path: Path) -> None:
    """A stand-in for the CUDA runtime, its symbols versioned as NVIDIA's are."""
    (tmp_path / "cudart.h").write_text(_CUDART_H)
    (tmp_path / "cudart.c").write_text(_CUDART)
    (tmp_path / "versions").write_text("libcudart.so.13 { global: *; };")
    (tmp_path / "program.c").write_text(_PROGRAM)
    cc = ("cc", "-w", "-shared", "-fPIC")
    process.run([*cc, "-o", "launches.so", _ROOT / "ci/launches.c", "-ldl", "-lpthread"], cwd=tmp_path)
    versions = ("-Wl,--version-script=versions", "-Wl,-soname,libcudart.so.13")
    process.run([*cc, "-o", "libcudart.so.13", "cudart.c", *versions], cwd=tmp_path)
    process.run(
        ["cc", "-w", "-o", "program", "program.c", "./libcudart.so.13", "-Wl,-rpath,$ORIGIN"], cwd=tmp_path
    )
    record = tmp_path / "record"
    extra = {"LD_PRELOAD": str(tmp_path / "launches.so"), "LAUNCHES_FILE": str(record)}
    process.run([tmp_path / "program"], env=process.clean_env(**extra))
    assert record.read_text().split() == ["first", "second", "third", "?"]


_BENCH = r"""
case "$1" in
    --help) echo "  --no-warmup  skip"; exit 0 ;;
    --list-devices) echo "Available devices: CUDA0"; exit 0 ;;
esac
while [ $# -gt 1 ]; do case "$1" in -ctk) k=$2 ;; -ctv) v=$2 ;; esac; shift; done
printf '%s\n' _Z5otherPf > "$LAUNCHES_FILE"
[ "$k" = bf16 ] && { echo "error: invalid parameter for argument: -ctk" >&2; exit 1; }
vector=_Z18flash_attn_ext_vecILi64ELi1EL9ggml_type1ELS0_1ELb0EEvPf
[ "$k$v" = f16f16 ] && echo $vector >> "$LAUNCHES_FILE"
cat <<END
what an engine also says here
[
  {"backends": "CUDA", "gpu_info": "a GPU"}
]
END
"""


@needs_gcc
@pytest.mark.parametrize(("pairs", "code"), [([("f16", "f16")], 0), ([("q4_0", "q8_0")], 1)])
def test_the_whole_way(tmp_path: Path, script: Script, pairs: list[tuple[str, str]], code: int) -> None:
    (tmp_path / "artifact/bin").mkdir(parents=True)
    script("llama-bench", _BENCH).rename(tmp_path / "artifact/bin/llama-bench")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/head-64.gguf").touch()
    found = {"pairs": [{"k": k, "v": v, "head": 64} for k, v in pairs], "backends": ["CPU", "CUDA"]}
    (tmp_path / "found.json").write_text(json.dumps(found))
    argv = [sys.executable, "-m", "ci.gpu_truth", "--jobs", "4", f"{tmp_path}/artifact={tmp_path}/found.json"]
    argv += ["--models", f"{tmp_path}/models", "--out", f"{tmp_path}/out.json"]
    done = process.run(argv, cwd=_ROOT, check=False)
    assert done.returncode == code, done.errors
    assert "41 cpu, 7 refused, 1 vector" in done.output
    report = json.loads((tmp_path / "out.json").read_text())[0]
    assert (report["backends"], report["gpu_info"]) == (["CPU", "CUDA"], "a GPU")
    assert len(report["runs"]) == 49
    wrong = ["head 64, f16-f16: vector, in the file: no", "head 64, q4_0-q8_0: cpu, in the file: yes"]
    assert report["contradictions"] == (wrong if code else [])
