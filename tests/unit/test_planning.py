from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.catalog.records import Choice, Shelf
from sparkbuild.errors import UsageError
from sparkbuild.planning import Definition, Inputs, Plan, Skipped, make_plan
from tests.conftest import (
    compilers_of,
    cuda_of,
    digest,
    inputs_of,
    intent_of,
    options_of,
    recipe_of,
    source_of,
    toolchain_of,
)

_FA = intent_of("fa_all", "TOY_FA_QUANTS=all", "TOY_FA_ALL_QUANTS=ON", required=True)


def definition(plan: Plan, name: str) -> Definition:
    (found,) = [d for d in plan.definitions if d.name == name]
    return found


# --- intents -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "name", "value"),
    [
        (("TOY_FA_QUANTS",), "TOY_FA_QUANTS", "all"),
        (("TOY_FA_ALL_QUANTS",), "TOY_FA_ALL_QUANTS", "ON"),
        (("TOY_FA_ALL_QUANTS", "TOY_FA_QUANTS"), "TOY_FA_QUANTS", "all"),
    ],
)
def test_the_first_spelling_that_the_source_declares_is_taken(
    declared: tuple[str, ...], name: str, value: str
) -> None:
    plan = make_plan(inputs_of(_FA, options=declared))
    assert plan.value(name) == value
    assert [d.name for d in plan.definitions if d.name.startswith("TOY_FA")] == [name]
    found = definition(plan, name)
    assert (found.origin, found.why, found.required) == ("recipe:fa_all", "because", True)


def test_a_required_intent_without_a_spelling_is_an_error() -> None:
    with pytest.raises(UsageError, match="does not declare TOY_FA_QUANTS or TOY_FA_ALL_QUANTS") as caught:
        make_plan(inputs_of(_FA, options=("TOY_FA_QUANT", "OTHER")))
    assert caught.value.where == "/nowhere/recipes/toy.toml: intents.fa_all"
    assert "did you mean TOY_FA_QUANT?" in caught.value.remedy


@pytest.mark.parametrize(
    ("intent", "reason"),
    [
        (intent_of("a", "TOY_A=ON"), "this source does not declare TOY_A"),
        (intent_of("a", "TOY_A=ON", "TOY_B=ON"), "this source does not declare TOY_A or TOY_B"),
        (intent_of("a", "DECLARED=ON", backends=("cuda",)), "not for the cpu backend"),
        (intent_of("a", "DECLARED=x{build_number}y"), "build_number not known or not set for this build"),
        (
            intent_of("a", "DECLARED={commit_short} {build_number}"),
            "commit_short and build_number not known or not set for this build",
        ),
    ],
)
def test_what_does_not_apply_is_left_out_with_a_reason(intent: Any, reason: str) -> None:  # noqa: ANN401
    source = source_of(commit="", build_number=0)
    plan = make_plan(inputs_of(intent, options=("DECLARED",), source=source))
    assert plan.skipped == (Skipped("a", reason),)
    assert plan.value("DECLARED") is None


def test_a_variable_that_is_only_read_counts_where_the_recipe_says_so() -> None:
    read_only = intent_of("a", choose=(Choice("TOY_NUMBER", "{build_number}", read_only=True),))
    assert make_plan(inputs_of(read_only, reads=("TOY_NUMBER",))).value("TOY_NUMBER") == "7"
    assert make_plan(inputs_of(read_only)).value("TOY_NUMBER") is None
    declared = intent_of("a", "TOY_NUMBER={build_number}")
    assert make_plan(inputs_of(declared, reads=("TOY_NUMBER",))).value("TOY_NUMBER") is None


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{cuda}", "OFF"),
        ("{native}", "OFF"),
        ("{cpu_arch}", "armv8.2-a+dotprod+fp16"),
        ("{cpu_flags}", "-march=armv8.2-a+dotprod+fp16"),
        ("{cuda_arch}", "121"),
        ("{build_number}", "7"),
        ("{commit}", "a" * 40),
        ("{commit_short}", "a" * 9),
        ("<{native}|{native}>", "<OFF|OFF>"),
        ("{ {cuda.upper} }{{", "{ {cuda.upper} }{{"),
        ("$<X> %s \\1", "$<X> %s \\1"),
    ],
)
def test_a_value_may_name_words(template: str, value: str) -> None:
    plan = make_plan(inputs_of(intent_of("a", f"TOY_X={template}"), options=("TOY_X",)))
    assert plan.value("TOY_X") == value


def test_a_word_that_does_not_exist_is_an_error_not_a_silence() -> None:
    intent = intent_of("a", "TOY_X={cpu_arhc}")
    with pytest.raises(UsageError, match="cpu_arhc") as caught:
        make_plan(inputs_of(intent, options=("TOY_X",)))
    assert caught.value.where == "/nowhere/recipes/toy.toml: intents.a"
    assert "did you mean cpu_arch?" in caught.value.remedy


def test_the_building_machine_for_itself_is_native() -> None:
    intents = (intent_of("native", "TOY_NATIVE={native}"), intent_of("arm_arch", "TOY_ARCH={cpu_arch}"))
    toolchain = Shelf(toolchain_of(processor="host", cpu_arch=""), Path("/t"), digest("t"))
    compilers = compilers_of(cross=False, flags=(), target="x86_64-linux-gnu")
    known = inputs_of(*intents, options=("TOY_NATIVE", "TOY_ARCH"), toolchain=toolchain, compilers=compilers)
    plan = make_plan(known)
    assert plan.value("TOY_NATIVE") == "ON"
    assert plan.value("TOY_ARCH") is None
    assert plan.value("CMAKE_SYSTEM_NAME") is None


def test_a_cross_build_says_so_to_cmake() -> None:
    plan = make_plan(inputs_of())
    assert plan.value("CMAKE_SYSTEM_NAME") == "Linux"
    assert plan.value("CMAKE_SYSTEM_PROCESSOR") == "aarch64"
    assert plan.value("CMAKE_CXX_COMPILER") == "/usr/bin/aarch64-linux-gnu-g++"


def test_a_cuda_build_names_its_architecture_and_its_toolkit() -> None:
    plan = make_plan(
        inputs_of(intent_of("cuda", "TOY_CUDA={cuda}"), options=("TOY_CUDA",), backend="cuda", cuda=cuda_of())
    )
    assert plan.value("TOY_CUDA") == "ON"
    arch = definition(plan, "CMAKE_CUDA_ARCHITECTURES")
    assert (arch.value, arch.origin, arch.required, arch.keyed) == ("121", "toolchain:board", True, "121")
    assert not definition(plan, "CMAKE_CUDA_COMPILER").keyed
    assert plan.targets == ("toy-server", "toy-cuda")


def test_the_environment_takes_its_time_from_the_commit() -> None:
    assert make_plan(inputs_of()).environment["SOURCE_DATE_EPOCH"] == "1700000000"


# --- definitions of a person ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["DECLARED", "READ", "CMAKE_VERBOSE_MAKEFILE", "BUILD_SHARED_LIBS", "CUDAToolkit_ROOT"]
)
def test_a_definition_of_ones_own_is_taken(name: str) -> None:
    known = inputs_of(options=("DECLARED",), reads=("READ",), user={name: "x;y"})
    found = definition(make_plan(known), name)
    assert (found.value, found.origin, found.keyed) == ("x;y", "user", "x;y")


def test_flags_of_ones_own_stand_behind() -> None:
    plain = make_plan(inputs_of())
    mine = make_plan(inputs_of(user={"CMAKE_C_FLAGS": "-O1"}))
    found = definition(mine, "CMAKE_C_FLAGS")
    assert (found.value, found.keyed) == (f"{plain.value('CMAKE_C_FLAGS')} -O1", "-O1")
    assert mine.key != plain.key
    none = make_plan(inputs_of(user={"CMAKE_C_FLAGS": ""}))
    assert (none.value("CMAKE_C_FLAGS"), none.key) == (plain.value("CMAKE_C_FLAGS"), plain.key)


@pytest.mark.parametrize("name", ["CMAKE_CXX_COMPILER", "CMAKE_CUDA_COMPILER"])
def test_a_compiler_that_nothing_is_known_of_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="found and checked") as caught:
        make_plan(inputs_of(backend="cuda", cuda=cuda_of(), user={name: "/opt/another"}))
    assert "PATH" in caught.value.remedy


def test_a_definition_of_ones_own_wins_and_says_over_what() -> None:
    found = definition(
        make_plan(inputs_of(_FA, options=("TOY_FA_QUANTS",), user={"TOY_FA_QUANTS": "none"})), "TOY_FA_QUANTS"
    )
    assert found == Definition(
        "TOY_FA_QUANTS", "none", "instead of 'all' (recipe:fa_all)", "user", required=True
    )


@pytest.mark.parametrize("name", ["TOY_FA_QUANT", "cmake_build_type", "CMAKE", "CMAKE_x"])
def test_a_definition_that_nobody_declares_is_an_error(name: str) -> None:
    with pytest.raises(UsageError, match=f"does not declare {name}") as caught:
        make_plan(inputs_of(options=("TOY_FA_QUANTS",), user={name: "1"}))
    assert caught.value.where == f"-D {name}=1"
    assert ("did you mean TOY_FA_QUANTS?" in caught.value.remedy) == name.startswith("TOY")


# --- the shipped recipes -------------------------------------------------------------------------

_SHIPPED = Catalog((shipped_root(),)).recipes()


@pytest.mark.parametrize("engine", _SHIPPED)
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_every_shipped_recipe_makes_a_plan_where_all_is_declared(engine: str, backend: Any) -> None:  # noqa: ANN401
    shelf = _SHIPPED[engine]
    names = tuple(c.option for i in shelf.record.intents for c in i.choose)
    known = inputs_of(
        options=names,
        reads=names,
        recipe=shelf,
        backend=backend,
        cuda=cuda_of() if backend == "cuda" else None,
    )
    plan = make_plan(known)
    assert {s.intent for s in plan.skipped} == {
        i.name for i in shelf.record.intents if backend not in i.backends
    }
    assert plan.value("GGML_CUDA") == ("ON" if backend == "cuda" else "OFF")
    assert plan.value("GGML_NATIVE") == "OFF"
    assert "armv8.2-a+dotprod+fp16" in {d.value.removeprefix("-march=") for d in plan.definitions}
    assert {d.value for d in plan.definitions if "FA" in d.name} <= {"ON", "all"}


# --- the key -------------------------------------------------------------------------------------


def plain(**changes: Any) -> Inputs:  # noqa: ANN401
    intents = (_FA, intent_of("number", "TOY_NUMBER={build_number}"))
    settings: dict[str, Any] = {"backend": "cuda", "cuda": cuda_of()} | changes
    return inputs_of(*intents, options=("TOY_FA_QUANTS", "TOY_NUMBER"), **settings)


def test_equal_inputs_give_equal_keys() -> None:
    assert make_plan(plain()).key == make_plan(plain()).key
    assert len(make_plan(plain()).key) == 64


_BYTES: dict[str, dict[str, Any]] = {
    "another source": {"source": source_of(patched_tree="d" * 40)},
    "another commit of equal content": {"source": source_of(commit="d" * 40)},
    "another build number": {"source": source_of(build_number=8)},
    "another commit time": {"source": source_of(commit_time=1)},
    "other compilers": {"compilers": compilers_of(digest=digest("x"))},
    "another target": {"compilers": compilers_of(target="aarch64-linux-musl")},
    "another CUDA": {"cuda": cuda_of(digest=digest("x"))},
    "the other backend": {"backend": "cpu", "cuda": None},
    "another CMake": {"cmake": "4.2.1"},
    "another spelling": {"options": options_of("TOY_FA_ALL_QUANTS", "TOY_NUMBER")},
    "a definition of ones own": {"user": {"CMAKE_POSITION_INDEPENDENT_CODE": "ON"}},
    "a definition changed": {"user": {"CMAKE_BUILD_TYPE": "Debug"}},
    "another compute capability": {"cuda_arch": "121a"},
    "another machine": {"toolchain": Shelf(toolchain_of(name="other"), Path("/t"), digest("t"))},
    "another engine": {"recipe": Shelf(recipe_of(_FA, name="other"), Path("/r"), digest("r"))},
    "another target of the build": {
        "recipe": Shelf(
            recipe_of(_FA, intent_of("number", "TOY_NUMBER={build_number}"), targets={"cuda": ("x",)}),
            Path("/r"),
            digest("r"),
        )
    },
}


@pytest.mark.parametrize("change", _BYTES.values(), ids=_BYTES.keys())
def test_the_key_changes_with_what_can_change_a_byte(change: dict[str, Any]) -> None:
    key = make_plan(plain()).key
    known = msgspec.structs.replace(plain(), **change)
    assert make_plan(known).key != key


def test_each_change_gives_a_key_of_its_own() -> None:
    keys = [make_plan(msgspec.structs.replace(plain(), **change)).key for change in _BYTES.values()]
    assert len(set(keys)) == len(keys)
