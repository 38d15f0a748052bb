"""Ask the GPU of this machine where attention runs, and compare with what was found in the files.

    python -m ci.gpu_truth --out truth.json ARTIFACT

Each artifact's own llama-bench decodes a few tokens with a tiny model, once for each pair of KV cache
types and each head size, with every kernel launch recorded (ci/launches.c). A decoded token is what the
vector kernels are for; for a longer prompt engines take other kernels in any case. That is compared with
what sparkbuild's probe finds in the files; or, given ARTIFACT=FOUND.json, with what somebody else did:
{"pairs": [{"k": "q4_0", "v": "q8_0", "head": 128}], "archs": ["sm_90"], "backends": ["CPU", "CUDA"]}.
ci/attention.py says what the verdicts mean.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import msgspec

from ci.attention import (
    TYPES,
    Found,
    Pair,
    Report,
    Run,
    against,
    backends_of,
    compare,
    grid,
    judge,
    record_of,
)
from sparkbuild import process
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.inspection.probe import probe
from sparkbuild.progress import Silent
from sparkbuild.smoke.model import HEAD_SIZES, write

_SECONDS = 60.0  # for one run


def environment(bench: Path) -> dict[str, str]:
    """Return the caller's environment, with the CUDA libraries that the artifact was built with."""
    manifest = bench.parents[1] / "manifest.json"
    cuda = (msgspec.json.decode(manifest.read_bytes()).get("cuda") if manifest.is_file() else None) or {}
    folders = sorted(Path(cuda["root"]).glob("targets/*/lib")) if cuda else []
    paths = ":".join(filter(None, [os.environ.get("LD_LIBRARY_PATH", ""), *map(str, folders)]))
    return os.environ | {"LC_ALL": "C.UTF-8"} | ({"LD_LIBRARY_PATH": paths} if paths else {})


def launch(bench: Path, words: list[str], model: Path, pair: Pair, recorder: Path) -> Run:
    """Decode four tokens and return what happened."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "launches"
        record.touch()
        env = environment(bench) | {
            "LD_PRELOAD": str(recorder),
            "LAUNCHES_FILE": str(record),
            "GGML_SCHED_DEBUG": "2",  # the scheduler says which backend each node goes to
            "GGML_NO_BACKTRACE": "1",  # no debugger when the engine gives up
        }
        argv: list[process.Word] = [bench, "-m", model, *words, "-ctk", pair.k, "-ctv", pair.v]
        try:
            done = process.run(argv, env=env, timeout=_SECONDS, check=False)
            code: int | None = done.returncode
        except process.NoAnswerError as problem:
            done, code = problem.done, None
        kernels = tuple(record.read_text().split())
    return Run(pair, code, kernels, done.output, done.errors, time.monotonic() - begun)


def arguments(bench: Path) -> list[str]:
    """Return the words of every run. Engines do not agree on how to leave the warm-up out."""
    known = process.run([bench, "--help"], env=environment(bench), check=False)
    cold = ["--no-warmup"] if "--no-warmup" in known.output + known.errors else ["-w", "0"]
    # -v: without it llama-bench keeps the engine's warnings to itself. JSON lines not all of them know.
    return ["-p", "0", "-n", "4", "-r", "1", "-t", "2", "-ngl", "99", "-fa", "1", "-o", "json", "-v", *cold]


def capability() -> str:
    """Return the compute capability of this machine's first GPU, such as 9.0; nothing when it has none."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return ""
    query = [tool, "--query-gpu=compute_cap", "--format=csv,noheader"]
    return process.run(query, env=os.environ, check=False).output.partition("\n")[0].strip()


def tiny_models(folder: Path) -> Path:
    """Write a model for each head size."""
    for head in HEAD_SIZES:
        write(folder / f"head-{head}.gguf", head=head, heads=2, kv_heads=2)
    return folder


def examine(artifact: Path, found: Found | None, models: Path, recorder: Path, jobs: int) -> Report:
    """Try every pair with every model, several at once."""
    bench = artifact / "bin" / "llama-bench"
    words = arguments(bench)
    heads = {int(m.stem.removeprefix("head-")): m for m in models.glob("head-*.gguf")}
    pairs = [Pair(head, k, v) for head, k, v in product(sorted(heads), TYPES, TYPES)]
    with ThreadPoolExecutor(jobs) as pool:
        ran = tuple(pool.map(lambda p: launch(bench, words, heads[p.head], p, recorder), pairs))
    runs = tuple(judge(r) if found is None else compare(judge(r), found) for r in ran)
    record = next((record_of(r.output) for r in ran if r.returncode == 0), {})
    backends, gpu = backends_of(record), capability()
    listed = process.run([bench, "--list-devices"], env=environment(bench), check=False)
    return Report(
        artifact=str(artifact),
        gpu=gpu,
        devices=listed.output.strip() if listed.returncode == 0 else "",
        backends=backends,
        gpu_info=str(record.get("gpu_info", "")),
        contradictions=against(backends, gpu, found, runs) if found else (),
        runs=runs,
    )


def probed(artifact: Path) -> Found:
    """Return what sparkbuild's probe finds in an artifact's files; nothing of them is run."""
    found = probe(artifact / "bin", Catalog((shipped_root(),)), Silent())
    codes = {d.name for f in found.files for d in f.device_code}
    return Found(
        pairs=frozenset(Pair(p.head, p.k, p.v) for p in found.verdicts.pairs),
        archs=tuple(sorted(codes)),
        backends=tuple(n for n in ("CPU", "CUDA") if found.verdicts.state(n.lower()) == "present"),
    )


def show(report: Report) -> str:
    """Return a report for people."""
    counts = Counter(r.verdict for r in report.runs)
    lines = (
        report.artifact,
        f"GPU {report.gpu or 'none'}, backends {' '.join(report.backends)}, {report.gpu_info}",
        report.devices,
        grid(report.runs),
        ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common()),
        *report.contradictions,
    )
    return "\n".join(filter(None, lines)) + "\n"


def main() -> int:
    """Examine each artifact; return 1 when one contradicts what was found in its files."""
    parser = argparse.ArgumentParser(prog="ci.gpu_truth", description="Where does attention run on this GPU?")
    parser.add_argument("artifact", nargs="+", help="FOLDER or FOLDER=FOUND.json; it holds bin/llama-bench")
    parser.add_argument("--models", type=Path, help="with head-N.gguf for each size; made where not given")
    parser.add_argument("--out", type=Path, help="write all of it as JSON")
    parser.add_argument("--jobs", type=int, default=8, help="runs at once")
    asked = parser.parse_args()
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        recorder = Path(folder) / "launches.so"
        source = Path(__file__).with_name("launches.c")
        models = asked.models or tiny_models(Path(folder))
        process.run(["cc", "-O1", "-shared", "-fPIC", "-o", recorder, source, "-ldl", "-lpthread"])
        for word in asked.artifact:
            place, _, file = word.partition("=")
            found = msgspec.json.decode(Path(file).read_bytes(), type=Found) if file else probed(Path(place))
            report = examine(Path(place).resolve(), found, models.resolve(), recorder, asked.jobs)
            reports.append(report)
            print(show(report))
    if asked.out:
        asked.out.write_bytes(msgspec.json.format(msgspec.json.encode(reports)))
    return 1 if any(r.contradictions for r in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
