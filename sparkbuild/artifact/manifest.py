"""The manifest: what an artifact is, from the recipe to each file's hash.

It is JSON with a versioned schema, shipped as manifest-2.schema.json beside this file and made from
these records by ``python -m sparkbuild.artifact.manifest`` (a test compares the two).
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec

from sparkbuild.build.cache import Used
from sparkbuild.build.commands import Commands
from sparkbuild.catalog.records import Backend, Record, State
from sparkbuild.errors import StoreError
from sparkbuild.handover import BinPath, EngineName, Run, plain_bytes
from sparkbuild.inspection.features import Verdicts
from sparkbuild.inspection.records import DeviceCode
from sparkbuild.inspection.report import SystemReport
from sparkbuild.inspection.runtime import VersionReport
from sparkbuild.packages import Sha256
from sparkbuild.planning import Skipped
from sparkbuild.source import Patch
from sparkbuild.toolchain import FeatureProof
from sparkbuild.toolchain.place import Way
from sparkbuild.verification import Journey

SCHEMA: Literal["sparkbuild/manifest/2"] = "sparkbuild/manifest/2"
_SCHEMA_FILE = Path(__file__).with_name("manifest-2.schema.json")


class Engine(Record, frozen=True):
    """The engine, and the SHA-256 of the recipe file that built it."""

    name: EngineName
    title: str
    homepage: str
    state: State
    recipe_digest: Sha256


class Target(Record, frozen=True):
    """The machine it is for. ``cuda_arch`` is empty for a CPU build."""

    arch: str
    backend: Backend
    processor: str
    cpu_flags: tuple[str, ...]
    cuda_arch: str
    toolchain_digest: Sha256


class Source(Record, frozen=True):
    """Which source was used and how it came.

    ``tree`` and ``patched_tree`` are git tree ids before and after the patches; ``commit`` is empty
    and ``build_number`` 0 when they are not known; ``commit_time`` is in seconds since 1970.
    """

    way: Literal["git", "sdist", "local"]
    location: str
    ref: str
    commit: str
    tree: str
    patched_tree: str
    build_number: int
    commit_time: int
    patches: tuple[Patch, ...]
    notes: tuple[str, ...]


class CompilersUsed(Record, frozen=True):
    """The compilers and what they proved; ``digest`` covers them, assembler, linker and run time."""

    cc: str
    cxx: str
    version: str
    target: str
    digest: Sha256
    proofs: tuple[FeatureProof, ...]


class CudaUsed(Record, frozen=True):
    """The CUDA toolkit: nvcc's version, and whether it was installed or assembled from wheels."""

    version: str
    origin: str
    root: str
    digest: Sha256


class DefinitionUsed(Record, frozen=True):
    """A CMake definition: what was asked, what is in CMake's cache, of which type, why, by whom.

    The type UNINITIALIZED means that the project reads the variable without declaring it. ``local`` is
    what ``asked`` begins with when that names places of the building machine, and is not in the key.
    """

    name: str
    asked: str
    in_force: str
    type: str
    origin: str
    why: str
    required: bool
    local: str = ""


class Build(Record, frozen=True):
    """How it was made. ``wall_seconds`` is all of it, ``cpu_seconds`` what CMake and ninja's steps took.

    ``place`` says how the source came to the one path at which every build sees it: shown there in a
    namespace, or copied. The bytes are the same; only a namespace keeps other users' builds apart. In a
    sandbox the source's code, and what it made, saw nothing but its tools and its build folder. ``cache`` is
    what the compile cache gave, null where none was asked. ``distributed`` says that other machines
    may have compiled, too.
    """

    started: dt.datetime
    host: str
    cmake: str
    ninja: str
    configure: tuple[str, ...]
    build: tuple[str, ...]
    environment: dict[str, str]
    place: Way
    jobs: int
    steps: int
    compile_commands: Commands
    wall_seconds: float
    configure_seconds: float
    compile_seconds: float
    cpu_seconds: float
    deprecated: tuple[str, ...]
    cache: Used | None = None
    distributed: bool = False


class File(Record, frozen=True):
    """One file of the artifact. ``size`` is in bytes; ``external`` are needed libraries not in it."""

    path: BinPath
    sha256: Sha256
    size: int
    machine: str
    role: str = ""
    build_id: str = ""
    runpath: str = ""
    glibc: str = ""
    needed: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    device_code: tuple[DeviceCode, ...] = ()


class Manifest(Record, frozen=True):
    """Everything that is known of one artifact when it is made; nothing is added later.

    ``build`` says how it was made, ``run`` how to run it. What is found out afterwards, such as a
    reproduction's verdict, lies beside it and names its digest.
    """

    schema: Literal["sparkbuild/manifest/2"]
    sparkbuild: str
    key: Sha256
    engine: Engine
    target: Target
    source: Source
    compilers: CompilersUsed
    cuda: CudaUsed | None
    definitions: tuple[DefinitionUsed, ...]
    skipped: tuple[Skipped, ...]
    targets: tuple[str, ...]
    build: Build
    run: Run
    version: VersionReport
    flags: tuple[Journey, ...]
    verdicts: Verdicts
    system: SystemReport
    files: tuple[File, ...]


def encode(manifest: Manifest) -> bytes:
    """Return the manifest as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def read(path: Path) -> Manifest:
    """Read and validate a manifest. Raises StoreError naming the bad key.

    A key that is there twice is refused: another program would read the other value.
    """
    try:
        data = plain_bytes(path)
        _check_version(data, path)
        found = msgspec.json.decode(data, type=Manifest)
        json.loads(data, object_pairs_hook=unique)
    except (OSError, ValueError, msgspec.DecodeError, RecursionError) as problem:
        raise StoreError(
            f"not a valid manifest: {problem}", where=str(path), remedy="build it again"
        ) from problem
    return found


class _Version(msgspec.Struct):
    schema: str = ""


def _check_version(data: bytes, path: Path) -> None:
    """Raise StoreError for a manifest of another version of the schema."""
    said = msgspec.json.decode(data, type=_Version).schema
    if said != SCHEMA and said.startswith("sparkbuild/manifest/"):
        raise StoreError(
            f"not a valid manifest here: this sparkbuild reads {SCHEMA}, not {said} - at `$.schema`",
            where=str(path),
            remedy="read it with the sparkbuild that wrote it, or build it again",
        )


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return JSON's pairs as a dict. Raises ValueError for a key that is there twice."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} is there twice")
        found[name] = value
    return found


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a manifest."""
    schema = msgspec.json.schema(Manifest)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA} | schema


if __name__ == "__main__":
    _SCHEMA_FILE.write_bytes(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2) + b"\n")
    sys.stdout.write(f"{_SCHEMA_FILE}\n")
