"""The smoke test: an artifact's own tools load a model, bench it and answer, on the GPU where one is."""

from __future__ import annotations

import datetime as dt
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from sparkbuild.catalog.records import Features
from sparkbuild.errors import BinaryError, UsageError
from sparkbuild.files import Folders, sha256_bytes, sha256_file
from sparkbuild.handover import MANIFEST, Artifact, Handed, HandoverError, plain_bytes
from sparkbuild.inspection.facts import wanted_names
from sparkbuild.inspection.live import How
from sparkbuild.inspection.names import read_names
from sparkbuild.inspection.report import SystemReport, ask_library
from sparkbuild.inspection.runtime import launch, printable
from sparkbuild.progress import Progress
from sparkbuild.smoke.gpu import decide, gpus
from sparkbuild.smoke.model import tiny
from sparkbuild.smoke.records import Ran, Smoke, Step, verdict_of
from sparkbuild.smoke.tools import Trial, Tried, attempt, attempts
from sparkbuild.smoke.words import check_profile

_PATIENCE = 120.0  # seconds for a tool with a tiny model, emulated
_RATE = 100e6  # bytes a second at which a model is loaded at least
_ALL, _NONE = "999", "0"  # layers on the GPU
_DEVICE = re.compile(
    r"[A-Za-z]+\d+"
)  # engines without lists of devices register CUDA0, CUDA1, ... as backends


class Asked(msgspec.Struct, frozen=True):
    """What is asked of a test. ``model`` None is the tiny one; ``patience`` is in seconds, for each tool."""

    model: Path | None = None
    profile: str = ""
    gpu: Literal["auto", "require", "never"] = "auto"
    patience: float = _PATIENCE


class Here(msgspec.Struct, frozen=True):
    """What is on this machine: ``how`` runs binaries, ``rules`` say which library to ask for its devices."""

    how: How
    rules: Features
    folders: Folders


def artifact_at(folder: Path) -> Artifact:
    """Return the artifact in a folder. Raises UsageError where its manifest is missing or not valid."""
    path = folder / MANIFEST
    try:
        data = plain_bytes(path)
        return Artifact(folder, sha256_bytes(data), msgspec.json.decode(data, type=Handed))
    except (OSError, ValueError, RecursionError) as problem:
        raise UsageError(f"not an artifact: {problem}", where=str(path)) from problem


def smoke(artifact: Artifact, asked: Asked, here: Here, progress: Progress) -> Smoke:
    """Run an artifact's tools and return what came out; nothing that they start is left behind.

    Raises UsageError for a model or a profile that is not there.
    """
    made, begun, seen = artifact.manifest, dt.datetime.now(dt.UTC), gpus()
    launcher = launch(made.run.needs.processor)
    ran: Ran = "" if isinstance(launcher, str) else "qemu" if launcher else "native"
    without = _without_gpu(artifact, asked, seen, ran)
    with tempfile.TemporaryDirectory(prefix="sparkbuild-smoke-") as work:
        trial = _trial(artifact, asked, here, Path(work), on_gpu=not without)
        steps = _steps(trial, here, without, seen, progress)
    verdict = verdict_of(steps)
    if asked.gpu == "require" and verdict == "passed" and without:
        verdict = "not run"
    return Smoke(
        schema="sparkbuild/smoke/1",
        manifest=artifact.digest,
        engine=made.engine.name,
        key=made.key,
        when=begun,
        verdict=verdict,
        ran=ran,
        profile=asked.profile,
        gpu=seen,
        model=printable(asked.model.name) if asked.model else "tiny",
        model_digest="" if asked.model else sha256_file(trial.model),
        steps=steps,
    )


def _without_gpu(artifact: Artifact, asked: Asked, seen: Sequence[str], ran: Ran) -> str:
    """Return why no GPU will be used, empty where it must be."""
    profile = _profile(artifact, asked)
    reasons = {
        f"it is a {artifact.manifest.target.backend} build": artifact.manifest.target.backend != "cuda",
        "the GPU was not to be used": asked.gpu == "never",
        "no GPU here: its tools ran on the CPU": not seen,
        "a program that is emulated can not use a GPU": ran != "native",
        f"the profile {asked.profile} puts no layers on a GPU": bool(profile)
        and profile.get("gpu_layers", _NONE) == _NONE,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _profile(artifact: Artifact, asked: Asked) -> dict[str, str]:
    try:
        return check_profile(artifact, asked.profile)
    except HandoverError as problem:
        raise UsageError(str(problem), where="--profile") from problem


def _trial(artifact: Artifact, asked: Asked, here: Here, work: Path, *, on_gpu: bool) -> Trial:
    if asked.model and not asked.model.is_file():
        raise UsageError("there is no such model", where=str(asked.model), remedy="--model names a GGUF file")
    run = artifact.manifest.run
    model = asked.model.resolve() if asked.model else tiny(here.folders)
    layers = {}
    if artifact.manifest.target.backend == "cuda":
        layers["gpu_layers"] = _ALL if on_gpu else _NONE
    environment = next((p.environment for p in run.profiles if p.name == asked.profile), {})
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if asked.gpu == "never" else {}
    return Trial(
        artifact=artifact,
        profile=asked.profile,
        settings={"threads": str(min(4, len(os.sched_getaffinity(0)))), **layers},
        environment={**run.environment, **environment, **hidden},
        # The stub of a driver, which lets a CUDA build start where none is, must not hide a real one.
        libraries=tuple(p for p in here.how.libraries if not (on_gpu and p.name == "stubs")),
        model=model,
        work=work,
        patience=asked.patience + model.stat().st_size / _RATE,
        on_gpu=on_gpu,
    )


def _steps(
    trial: Trial, here: Here, without: str, seen: Sequence[str], progress: Progress
) -> tuple[Step, ...]:
    progress.stage("compare its files with the manifest")
    begun = time.monotonic()
    changed = trial.artifact.changed()
    said = f"not as the manifest says: {', '.join(changed)}" if changed else "as the manifest says"
    files = Step("files", "failed" if changed else "passed", round(time.monotonic() - begun, 2), said)
    if changed:  # whatever they are, they are not what the verdict would be about
        return (files,)
    tried = []
    for tool, how in attempts(trial.artifact, trial.profile):
        progress.stage(f"run its {tool.role}")
        tried.append(attempt(trial, tool, how))
    if not tried:
        return (files, Step("tools", "not run", 0.0, "it has no tool that could be tried"))
    steps = (files, *(t.step for t in tried))
    if trial.artifact.manifest.target.backend != "cuda":
        return steps
    progress.stage("ask which device it used")
    return (*steps, _gpu(trial, here, without, seen, tried))


def _gpu(trial: Trial, here: Here, without: str, seen: Sequence[str], tried: Sequence[Tried]) -> Step:
    if without:
        return Step("gpu", "not run", 0.0, without)
    ran = {t.step.name: t for t in tried if t.step.verdict == "passed"}
    if not ran:
        return Step("gpu", "not run", 0.0, "no tool ran well enough to be asked")
    begun = time.monotonic()
    logs = {name: t.log for name, t in ran.items()}
    verdict, said = decide(_devices(trial, here), logs, [b for t in ran.values() for b in t.benches])
    said = f"{said} (here: {', '.join(seen)})"
    return Step("gpu", verdict, round(time.monotonic() - begun, 2), said)


def _devices(trial: Trial, here: Here) -> tuple[str, ...] | None:
    """Return the GPUs that the engine lists itself, None where it can not be asked."""
    wanted, symbol = wanted_names(here.rules, ()), here.rules.asked.library
    for path in (trial.artifact.path / p for p in trial.artifact.manifest.run.libraries):
        try:
            found = symbol in read_names(path, wanted).symbols
        except (BinaryError, OSError):
            continue
        if found:
            compiler = here.how.compilers.get(trial.machine)
            report, _ = ask_library(path, (), trial.machine, compiler, trial.work, trial.libraries)
            return None if report.reason else devices_of(report)
    return None


def devices_of(report: SystemReport) -> tuple[str, ...]:
    """Return the GPUs in what an engine says of its backends."""
    listed = [d for b in report.backends for d in b.devices]
    if listed:
        return tuple(f"{d.name} {d.description}".strip() for d in listed if d.kind in ("gpu", "igpu"))
    return tuple(b.name for b in report.backends if _DEVICE.fullmatch(b.name))
