"""GNU as and objdump as judges of machine code: what as refuses without a feature needs the feature.

objdump's lines are given back to as, once with the feature and once without. So the judgement owes
nothing to the tables that are tested.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

Features = Mapping[str, tuple[str, str]]  # feature: -march without it, -march with it


def find(machine: str, tool: str) -> str:
    """Return a machine's GNU tool, or nothing."""
    return shutil.which(f"{machine}-linux-gnu-{tool}") or ""


def needs_tools(machine: str) -> pytest.MarkDecorator:
    """Return the mark that skips a test where a machine's GNU tools are missing."""
    missing = [f"{machine}-linux-gnu-{tool}" for tool in ("as", "objdump", "gcc") if not find(machine, tool)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(command: list[str], stdin: str = "") -> str:
    return _done(command, stdin, check=True).stdout


def _done(command: list[str], stdin: str, *, check: bool) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"LC_ALL": "C"}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=check, env=env)


def assemble(machine: str, path: Path, text: str, march: str = "") -> Path:
    """Write an object of some assembler text."""
    options = [f"-march={march}"] if march else []
    run([find(machine, "as"), *options, "-o", str(path), "-"], text + "\n")
    return path


def refused(machine: str, lines: list[str], march: str) -> set[int]:
    """Return which lines the assembler does not take."""
    command = [find(machine, "as"), f"-march={march}", "-o", "/dev/null", "-"]
    said = _done(command, "\n".join(lines) + "\n", check=False).stderr
    return {int(n) - 1 for n in re.findall(r"^\{standard input\}:(\d+): Error", said, re.MULTILINE)}


def disassembled(machine: str, path: Path) -> Iterable[tuple[str, str]]:
    """Yield the bytes and the text of each instruction that objdump sees."""
    options = ["-d", "-z", "-w"] + (["--insn-width=16"] if machine == "x86_64" else [])
    for line in run([find(machine, "objdump"), *options, str(path)]).splitlines():
        parts = line.split("\t", 2)
        if len(parts) == 3:
            yield parts[1].strip(), parts[2].strip()


def judge(machine: str, lines: list[str], features: Features) -> dict[str, set[int]]:
    """Return which lines need which feature."""
    without = cache(lambda march: refused(machine, lines, march))
    return {name: without(less) - without(more) for name, (less, more) in features.items()}


def totals(found: Mapping[str, int], needs: Mapping[str, set[int]]) -> Counter[str]:
    """Return how many instructions need each feature; ``found`` has the number of each line."""
    lines = list(found)
    return Counter({name: sum(found[lines[i]] for i in which) for name, which in needs.items() if which})


_V86 = "armv8.6-a+crypto+sha3+sm4"
_NEON = f"{_V86}+fp16+fp16fml"
_SVE = f"{_NEON}+sve+f32mm+f64mm"
_SVE2 = f"{_SVE}+sve2+sve2-aes+sve2-sha3+sve2-sm4+sve2-bitperm"
A64_ALL = f"{_SVE2}+sme+sme-f64+sme-i64"
_A64: Features = {
    "dotprod": (f"{_NEON}+nodotprod", _NEON),
    "fp16": (_V86, f"{_V86}+fp16+nofp16fml"),
    "i8mm": (f"{_SVE2}+noi8mm", _SVE2),
    "bf16": (f"{_SVE2}+nobf16", _SVE2),
    "sve": (_NEON, _SVE2),
    "sve2": (_SVE, _SVE2),
    "sme": (_SVE2, A64_ALL),
}

_X86 = "generic64+sse4.2+aes+pclmul+bmi+gfni+sse4a"
_AVX = f"{_X86}+avx"
_AVX2 = f"{_AVX}+avx2"
_FMA = f"{_AVX2}+fma+f16c"
_512 = f"{_FMA}+avx512f+avx512vl"
_BW = f"{_512}+avx512bw"
_OTHERS = "+avx512cd+avx512dq+avx512_vnni+avx512_vpopcntdq+avx512_vp2intersect+vaes+vpclmulqdq"
_BYTES = "+avx512_bf16+avx512_bitalg+avx512_fp16+avx512_vbmi2+avx512ifma+avx512vbmi"
_SHORT = f"{_FMA}+avx512f+avx512bw{_OTHERS}{_BYTES}"  # all but for AVX512VL
_VEX: Features = {
    "avx": (_X86, _AVX),
    "avx2": (_AVX, _AVX2),
    "bmi2": (_X86, f"{_X86}+bmi2"),
    "avx512f": (_FMA, f"{_FMA}+avx512f"),
    "avx512bw": (f"{_FMA}+avx512f", f"{_FMA}+avx512bw"),
    "avx512dq": (f"{_FMA}+avx512f", f"{_FMA}+avx512dq"),
    "xop": (f"{_AVX2}+fma4", f"{_AVX2}+fma4+xop"),
    "amx_tile": (_X86, f"{_X86}+amx_tile"),
    "amx_int8": (f"{_X86}+amx_tile", f"{_X86}+amx_int8"),
    "amx_bf16": (f"{_X86}+amx_tile", f"{_X86}+amx_bf16"),
    **{n: (_AVX2, f"{_AVX2}+{n}") for n in ("fma", "f16c", "fma4", "avx_vnni", "vaes", "vpclmulqdq")},
}
_EVEX: Features = {
    "avx512f": (_FMA, _512),
    "avx512bw": (_512, _BW),
    "avx512vl": (_SHORT, f"{_SHORT}+avx512vl"),
    "avx512_ifma": (_512, f"{_512}+avx512ifma"),
    "avx512_vbmi": (_BW, f"{_BW}+avx512vbmi"),
    **{name: (_512, f"{_512}+{name}") for name in _OTHERS[1:].split("+")},
    **{name: (_BW, f"{_BW}+{name}") for name in _BYTES[1:].split("+")[:4]},
}
# Segment and address size prefixes, then VEX, EVEX, or XOP, whose map number tells it from POP.
_VECTOR = re.compile(r"(?:(?:26|2e|36|3e|64|65|67) )*(?:(c4|c5|8f (?=[02468ace][89a]))|(62))")


def a64_judge(lines: list[str]) -> dict[str, set[int]]:
    """Return which lines need which feature, where as is right.

    It takes complex half-precision instructions without FEAT_FP16, against the Arm ARM. What SME put
    into the SVE space needs only SME there; it counts for "sve" here, and what SVE2.1 has too for it alone.
    """
    needs = judge("aarch64", lines, _A64)

    def like(pattern: str) -> set[int]:
        return {number for number, line in enumerate(lines) if re.match(pattern, line)}

    late = like(r"(psel|revd|[su]clamp)\b")
    needs["fp16"] |= like(r"fc(mla|add)\s+v\d+\.[48]h")
    needs["sve"] |= like(r"(addsvl|addspl|rdsvl)\b") | late
    needs["sme"] -= late
    return needs


def a64_needs(path: Path) -> dict[str, int]:
    """Return how many instructions of a file need each feature; those that name an address need none."""
    texts = (text for _, text in disassembled("aarch64", path) if "<" not in text)
    found = Counter(text.partition("//")[0].strip() for text in texts)
    return dict(totals(found, a64_judge(list(found))))


def x86_needs(path: Path) -> dict[str, int]:
    """Return how many VEX, XOP and EVEX instructions of a file need each feature.

    The encoding is said again to as, which would choose the older one where both exist.
    """
    old: Counter[str] = Counter()
    new: Counter[str] = Counter()
    for code, text in disassembled("x86_64", path):
        if text != "(bad)" and (match := _VECTOR.match(code)):
            line = re.split("[#<]", text)[0].strip()
            if match[1]:
                old[line] += 1
            else:
                new[line if line.startswith("{") else "{evex} " + line] += 1
    found = totals(old, judge("x86_64", list(old), _VEX)) + totals(new, judge("x86_64", list(new), _EVEX))
    # Of these, Intel's manual says AVX512F too where they are 512 bits wide; as does not.
    wide = (n for line, n in new.items() if "%zmm" in line and re.search("bf16|vp2intersect", line))
    found["avx512f"] += sum(wide)
    return {name: number for name, number in found.items() if number}


NEEDS: dict[str, Callable[[Path], dict[str, int]]] = {"aarch64": a64_needs, "x86_64": x86_needs}
