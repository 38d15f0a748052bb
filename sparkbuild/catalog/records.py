"""What an engine is (a recipe) and what a target machine is (a toolchain), as frozen records.

The TOML files in recipes/ and toolchains/ decode into these; an unknown key is an error.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import msgspec

from sparkbuild.packages import Pin, Sha256

T = TypeVar("T")
Backend = Literal["cuda", "cpu"]
Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_.+-]*$", max_length=64)]
OptionName = Annotated[str, msgspec.Meta(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
Commit = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen record that refuses unknown keys."""


class State(Record, frozen=True):
    """Whether an engine's own authors still keep it."""

    status: Literal["active", "deprecated"]
    since: dt.date | None = None
    note: str = ""


class Revision(Record, frozen=True):
    """One commit of an engine.

    ``tree`` is the git tree id of the content, ``build_number`` what ``git rev-list --count``
    gives, ``commit_time`` the committer's time in seconds since 1970.
    """

    commit: Commit
    tree: Commit
    build_number: Annotated[int, msgspec.Meta(gt=0)]
    commit_time: Annotated[int, msgspec.Meta(gt=0)]


class GitSource(Revision, frozen=True):
    """Where an engine's repository is, and the commit that the recipe pins."""

    url: Annotated[str, msgspec.Meta(pattern="^https://")]


class SdistSource(Revision, frozen=True):
    """A package-index sdist that carries the engine's source below ``root``.

    Its commit may be older than the recipe's: a release of somebody's Python bindings decides it.
    """

    pin: Pin
    root: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")]
    note: str = ""


class Choice(Record, frozen=True):
    """One spelling of an intent: a CMake definition and its value (a template, see planning)."""

    option: OptionName
    value: str
    read_only: bool = False
    """The engine reads the variable without declaring it as an option."""


class Intent(Record, frozen=True):
    """What is wanted of a build; the first choice that the checkout declares is taken."""

    name: Name
    why: Text
    choose: Annotated[tuple[Choice, ...], msgspec.Meta(min_length=1)]
    backends: tuple[Backend, ...] = ("cuda", "cpu")
    required: bool = False


class Failure(Record, frozen=True):
    """A line of CMake's output that means failure although CMake goes on."""

    pattern: Text
    meaning: Text
    remedy: Text
    backends: tuple[Backend, ...] = ("cuda", "cpu")


class Steps(Record, frozen=True):
    """What a step costs before any build was measured: seconds by name, the first pattern wins; MiB."""

    seconds: dict[str, float] = {}
    default_seconds: float = 3.0
    memory_mib: dict[Backend, Annotated[int, msgspec.Meta(gt=0)]] = msgspec.field(
        default_factory=lambda: {"cuda": 1600, "cpu": 1000}
    )


class Recipe(Record, frozen=True):
    """An engine: its sources, what is wanted of its build, what to build, how it speaks."""

    schema: Literal[1]
    name: Name
    title: Text
    homepage: str
    state: State
    git: GitSource
    targets: dict[Backend, tuple[Name, ...]]
    intents: tuple[Intent, ...]
    version_pattern: Text
    """Finds ``number`` and ``commit`` in what ``--version`` prints."""
    version_target: Name
    aliases: tuple[Name, ...] = ()
    sdist: SdistSource | None = None
    failures: tuple[Failure, ...] = ()
    roles: dict[str, Name] = {}
    steps: Steps = Steps()


class Proof(Record, frozen=True):
    """One CPU feature that the compiler must prove: a macro it defines and code it compiles.

    A CPU has it where /proc/cpuinfo lists all words of ``cpuinfo`` among its features; without such
    words a native compiler is not asked for it.
    """

    feature: Name
    macro: OptionName
    code: Text
    cpuinfo: tuple[Name, ...] = ()


class Refusal(Record, frozen=True):
    """Versions of nvcc that must not be used: a version specifier, all of whose clauses must hold."""

    versions: Text
    why: Text


class Cuda(Record, frozen=True):
    """The GPU side of a target machine."""

    arch: Annotated[str, msgspec.Meta(pattern="^([0-9]{2,3}[af]?(-real|-virtual)?|native)$")]
    wheels: Name
    refuse: tuple[Refusal, ...] = ()


class Toolchain(Record, frozen=True):
    """A target machine. ``cpu_arch`` is the value of -march, empty for the building machine's own."""

    schema: Literal[1]
    name: Name
    title: Text
    processor: Literal["aarch64", "x86_64", "host"]
    cuda: Cuda
    cpu_arch: str = ""
    proofs: tuple[Proof, ...] = ()
    opt_in: bool = False


class Wheel(Record, frozen=True):
    """A wheel of a CUDA toolkit; ``part`` is what runs while building, or what is linked against."""

    part: Literal["build", "target"]
    machine: Literal["aarch64", "x86_64"]
    pin: Pin


class CudaWheels(Record, frozen=True):
    """A CUDA toolkit as a set of wheels. ``version`` is nvcc's own."""

    schema: Literal[1]
    name: Name
    version: Text
    wheels: tuple[Wheel, ...]


class Shelf(msgspec.Struct, Generic[T], frozen=True):
    """A loaded record with where it came from: the file, its SHA-256 and its folder of patches."""

    record: T
    path: Path
    digest: Sha256
    patches: tuple[Path, ...] = ()
