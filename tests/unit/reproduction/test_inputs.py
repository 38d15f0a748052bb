"""Inputs that are not the recorded ones are named, each with both values."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sparkbuild.artifact.manifest import DefinitionUsed, Manifest
from sparkbuild.planning import Plan, make_plan
from sparkbuild.reproduction.inputs import differences
from tests.conftest import compilers_of, digest, inputs_of, intent_of, manifest_of, source_of


def recorded(plan: Plan) -> Manifest:
    """Return a manifest of a plan, as far as the key goes."""
    base, source = manifest_of(), plan.source
    structs = msgspec.structs
    return structs.replace(
        base,
        key=plan.key,
        cuda=None,
        targets=plan.targets,
        source=structs.replace(
            base.source,
            patched_tree=source.patched_tree,
            commit=source.commit,
            build_number=source.build_number,
        ),
        compilers=structs.replace(
            base.compilers,
            version=plan.compilers.version,
            target=plan.compilers.target,
            digest=plan.compilers.digest,
        ),
        definitions=tuple(
            DefinitionUsed(d.name, d.value, d.value, "STRING", d.origin, d.why, d.required, d.local)
            for d in plan.definitions
        ),
        build=structs.replace(
            base.build, cmake=plan.cmake, environment=plan.environment | {"PATH": "/usr/bin"}
        ),
    )


def test_the_same_plan_elsewhere() -> None:
    manifest = recorded(make_plan(inputs_of()))
    assert differences(manifest, make_plan(inputs_of(cache=Path("/else/where")))) == ()


def test_each_input() -> None:
    manifest = recorded(make_plan(inputs_of()))
    other = inputs_of(
        intent_of("fast", "TOY_FAST=ON"),
        options=("TOY_FAST",),
        source=source_of(patched_tree="f" * 40),
        compilers=msgspec.structs.replace(compilers_of(), digest=digest("other")),
        cmake="4.9.9",
        user={"CMAKE_C_FLAGS": "-O1"},
    )
    found = {d.name: (d.recorded, d.here) for d in differences(manifest, make_plan(other))}
    assert found.keys() == {
        "source tree, patched",
        "compilers",
        "CMake",
        "-D TOY_FAST",
        "-D CMAKE_C_FLAGS",
    }
    assert found["CMake"] == ("4.2.0", "4.9.9")
    assert found["-D TOY_FAST"] == ("nothing", "ON")
    assert found["-D CMAKE_C_FLAGS"] == ("nothing", "-O1")


def test_a_key_that_nothing_explains() -> None:
    manifest = msgspec.structs.replace(recorded(make_plan(inputs_of())), key=digest("another format"))
    (found,) = differences(manifest, make_plan(inputs_of()))
    assert found.name == "how sparkbuild makes a key"


def test_a_manifest_that_is_not_true_to_its_key() -> None:
    plan = make_plan(inputs_of())
    manifest = recorded(plan)
    told = msgspec.structs.replace(manifest.compilers, version="another compiler")
    (found,) = differences(msgspec.structs.replace(manifest, compilers=told), plan)
    assert (found.name, found.recorded.split()[:2]) == ("compilers", ["another", "compiler"])
