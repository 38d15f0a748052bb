"""Whether the index of a folder says what its artifacts say."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.index import NAME, entry_of
from sparkbuild.checking.checked import Check, bytes_of, failed, json_of, judged
from sparkbuild.errors import StoreError
from sparkbuild.files import sha256_bytes
from sparkbuild.handover import INDEX, MANIFEST, Entry, Index


def artifacts(root: Path) -> list[Path]:
    """Return the folders of a root's artifacts, ROOT/ENGINE/KEY; what begins with a dot is none."""
    found = sorted(root.glob(f"[!.]*/[!.]*/{MANIFEST}"))
    return [p.parent for p in found if not p.parent.is_symlink() and not p.parent.parent.is_symlink()]


def index(root: Path, folders: Sequence[Path]) -> Iterator[Check]:
    """Check a root's index against the artifacts that are there."""
    if not (root / INDEX).exists():
        yield Check(INDEX, "", "not run", "there is none")
        return
    try:
        data = bytes_of(root / INDEX)
        json_of(data)
        listed = msgspec.json.decode(data, type=Index)
    except ValueError as problem:
        yield failed(INDEX, "", str(problem))
        return
    yield Check(INDEX, "schema", "held", listed.schema)
    names = [f"{folder.relative_to(root).as_posix()}/{MANIFEST}" for folder in folders]
    counts = Counter(e.manifest for e in listed.artifacts)
    for number, entry in enumerate(listed.artifacts):
        place = f"/artifacts/{number}"
        if counts[entry.manifest] > 1:
            yield failed(INDEX, f"{place}/manifest", f"{entry.manifest[:200]!r} is there more than once")
        if entry.manifest not in names:
            said = f"it names no artifact of this folder: {entry.manifest[:200]!r}"
            yield failed(INDEX, f"{place}/manifest", said)
        else:
            yield from _entry(root, entry, place)
    yield from (failed(INDEX, "/artifacts", f"{n} is not among them") for n in names if n not in counts)


def misplaced(folder: Path) -> Iterator[Check]:
    """Check that an artifact lies where its engine and key belong; a broken manifest is told elsewhere."""
    with contextlib.suppress(StoreError):
        made = manifests.read(folder / MANIFEST)
        here, there = f"{folder.parent.name}/{folder.name}", f"{made.engine.name}/{made.key[:NAME]}"
        yield judged(MANIFEST, "place", "" if here == there else f"it is of {there}, not of {here}")


def _entry(root: Path, entry: Entry, place: str) -> Iterator[Check]:
    path = root / entry.manifest
    try:
        data = bytes_of(path)
    except ValueError as problem:
        yield failed(INDEX, f"{place}/manifest", f"{entry.manifest}: {problem}")
        return
    digest = sha256_bytes(data)
    wrong = "" if digest == entry.digest else f"{entry.manifest} has the SHA-256 {digest}"
    yield judged(INDEX, f"{place}/digest", wrong)
    yield from _claims(root, path.parent, entry, place)


def _claims(root: Path, folder: Path, entry: Entry, place: str) -> Iterator[Check]:
    """Compare what an entry repeats of an artifact with the artifact."""
    try:
        told = entry_of(root, folder)
    except StoreError as problem:
        yield failed(INDEX, f"{place}/manifest", problem.what)
        return
    for name in Entry.__struct_fields__:
        here, there = getattr(entry, name), getattr(told, name)
        if here != there and name not in ("digest", "seen_ns"):
            yield failed(INDEX, f"{place}/{name}", f"it is {here!r}, in the artifact {there!r}"[:300])
