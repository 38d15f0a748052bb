"""What a smoke test found."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import msgspec

from sparkbuild.packages import Sha256

Verdict = Literal["passed", "failed", "not run"]
Ran = Literal["native", "qemu", ""]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that was tried.

    ``said`` is what came out, or why nothing did; ``figures`` have their unit in the name.
    """

    name: str
    verdict: Verdict
    seconds: float
    said: str
    figures: dict[str, float] = {}


class Smoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One smoke test of one artifact; ``manifest`` is the SHA-256 of its manifest's bytes.

    ``ran`` is how its programs were started, empty where they could not be. ``gpu`` are the GPUs that this
    machine has, whatever the engine says. ``model`` is tiny, or the name of the file that was given;
    ``model_digest`` is the tiny one's SHA-256, as another's may be large.
    """

    schema: Literal["sparkbuild/smoke/1"]
    manifest: Sha256
    engine: str
    key: Sha256
    when: dt.datetime
    verdict: Verdict
    ran: Ran
    profile: str
    gpu: tuple[str, ...]
    model: str
    model_digest: str
    steps: tuple[Step, ...]


def verdict_of(steps: tuple[Step, ...]) -> Verdict:
    """Return the verdict of a test: failed where a step is, passed where all ran.

    That no GPU is here does not count against an artifact whose tools answered without one.
    """
    verdicts = [s.verdict for s in steps]
    if "failed" in verdicts:
        return "failed"
    told = [s.verdict for s in steps if s.name not in ("files", "gpu")]
    return "passed" if told and set(told) == {"passed"} else "not run"
