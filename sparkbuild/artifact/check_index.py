"""Whether the index of a folder says what its artifacts say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.checked import Check, bytes_of, failed, json_of, judged
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
    yield from _claims(path, entry, place)


def _claims(path: Path, entry: Entry, place: str) -> Iterator[Check]:
    """Compare what an entry repeats of a manifest with the manifest."""
    try:
        made = manifests.read(path)
    except StoreError:
        yield Check(INDEX, place, "not run", "its manifest does not hold")
        return
    for name, told in {
        "engine": made.engine.name,
        "title": made.engine.title,
        "state": made.engine.state.status,
        "key": made.key,
        "arch": made.target.arch,
        "backend": made.target.backend,
        "processor": made.target.processor,
        "commit": made.source.commit,
        "build_number": made.source.build_number,
        "made": made.build.started,
        "size": sum(f.size for f in made.files),
    }.items():
        if (here := getattr(entry, name)) != told:
            yield failed(INDEX, f"{place}/{name}", f"it is {here!r}, in the manifest {told!r}"[:300])
