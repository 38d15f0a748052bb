"""Are a build's inputs the recorded ones? Where not, a different result would mean nothing."""

from __future__ import annotations

from sparkbuild.artifact.manifest import Manifest
from sparkbuild.planning import Plan
from sparkbuild.reproduction.records import InputDifference


def differences(manifest: Manifest, plan: Plan) -> tuple[InputDifference, ...]:
    """Return the inputs in which a plan differs from a manifest's; none only when the keys are equal.

    A manifest may also say of an input what is not true of its key.
    """
    found = [
        InputDifference(name, was or "nothing", here or "nothing")
        for name, (was, here) in (_inputs(manifest, plan) | _definitions(manifest, plan)).items()
        if was != here
    ]
    if not found and manifest.key != plan.key:
        found.append(InputDifference("how sparkbuild makes a key", manifest.key, plan.key))
    return tuple(found)


def _inputs(manifest: Manifest, plan: Plan) -> dict[str, tuple[str, str]]:
    was, here, cuda = manifest.source, plan.source, manifest.cuda
    told = manifest.build.environment
    return {
        "source tree, patched": (was.patched_tree, here.patched_tree),
        "commit": (was.commit, here.commit),
        "build number": (str(was.build_number), str(here.build_number)),
        "compilers": (
            f"{manifest.compilers.version} {manifest.compilers.digest[:12]}",
            f"{plan.compilers.version} {plan.compilers.digest[:12]}",
        ),
        "compilers' target": (manifest.compilers.target, plan.compilers.target),
        "CUDA": (
            f"{cuda.version}, {cuda.origin}, {cuda.digest[:12]}" if cuda else "",
            f"{plan.cuda.version}, {plan.cuda.origin}, {plan.cuda.digest[:12]}" if plan.cuda else "",
        ),
        "CMake": (manifest.build.cmake, plan.cmake),
        "targets": (" ".join(manifest.targets), " ".join(plan.targets)),
    } | {f"environment {n}": (told.get(n, ""), value) for n, value in plan.environment.items()}


def _definitions(manifest: Manifest, plan: Plan) -> dict[str, tuple[str, str]]:
    was = {d.name: d.asked.removeprefix(d.local) for d in manifest.definitions}
    here = {d.name: d.keyed for d in plan.definitions}
    return {f"-D {n}": (was.get(n, ""), here.get(n, "")) for n in sorted(was | here)}
