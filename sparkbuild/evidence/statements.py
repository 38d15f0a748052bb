"""What may be claimed of an artifact, as statements that can be signed; docs/provenance.md explains them.

Both are pure functions of a manifest and the SHA-256 of its bytes, so that whoever has these can make the
very same bytes again and compare. Forms: SLSA provenance v1 (https://slsa.dev/spec/v1.1/provenance) and a
predicate of our own, each in an in-toto Statement v1.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.evidence.intoto import resource, statement
from sparkbuild.files import sha256_bytes
from sparkbuild.handover import MANIFEST

PROVENANCE, PROBE = "provenance.json", "probe.json"
SLSA = "https://slsa.dev/provenance/v1"
# Names, not addresses: what each promises is in docs/provenance.md under the same name.
BUILD_TYPE = "sparkbuild:build/1"
BUILDER = "sparkbuild:own-machine/1"
PROBE_TYPE = "sparkbuild:probe/1"
_DEEP = 2  # levels of a manifest that have a digest of their own


def provenance(manifest: Manifest, digest: str) -> bytes:
    """Return how the artifact was made, by the word of the machine that made it.

    ``digest`` is the SHA-256 of the manifest's bytes. The first subject, the manifest, has the digest of
    each of its fields among its annotations.
    """
    annotations = {"fields": fields(json.loads(manifests.encode(manifest)))}
    first = resource(MANIFEST, {"sha256": digest}, annotations=annotations)
    predicate = {"buildDefinition": _definition(manifest), "runDetails": _run_details(manifest)}
    return statement(SLSA, [first, *_files(manifest)], predicate)


def probe_statement(manifest: Manifest, digest: str) -> bytes:
    """Return what was found in the artifact's binaries, and what they said when they were run."""
    predicate = {
        "sparkbuild": manifest.sparkbuild,
        "verdicts": msgspec.to_builtins(manifest.verdicts),
        "flags": msgspec.to_builtins(manifest.flags),
        "version": msgspec.to_builtins(manifest.version),
        "system": msgspec.to_builtins(manifest.system),
    }
    return statement(PROBE_TYPE, [resource(MANIFEST, {"sha256": digest}), *_files(manifest)], predicate)


def fields(document: object) -> dict[str, str]:
    """Return the digest of each part of a JSON document down to two levels, by its JSON pointer (RFC 6901).

    A digest is the SHA-256 of the part as compact ASCII JSON with sorted keys and a final newline, which
    is what ``jq -cSa '.engine.title' manifest.json`` writes.
    """
    return {pointer: sha256_bytes(canonical(part)) for pointer, part in _parts("", document, _DEEP)}


def canonical(part: object) -> bytes:
    """Return JSON in the one form that is hashed."""
    return json.dumps(part, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _parts(pointer: str, part: Any, levels: int) -> Iterator[tuple[str, object]]:  # noqa: ANN401 - any JSON
    names = part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
    if not levels or not names:
        yield pointer, part
        return
    for name in names:
        yield from _parts(f"{pointer}/{escaped(str(name))}", part[name], levels - 1)


def escaped(name: str) -> str:
    """Return a key as a JSON pointer has it (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def _files(manifest: Manifest) -> list[dict[str, Any]]:
    return [resource(f.path, {"sha256": f.sha256}) for f in manifest.files]


def _definition(manifest: Manifest) -> dict[str, Any]:
    source, target, build = manifest.source, manifest.target, manifest.build
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "engine": manifest.engine.name,
            "arch": target.arch,
            "backend": target.backend,
            "source": source.location,
            "way": source.way,
            "ref": source.ref,
            "definitions": {d.name: d.asked for d in manifest.definitions if d.origin == "user"},
        },
        "internalParameters": {
            "definitions": {d.name: d.asked for d in manifest.definitions if d.origin != "user"},
            "targets": list(manifest.targets),
            "environment": build.environment,
            "place": build.place,
            "jobs": build.jobs,
        },
        "resolvedDependencies": _dependencies(manifest),
    }


def _dependencies(manifest: Manifest) -> list[dict[str, Any]]:
    """Return what the build was made from, as far as it is known.

    A digest that no single file has goes by a name of its own instead of "sha256" (spec/v1/digest_set.md
    of in-toto allows that), so that nobody looks for a file with it.
    """
    used, cuda = manifest.compilers, manifest.cuda
    told = {"version": used.version, "target": used.target}
    found = [
        _source(manifest.source),
        *(resource(f"patches/{p.name}", {"sha256": p.sha256}) for p in manifest.source.patches),
        resource("recipe", {"sha256": manifest.engine.recipe_digest}),
        resource("toolchain", {"sha256": manifest.target.toolchain_digest}),
        resource("compilers", {"sparkbuildCompilers": used.digest}, annotations=told),
    ]
    if cuda:
        told = {"version": cuda.version, "origin": cuda.origin}
        found.append(resource("cuda", {"sparkbuildCuda": cuda.digest}, annotations=told))
    return found


def _source(source: manifests.Source) -> dict[str, Any]:
    """Return the source. Its tree was computed here; the commit is a digest only where git itself gave it.

    Of an sdist or a folder the commit is what somebody says of it, and then stands among the annotations.
    """
    told: dict[str, Any] = {"patched_tree": source.patched_tree, "notes": list(source.notes)}
    digest = {"gitTree": source.tree}
    uri = ""
    if source.way == "git" and source.commit:
        digest["gitCommit"] = source.commit
        uri = f"git+{source.location}@{source.commit}"
    elif source.commit:
        told["said_to_be_commit"] = source.commit
    return resource("source", digest, uri=uri, annotations={k: v for k, v in told.items() if v})


def _run_details(manifest: Manifest) -> dict[str, Any]:
    build = manifest.build
    version = {"sparkbuild": manifest.sparkbuild, "cmake": build.cmake, "ninja": build.ninja}
    return {
        "builder": {"id": BUILDER, "version": version},
        "metadata": _times(build.started, build.wall_seconds),
    }


def _times(started: dt.datetime, seconds: float) -> dict[str, str]:
    """Return when the build began and ended, in UTC; a time beyond the calendar's end is left out."""
    begin = started.replace(tzinfo=started.tzinfo or dt.UTC)
    try:
        both = begin.astimezone(dt.UTC), (begin + dt.timedelta(seconds=seconds)).astimezone(dt.UTC)
    except (OverflowError, ValueError):
        return {}
    words = (t.isoformat(timespec="seconds").replace("+00:00", "Z") for t in both)
    return dict(zip(("startedOn", "finishedOn"), words, strict=True))
