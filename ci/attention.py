"""Judge where a GPU's runs took attention, and compare with what was found in the files.

vector     a vector kernel for exactly this pair
converted  a vector kernel for another pair: K and V were converted before
matrix     a kernel without cache types: the engine prefers it on this GPU, and converts for it
cpu        kernels ran on the GPU, but none for attention
no-gpu     no kernel was launched at all
refused    the tool does not know one of the types
failed     the tool ended with an error; timeout: it did not end
unclear    the kernels, the scheduler's report and the engine's warning do not say the same
"""

from __future__ import annotations

import re

import msgspec

TYPES = {"f16": 1, "bf16": 30, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}  # as in ggml.h
_NAMES = {number: name for name, number in TYPES.items()}
_ATTENTION = re.compile(r"(flash_attn[a-z0-9_]*)I(\w*)")  # a mangled template's name and arguments
_HELPER = re.compile(r"combine|fixup|mask_to")  # what attention's kernels need before or after them
_SIZE = re.compile(r"Li(\d+)E")
_TYPE = re.compile(r"L(?:9ggml_type|S\d*_)(\d+)E")
_NODE = re.compile(r"\(FLASH_ATTN\): .*?\[ *([\w-]+)")  # what GGML_SCHED_DEBUG=2 prints of a node
_WARNING = re.compile(r"no FlashAttention vector kernel compiled for K/V types")


class Pair(msgspec.Struct, frozen=True, order=True):
    """KV cache types and the size of an attention head."""

    head: int
    k: str
    v: str


class Found(msgspec.Struct, frozen=True):
    """What was found in an artifact's files: vector kernels, GPU architectures, backends."""

    pairs: frozenset[Pair]
    archs: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()


class Run(msgspec.Struct, frozen=True):
    """What one run did. ``returncode`` is None when it did not end in time."""

    pair: Pair
    returncode: int | None
    kernels: tuple[str, ...]
    output: str
    errors: str
    seconds: float


class Verdict(msgspec.Struct, frozen=True):
    """Where attention ran, what shows it, and whether the file's finding says otherwise."""

    pair: Pair
    verdict: str
    kernels: tuple[str, ...]
    node: str  # the backend that the scheduler gave attention to
    warning: bool
    seconds: float
    errors: str
    in_file: bool | None = None
    contradiction: bool = False


class Report(msgspec.Struct, frozen=True):
    """All of one artifact."""

    artifact: str
    gpu: str
    devices: str
    backends: tuple[str, ...]
    gpu_info: str
    contradictions: tuple[str, ...]
    runs: tuple[Verdict, ...]


def pair_of(kernel: str) -> Pair | None:
    """Return what the mangled name of a vector kernel says; None for a kernel without cache types."""
    named = _ATTENTION.search(kernel)
    sizes = _SIZE.findall(named[2]) if named else []
    types = [_NAMES.get(int(n), n) for n in _TYPE.findall(named[2])] if named else []
    return Pair(int(sizes[0]), types[0], types[1]) if sizes and len(types) > 1 else None


def judge(run: Run) -> Verdict:
    """Say where attention ran."""
    attention = tuple(n for n in run.kernels if (m := _ATTENTION.search(n)) and not _HELPER.search(m[1]))
    typed = {pair_of(n) for n in attention} - {None}
    nodes = _NODE.findall(run.errors)
    node = nodes[-1] if nodes else ""
    warned = _WARNING.search(run.errors) is not None
    if run.returncode is None:
        verdict = "timeout"
    elif run.returncode:
        verdict = "refused" if "invalid parameter" in run.errors else "failed"
    elif typed:
        verdict = "vector" if typed == {run.pair} else "converted"
    elif attention:
        verdict = "matrix"
    else:
        verdict = "cpu" if run.kernels else "no-gpu"
    on_gpu = verdict in ("vector", "converted", "matrix")
    doubt = (node and on_gpu == (node == "CPU")) or (warned and verdict != "converted")
    if run.returncode == 0 and doubt:
        verdict = "unclear"
    tail = "" if run.returncode == 0 else run.errors[-2000:]
    return Verdict(run.pair, verdict, attention, node, warned, round(run.seconds, 2), tail)


def compare(verdict: Verdict, found: Found) -> Verdict:
    """Add what the file's finding says. "matrix" says nothing about what else the file holds."""
    there = verdict.pair in found.pairs
    wrong = ("converted", "cpu", "no-gpu", "failed") if there else ("vector",)
    bad = verdict.verdict in (*wrong, "timeout", "unclear")
    return msgspec.structs.replace(verdict, in_file=there, contradiction=bad)


def record_of(output: str) -> dict[str, object]:
    """Return llama-bench's only record, an object in a list; empty when there is none."""
    said = re.search(r"^\[\n.*?^\]$", output, re.MULTILINE | re.DOTALL)
    try:
        return msgspec.json.decode(said[0], type=list[dict[str, object]])[0] if said else {}
    except (msgspec.DecodeError, IndexError):
        return {}


def backends_of(record: dict[str, object]) -> tuple[str, ...]:
    """Return the backends that a llama-bench record names: a list in one field, or a field for each."""
    said = record.get("backends")
    names = {str(said).upper()} if said else {n.upper() for n in ("cuda", "vulkan") if record.get(n)}
    return tuple(sorted({part for n in names for part in n.split(",")} | {"CPU"}))


def against(backends: tuple[str, ...], gpu: str, found: Found, runs: tuple[Verdict, ...]) -> tuple[str, ...]:
    """Return, in words, every point where the runs say other than the files."""
    wrong = [
        f"head {r.pair.head}, {r.pair.k}-{r.pair.v}: {r.verdict}, in the file: {'yes' if r.in_file else 'no'}"
        for r in runs
        if r.contradiction
    ]
    if found.backends and sorted(found.backends) != list(backends):
        wrong.append(
            f"backends: the tool has {' '.join(backends)}, the file {' '.join(sorted(found.backends))}"
        )
    here = re.compile(rf"(sm|compute)_{gpu.replace('.', '')}[af]?")
    if found.archs and gpu and not any(here.fullmatch(a) for a in found.archs):
        wrong.append(f"device code: the GPU is {gpu}, the file holds {' '.join(found.archs)}")
    return tuple(wrong)


def grid(runs: tuple[Verdict, ...]) -> str:
    """Return a table for each head size, K down and V across; ! marks a contradiction."""
    known = {r.pair: r for r in runs}
    lines = []
    for head in sorted({r.pair.head for r in runs}):
        lines.append("".join(f"{w:<11}" for w in (f"head {head}", *TYPES)))
        for k in TYPES:
            row = (known[Pair(head, k, v)] for v in TYPES)
            lines.append("".join(f"{w:<11}" for w in (k, *(r.verdict + "!" * r.contradiction for r in row))))
    return "\n".join(lines)
