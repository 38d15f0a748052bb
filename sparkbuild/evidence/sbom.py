"""What an artifact consists of and was made with, as a CycloneDX 1.6 bill of materials.

Form: https://cyclonedx.org/docs/1.6/json/. Its bytes depend on the manifest alone: the serial number is
made from the manifest's digest and the time is the build's, where a fresh one of each is usual.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkbuild.artifact.manifest import Engine, File, Manifest, Source
from sparkbuild.handover import MANIFEST

if TYPE_CHECKING:
    from cyclonedx.model import ExternalReference, Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, Pedigree

SBOM = "sbom.cdx.json"
_OURS = uuid.UUID("3f0d6a3c-52d5-5b5c-9a56-6a3d1c0e7f11")  # a namespace for uuid5, drawn once


def sbom(manifest: Manifest, digest: str) -> bytes:
    """Return the bill of materials as sorted, indented ASCII JSON with a final newline.

    ``digest`` is the SHA-256 of the manifest's bytes.
    """
    from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415 - few commands need it

    whole = json.loads(JsonV1Dot6(_bom(manifest, digest)).output_as_string())
    return json.dumps(whole, indent=2, sort_keys=True).encode() + b"\n"


def _bom(manifest: Manifest, digest: str) -> Bom:
    from cyclonedx.model.bom import Bom  # noqa: PLC0415

    engine = _engine(manifest, digest)
    files = [_file(f) for f in manifest.files]
    inside = {f.path.rpartition("/")[2] for f in manifest.files}
    external = {name: _external(name) for f in manifest.files for name in f.external if name not in inside}
    bom = Bom(
        serial_number=uuid.uuid5(_OURS, digest),
        metadata=_metadata(manifest, engine),
        components=[*files, *external.values(), *_made_with(manifest)],
    )
    by_name = external | {f.name.rpartition("/")[2]: f for f in files}
    bom.register_dependency(engine, files)
    for component, file in zip(files, manifest.files, strict=True):
        bom.register_dependency(component, [by_name[n] for n in dict.fromkeys(file.needed) if n in by_name])
    return bom


def _metadata(manifest: Manifest, engine: Component) -> BomMetaData:
    from cyclonedx.model.bom import BomMetaData  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle  # noqa: PLC0415
    from cyclonedx.model.tool import ToolRepository  # noqa: PLC0415

    tool = Component(name="sparkbuild", version=manifest.sparkbuild, type=ComponentType.APPLICATION)
    started = manifest.build.started
    return BomMetaData(
        tools=ToolRepository(components=[tool]),
        component=engine,
        timestamp=started.replace(microsecond=0, tzinfo=started.tzinfo or dt.UTC),
        lifecycles=[PredefinedLifecycle(phase=LifecyclePhase.BUILD)],
    )


def _engine(manifest: Manifest, digest: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415

    source, target = manifest.source, manifest.target
    told = {
        "key": manifest.key,
        "manifest": f"{MANIFEST} sha256:{digest}",
        "target": f"{target.arch}, {target.backend}",
        "source:way": source.way,
        "source:location": source.location,
        "source:tree": source.tree,
        "source:patched_tree": source.patched_tree,
    }
    told |= {f"source:patch:{p.name}": f"sha256:{p.sha256}" for p in source.patches}
    return Component(
        name=manifest.engine.name,
        version=_version(source),
        description=manifest.engine.title,
        type=ComponentType.APPLICATION,
        bom_ref="engine",
        pedigree=_pedigree(source),
        external_references=_references(manifest.engine, source),
        properties=_properties(told),
    )


def _version(source: Source) -> str | None:
    return str(source.build_number) if source.build_number else source.commit or None


def _pedigree(source: Source) -> Pedigree:
    """Return the commit that it is of and the patches on it; a patch's content stays with the recipe."""
    from cyclonedx.model import XsUri  # noqa: PLC0415
    from cyclonedx.model.component import Commit, Diff, Patch, PatchClassification, Pedigree  # noqa: PLC0415

    url = XsUri(source.location) if source.location.startswith("https://") else None
    patches = [
        Patch(type=PatchClassification.UNOFFICIAL, diff=Diff(url=XsUri(f"patches/{p.name}")))
        for p in source.patches
    ]
    commits = [Commit(uid=source.commit, url=url)] if source.commit else []
    return Pedigree(commits=commits, patches=patches, notes="\n".join(source.notes) or None)


def _references(engine: Engine, source: Source) -> list[ExternalReference]:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri  # noqa: PLC0415

    found = [ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(engine.homepage))]
    if source.way == "git":
        found.append(ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(source.location)))
    if source.way == "sdist":
        kind = ExternalReferenceType.SOURCE_DISTRIBUTION
        found.append(ExternalReference(type=kind, url=XsUri(source.location)))
    return found


def _file(file: File) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415

    told = {
        "role": file.role,
        "machine": file.machine,
        "build_id": file.build_id,
        "glibc": file.glibc,
        "size": str(file.size),
        "device_code": ", ".join(f"{d.entries} {d.name}" for d in file.device_code),
    }
    return Component(
        name=file.path,
        type=ComponentType.FILE,
        bom_ref=f"file:{file.path}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
        properties=_properties(told),
    )


def _external(name: str) -> Component:
    """Return a library that is needed and is not in the artifact: whoever runs it brings it."""
    from cyclonedx.model.component import Component, ComponentScope, ComponentType  # noqa: PLC0415

    return Component(
        name=name,
        type=ComponentType.LIBRARY,
        bom_ref=f"needs:{name}",
        scope=ComponentScope.REQUIRED,
        description="needed, and not in the artifact",
    )


def _made_with(manifest: Manifest) -> Iterator[Component]:
    """Yield what it was made with, none of which is in it as a file ("excluded")."""
    from cyclonedx.model.component import Component, ComponentScope, ComponentType  # noqa: PLC0415

    used, cuda, build = manifest.compilers, manifest.cuda, manifest.build
    words = {"cc": used.cc, "cxx": used.cxx, "for": used.target, "digest": used.digest}
    told: dict[str, tuple[str, dict[str, str]]] = {
        "compilers": (used.version, words),
        "cmake": (build.cmake, {}),
        "ninja": (build.ninja, {}),
    }
    if cuda:
        told["cuda-toolkit"] = (cuda.version, {"origin": cuda.origin, "digest": cuda.digest})
    for name, (version, properties) in told.items():
        yield Component(
            name=name,
            version=version,
            type=ComponentType.APPLICATION,
            bom_ref=f"made-with:{name}",
            scope=ComponentScope.EXCLUDED,
            properties=_properties(properties),
        )


def _properties(told: dict[str, str]) -> list[Property]:
    from cyclonedx.model import Property  # noqa: PLC0415

    return [Property(name=f"sparkbuild:{name}", value=value) for name, value in told.items() if value]
