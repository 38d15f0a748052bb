"""Whether a manifest holds, and the documents beside it say what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from sparkbuild import __version__
from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.checking.checked import Check, bytes_of, differences, failed, json_of, judged
from sparkbuild.errors import StoreError
from sparkbuild.evidence.sbom import SBOM, sbom
from sparkbuild.evidence.statements import PROBE, PROVENANCE, fields, probe_statement, provenance
from sparkbuild.files import sha256_bytes
from sparkbuild.handover import MANIFEST

LATER = ("reproduction.json", "smoke.json")  # what is found out later, each of the manifest it names
_MADE: dict[str, Callable[[Manifest, str], bytes]] = {
    PROVENANCE: provenance,
    PROBE: probe_statement,
    SBOM: sbom,
}
MADE = tuple(_MADE)
_PLACE = re.compile(r" - at `\$(?P<path>.*)`$")
_NAMED = re.compile(r"(?:required|unknown) field `(?P<name>[^`]*)`")


class Document(msgspec.Struct, frozen=True):
    """A manifest file: its digest, what stands in it, and what that means where it holds."""

    digest: str
    raw: Any
    manifest: Manifest | None


def read(folder: Path) -> tuple[Document | None, Check]:
    """Return the manifest of an artifact, None when it is no JSON, and whether its schema holds."""
    try:
        data = bytes_of(folder / MANIFEST)
        raw = json_of(data)
    except ValueError as problem:
        return None, failed(MANIFEST, "", str(problem))
    try:
        found = manifests.read(folder / MANIFEST)
    except StoreError as problem:
        return Document(sha256_bytes(data), raw, None), failed(MANIFEST, _pointer(problem.what), problem.what)
    return Document(sha256_bytes(data), raw, found), Check(MANIFEST, "schema", "held", found.schema)


def _pointer(what: str) -> str:
    """Return the place that msgspec names in a message, as a JSON pointer."""
    place, named = _PLACE.search(what), _NAMED.search(what)
    words = re.findall(r"[^.\[\]]+", place["path"]) if place else []
    return "".join(f"/{w}" for w in (*words, *([named["name"]] if named else [])))


def statements(folder: Path, document: Document) -> Iterator[Check]:
    """Check the statements that a build writes: are they of this manifest, and what it gives."""
    for name in _MADE:
        if (folder / name).exists() or (folder / name).is_symlink():
            yield from _made(folder, name, document)
        elif name == PROVENANCE:
            yield Check(name, "", "not run", "there is none, so no changed field could be named")


def _made(folder: Path, name: str, document: Document) -> Iterator[Check]:
    try:
        data = bytes_of(folder / name)
        found = json_of(data)
    except ValueError as problem:
        yield failed(name, "", str(problem))
        return
    if name != SBOM:
        digest, known = _first_subject(found)
        same = digest == document.digest
        wrong = "" if same else f"its SHA-256 is {document.digest}, {name} says {digest or 'none'}"
        if name == PROVENANCE:
            yield from _fields(document, known, same=same)
        yield judged(MANIFEST, f"digest in {name}", wrong)
        if not same:
            yield Check(name, "content", "not run", "it is of another manifest")
            return
    yield from _content(name, data, found, document)


def _first_subject(found: Any) -> tuple[str, dict[str, str]]:  # noqa: ANN401 - any JSON
    """Return the digest of the manifest that a statement is about, and the digests of its fields."""
    try:
        first = found["subject"][0]
        digest, notes = first["digest"]["sha256"], first.get("annotations", {}).get("fields", {})
    except (TypeError, KeyError, IndexError, AttributeError):
        return "", {}
    return (digest if isinstance(digest, str) else ""), (notes if isinstance(notes, dict) else {})


def _fields(document: Document, known: dict[str, str], *, same: bool) -> Iterator[Check]:
    """Name each field of a manifest that is not the one that its provenance was made of."""
    here = fields(document.raw)
    bad = 0
    for pointer in sorted(here.keys() | known.keys(), key=_natural):
        if pointer not in here:
            yield failed(MANIFEST, pointer, f"it is not there, and {PROVENANCE} has it")
        elif pointer not in known:
            yield failed(MANIFEST, pointer, f"{PROVENANCE} does not know it")
        elif here[pointer] != known[pointer]:
            yield failed(MANIFEST, pointer, f"it is not what {PROVENANCE} was made of")
        else:
            continue
        bad += 1
    if not bad:
        yield Check(MANIFEST, "fields", "held", f"{len(here)} fields are as {PROVENANCE} has them")
    if not bad and not same:
        yield failed(MANIFEST, "form", "it says the same in other bytes: written anew, or in another order")


def _natural(pointer: str) -> list[str]:
    """Order pointers as people do: /files/9 before /files/10."""
    return [word.zfill(9) if word.isdecimal() else word for word in pointer.split("/")]


def _content(name: str, data: bytes, found: object, document: Document) -> Iterator[Check]:
    """Compare a statement with what the manifest gives, made again."""
    made = document.manifest
    if not made:
        yield Check(name, "content", "not run", "its manifest does not hold")
        return
    expected = _MADE[name](made, document.digest)
    if data == expected:
        yield Check(name, "content", "held", "it is what the manifest gives")
    elif made.sparkbuild != __version__:
        yield Check(
            name, "content", "not run", f"sparkbuild {made.sparkbuild} wrote it, this is {__version__}"
        )
    elif places := differences(found, json_of(expected)):
        yield from (failed(name, p, "it is not what the manifest gives") for p in places)
    else:
        yield failed(name, "form", "it says what the manifest gives in other bytes")


class _Later(msgspec.Struct, frozen=True):
    """What is read of a document that was found out later."""

    manifest: str


def later(folder: Path, digest: str) -> Iterator[Check]:
    """Check that what was found out later is about this very manifest."""
    for name in LATER:
        if not (folder / name).exists() and not (folder / name).is_symlink():
            continue
        try:
            data = bytes_of(folder / name)
            json_of(data)
            about = msgspec.json.decode(data, type=_Later).manifest
        except ValueError as problem:
            yield failed(name, "", str(problem))
            continue
        yield judged(name, "/manifest", "" if about == digest else f"it is about the manifest {about[:80]}")
