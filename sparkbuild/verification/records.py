"""What a flag's journey is, and what has to be seen to tell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from sparkbuild.build.commands import Entry
from sparkbuild.build.configure import CacheEntry
from sparkbuild.catalog.records import Features, Recipe
from sparkbuild.inspection.features import Verdicts
from sparkbuild.inspection.report import SystemReport
from sparkbuild.planning import Definition
from sparkbuild.source import Option
from sparkbuild.toolchain import Compilers

if TYPE_CHECKING:
    from sparkbuild.inspection.facts import FileFacts  # with numpy, which who reads a manifest need not load

STAGES = ("asked", "declared", "cache", "commands", "compiler", "binary", "run time")
StageName = Literal["asked", "declared", "cache", "commands", "compiler", "binary", "run time"]
# Held: seen to be so. Lost: seen not to be so. Unknown: could show it and could not be looked at.
# None: this stage can not show this flag.
StageState = Literal["held", "lost", "unknown", "none"]
ARCH, BUILD_TYPE = "CMAKE_CUDA_ARCHITECTURES", "CMAKE_BUILD_TYPE"
CMAKE_OWN = ("CMAKE_", "CUDAToolkit_", "BUILD_", "GIT_")


class Stage(msgspec.Struct, frozen=True):
    """One stage of a flag's journey: what became of it there, in words."""

    name: StageName
    state: StageState
    said: str = ""


class Journey(msgspec.Struct, frozen=True):
    """A flag and its stages, in their order.

    ``verdict``: "in force" when the commands, the binary or the running program show it; "set" when
    only CMake's cache does and nothing else can; "lost" with ``lost_at``, the first stage that
    contradicts; else "unknown". A compiler that gives a feature does not show that it was asked for.
    """

    flag: str
    asked: str
    origin: str
    required: bool
    stages: tuple[Stage, ...]
    verdict: Literal["in force", "set", "lost", "unknown"]
    lost_at: str = ""

    @property
    def why(self) -> str:
        """The verdict in words, with the stage that decides it."""
        wanted = "lost" if self.verdict == "lost" else "unknown" if self.verdict == "unknown" else "held"
        stage = next((s for s in self.stages if s.state == wanted and s.name != "asked"), None)
        if self.verdict == "lost" and stage:
            return f"lost at {stage.name}: {stage.said}"
        if self.verdict == "unknown" and stage:
            return f"not known: {stage.said}"
        return self.verdict

    @property
    def failed(self) -> bool:
        """True when a required flag is not certain to be in force."""
        return self.required and self.verdict not in ("in force", "set")


class Seen(msgspec.Struct, frozen=True):
    """All that was seen of a build; what is None could not be looked at, ``why`` says the reason.

    ``environment`` is the caller's: CMake reads no option from it, though people believe it does.
    ``changed`` are files that are not the ones that were built.
    """

    definitions: tuple[Definition, ...]
    recipe: Recipe
    rules: Features
    options: Mapping[str, Option] | None = None
    reads: Callable[[str], bool] = lambda _name: False
    cache: Mapping[str, CacheEntry] | None = None
    commands: Sequence[Entry] | None = None
    compilers: Compilers | None = None
    files: Sequence[FileFacts] = ()
    verdicts: Verdicts | None = None
    system: SystemReport | None = None
    environment: Mapping[str, str] = {}
    changed: tuple[str, ...] = ()
    why: Mapping[str, str] = {}
