"""Is there a GPU, and did the engine use it? The first is asked without the engine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparkbuild import process
from sparkbuild.inspection.runtime import printable
from sparkbuild.smoke.answers import Bench
from sparkbuild.smoke.records import Verdict

_LISTED = re.compile(r"^GPU \d+: (.+?)(?: \(UUID: .*)?$", re.MULTILINE)  # nvidia-smi -L
_MODEL = re.compile(r"^Model:\s*(.+)$", re.MULTILINE)  # /proc/driver/nvidia/gpus/*/information
# What engines of the family log: of the layers of a model, and when they do without a GPU.
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_WITHOUT = re.compile(
    r"^.*(?:no usable GPU found|no CUDA-capable device|failed to initialize (?:CUDA|backend: CUDA)"
    r"|no CUDA devices found|compiled without (?:GPU|CUDA) support).*$",
    re.MULTILINE | re.IGNORECASE,
)


def gpus(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the NVIDIA GPUs that a program can use here.

    The driver's list in /proc is there in a container, too, that was not given a GPU: without a device
    node it names none. ``root`` is for tests.
    """
    if tool := shutil.which("nvidia-smi"):
        try:
            listed = process.run([tool, "-L"], timeout=30, check=False).output
        except process.ProcessError:
            listed = ""
        if names := _LISTED.findall(listed):
            return tuple(printable(n) for n in names)
    nodes = sorted((root / "dev").glob("nvidia[0-9]*"))
    told = [p.read_text(errors="replace") for p in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))]
    names = [m[1].strip() for text in told if (m := _MODEL.search(text))]
    return tuple(printable(names[n]) if n < len(names) else f"/dev/{p.name}" for n, p in enumerate(nodes))


def decide(
    devices: Sequence[str] | None, logs: Mapping[str, str], benches: Sequence[Bench]
) -> tuple[Verdict, str]:
    """Return whether a CUDA build used the GPU that is here, and what says so.

    ``devices`` are the GPUs that the engine lists, None when it was not asked; ``logs`` what its tools said,
    by step. One sign of the CPU is enough to fail, and so is no sign of the GPU's use.
    """
    against: list[str] = []
    signs: list[str] = []
    if devices is not None and not devices:
        against.append("the engine lists no GPU")
    for step, log in logs.items():
        if lost := _WITHOUT.search(log):
            against.append(f"{step}: {printable(lost[0].strip())[:200]}")
        for n, of in _OFFLOADED.findall(log):
            all_there = 0 < int(n) == int(of)
            (signs if all_there else against).append(f"{step}: {n} of {of} layers on the GPU")
    against += [f"bench: {why}" for b in benches if (why := b.on_cpu)]
    if against:
        return "failed", f"it fell back to the CPU: {'; '.join(dict.fromkeys(against))}"
    if not signs:
        return "failed", "nothing that its tools said shows that it used the GPU"
    named = [b.gpu for b in benches if b.gpu] or list(devices or ())
    return "passed", "; ".join(dict.fromkeys([*signs, *named]))
