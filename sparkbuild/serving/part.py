"""The manifest's run part: what a benchmark stage or a service needs to know of an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from packaging.version import Version

from sparkbuild import handover
from sparkbuild.artifact.manifest import File
from sparkbuild.catalog import Catalog
from sparkbuild.catalog.records import Recipe, Toolchain
from sparkbuild.inspection.features import Verdicts
from sparkbuild.inspection.runtime import View
from sparkbuild.serving.switches import commands, profile_of, tools


def run_part(
    folder: Path,
    files: Sequence[File],
    verdicts: Verdicts,
    libraries: Sequence[Path],
    recipe: Recipe,
    toolchain: Toolchain,
    catalog: Catalog,
    view: View = None,
) -> handover.Run:
    """Return how the artifact whose files are in ``folder`` is run; its tools are asked for their --help.

    ``libraries`` are folders of what is not beside them, such as CUDA's run time; with a ``view`` they run
    in a sandbox.
    """
    rules = catalog.switches().record
    processor = files[0].machine
    found = tools(folder, recipe, processor, libraries, rules, view)
    profiles = tuple(profile_of(shelf.record) for shelf in catalog.profiles().values())
    wheels = catalog.cuda_wheels(toolchain.cuda.wheels).record
    same = verdicts.cuda_major is not None and Version(wheels.version).major == verdicts.cuda_major
    return handover.Run(
        tools=found,
        libraries=tuple(f.path for f in files if f.role == "library"),
        needs=handover.Needs(
            processor=processor,
            cpu_features=tuple(p.feature for p in toolchain.proofs),
            glibc=max((f.glibc for f in files if f.glibc), key=Version, default=""),
            cuda_major=verdicts.cuda_major,
            driver=wheels.driver if same else "",
            libraries=verdicts.external,
        ),
        environment={},
        pairs=tuple(handover.KvPair(p.head, p.k, p.v) for p in verdicts.pairs),
        pairs_note=recipe.attention if verdicts.state("cuda") == "present" else "",
        profiles=profiles,
        commands=commands(found, profiles, rules, verdicts),
    )
