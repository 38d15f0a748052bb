"""What an engine is (a recipe) and what a target machine is (a toolchain), as frozen records.

The TOML files in recipes/ and toolchains/ decode into these; an unknown key is an error.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import msgspec

from sparkbuild.handover import EngineName
from sparkbuild.packages import Pin, Sha256

T = TypeVar("T")
_MEMORY_MIB = 1600  # of a compile of which nothing is known
Backend = Literal["cuda", "cpu"]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.+-]*$(?!\n)", max_length=64)]
OptionName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)", max_length=128)]
Commit = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}$(?!\n)")]
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
    root: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$(?!\n)")]
    note: str = ""


class Choice(Record, frozen=True):
    """One spelling of an intent: a CMake definition and its value (a template, see planning)."""

    option: OptionName
    value: str
    read_only: bool = False
    """The engine reads the variable without declaring it as an option."""


class Evidence(Record, frozen=True):
    """One thing that can be seen in a file of an engine; exactly one member is given.

    ``symbol`` (defined) and ``calls`` (used from elsewhere) are regular expressions over whole
    symbol names, ``string`` over whole C strings in read-only data, ``needs`` over the names of
    needed libraries, ``device_code`` over names such as sm_121a; ``instruction`` names a CPU
    feature that some instruction in the file requires.
    """

    symbol: str = ""
    calls: str = ""
    string: str = ""
    needs: str = ""
    device_code: str = ""
    instruction: str = ""


class Shown(Record, frozen=True):
    """Where, beyond CMake's cache, it shows that an intent is in force.

    ``command``: a regular expression that every compile command of ``files`` holds when the intent
    is on; ``never``: one that none may hold when it is off. ``march``: the toolchain's -march is
    the last one of every command that has any. ``features``: what the binary has when it is on,
    and lacks when it is off.
    """

    files: str = "*"
    command: str = ""
    never: str = ""
    march: bool = False
    features: tuple[Name, ...] = ()


class Intent(Record, frozen=True):
    """What is wanted of a build; the first choice that the checkout declares is taken."""

    name: Name
    why: Text
    choose: Annotated[tuple[Choice, ...], msgspec.Meta(min_length=1)]
    backends: tuple[Backend, ...] = ("cuda", "cpu")
    required: bool = False
    shown: Shown = Shown()


class Failure(Record, frozen=True):
    """A line of CMake's output that means failure although CMake goes on."""

    pattern: Text
    meaning: Text
    remedy: Text
    backends: tuple[Backend, ...] = ("cuda", "cpu")


_MOST_SECONDS = 1e9
Seconds = Annotated[float, msgspec.Meta(ge=0, le=_MOST_SECONDS)]


class Steps(Record, frozen=True):
    """What a step costs before any build was measured: seconds by name, the first pattern wins; MiB.

    ``job_seconds`` is the sum over all steps of a build of the pinned commit: what one job would take.
    """

    seconds: dict[str, Seconds] = {}
    job_seconds: dict[Backend, Annotated[float, msgspec.Meta(gt=0, le=_MOST_SECONDS)]] = {}
    default_seconds: Seconds = 3.0
    memory_mib: dict[Backend, Annotated[int, msgspec.Meta(gt=0)]] = msgspec.field(
        default_factory=lambda: {"cuda": 1600, "cpu": 1000}
    )

    def memory(self, backend: Backend) -> int:
        """Return the MiB that the largest compile takes."""
        return self.memory_mib.get(backend, _MEMORY_MIB)


class Recipe(Record, frozen=True):
    """An engine: its sources, what is wanted of its build, what to build, how it speaks."""

    schema: Literal[1]
    name: EngineName
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
    options_of: dict[str, str] = {}
    """Roles whose tool has another role's options, which its own --help does not name."""
    steps: Steps = Steps()
    identity: tuple[Evidence, ...] = ()
    """What only this engine's binaries have; none: what all forks share."""
    attention: str = ""
    """What becomes of a pair of KV cache types that has no vector kernel for FlashAttention."""


class Feature(Record, frozen=True):
    """A feature that a binary can have, and what proves it.

    Any ``evidence`` makes it present, any ``counter`` absent. It is looked for in the files that
    have the feature ``carrier``, in all files without one. ``runtime`` is how the engine itself
    reports it: SECTION.KEY of its system information.
    """

    name: Name
    title: Text
    group: Literal["backend", "gpu", "cpu", "other"]
    evidence: Annotated[tuple[Evidence, ...], msgspec.Meta(min_length=1)]
    counter: tuple[Evidence, ...] = ()
    carrier: str = ""
    machine: Literal["aarch64", "x86_64", ""] = ""
    runtime: str = ""


class Attention(Record, frozen=True):
    """How FlashAttention kernels for a pair of KV cache types are named.

    ``kernels`` are regular expressions over symbols and kernel names with the groups head, k and v,
    numbers all; ``types`` are the KV cache types every pair of which, at head size ``head``, makes
    a build one for all quants.
    """

    kernels: tuple[str, ...]
    types: tuple[str, ...]
    head: int
    carrier: Name


class Models(Record, frozen=True):
    """How the names of model architectures are found: runs of strings that hold two ``anchors``.

    A run with all of ``first`` is the whole table; else ``known`` names outside of it are unknown when
    the string is there, which another table may hold, too.
    """

    anchors: tuple[str, ...]
    first: tuple[str, ...]
    known: tuple[str, ...]
    not_names: tuple[str, ...] = ()


class Version(Record, frozen=True):
    """The variables that hold a build's number (an int) and commit (a pointer to a string)."""

    number: str
    commit: str


class Asked(Record, frozen=True):
    """What is asked of a running engine.

    ``library`` is the symbol of the library that tells what the system has; the first of ``tools``
    that is there is asked for its help, in which ``cache_types`` and ``drafts`` are the options
    whose values are the KV cache types and the kinds of speculative decoding.
    """

    library: str
    tools: tuple[str, ...]
    cache_types: tuple[str, ...]
    drafts: tuple[str, ...]


class Features(Record, frozen=True):
    """What can be seen in the binaries of a family of engines.

    ``family`` is a regular expression over the names of its libraries, ``api`` over the symbols
    that it exports; ``tensor_types`` are the names that its table of tensor types begins with;
    ``unmarked`` is what a binary is called in which no recipe's marks are found.
    """

    schema: Literal[1]
    name: Name
    unmarked: Text
    family: str
    api: str
    features: tuple[Feature, ...]
    attention: Attention
    models: Models
    version: Version
    asked: Asked
    tensor_types: tuple[str, ...]


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

    arch: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{2,3}[af]?(-real|-virtual)?|native)$(?!\n)")]
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
    """A CUDA toolkit as a set of wheels. ``version`` is nvcc's own, ``driver`` the oldest that runs it."""

    schema: Literal[1]
    name: Name
    version: Text
    driver: Text
    wheels: tuple[Wheel, ...]


class Shelf(msgspec.Struct, Generic[T], frozen=True):
    """A loaded record with where it came from: the file, its SHA-256 and its folder of patches."""

    record: T
    path: Path
    digest: Sha256
    patches: tuple[Path, ...] = ()
