"""What the tools of the family print as results, read and judged. No answer here raises: it is judged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sparkbuild.inspection.runtime import printable
from sparkbuild.smoke.words import GENERATE, PROMPT

_ARRAY = re.compile(r"^\[\s*$", re.MULTILINE)  # on a line of its own; there may be other lines before
_ROW = re.compile(r"^\|((?:\s*-?[\d.]+(?:e[+-]?\d+)?\s*\|)+)\s*$", re.MULTILINE)
_COLUMNS = 7  # PP, TG, N_KV, T_PP s, S_PP t/s, T_TG s, S_TG t/s
_ESTIMATE = re.compile(r"Final estimate: PPL(?: over \d+ chunks for n_ctx=\d+)? = (\S+)")


class BadAnswerError(Exception):
    """An answer that is not what it should be."""


class Bench(msgspec.Struct, frozen=True):
    """One record of llama-bench's JSON; what an engine does not say is None.

    ``cuda`` is of an engine that has no ``backends`` but says of each whether it has it.
    """

    build_commit: str
    build_number: int
    n_gpu_layers: int
    type_k: str
    type_v: str
    n_prompt: int
    n_gen: int
    samples_ns: tuple[float, ...]
    samples_ts: tuple[float, ...]
    gpu_info: str | None = None
    backends: str | None = None
    cuda: bool | None = None

    @property
    def gpu(self) -> str:
        """The GPU that it names."""
        return printable(self.gpu_info or "")

    @property
    def on_cpu(self) -> str:
        """What in it says that no GPU was used, if anything does."""
        if self.gpu_info == "":
            return "its results name no GPU"
        if self.cuda is False or (self.backends is not None and "CUDA" not in self.backends.upper()):
            return f"its results name no CUDA backend but {printable(self.backends or 'the CPU')}"
        return "its results are of 0 layers on the GPU" if not self.n_gpu_layers else ""


def benches(output: str) -> list[Bench]:
    """Read what llama-bench printed as JSON. Raises BadAnswerError."""
    begin = _ARRAY.search(output)
    if not begin:
        raise BadAnswerError("its output holds no JSON array")
    try:
        found, _ = json.JSONDecoder().raw_decode(output, begin.start())
        records = msgspec.convert(found, list[Bench])
    except (ValueError, RecursionError) as problem:
        raise BadAnswerError(f"its JSON is not llama-bench's: {printable(str(problem))}") from problem
    return records


def check_bench(records: Sequence[Bench], commit: str, number: int, settings: Mapping[str, str]) -> None:
    """Check that results are of this build, with these settings, and complete. Raises BadAnswerError.

    ``commit`` may be empty and ``number`` 0 when they are not known.
    """
    for r in records:
        named = r.build_commit
        if number and r.build_number != number:
            raise BadAnswerError(f"it says build {r.build_number}, the manifest says {number}")
        if commit and not (len(named) >= 7 and commit.startswith(named)):  # noqa: PLR2004 - as git abbreviates
            raise BadAnswerError(f"it says commit {printable(named)[:40]}, the manifest says {commit}")
        said = {"gpu_layers": str(r.n_gpu_layers), "cache_type_k": r.type_k, "cache_type_v": r.type_v}
        for name, value in said.items():
            if settings.get(name, value) != value:
                raise BadAnswerError(f"{name} was to be {settings[name]}, it says {printable(value)[:40]}")
        if not (r.samples_ns and r.samples_ts and all(_good(n) for n in (*r.samples_ns, *r.samples_ts))):
            raise BadAnswerError("a result holds no time, or one that is none")
    done = {(r.n_prompt, r.n_gen) for r in records}
    if missing := {(PROMPT, 0), (0, GENERATE)} - done:
        raise BadAnswerError(f"a result is missing, of (prompt, generated) {sorted(missing)}")


def bench_figures(records: Sequence[Bench]) -> dict[str, float]:
    """Return tokens a second of reading and of generating."""
    speed = {(r.n_prompt, r.n_gen): r.samples_ts[0] for r in records}
    return {"prompt tokens/s": speed[PROMPT, 0], "generated tokens/s": speed[0, GENERATE]}


def sweep_figures(output: str) -> dict[str, float]:
    """Read the table of sweep-bench. Raises BadAnswerError."""
    rows = [[_number(c) for c in r.split("|")[:-1]] for r in _ROW.findall(output)]
    rows = [r for r in rows if len(r) == _COLUMNS]
    if not rows:
        raise BadAnswerError("its output holds no row of results")
    if not all(_good(r[n]) for r in rows for n in (4, 6)):
        raise BadAnswerError("a result holds a speed that is none")
    return {"rows": len(rows), "prompt tokens/s": rows[-1][4], "generated tokens/s": rows[-1][6]}


def perplexity(output: str) -> dict[str, float]:
    """Read a perplexity. Raises BadAnswerError."""
    found = _ESTIMATE.search(output)
    if not found or not _good(value := _number(found[1])):
        raise BadAnswerError(f"its perplexity is {printable(found[1])[:40] if found else 'not there'}")
    return {"perplexity": value}


def completion(body: bytes) -> tuple[str, dict[str, float]]:
    """Read a server's answer to /completion: its text and figures. Raises BadAnswerError."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    text = found.get("content") if isinstance(found, dict) else None
    if not isinstance(text, str) or not (text or found.get("tokens")):
        raise BadAnswerError(f"it did not complete a text but said {_start(body)}")
    number = found.get("tokens_predicted")
    return printable(text), {"tokens": number} if isinstance(number, int) else {}


def _start(body: bytes) -> str:
    return printable(body[:200].decode(errors="replace")) or "nothing"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _good(value: float) -> bool:
    return math.isfinite(value) and value > 0
