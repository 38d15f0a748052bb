"""Artifacts in an OCI registry: pushed, listed and pulled, with every digest checked here.

An artifact is an image manifest (OCI image-spec 1.1) of the type `ARTIFACT`: manifest.json and every other
file beside it is a layer of its own, named by its title annotation, so that a reader may fetch these alone;
the folder bin/ is one layer, a tar.zst as `archive.pack` makes it. Nothing in it tells of time or place:
the same artifact has the same digest in every registry.

The requests and the log-in are oras' own (client.py and login.py say what is changed of it).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from sparkbuild.errors import StoreError, UsageError
from sparkbuild.files import sha256_bytes, sha256_file, whole_folder
from sparkbuild.rooms import room
from sparkbuild.transport import archive
from sparkbuild.transport.client import Client
from sparkbuild.transport.reference import Reference

ARTIFACT = "application/vnd.sparkbuild.artifact.v1"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
BIN = "application/vnd.sparkbuild.bin.v1.tar+zstd"
_BIN_NAME = "bin.tar.zst"
_TITLE = "org.opencontainers.image.title"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_TYPES = {
    "manifest.json": "application/vnd.sparkbuild.manifest.v1+json",
    ".json": "application/json",
    ".sig": "application/vnd.sparkbuild.signature.v1",
}
_MOST_SMALL = 64 << 20  # bytes of a file beside bin/
_MOST_LAYERS = 100
_EMPTY = b"{}"


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A blob as a manifest names it (image-spec, descriptor.md). ``size`` is in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}

    @property
    def title(self) -> str:
        """The name of the file that the blob is."""
        return self.annotations.get(_TITLE, "")


class Image(msgspec.Struct, frozen=True, rename="camel"):
    """An image manifest (image-spec, manifest.md), as far as an artifact uses it."""

    schema_version: int
    media_type: str
    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def push(folder: Path, reference: str, *, plain_http: bool = False) -> str:
    """Push an artifact folder and return the digest (``sha256:…``) of its image manifest.

    Blobs that the registry has are not sent again; the image manifest, which makes them an artifact, is
    sent last. Raises UsageError for a wrong reference or folder, MissingError when the registry can not be
    reached, StoreError when it refuses or breaks off.
    """
    place, small = Reference.parse(reference), _small_files(folder)
    with (
        Client(place, plain_http=plain_http) as client,
        room(folder) as own,
    ):
        packed = own / _BIN_NAME
        archive.pack(folder / "bin", packed, top="bin")
        empty = own / "empty"
        empty.write_bytes(_EMPTY)
        layers = [_described(path, _media_type(path.name), path.name) for path in small]
        layers.append(_described(packed, BIN, _BIN_NAME))
        config = _described(empty, "application/vnd.oci.empty.v1+json")
        for blob, path in zip((*layers, config), (*small, packed, empty), strict=True):
            client.send_blob(path, blob.digest)
        image = msgspec.json.encode(Image(2, IMAGE, ARTIFACT, config, tuple(layers)))
        client.send_manifest(image, IMAGE)
    return f"sha256:{sha256_bytes(image)}"


def pull(reference: str, into: Path, *, small_only: bool = False, plain_http: bool = False) -> str:
    """Pull an artifact into a folder that is absent or empty and return its image manifest's digest.

    The folder is there whole or not at all. ``small_only`` leaves bin/ out. Raises StoreError when there is
    no such artifact, or what comes is not what was pushed; else as `push` does.
    """
    place = Reference.parse(reference)
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise UsageError("the folder to pull into is not empty", where=str(into), remedy="name another one")
    with Client(place, plain_http=plain_http) as client:
        data = client.manifest(IMAGE)
        image = _read_image(data, client.shown)
        with whole_folder(into, flush=True) as temp:
            for layer in image.layers:
                if layer.media_type != BIN:
                    _fetch(client, layer, temp / layer.title)
                elif not small_only:
                    packed = temp / f".{_BIN_NAME}"
                    _fetch(client, layer, packed)
                    archive.unpack(packed, temp / "bin")
                    packed.unlink()
    return f"sha256:{sha256_bytes(data)}"


def tags(repository: str, *, plain_http: bool = False) -> tuple[str, ...]:
    """Return the tags of a repository (``oci://host[:port]/repo``), sorted. Errors are those of `pull`."""
    with Client(Reference.parse(repository), plain_http=plain_http) as client:
        return client.tags()


def _small_files(folder: Path) -> list[Path]:
    """Return the files beside bin/, sorted by name."""
    if not (folder / "manifest.json").is_file() or not (folder / "bin").is_dir():
        raise UsageError("not an artifact: no manifest.json and bin/", where=str(folder))
    small = sorted(p for p in folder.iterdir() if p.name != "bin")
    for path in small:
        odd = path.is_symlink() or not path.is_file() or not _NAME.fullmatch(path.name)
        if odd or path.name == _BIN_NAME or path.stat().st_size > _MOST_SMALL:
            raise UsageError(
                "this does not belong into an artifact", where=str(path), remedy="remove it, or build again"
            )
    return small


def _media_type(name: str) -> str:
    return _TYPES.get(name) or _TYPES.get(Path(name).suffix) or "application/octet-stream"


def _described(path: Path, media_type: str, title: str = "") -> Descriptor:
    annotations = {_TITLE: title} if title else {}
    return Descriptor(media_type, f"sha256:{sha256_file(path)}", path.stat().st_size, annotations)


def _read_image(data: bytes, where: str) -> Image:
    """Read an image manifest. Raises StoreError when it is not an artifact of ours, or a hostile one."""
    try:
        image = msgspec.json.decode(data, type=Image)
    except (ValueError, RecursionError) as problem:
        raise _wrong(f"not an artifact of sparkbuild: {problem}", where) from problem
    if image.artifact_type != ARTIFACT:
        raise _wrong(f"an artifact of another type: {image.artifact_type[:80]!r}", where)
    small = [layer for layer in image.layers if layer.media_type != BIN]
    names = [layer.title for layer in small]
    if len(image.layers) > _MOST_LAYERS or len(image.layers) != len(small) + 1:
        raise _wrong(f"it has {len(image.layers)} layers, {len(small)} of them files", where)
    if "manifest.json" not in names or len({n.casefold() for n in [*names, "bin"]}) != len(names) + 1:
        raise _wrong("it has no manifest.json, or two files of one name", where)
    for layer in image.layers:
        most = archive.MOST.bytes if layer.media_type == BIN else _MOST_SMALL
        named = layer.media_type == BIN or _NAME.fullmatch(layer.title)
        if not named or not re.fullmatch(r"sha256:[0-9a-f]{64}", layer.digest) or not 0 <= layer.size <= most:
            raise _wrong(f"a layer that can not be: {layer.title[:80]!r}", where)
    return image


def _fetch(client: Client, layer: Descriptor, path: Path) -> None:
    """Write a blob to a file and check its size and digest on the way."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for block in client.blob(layer.digest):
            size += len(block)
            if size > layer.size:
                break
            digest.update(block)
            file.write(block)
    if size != layer.size or f"sha256:{digest.hexdigest()}" != layer.digest:
        raise _wrong(f"{layer.title!r} is not what was pushed (size or digest differ)", client.shown)


def _wrong(what: str, where: str) -> StoreError:
    return StoreError(what, where=where, remedy="push the artifact again; until then do not use it")
