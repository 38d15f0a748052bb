"""Of which CPU features the instructions of a machine can tell."""

from __future__ import annotations

from sparkbuild.inspection import a64

# By the names of iced's CpuidFeature, but for case. BMI1 is not among them: compilers write its tzcnt
# as "rep bsf" for CPUs that have no BMI1 and ignore the prefix.
_X86_64 = (
    *("avx", "avx2", "f16c", "fma", "fma4", "xop", "bmi2", "avx_vnni", "gfni", "vaes", "vpclmulqdq"),
    *("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_bf16", "avx512_bitalg"),
    *("avx512_fp16", "avx512_ifma", "avx512_vbmi", "avx512_vbmi2", "avx512_vnni"),
    *("avx512_vp2intersect", "avx512_vpopcntdq", "amx_tile", "amx_int8", "amx_bf16"),
)
TELLABLE: dict[str, tuple[str, ...]] = {
    "aarch64": tuple(dict.fromkeys(feature for feature, _, _ in a64.ROWS)),
    "x86_64": _X86_64,
}
