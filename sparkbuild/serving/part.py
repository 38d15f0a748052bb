"""The manifest's run part: what a benchmark stage or a service needs to know of an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from packaging.version import Version

from sparkbuild import handover
from sparkbuild.artifact.manifest import File
from sparkbuild.catalog import Catalog
from sparkbuild.catalog.records import Recipe, Toolchain
from sparkbuild.inspection.features import Verdicts
from sparkbuild.inspection.runtime import Answer
from sparkbuild.serving.switches import commands, profile_of, tools


def run_part(
    files: Sequence[File],
    answers: Mapping[str, Answer],
    verdicts: Verdicts,
    recipe: Recipe,
    toolchain: Toolchain,
    catalog: Catalog,
) -> handover.Run:
    """Return how an artifact of these ``files`` is run; by role, what its tools answered to --help."""
    rules = catalog.switches().record
    found = tools(recipe, answers, rules)
    profiles = tuple(profile_of(shelf.record) for shelf in catalog.profiles().values())
    wheels = catalog.cuda_wheels(toolchain.cuda.wheels).record
    same = verdicts.cuda_major is not None and Version(wheels.version).major == verdicts.cuda_major
    return handover.Run(
        tools=found,
        libraries=tuple(f.path for f in files if f.role == "library"),
        needs=handover.Needs(
            processor=files[0].machine,
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
