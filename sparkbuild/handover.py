"""The hand-over to a benchmark stage: what it reads, and how. This module needs msgspec and nothing else.

    from sparkbuild.handover import artifacts

    for artifact in artifacts(Path("/mnt/builds")):
        words = artifact.command("bench", "production", model)
        ...
        results.append({"artifact": artifact.link(), "samples": ...})

A published folder has an index.json (an Index) and a folder for each artifact with its manifest.json, of
which this module reads the parts a benchmark needs (Handed); docs/handover.md explains every field.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import msgspec

INDEX = "index.json"
MANIFEST = "manifest.json"
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
# "$" alone would take a final newline. A store has a folder "current" of its own.
EngineName = Annotated[str, msgspec.Meta(pattern=r"^(?!current$)[a-z0-9][a-z0-9_.+-]{0,63}$(?!\n)")]
BinPath = Annotated[str, msgspec.Meta(pattern=r"^bin/[A-Za-z0-9][A-Za-z0-9._+-]*$(?!\n)")]
MOST = 64 << 20  # bytes of an index or a manifest


class HandoverError(Exception):
    """What was handed over is missing, is not what it should be, or can not do what is asked."""


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a tool spells one setting.

    ``value`` is the value that it spells, "" for any, which then replaces {value} in ``words``; no words
    mean that it is the tool's own default. ``allowed`` are the only values where the tool lists them.
    """

    name: str
    value: str
    words: tuple[str, ...]
    allowed: tuple[str, ...] = ()


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An executable by its role; ``learned`` says where its switches are from, or why there are none."""

    role: str
    path: BinPath
    switches: tuple[Switch, ...]
    learned: str


class Needs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a machine must have to run it.

    ``processor`` is as in uname -m, ``cpu_features`` what its code was compiled for beyond the processor's
    base; ``glibc`` the oldest version that will do; ``cuda_major`` the major version of CUDA's run time, None
    for none; ``driver`` the oldest NVIDIA driver for it, "" where not
    known; ``libraries`` must be on the loader's path, among them CUDA's.
    """

    processor: str
    cpu_features: tuple[str, ...]
    glibc: str
    cuda_major: int | None
    driver: str
    libraries: tuple[str, ...]


class KvPair(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """A pair of KV cache types that has a FlashAttention vector kernel at this head size."""

    head: int
    k: str
    v: str


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings that belong together, by the names of the switches, and environment variables."""

    name: str
    title: str
    settings: dict[str, str]
    environment: dict[str, str] = {}


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile as a tool of this build takes it; {model} stands for the model file.

    ``left_out`` are settings that this tool has no switch for. ``refused`` says what this build can not
    do of it, and is empty where it can do all.
    """

    profile: str
    role: str
    words: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to run an artifact. Paths are relative to its folder, which may be moved as a whole.

    ``pairs`` are the KV cache types on the fast path, ``pairs_note`` says what becomes of others.
    """

    tools: tuple[Tool, ...]
    libraries: tuple[BinPath, ...]
    needs: Needs
    environment: dict[str, str]
    pairs: tuple[KvPair, ...]
    pairs_note: str
    profiles: tuple[Profile, ...]
    commands: tuple[Command, ...]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One artifact in an index.

    ``manifest`` is the manifest's path from the index, ``digest`` the SHA-256 of its bytes; ``commit`` is
    empty and ``build_number`` 0 when not known; ``size`` is of all files, in bytes; ``reproduction`` and
    ``smoke`` are the verdicts of the newest reproduction and smoke test, "" where there was none;
    ``seen_ns`` is the time of the folder's last change when the entry was made, in ns since 1970.
    """

    engine: EngineName
    title: str
    state: str
    key: Sha256
    arch: str
    backend: str
    processor: str
    commit: str
    build_number: int
    made: dt.datetime
    size: int
    manifest: str
    digest: Sha256
    reproduction: str = ""
    smoke: str = ""
    seen_ns: int = 0

    @property
    def name(self) -> str:
        """ENGINE@KEY, as the commands take it."""
        return f"{self.engine}@{self.key[:12]}"


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All artifacts of a folder, by engine and key."""

    schema: Literal["sparkbuild/index/1"]
    artifacts: tuple[Entry, ...]


class _Engine(msgspec.Struct, frozen=True):
    name: EngineName
    title: str


class _Target(msgspec.Struct, frozen=True):
    arch: str
    backend: str
    cuda_arch: str


class _Source(msgspec.Struct, frozen=True):
    commit: str
    build_number: int


class _File(msgspec.Struct, frozen=True):
    path: BinPath
    sha256: Sha256
    size: int


class Handed(msgspec.Struct, frozen=True):
    """What a benchmark needs of a manifest; the rest of it is not looked at."""

    schema: Literal["sparkbuild/manifest/2"]
    key: Sha256
    engine: _Engine
    target: _Target
    source: _Source
    run: Run
    files: tuple[_File, ...]


class Artifact(msgspec.Struct, frozen=True):
    """An artifact that was handed over: its folder, its manifest's SHA-256 and what that says."""

    path: Path
    digest: str
    manifest: Handed

    def tool(self, role: str) -> Path:
        """Return the executable with this role. Raises HandoverError where it has none."""
        return self.path / self._tool(role).path

    def _tool(self, role: str) -> Tool:
        found = next((t for t in self.manifest.run.tools if t.role == role), None)
        if not found:
            raise HandoverError(f"{self.path}: it has no tool with the role {role!r}")
        return found

    def command(self, role: str, profile: str, model: Path, *, partial: bool = False) -> list[str]:
        """Return the command line of a tool with a profile's settings.

        Raises HandoverError for a profile or role that it lacks, for what this build can not do, and, but
        for ``partial``, for settings that the tool has no switch for: without them it is another test.
        """
        found = next((c for c in self.manifest.run.commands if (c.profile, c.role) == (profile, role)), None)
        if not found:
            raise HandoverError(f"{self.path}: no command for {role!r} with the profile {profile!r}")
        return self._line(found, model, partial=partial)

    def command_of(self, role: str, settings: Mapping[str, str], model: Path) -> list[str]:
        """Return the command line of a tool with settings of one's own; all of them must be known to it."""
        return self._line(spell(self._tool(role), "", settings), model)

    def _line(self, made: Command, model: Path, *, partial: bool = False) -> list[str]:
        left_out = () if partial else (f"{made.role} has no switch for {n}" for n in made.left_out)
        if wrong := [*made.refused, *left_out]:
            raise HandoverError(f"{self.path}: {'; '.join(wrong)}")
        return [str(self.tool(made.role)), *(w.replace("{model}", str(model)) for w in made.words)]

    def changed(self) -> list[str]:
        """Return the files that are missing or are not the ones that the manifest describes."""
        return [f.path for f in self.manifest.files if _sha256(self.path / f.path) != f.sha256]

    def link(self) -> dict[str, str]:
        """Return what ties a result to the very bytes that gave it."""
        return {
            "engine": self.manifest.engine.name,
            "key": self.manifest.key,
            "manifest_sha256": self.digest,
        }


def spell(tool: Tool, profile: str, settings: Mapping[str, str]) -> Command:
    """Return how a tool takes these settings; a value that it does not allow is refused."""
    words: list[str] = []
    left_out: list[str] = []
    refused: list[str] = []
    for name, value in settings.items():
        known = [s for s in tool.switches if s.name == name]
        switch = next((s for s in known if s.value in ("", value)), None)
        if not known:
            left_out.append(name)
        elif not switch:
            refused.append(f"{tool.role} takes {name} {', '.join(s.value for s in known)}, not {value}")
        elif not switch.value and switch.allowed and value not in switch.allowed:
            refused.append(f"{tool.role} takes {name} {', '.join(switch.allowed)}, not {value}")
        else:
            words += [w.replace("{value}", value) for w in switch.words]
    return Command(profile, tool.role, tuple(words), tuple(left_out), tuple(refused))


def read_index(folder: Path) -> Index:
    """Read a folder's index. Raises HandoverError."""
    path = folder / INDEX
    try:
        return msgspec.json.decode(plain_bytes(path), type=Index)
    except (OSError, ValueError, RecursionError) as problem:
        raise HandoverError(f"{path}: not a valid index: {problem}") from problem


def artifacts(folder: Path, wanted: Sequence[str] = ()) -> Iterator[Artifact]:
    """Yield the artifacts of a published folder, or those of the engines or ENGINE@KEYs in ``wanted``.

    Raises HandoverError for a manifest that is missing or is not the one the index names.
    """
    for entry in read_index(folder).artifacts:
        if not wanted or any(w in (entry.engine, entry.name) for w in wanted):
            yield open_artifact(folder, entry)


def open_artifact(folder: Path, entry: Entry) -> Artifact:
    """Read one artifact's manifest and check it against its entry. Raises HandoverError."""
    place = PurePosixPath(entry.manifest)
    if place.is_absolute() or ".." in place.parts or place.name != MANIFEST:
        raise HandoverError(f"{folder}: the index names a manifest outside of it: {entry.manifest!r}")
    path = folder / place
    try:
        data = plain_bytes(path)
        found = msgspec.json.decode(data, type=Handed)
    except (OSError, ValueError, RecursionError) as problem:
        raise HandoverError(f"{path}: not a valid manifest: {problem}") from problem
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.digest:
        raise HandoverError(f"{path}: its SHA-256 is {digest}, the index says {entry.digest}")
    return Artifact(path.parent, digest, found)


def plain_bytes(path: Path, most: int = MOST) -> bytes:
    """Return a plain file's bytes. Raises OSError, ValueError for another kind and for more than ``most``."""
    with _plain(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most >> 10} KiB")
    return data


def _plain(path: Path) -> BufferedReader:
    """Open a plain file; a pipe, on which open() would wait for its other end, is a ValueError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("it is no plain file")
    return os.fdopen(handle, "rb")


def _sha256(path: Path) -> str:
    try:
        with _plain(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""
