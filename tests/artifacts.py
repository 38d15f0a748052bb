"""A small real artifact: compiled files, a manifest that is full and true of them, its statements."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild import handover
from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact import store
from sparkbuild.artifact.collect import describe
from sparkbuild.artifact.manifest import File, Manifest
from sparkbuild.artifact.store import Stored
from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.evidence import statements
from sparkbuild.files import Folders, sha256_bytes
from sparkbuild.inspection.elf import read_elf
from sparkbuild.inspection.probe import probe
from sparkbuild.inspection.report import BackendReport, Device, SystemReport
from sparkbuild.toolchain import FeatureProof
from sparkbuild.verification import Journey
from sparkbuild.verification.records import Stage
from tests import toys
from tests.conftest import Told, manifest_of

LIBRARY, SERVER, BENCH = "libllama.so", "toy-server", "toy-bench"
_TOOL = "int llama_init(void); int main(void) { return llama_init(); }\n"


def make(folder: Path, **changes: Any) -> Manifest:  # noqa: ANN401 - any field
    """Compile an artifact into ``folder`` and describe it; ``changes`` are fields of the manifest."""
    bin_dir = folder / "bin"
    toys.library(bin_dir, name=LIBRARY)
    (folder / "tool.c").write_text(_TOOL)
    for name, level in ((SERVER, "-O0"), (BENCH, "-O2")):
        words = ["gcc", level, "tool.c", f"bin/{LIBRARY}", "-Wl,-rpath,$ORIGIN", "-o", f"bin/{name}"]
        subprocess.run(words, cwd=folder, check=True)
        (bin_dir / name).chmod(0o755)
    (bin_dir / LIBRARY).chmod(0o755)
    (folder / "tool.c").unlink()
    roles = {SERVER: "server", BENCH: "bench"}
    paths = sorted(bin_dir.iterdir())
    names = {p.name for p in paths}
    files = tuple(describe(p, read_elf(p), roles.get(p.name, ""), names) for p in paths)
    manifest = _manifest(files, bin_dir)
    manifest = msgspec.structs.replace(manifest, **changes)
    write(folder, manifest)
    return manifest


def key_of(folder: Path) -> Path:
    """Return a key; its owner is in the file "allowed" beside it."""
    if not shutil.which("ssh-keygen"):
        pytest.skip("ssh-keygen is not installed")
    words: list[str | Path] = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"]
    subprocess.run(words, check=True, capture_output=True)
    (folder / "allowed").write_text(f"me@example.invalid {(folder / 'key.pub').read_text()}")
    return folder / "key"


def write(folder: Path, manifest: Manifest) -> str:
    """Write a manifest and its statements; return the SHA-256 of the manifest's bytes."""
    data = manifests.encode(manifest)
    digest = sha256_bytes(data)
    (folder / handover.MANIFEST).write_bytes(data)
    (folder / statements.PROVENANCE).write_bytes(statements.provenance(manifest, digest))
    (folder / statements.PROBE).write_bytes(statements.probe_statement(manifest, digest))
    return digest


def _manifest(files: tuple[File, ...], bin_dir: Path) -> Manifest:
    plain = manifest_of()
    verdicts = probe(bin_dir, Catalog((shipped_root(),)), Told()).verdicts
    replace = msgspec.structs.replace
    stages = (Stage("asked", "held", "TOY_FAST=ON"), Stage("binary", "held", "symbol toy"))
    gpu = BackendReport("CUDA", {"ARCHS": "1210"}, (Device("CUDA0", "Some GPU", "igpu"),))
    return manifest_of(
        target=replace(plain.target, processor=platform.machine()),
        compilers=replace(plain.compilers, proofs=(FeatureProof("sve", macro=True, code=False, error="no"),)),
        build=replace(plain.build, deprecated=("TOY_OLD",)),
        run=_run(plain.run, files, verdicts),
        flags=(Journey("TOY_FAST", "ON", "recipe:fast", True, stages, "in force"),),
        verdicts=verdicts,
        system=SystemReport("native", "", "CPU : NEON = 1 | ", {"CPU": {"NEON": "1"}}, (gpu,)),
        files=files,
    )


def _run(plain: handover.Run, files: tuple[File, ...], verdicts: Any) -> handover.Run:  # noqa: ANN401
    switches = plain.tools[0].switches
    tools = tuple(
        handover.Tool(f.role, f.path, switches, "its own --help") for f in files if f.role != "library"
    )
    profile = plain.profiles[0]
    settings = {"model": "{model}"} | profile.settings
    return handover.Run(
        tools=tools,
        libraries=tuple(f.path for f in files if f.role == "library"),
        needs=handover.Needs(
            processor=platform.machine(),
            cpu_features=("sve",),
            glibc=max((f.glibc for f in files), key=lambda v: [int(n) for n in v.split(".") if n]),
            cuda_major=verdicts.cuda_major,
            driver="580",
            libraries=verdicts.external,
        ),
        environment={"TOY": "1"},
        pairs=tuple(handover.KvPair(p.head, p.k, p.v) for p in verdicts.pairs),
        pairs_note=verdicts.pairs_note,
        profiles=(msgspec.structs.replace(profile, environment={"TOY_GRAPHS": "1"}),),
        commands=tuple(handover.spell(t, profile.name, settings) for t in tools),
    )


def shelved(template: Stored, name: str, folders: Folders) -> Stored:
    """Store an artifact as a build does, its key made of a name."""
    key = sha256_bytes(name.encode())
    manifest = msgspec.structs.replace(template.manifest, key=key)
    with store.reserved("toy", key, folders), store.adding("toy", key, folders) as temp:
        shutil.copytree(template.path / "bin", temp / "bin")
        store.finish(temp, manifest)
    return Stored(store.folder("toy", key, folders), manifest)
