"""The words of each tool's command line: the manifest's, and for the sizes of a test the family's own.

A manifest says how its tools spell settings. What a test needs beyond that is spelled alike in all tools
of the family (the tables' source are their --help): how much to read and to say, and from where.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparkbuild.handover import Artifact, HandoverError, Tool, spell

PROMPT, GENERATE = 16, 4  # tokens that bench reads and makes
_BENCH = {"prompt": str(PROMPT), "generate": str(GENERATE), "repeat": "1", "output": "json"}
_SIZES: Mapping[str, Mapping[str, str]] = {
    "bench": _BENCH,
    "sweep-bench": {"context": "256", "batch": "64", "ubatch": "64"},
    "server": {"context": "256"},
    "perplexity": {"context": "32", "batch": "32", "ubatch": "32"},
    "cli": {"context": "256", "generate": str(GENERATE), "prompt": "a"},
}
# A profile's context is part of what a server is tried with; what takes time for each token of it is not.
_WITH_PROFILE = {**_SIZES, "server": {}}
_FAMILY = {
    "model": ("-m", "{value}"),
    "gpu_layers": ("-ngl", "{value}"),
    "context": ("-c", "{value}"),
    "batch": ("-b", "{value}"),
    "ubatch": ("-ub", "{value}"),
    "host": ("--host", "{value}"),
    "port": ("--port", "{value}"),
    "output": ("-o", "{value}"),
    "prompt": ("-p", "{value}"),
    "generate": ("-n", "{value}"),
    "repeat": ("-r", "{value}"),
    "file": ("-f", "{value}"),
    "log": ("-v",),
}


def words(tool: Tool, settings: Mapping[str, str]) -> list[str]:
    """Return how a tool takes settings: as the manifest says, else as the family does, else not at all."""
    found: list[str] = []
    for name, value in settings.items():
        made = spell(tool, "", {name: value})
        if made.left_out or made.refused:
            found += [w.replace("{value}", value) for w in _FAMILY.get(name, ())]
        else:
            found += made.words
    return found


def command(
    artifact: Artifact,
    tool: Tool,
    profile: str,
    model: Path,
    settings: Mapping[str, str],
    extra: Mapping[str, str],
) -> list[str]:
    """Return a tool's words: ``settings`` or in their place a profile's, then its sizes and ``extra``.

    Where an option is there twice these tools take the last. Raises HandoverError for a profile that this
    build can not do, or that has no command for the tool.
    """
    if profile:
        begin = artifact.command(tool.role, profile, model, partial=True)[1:]
        return begin + words(tool, {**_WITH_PROFILE.get(tool.role, {}), **extra})
    return words(tool, {"model": str(model), **settings, **_SIZES.get(tool.role, {}), **extra})


def expected(artifact: Artifact, tool: Tool, profile: str, settings: Mapping[str, str]) -> Mapping[str, str]:
    """Return the settings that a tool's results must show."""
    if not profile:
        return settings
    made = [c for c in artifact.manifest.run.commands if (c.profile, c.role) == (profile, tool.role)]
    left_out = {name for c in made for name in c.left_out}
    return {n: v for n, v in check_profile(artifact, profile).items() if n not in left_out}


def check_profile(artifact: Artifact, profile: str) -> dict[str, str]:
    """Return a profile's settings, none for no profile.

    Raises HandoverError for one that is not there, and for one that this build can not do: that is no fault
    of the artifact, which its verdict is about.
    """
    if not profile:
        return {}
    known = {p.name: p.settings for p in artifact.manifest.run.profiles}
    if profile not in known:
        there = ", ".join(known) or "none"
        raise HandoverError(f"{artifact.path}: it has no profile {profile!r}, but {there}")
    refused = {why: None for c in artifact.manifest.run.commands if c.profile == profile for why in c.refused}
    if refused:
        raise HandoverError(f"{artifact.path}: {'; '.join(refused)}")
    return known[profile]
