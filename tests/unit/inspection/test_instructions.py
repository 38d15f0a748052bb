"""Instruction by instruction; the GNU assembler is the judge of what each needs, see assembler.py."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sparkbuild.inspection import a64
from sparkbuild.inspection.code import count_instructions
from sparkbuild.inspection.tellable import TELLABLE
from tests.unit.inspection.assembler import (
    A64_ALL,
    a64_judge,
    assemble,
    disassembled,
    needs_tools,
    refused,
)

Words = npt.NDArray[np.uint32]
needs_arm, needs_x86 = needs_tools("aarch64"), needs_tools("x86_64")


_A64 = {
    "dotprod": """
        sdot v0.4s, v1.16b, v2.16b
        udot v0.2s, v1.8b, v2.8b
        sdot v0.4s, v1.16b, v2.4b[3]
        udot v31.2s, v31.8b, v31.4b[0]""",
    "fp16": """
        fadd v0.8h, v1.8h, v2.8h
        fmla v0.4h, v1.4h, v2.4h
        fmla v0.8h, v1.8h, v2.h[7]
        fmulx h0, h1, v2.h[3]
        fcmgt h0, h1, h2
        fabs v0.8h, v1.8h
        fcvtzs v0.8h, v1.8h
        scvtf v0.8h, v1.8h, #3
        frecpx h0, h1
        fmaxv h0, v1.8h
        faddp h0, v1.2h
        fcmla v0.8h, v1.8h, v2.8h, #90
        fcadd v0.4h, v1.4h, v2.4h, #270
        fcmla v0.8h, v1.8h, v2.h[1], #180
        fmov v0.8h, #1.0
        fmov h0, #1.0
        fmov h0, w1
        fcvtzs x0, h1
        ucvtf h0, w1, #4
        fsqrt h0, h1
        frintx h0, h1
        fadd h0, h1, h2
        fmadd h0, h1, h2, h3
        fcmp h0, #0.0
        fccmp h0, h1, #3, eq
        fcsel h0, h1, h2, ne""",
    "i8mm": """
        smmla v0.4s, v1.16b, v2.16b
        ummla v0.4s, v1.16b, v2.16b
        usmmla v0.4s, v1.16b, v2.16b
        usdot v0.2s, v1.8b, v2.8b
        usdot v0.4s, v1.16b, v2.4b[1]
        sudot v0.4s, v1.16b, v2.4b[2]""",
    "bf16": """
        bfdot v0.4s, v1.8h, v2.8h
        bfdot v0.2s, v1.4h, v2.2h[3]
        bfmmla v0.4s, v1.8h, v2.8h
        bfmlalb v0.4s, v1.8h, v2.8h
        bfmlalt v0.4s, v1.8h, v2.h[7]
        bfcvt h0, s1
        bfcvtn v0.4h, v1.4s
        bfcvtn2 v0.8h, v1.4s""",
    "sve": """
        add z0.b, p0/m, z0.b, z0.b
        sdot z0.s, z1.b, z2.b
        fmla z0.h, p0/m, z1.h, z2.h
        fmmla z0.s, z1.s, z2.s
        ld1b {z0.b}, p0/z, [x0]
        ldnt1w {z0.s}, p0/z, [x0, x1, lsl #2]
        mul z0.s, p0/m, z0.s, z1.s
        ext z0.b, z0.b, z1.b, #3
        tbl z0.b, {z1.b}, z2.b
        whilelt p0.s, x0, x1
        cntd x0
        ptrue p0.b
        sclamp z0.s, z1.s, z2.s
        psel p0, p1, p2.s[w12, 1]
        str z0, [x0]""",
    "sve i8mm": """
        smmla z0.s, z1.b, z2.b
        usmmla z0.s, z1.b, z2.b
        ummla z0.s, z1.b, z2.b
        usdot z0.s, z1.b, z2.b
        sudot z0.s, z1.b, z2.b[1]""",
    "sve bf16": """
        bfdot z0.s, z1.h, z2.h
        bfmmla z0.s, z1.h, z2.h
        bfmlalt z0.s, z1.h, z2.h[1]
        bfcvt z0.h, p0/m, z1.s
        bfcvtnt z0.h, p0/m, z1.s""",
    "sve sve2": """
        mul z0.s, z1.s, z2.s
        smlalb z0.s, z1.h, z2.h
        sqrdmlah z0.h, z1.h, z2.h[7]
        cdot z0.s, z1.b, z2.b, #90
        saddlb z0.h, z1.b, z2.b
        addp z0.b, p0/m, z0.b, z1.b
        tbl z0.b, {z1.b, z2.b}, z3.b
        ext z0.b, {z1.b, z2.b}, #3
        whilege p0.s, x0, x1
        whilewr p0.b, x0, x1
        bsl z0.d, z0.d, z1.d, z2.d
        xar z0.b, z0.b, z1.b, #3
        match p0.b, p1/z, z0.b, z1.b
        histseg z0.b, z1.b, z2.b
        fcvtlt z0.s, p0/m, z1.h
        flogb z0.s, p0/m, z1.s
        fmlalb z0.s, z1.h, z2.h
        ldnt1w {z0.s}, p0/z, [z1.s, x0]
        stnt1d {z0.d}, p0, [z1.d, x0]
        aese z0.b, z0.b, z1.b
        bdep z0.b, z1.b, z2.b""",
    "sme": """
        smstart
        smstart za
        smstop sm
        fmopa za0.s, p0/m, p1/m, z0.s, z1.s
        bfmopa za3.s, p0/m, p1/m, z0.h, z1.h
        smopa za0.s, p0/m, p1/m, z0.b, z1.b
        usmops za7.d, p0/m, p1/m, z0.h, z1.h
        mov za0h.s[w12, 1], p0/m, z0.s
        mov z0.q, p0/m, za15v.q[w12, 0]
        zero {za}
        addha za0.s, p0/m, p1/m, z0.s
        ld1w {za0h.s[w12, 0]}, p0/z, [x0]
        st1q {za0v.q[w12, 0]}, p0, [x0]
        ldr za[w12, 3], [x0, #3, mul vl]
        str za[w12, 0], [x0]
        .inst 0xe11f8000 // ldr zt0, [x0]
        .inst 0xe13f83e0 // str zt0, [sp]""",
    "sve sme": """
        rdsvl x0, #1
        addsvl x0, x1, #-1
        addspl x0, x1, #3""",
    # What the base has, what other extensions have, and data.
    "": """
        fcvt s0, h1
        fcvt d0, h1
        fcvt h0, s1
        fcvt h0, d1
        fcvtl v0.4s, v1.4h
        fcvtl2 v0.4s, v1.8h
        fcvtn v0.4h, v1.4s
        fcvtxn s0, d1
        fadd v0.4s, v1.4s, v2.4s
        fadd s0, s1, s2
        fmadd d0, d1, d2, d3
        fmla v0.4s, v1.4s, v2.s[3]
        fcmla v0.4s, v1.4s, v2.4s, #90
        faddp s0, v1.2s
        addp d0, v1.2d
        fmaxv s0, v1.4s
        fmov v0.4s, #1.0
        fmov s0, w1
        scvtf v0.4s, v1.4s, #17
        fmlal v0.4s, v1.4h, v2.4h
        fmlsl2 v0.4s, v1.4h, v2.h[7]
        add v0.8h, v1.8h, v2.8h
        mul v0.8h, v1.8h, v2.h[3]
        sqrdmlah v0.8h, v1.8h, v2.8h
        smlal v0.8h, v1.8b, v2.8b
        smull v0.4s, v1.4h, v2.h[1]
        pmull v0.1q, v1.1d, v2.1d
        mov v0.h[1], v1.h[2]
        dup h0, v1.h[3]
        umov w0, v1.h[3]
        ldr h0, [x0]
        str q0, [x0]
        ld1 {v0.8h}, [x0]
        aese v0.16b, v1.16b
        sha512h q0, q1, v2.2d
        eor3 v0.16b, v1.16b, v2.16b, v3.16b
        xar v0.2d, v1.2d, v2.2d, #3
        sm4e v0.4s, v1.4s
        fjcvtzs w0, d1
        frint32z s0, s1
        ldadd w0, w1, [x2]
        adr x0, .
        adrp x0, .
        b .
        bl .
        cbz x0, .
        nop
        isb
        ret
        bti c
        msr daifset, #2
        msr uao, #1
        .inst 0x80000000 // -0.0f
        .inst 0xc0000010 // about -2.0f
        .inst 0xc1000000 // -8.0f
        .inst 0xffffffff
        .zero 64
        .ascii "text" """,
}


@needs_arm
@pytest.mark.parametrize("features", _A64, ids=lambda f: f or "none of them")
def test_a64_instructions(tmp_path: Path, features: str) -> None:
    """Each line alone, so that no two faults balance."""
    lines = [line.strip() for line in _A64[features].strip().splitlines()]
    for line in lines:
        found = count_instructions(assemble("aarch64", tmp_path / "x.o", line, A64_ALL))
        assert (line, found) == (line, dict.fromkeys(sorted(features.split()), 1))


def test_rows_of_a_feature_exclude_each_other() -> None:
    """Else an instruction counted twice."""
    assert all(value & ~mask == 0 for _, mask, value in a64.ROWS)
    for feature in TELLABLE["aarch64"]:
        rows = [(mask, value) for name, mask, value in a64.ROWS if name == feature]
        for (mask, value), (other_mask, other) in itertools.combinations(rows, 2):
            assert (value ^ other) & mask & other_mask, (feature, hex(value), hex(other))


_ZT0 = 0xE11F8000  # SME2, which older assemblers do not know
# Mask and value of Advanced SIMD and floating point, SVE, SME, and everything.
_SPACES = ((0x0E000000, 0x0E000000), (0x1E000000, 0x04000000), (0x9E000000, 0x80000000), (0, 0))


def draw() -> Words:
    """Return random words: of each row, of the space around it one bit away, and of everywhere."""
    random = np.random.default_rng(1)

    def some(number: int, mask: int, value: int) -> Words:
        words = random.integers(1 << 32, size=number, dtype=np.uint32)
        return words & ~np.uint32(mask) | np.uint32(value)

    near = [(m, v ^ 1 << bit) for _, m, v in a64.ROWS for bit in range(32) if m >> bit & 1]
    inside, outside = [some(50, m, v) for _, m, v in a64.ROWS], [some(8, *place) for place in near]
    return np.concatenate([*inside, *outside, *(some(5000, *space) for space in _SPACES)])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Words, list[str]]:
    """Return those random words that are instructions, and their text."""
    path = tmp_path_factory.mktemp("words") / "x.o"
    assemble("aarch64", path, "\n".join(f".inst {word:#x}" for word in draw().tolist()))
    seen = [(int(w, 16), t.partition("//")[0].strip()) for w, t in disassembled("aarch64", path)]
    seen = [(w, t) for w, t in seen if not t.startswith((".inst", "udf")) and "<" not in t]
    unknown = refused("aarch64", [t for _, t in seen], A64_ALL)
    seen = [pair for number, pair in enumerate(seen) if number not in unknown]
    return np.array([w for w, _ in seen], dtype=np.uint32), [t for _, t in seen]


@needs_arm
def test_random_words_are_told_as_the_assembler_tells_them(drawn: tuple[Words, list[str]]) -> None:
    words, texts = drawn
    judged = a64_judge(texts)
    assert judged.keys() == {*TELLABLE["aarch64"]}
    for feature in judged:
        hit = np.zeros(len(words), dtype=bool)
        for name, mask, value in a64.ROWS:
            if name == feature:
                hit |= (words & mask) == value
        assert {texts[i] for i in judged[feature] ^ {*np.flatnonzero(hit).tolist()}} == set(), feature


@needs_arm
def test_every_row_has_instructions(drawn: tuple[Words, list[str]]) -> None:
    """With the test above: and they need what the row says."""
    words, _ = drawn
    empty = {value for _, mask, value in a64.ROWS if not np.any((words & mask) == value)}
    assert empty <= {_ZT0}


_X86 = {
    "vaddps %ymm0, %ymm1, %ymm2": "avx",
    "vpaddd %xmm0, %xmm1, %xmm2": "avx",
    "vzeroupper": "avx",
    "vpaddd %ymm0, %ymm1, %ymm2": "avx2",
    "vpgatherdd %ymm0, (%rax,%ymm1), %ymm2": "avx2",
    "vfmadd231ps %ymm0, %ymm1, %ymm2": "fma",
    "vfnmsub132sd (%rax), %xmm1, %xmm2": "fma",
    "vfmaddps %ymm0, %ymm1, %ymm2, %ymm3": "fma4",
    "vprotd $3, %xmm0, %xmm1": "xop",
    "vcvtph2ps %xmm0, %ymm1": "f16c",
    "vcvtps2ph $0, %ymm0, %xmm1": "f16c",
    "{vex} vpdpbusd %ymm0, %ymm1, %ymm2": "avx_vnni",
    "vpdpbusd %zmm0, %zmm1, %zmm2": "avx512_vnni",
    "vpdpbusd %ymm0, %ymm1, %ymm2": "avx512vl avx512_vnni",
    "vaddps %zmm0, %zmm1, %zmm2": "avx512f",
    "vaddps %ymm16, %ymm1, %ymm2": "avx512f avx512vl",
    "kmovw %eax, %k1": "avx512f",
    "vpaddb %zmm0, %zmm1, %zmm2": "avx512bw",
    "vandps %zmm0, %zmm1, %zmm2": "avx512dq",
    "vpconflictd %zmm0, %zmm1": "avx512cd",
    "vpermb %zmm0, %zmm1, %zmm2": "avx512_vbmi",
    "vpcompressb %zmm0, %zmm1": "avx512_vbmi2",
    "vpmadd52luq %zmm0, %zmm1, %zmm2": "avx512_ifma",
    "vpopcntb %zmm0, %zmm1": "avx512_bitalg",
    "vpopcntd %zmm0, %zmm1": "avx512_vpopcntdq",
    "vp2intersectd %zmm0, %zmm1, %k2": "avx512f avx512_vp2intersect",
    "vdpbf16ps %zmm0, %zmm1, %zmm2": "avx512f avx512_bf16",
    "vaddph %zmm0, %zmm1, %zmm2": "avx512_fp16",
    "tileloadd (%rax,%rbx), %tmm0": "amx_tile",
    "tdpbusd %tmm0, %tmm1, %tmm2": "amx_int8",
    "tdpbf16ps %tmm0, %tmm1, %tmm2": "amx_bf16",
    "pdep %rax, %rbx, %rcx": "bmi2",
    "shlx %eax, %ebx, %ecx": "bmi2",
    "vaesenc %ymm0, %ymm1, %ymm2": "vaes",
    "vpclmulqdq $0, %ymm0, %ymm1, %ymm2": "vpclmulqdq",
    "gf2p8mulb %xmm0, %xmm1": "gfni",
    "addps %xmm0, %xmm1": "",
    "pmaddubsw %xmm0, %xmm1": "",
    "rep bsf %eax, %ebx": "",
    "andn %eax, %ebx, %ecx": "",
    "aesenc %xmm0, %xmm1": "",
    "pop %rax": "",
    "nopw 0x0(%rax,%rax,1)": "",
    ".zero 64": "",
    ".byte 0xc4, 0xe2": "",
}


@needs_x86
@pytest.mark.parametrize("line", _X86)
def test_x86_instructions(tmp_path: Path, line: str) -> None:
    path = assemble("x86_64", tmp_path / "x.o", line)
    assert count_instructions(path) == dict.fromkeys(sorted(_X86[line].split()), 1)


def test_every_x86_feature_is_among_them() -> None:
    assert {feature for features in _X86.values() for feature in features.split()} == {*TELLABLE["x86_64"]}
