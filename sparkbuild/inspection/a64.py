"""How to tell by an A64 instruction what it needs: a word belongs to a row when word & mask == value.

From the encodings of the Arm Architecture Reference Manual (DDI 0487, chapter C4). The rows of one
feature exclude each other, so that their counts add up. An instruction that needs several features has
a row for each. A row may take a group whole: what the architecture left free in it, or gave to a later
extension, counts with the group.
"""

from __future__ import annotations

# A row's comment names the group, and what its free bits choose where that is not evident.
ROWS: tuple[tuple[str, int, int], ...] = (
    # --- FEAT_DotProd: Advanced SIMD only, SVE has its own from the start
    ("dotprod", 0x9FE0FC00, 0x0E809400),  # SDOT, UDOT (vector)
    ("dotprod", 0x9FC0F400, 0x0F80E000),  # SDOT, UDOT (by element)
    # --- FEAT_FP16: all that works on H registers and lanes, but for loads, lane moves and FCVT to and
    # --- from single and double precision, which the base has
    ("fp16", 0x9F60C400, 0x0E400400),  # Advanced SIMD three same (FP16)
    ("fp16", 0xDF60C400, 0x5E400400),  # Advanced SIMD scalar three same (FP16)
    ("fp16", 0x9F7E0C00, 0x0E780800),  # Advanced SIMD two-register miscellaneous (FP16)
    ("fp16", 0xDF7E0C00, 0x5E780800),  # Advanced SIMD scalar two-register miscellaneous (FP16)
    ("fp16", 0xBF7FFC00, 0x0E30C800),  # FMAXNMV, FMINNMV (half precision)
    ("fp16", 0xBF7FFC00, 0x0E30F800),  # FMAXV, FMINV (half precision)
    ("fp16", 0xFF7FFC00, 0x5E30C800),  # FMAXNMP, FMINNMP (scalar, half precision)
    ("fp16", 0xFFFFFC00, 0x5E30D800),  # FADDP (scalar, half precision)
    ("fp16", 0xFF7FFC00, 0x5E30F800),  # FMAXP, FMINP (scalar, half precision)
    ("fp16", 0xBFC0B400, 0x0F001000),  # FMLA, FMLS (by element, half precision)
    ("fp16", 0x9FC0F400, 0x0F009000),  # FMUL, FMULX (by element, half precision)
    ("fp16", 0xFFC0B400, 0x5F001000),  # FMLA, FMLS (scalar, by element, half precision)
    ("fp16", 0xDFC0F400, 0x5F009000),  # FMUL, FMULX (scalar, by element, half precision)
    ("fp16", 0xBFE0E400, 0x2E40C400),  # FCMLA (half precision), of FEAT_FCMA too
    ("fp16", 0xBFE0EC00, 0x2E40E400),  # FCADD (half precision), of FEAT_FCMA too
    ("fp16", 0xBFC09400, 0x2F401000),  # FCMLA (by element, half precision), of FEAT_FCMA too
    ("fp16", 0x9FF0FC00, 0x0F10E400),  # SCVTF, UCVTF (fixed-point, half precision)
    ("fp16", 0x9FF0FC00, 0x0F10FC00),  # FCVTZS, FCVTZU (fixed-point, half precision)
    ("fp16", 0xDFF0FC00, 0x5F10E400),  # SCVTF, UCVTF (scalar, fixed-point, half precision)
    ("fp16", 0xDFF0FC00, 0x5F10FC00),  # FCVTZS, FCVTZU (scalar, fixed-point, half precision)
    ("fp16", 0xBFF8FC00, 0x0F00FC00),  # FMOV (vector, immediate, half precision)
    ("fp16", 0xFFFE7C00, 0x1EE04000),  # one source: FMOV, FABS, FNEG, FSQRT; FCVT is 0x1EE24000 and up
    ("fp16", 0xFFFC7C00, 0x1EE44000),  # one source: FRINTN to FRINTI
    ("fp16", 0xFFE00C00, 0x1EE00800),  # two source
    ("fp16", 0xFFC00000, 0x1FC00000),  # three source
    ("fp16", 0xFFE0FC07, 0x1EE02000),  # compare
    ("fp16", 0xFFE00C00, 0x1EE00400),  # conditional compare
    ("fp16", 0xFFE00C00, 0x1EE00C00),  # conditional select
    ("fp16", 0xFFE01FE0, 0x1EE01000),  # FMOV (scalar, immediate)
    ("fp16", 0x7FE0FC00, 0x1EE00000),  # conversion to and from integer
    ("fp16", 0x7FE00000, 0x1EC00000),  # conversion to and from fixed point
    # --- FEAT_I8MM; the SVE forms count for "sve" too
    ("i8mm", 0xDFE0FC00, 0x4E80A400),  # SMMLA, UMMLA
    ("i8mm", 0xFFE0FC00, 0x4E80AC00),  # USMMLA
    ("i8mm", 0xBFE0FC00, 0x0E809C00),  # USDOT (vector)
    ("i8mm", 0xBF40F400, 0x0F00F000),  # SUDOT, USDOT (by element)
    ("i8mm", 0xFFE0FC00, 0x45009800),  # SVE SMMLA
    ("i8mm", 0xFFA0FC00, 0x45809800),  # SVE USMMLA, UMMLA
    ("i8mm", 0xFFE0FC00, 0x44807800),  # SVE USDOT (vectors)
    ("i8mm", 0xFFE0F800, 0x44A01800),  # SVE USDOT, SUDOT (indexed)
    # --- FEAT_BF16; the SVE forms count for "sve" too
    ("bf16", 0xBFE0FC00, 0x2E40FC00),  # BFDOT (vector)
    ("bf16", 0xBFC0F400, 0x0F40F000),  # BFDOT (by element)
    ("bf16", 0xFFE0FC00, 0x6E40EC00),  # BFMMLA
    ("bf16", 0xBFE0FC00, 0x2EC0FC00),  # BFMLALB, BFMLALT (vector)
    ("bf16", 0xBFC0F400, 0x0FC0F000),  # BFMLALB, BFMLALT (by element)
    ("bf16", 0xBFFFFC00, 0x0EA16800),  # BFCVTN, BFCVTN2
    ("bf16", 0xFFFFFC00, 0x1E634000),  # BFCVT
    ("bf16", 0xFFE0FC00, 0x64608000),  # SVE BFDOT (vectors)
    ("bf16", 0xFFE0FC00, 0x64604000),  # SVE BFDOT (indexed)
    ("bf16", 0xFFE0FC00, 0x6460E400),  # SVE BFMMLA
    ("bf16", 0xFFE0F800, 0x64E08000),  # SVE BFMLALB, BFMLALT (vectors)
    ("bf16", 0xFFE0F000, 0x64E04000),  # SVE BFMLALB, BFMLALT (indexed)
    ("bf16", 0xFFFFE000, 0x658AA000),  # SVE BFCVT
    ("bf16", 0xFFFFE000, 0x648AA000),  # SVE BFCVTNT
    # --- FEAT_SVE: the whole of its encoding space, whatever came later
    ("sve", 0x1E000000, 0x04000000),
    # --- SVE2 with its AES, SHA3, SM4 and bit permutation parts
    ("sve2", 0xFF20F000, 0x04206000),  # MUL, PMUL, SMULH, UMULH (unpredicated)
    ("sve2", 0xFF20F800, 0x04207000),  # SQDMULH, SQRDMULH (unpredicated)
    ("sve2", 0xFF20F800, 0x04203800),  # EOR3, BCAX, BSL, BSL1N, BSL2N, NBSL
    ("sve2", 0xFF20FC00, 0x04203400),  # XAR
    ("sve2", 0xFF3EE000, 0x04068000),  # SQSHL, UQSHL (immediate)
    ("sve2", 0xFF3EE000, 0x040C8000),  # SRSHR, URSHR
    ("sve2", 0xFF3FE000, 0x040F8000),  # SQSHLU
    ("sve2", 0xFFE0E000, 0x05600000),  # EXT (constructive)
    ("sve2", 0xFF3FE000, 0x052D8000),  # SPLICE (constructive)
    ("sve2", 0xFF20F800, 0x05202800),  # TBL (two tables), TBX
    ("sve2", 0xFF20E400, 0x25200000),  # WHILEGE, WHILEGT, WHILEHI, WHILEHS
    ("sve2", 0xFF20FC00, 0x25203000),  # WHILERW, WHILEWR
    ("sve2", 0xFF20F800, 0x44000800),  # SQDMLALBT, SQDMLSLBT
    ("sve2", 0xFF20F000, 0x44001000),  # CDOT
    ("sve2", 0xFF20E000, 0x44002000),  # CMLA, SQRDCMLAH
    ("sve2", 0xFF20E000, 0x44004000),  # SMLALB to UMLSLT
    ("sve2", 0xFF20F000, 0x44006000),  # SQDMLALB to SQDMLSLT
    ("sve2", 0xFF20F800, 0x44007000),  # SQRDMLAH, SQRDMLSH
    ("sve2", 0xFF20C000, 0x44008000),  # predicated: halving, saturating, rounding, pairwise
    ("sve2", 0xFF20F800, 0x44200800),  # MLA, MLS (indexed)
    ("sve2", 0xFF20F800, 0x44201000),  # SQRDMLAH, SQRDMLSH (indexed)
    ("sve2", 0xFF20E000, 0x44202000),  # SQDMLALB to SQDMLSLT (indexed)
    ("sve2", 0xFF20C000, 0x44204000),  # CDOT, CMLA, SQRDCMLAH (indexed)
    ("sve2", 0xFF208000, 0x44208000),  # the other multiplications (indexed)
    ("sve2", 0xFF208000, 0x45000000),  # widening add, subtract, multiply
    ("sve2", 0xFF20F000, 0x45008000),  # SADDLBT, SSUBLBT, SSUBLTB
    ("sve2", 0xFF20F800, 0x45009000),  # EORBT, EORTB
    ("sve2", 0xFF20E000, 0x4500A000),  # SSHLLB to USHLLT, BEXT, BDEP, BGRP
    ("sve2", 0xFF20C000, 0x4500C000),  # accumulate: SABALB, CADD, ADCLB, SSRA, SRI, SABA
    ("sve2", 0xFF200000, 0x45200000),  # narrowing, MATCH, HISTCNT, cryptography
    ("sve2", 0xFFFFE000, 0x640AA000),  # FCVTXNT
    ("sve2", 0xFFFEE000, 0x6488A000),  # FCVTNT, FCVTLT (half and single precision)
    ("sve2", 0xFFFEE000, 0x64CAA000),  # FCVTNT, FCVTLT (single and double precision)
    ("sve2", 0xFF38E000, 0x64108000),  # FADDP, FMAXP, FMINP, FMAXNMP, FMINNMP
    ("sve2", 0xFFE0D800, 0x64A08000),  # FMLALB to FMLSLT (vectors)
    ("sve2", 0xFFE0D000, 0x64A04000),  # FMLALB to FMLSLT (indexed)
    ("sve2", 0xFFFFE000, 0x650AA000),  # FCVTX
    ("sve2", 0xFFF9E000, 0x6518A000),  # FLOGB
    ("sve2", 0xFE60C000, 0x84008000),  # LDNT1 (vector plus scalar, 32-bit)
    ("sve2", 0xFE60A000, 0xC4008000),  # LDNT1 (vector plus scalar, 64-bit)
    ("sve2", 0xFE20E000, 0xE4002000),  # STNT1 (vector plus scalar)
    # --- FEAT_SME, with what SME2 added for ZT0 only: the rest of SME2 lies among words that data can look
    # --- like (0xC1000000 is -8.0f), and is no use without SMSTART or ZA. PSEL, REVD, SCLAMP and UCLAMP,
    # --- which SVE2.1 has too, count for "sve" alone.
    ("sme", 0xFFFFFEFF, 0xD503427F),  # SMSTART, SMSTOP (SM)
    ("sme", 0xFFFFFCFF, 0xD503447F),  # SMSTART, SMSTOP (ZA, both)
    ("sme", 0xFFE0000C, 0x80800000),  # FMOPA, FMOPS (single precision)
    ("sme", 0xFFE00008, 0x80C00000),  # FMOPA, FMOPS (double precision)
    ("sme", 0xFFC0000C, 0x81800000),  # BFMOPA, BFMOPS, FMOPA, FMOPS (widening)
    ("sme", 0xFEC0000C, 0xA0800000),  # SMOPA to UMOPS (8-bit)
    ("sme", 0xFEC00008, 0xA0C00000),  # SMOPA to UMOPS (16-bit)
    ("sme", 0xFF3E0010, 0xC0000000),  # MOVA (vector to tile)
    ("sme", 0xFF3E0200, 0xC0020000),  # MOVA (tile to vector)
    ("sme", 0xFFFFFF00, 0xC0080000),  # ZERO
    ("sme", 0xFFFE001C, 0xC0900000),  # ADDHA, ADDVA (32-bit)
    ("sme", 0xFFFE0018, 0xC0D00000),  # ADDHA, ADDVA (64-bit)
    ("sme", 0xFF000010, 0xE0000000),  # LD1, ST1 (tile slice)
    ("sme", 0xFFC00010, 0xE1C00000),  # LD1Q, ST1Q (tile slice)
    ("sme", 0xFFDF9C10, 0xE1000000),  # LDR, STR (array vector)
    ("sme", 0xFFDFFC1F, 0xE11F8000),  # LDR, STR (ZT0)
    ("sme", 0xFFE0F800, 0x04205800),  # ADDSVL, like the next two for "sve" as well
    ("sme", 0xFFE0F800, 0x04605800),  # ADDSPL
    ("sme", 0xFFFFF800, 0x04BF5800),  # RDSVL
)
