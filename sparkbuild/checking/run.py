"""Whether a manifest is at one with itself: its run part with its files, verdicts and profiles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from sparkbuild import handover
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.checking.checked import Check, failed
from sparkbuild.handover import MANIFEST, Command, Profile, Tool

_VERSION = re.compile(r"\d{1,9}(\.\d{1,9})*")


def consistent(manifest: Manifest) -> Iterator[Check]:
    """Check what is told twice in a manifest."""
    found = [*_files(manifest), *_tools(manifest), *_needs(manifest), *_commands(manifest)]
    yield from found
    if not found:
        yield Check(MANIFEST, "/run", "held", "it is at one with files, verdicts and profiles")


def _files(manifest: Manifest) -> Iterator[Check]:
    counts = Counter(f.path for f in manifest.files)
    for number, file in enumerate(manifest.files):
        if counts[file.path] > 1:
            yield failed(MANIFEST, f"/files/{number}/path", f"{file.path} is there {counts[file.path]} times")


def _tools(manifest: Manifest) -> Iterator[Check]:
    roles = {f.path: f.role for f in manifest.files}
    for number, tool in enumerate(manifest.run.tools):
        place = f"/run/tools/{number}"
        if tool.path not in roles:
            yield failed(MANIFEST, f"{place}/path", f"{tool.path} is none of the files")
        elif roles[tool.path] != tool.role:
            said = f"{tool.path} has the role {roles[tool.path]!r} among the files, here {tool.role!r}"
            yield failed(MANIFEST, f"{place}/role", said)
    libraries = sorted(f.path for f in manifest.files if f.role == "library")
    if sorted(manifest.run.libraries) != libraries:
        yield failed(MANIFEST, "/run/libraries", "they are not the files with the role 'library'")


def _needs(manifest: Manifest) -> Iterator[Check]:
    """Compare what is needed with files and verdicts, from which it was taken."""
    run, verdicts = manifest.run, manifest.verdicts
    glibc = max((f.glibc for f in manifest.files), key=_version, default="")
    pairs = [(p.head, p.k, p.v) for p in verdicts.pairs]
    for pointer, here, there in (
        ("/run/needs/processor", run.needs.processor, manifest.target.processor),
        ("/run/needs/glibc", run.needs.glibc, glibc),
        ("/run/needs/cuda_major", run.needs.cuda_major, verdicts.cuda_major),
        ("/run/needs/libraries", run.needs.libraries, verdicts.external),
        ("/run/pairs", [(p.head, p.k, p.v) for p in run.pairs], pairs),
        (
            "/run/needs/cpu_features",
            run.needs.cpu_features,
            tuple(p.feature for p in manifest.compilers.proofs),
        ),
    ):
        if here != there:
            yield failed(MANIFEST, pointer, f"it is {here!r}, from the rest of the manifest {there!r}"[:300])


def _version(text: str) -> list[int]:
    return [int(n) for n in text.split(".")] if _VERSION.fullmatch(text) else []


def _commands(manifest: Manifest) -> Iterator[Check]:
    run = manifest.run
    tools = {t.role: t for t in run.tools}
    profiles = {p.name: p for p in run.profiles}
    for number, command in enumerate(run.commands):
        place = f"/run/commands/{number}"
        tool, profile = tools.get(command.role), profiles.get(command.profile)
        if not tool:
            yield failed(MANIFEST, f"{place}/role", f"there is no tool with the role {command.role!r}")
        elif not profile:
            yield failed(MANIFEST, f"{place}/profile", f"there is no profile {command.profile!r}")
        elif wrong := _misspelled(command, tool, profile):
            yield failed(MANIFEST, f"{place}/{wrong}", f"{tool.role} does not spell {profile.name} so")


def _misspelled(command: Command, tool: Tool, profile: Profile) -> str:
    """Return what of a command its tool and profile do not give: words, left_out, or "" for nothing.

    A build leaves out the settings that do not concern a role or that it can not do; all others have to
    be there, in their order, the model before them.
    """
    words = command.words
    left_out: list[str] = []
    for name, value in ({"model": "{model}"} | profile.settings).items():
        made = handover.spell(tool, profile.name, {name: value})
        left_out += made.left_out
        if made.words and words[: len(made.words)] == made.words:
            words = words[len(made.words) :]
    if words:
        return "words"
    return "" if set(command.left_out) <= set(left_out) else "left_out"
