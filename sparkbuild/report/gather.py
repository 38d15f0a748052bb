"""What a page shows of one artifact: its manifest, and the verdicts and the timeline that lie beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from sparkbuild.artifact import timeline as timelines
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.artifact.store import Stored
from sparkbuild.artifact.timeline import Timeline
from sparkbuild.errors import StoreError
from sparkbuild.files import sha256_bytes
from sparkbuild.handover import plain_bytes


class _Sidecar(msgspec.Struct, frozen=True):
    manifest: str
    verdict: str


class Shown(msgspec.Struct, frozen=True):
    """One artifact of a page; ``letter`` stands for it in tables.

    ``reproduction`` and ``smoke`` are verdicts, "" where there was none; ``notes`` say what beside the
    manifest could not be used, and why.
    """

    letter: str
    name: str
    manifest: Manifest
    reproduction: str = ""
    smoke: str = ""
    timeline: Timeline | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(f.size for f in self.manifest.files)


def gather(found: Iterable[Stored]) -> tuple[Shown, ...]:
    """Return what is known of each artifact."""
    return tuple(_shown(letter(n), stored) for n, stored in enumerate(found))


def letter(number: int) -> str:
    """Return A, B, ... Z, AA, AB, ... for 0, 1, ..."""
    rest, last = divmod(number, 26)
    return (letter(rest - 1) if rest else "") + chr(ord("A") + last)


def _shown(sign: str, stored: Stored) -> Shown:
    notes: list[str] = []
    if stored.path.is_file():  # a manifest alone
        return Shown(sign, stored.name, stored.manifest)
    digest = sha256_bytes((stored.path / "manifest.json").read_bytes())
    reproduction = _verdict(stored.path / "reproduction.json", digest, notes)
    smoke = _verdict(stored.path / "smoke.json", digest, notes)
    timeline = None
    try:
        timeline = timelines.read(stored.path)
    except StoreError as problem:
        notes.append(f"{timelines.NAME}: {problem.what}")
    return Shown(sign, stored.name, stored.manifest, reproduction, smoke, timeline, tuple(notes))


def _verdict(path: Path, digest: str, notes: list[str]) -> str:
    """Return a sidecar's verdict, "" where there is none for this very manifest."""
    try:
        found = msgspec.json.decode(plain_bytes(path), type=_Sidecar)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, RecursionError) as problem:
        notes.append(f"{path.name}: not valid: {problem}")
        return ""
    if found.manifest != digest:
        notes.append(f"{path.name}: it is of another manifest")
        return ""
    return found.verdict
