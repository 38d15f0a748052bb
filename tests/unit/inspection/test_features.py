"""Facts made by hand, and what they prove: present, absent, or not known."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sparkbuild.catalog.records import (
    Asked,
    Attention,
    Evidence,
    Feature,
    Features,
    Models,
    Recipe,
    Version,
)
from sparkbuild.inspection.elf import ElfFacts
from sparkbuild.inspection.facts import FileFacts
from sparkbuild.inspection.features import Finding, Model, Pair, Verdicts, judge
from sparkbuild.inspection.names import Names
from sparkbuild.inspection.records import DeviceCode
from tests.conftest import recipe_of

_API = ("toy_init",)
_TOY_INIT = Names(symbols=_API, complete=True)
_STRIPPED = Names(symbols=_API)
_PAIRS = (
    r"_Z\d+flash_caseILi(?P<head>\d+)E(?:Li\d+E)?L9toy_type(?P<k>\d+)ELS\d*_(?P<v>\d+)E\w*",
    r"_Z\d+flash_kernelILi(?P<head>\d+)E(?:Li\d+E)*L9toy_type(?P<k>\d+)ELS\d*_(?P<v>\d+)E\w*",
)


def rules_of(*features: Feature, **changes: Any) -> Features:  # noqa: ANN401 - any field
    rules = Features(
        schema=1,
        name="toy",
        unmarked="Toy, or a fork",
        family=r"libtoy[\w.-]*\.so[\w.]*",
        api="toy_init",
        features=(*features, Feature("cuda", "CUDA", "backend", (Evidence(device_code=".+"),))),
        attention=Attention(kernels=_PAIRS, types=("f16", "q8_0"), head=128, carrier="cuda"),
        models=Models(
            anchors=("gptj", "dots1"), first=("llama", "falcon"), known=("dots1", "falcon", "gptj", "llama")
        ),
        version=Version("TOY_NUMBER", "TOY_COMMIT"),
        asked=Asked("toy_info", ("toy-server",), ("--type",), ("--draft",)),
        tensor_types=("f32", "f16"),
    )
    return msgspec.structs.replace(rules, **changes)


def feature_of(name: str, *evidence: Evidence, **changes: Any) -> Feature:  # noqa: ANN401 - any field
    return msgspec.structs.replace(Feature(name, f"the {name}", "cpu", evidence), **changes)


def file_of(name: str = "libtoy.so", names: Names = _TOY_INIT, **changes: Any) -> FileFacts:  # noqa: ANN401 - any field
    soname = changes.pop("soname", name)
    elf = ElfFacts(changes.pop("machine", "aarch64"), "library", soname, changes.pop("needed", ()))
    return msgspec.structs.replace(FileFacts(name, 1, elf, (), {}, names), **changes)


def verdicts(*files: FileFacts, rules: Features, recipes: tuple[Recipe, ...] = ()) -> Verdicts:
    return judge(files, rules, recipes)


def finding(name: str, *files: FileFacts, rules: Features) -> Finding:
    return next(f for f in verdicts(*files, rules=rules).findings if f.name == name)


_FAST = feature_of("fast", Evidence(symbol="fast_(?:a|b)"))


# --- one feature ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "file", "said"),
    [
        (Evidence(symbol="fast_.*"), file_of(names=Names(symbols=("fast_a",))), "symbol fast_a"),
        (Evidence(calls="fast_.*"), file_of(names=Names(calls=("fast_a",))), "calls fast_a"),
        (Evidence(calls="fast_.*"), file_of(names=Names(symbols=("fast_a",))), "calls fast_a"),
        (
            Evidence(string="FAST: yes\\s*"),
            file_of(names=Names(strings=("FAST: yes\n",))),
            "string FAST: yes",
        ),
        (Evidence(needs="libfast.*"), file_of(needed=("libc.so.6", "libfast.so.1")), "needs libfast.so.1"),
        (Evidence(instruction="dotprod"), file_of(instructions={"dotprod": 7}), "7 instructions"),
        (
            Evidence(device_code="sm_12.*"),
            file_of(device_code=(DeviceCode("sm_90", 1), DeviceCode("sm_121a", 3), DeviceCode("sm_120", 2))),
            "3 sm_121a, 2 sm_120",
        ),
    ],
    ids=lambda v: "" if isinstance(v, FileFacts) else None,
)
def test_each_kind_of_evidence(evidence: Evidence, file: FileFacts, said: str) -> None:
    assert finding("fast", file, rules=rules_of(feature_of("fast", evidence))) == Finding(
        "fast", "the fast", "cpu", "present", (f"libtoy.so: {said}",)
    )


def test_evidence_is_the_whole_name() -> None:
    file = file_of(names=Names(symbols=("toy_init", "fast_a_not"), complete=True))
    assert finding("fast", file, rules=rules_of(_FAST)).state == "absent"


def test_all_evidence_is_said_and_where_it_was_not() -> None:
    fast = feature_of("fast", Evidence(symbol="fast_a"), Evidence(needs="libfast.*"))
    here = file_of("libtoy-1.so", Names(symbols=("fast_a",)), needed=("libfast.so",))
    found = finding("fast", here, file_of("libtoy-2.so"), rules=rules_of(fast))
    assert found.evidence == ("libtoy-1.so: symbol fast_a, needs libfast.so", "1 of 2 files")


def test_of_many_files_some_are_named() -> None:
    files = [file_of(f"libtoy-{i}.so", Names(symbols=("fast_a",))) for i in range(9)]
    found = finding("fast", *files, rules=rules_of(_FAST))
    assert found.evidence == (*(f"libtoy-{i}.so: symbol fast_a" for i in range(6)), "and 3 more")


@pytest.mark.parametrize(
    ("names", "evidence", "state"),
    [
        (_TOY_INIT, Evidence(symbol="x"), "absent"),
        (_TOY_INIT, Evidence(calls="x"), "absent"),
        (_TOY_INIT, Evidence(string="x"), "absent"),
        (_STRIPPED, Evidence(symbol="x"), "absent"),  # the interface is exported, so would this be
        (_STRIPPED, Evidence(calls="x"), "unknown"),
        (_STRIPPED, Evidence(string="x"), "unknown"),
        (Names(), Evidence(symbol="x"), "unknown"),  # an executable, linked statically and stripped
        (Names(), Evidence(needs="x"), "absent"),  # what is needed is always said
        (Names(), Evidence(device_code="x"), "absent"),
        (Names(), Evidence(instruction="dotprod"), "absent"),
        (Names(), Evidence(instruction="never heard of"), "unknown"),
    ],
)
def test_absent_is_only_what_would_be_seen(names: Names, evidence: Evidence, state: str) -> None:
    found = finding("fast", file_of(names=names), rules=rules_of(feature_of("fast", evidence)))
    assert found.state == state
    assert found.evidence == ()
    words = {"absent": "looked for in libtoy.so", "unknown": "nothing in libtoy.so could show it: stripped"}
    assert found.reason.startswith(words[state])


def test_one_file_that_hides_it_is_enough_not_to_know() -> None:
    found = finding("fast", file_of(), file_of("tool", Names()), rules=rules_of(_FAST))
    assert (found.state, found.reason.split(":")[0]) == ("unknown", "nothing in tool could show it")


def test_counter_evidence() -> None:
    fast = feature_of("fast", Evidence(string="FAST=1"), counter=(Evidence(string="FAST=0"),))
    rules = rules_of(fast)
    on, off = Names(strings=("FAST=1",)), Names(strings=("FAST=0",))
    assert finding("fast", file_of(names=on), rules=rules).state == "present"
    assert finding("fast", file_of("a.so", on), file_of("b.so", off), rules=rules).state == "present"
    absent = finding("fast", file_of(names=off), rules=rules)
    assert (absent.state, absent.evidence) == ("absent", ("libtoy.so: string FAST=0",))
    silent = finding("fast", file_of(), rules=rules)
    assert (silent.state, silent.reason) == (
        "unknown",
        "nothing in these files could show it: stripped, or linked statically",
    )


# --- carriers and missing libraries --------------------------------------------------------------


def test_a_feature_is_looked_for_where_its_carrier_is() -> None:
    fast = msgspec.structs.replace(_FAST, carrier="engine")
    rules = rules_of(feature_of("engine", Evidence(symbol="engine")), fast)
    elsewhere = file_of("other.so", Names(symbols=("fast_a",)))
    engine = file_of("engine.so", Names(symbols=("engine", "toy_init")))
    assert finding("fast", elsewhere, engine, rules=rules).state == "absent"
    whole = file_of("engine.so", Names(symbols=("engine", "fast_b")))
    assert finding("fast", elsewhere, whole, rules=rules).evidence == ("engine.so: symbol fast_b",)


@pytest.mark.parametrize(("names", "state"), [(_TOY_INIT, "absent"), (Names(), "unknown")])
def test_what_a_carrier_is_not_known_to_have_is_like_the_carrier(names: Names, state: str) -> None:
    fast = msgspec.structs.replace(_FAST, carrier="engine")
    rules = rules_of(feature_of("engine", Evidence(symbol="engine")), fast)
    found = finding("fast", file_of(names=names), rules=rules)
    assert (found.state, found.reason) == (state, f"its the engine is {state}")


def test_a_library_of_the_family_that_is_not_here_may_have_it() -> None:
    rules = rules_of(_FAST)
    program = file_of("toy-server", needed=("libtoy-base.so.0", "libtoy-fast.so", "libc.so.6"))
    base = file_of("lib/libtoy-base.so.0.1", soname="libtoy-base.so.0")
    found = finding("fast", program, base, rules=rules)
    assert (found.state, found.reason) == ("unknown", "libtoy-fast.so is needed and not here")
    assert finding("fast", program, base, file_of("lib/libtoy-fast.so"), rules=rules).state == "absent"
    here = file_of("x.so", Names(symbols=("fast_a",)))
    assert finding("fast", program, here, rules=rules).state == "present"


def test_features_of_another_machine_are_not_judged() -> None:
    rules = rules_of(msgspec.structs.replace(_FAST, machine="x86_64"))
    assert verdicts(file_of(), rules=rules).state("fast") == "unknown"
    assert [f.name for f in verdicts(file_of(), rules=rules).findings] == ["cuda", "fa_all_quants"]
    assert verdicts(file_of(machine="x86_64"), rules=rules).state("fast") == "absent"


# --- attention -----------------------------------------------------------------------------------

_CUDA = (DeviceCode("sm_121", 1),)


def kernels(*symbols: str, **changes: Any) -> FileFacts:  # noqa: ANN401 - any field of Names
    names = msgspec.structs.replace(Names(symbols=(*_API, *symbols), complete=True), **changes)
    return file_of(names=names, device_code=_CUDA)


def pair(k: int, v: int, head: int = 128) -> str:
    return f"_Z10flash_caseILi{head}EL9toy_type{k}ELS0_{v}EEvR3ctx"


def test_pairs_from_host_functions_and_from_kernel_names() -> None:
    file = kernels(
        pair(1, 1, 64),
        "_Z14flash_caseILi128ELi128EL9toy_type8ELS0_2EEvR3ctx",  # K and V heads of their own size
        strings=(
            "_Z12flash_kernelILi256ELi1ELi2EL9toy_type1ELS0_8ELb0EEvPKc",
            "flash_caseILi128E",
            "--flash",
        ),
    )
    assert verdicts(file, rules=rules_of()).pairs == (
        Pair(64, "f16", "f16"),
        Pair(128, "q8_0", "q4_0"),
        Pair(256, "f16", "q8_0"),
    )


def test_types_are_named_as_the_binary_names_them() -> None:
    file = kernels(pair(2, 3), pair(99, 8), pair(4, 30), table=("f32", "f16", "turbo2", "", "own4"))
    short = file_of("b.so", Names(table=("f32",)))
    assert verdicts(short, file, rules=rules_of()).pairs == (
        Pair(128, "own4", "bf16"),
        Pair(128, "turbo2", "q4_1"),
        Pair(128, "type99", "q8_0"),
    )


def all_quants(*files: FileFacts) -> Finding:
    return finding("fa_all_quants", *files, rules=rules_of())


def test_all_quants_is_every_pair_at_that_head_size() -> None:
    every = [pair(k, v) for k in (1, 8) for v in (1, 8)]
    whole = all_quants(kernels(*every, pair(2, 2)))
    assert (whole.state, whole.evidence) == (
        "present",
        ("all 4 of 4 pairs of f16, q8_0 at head size 128",),
    )
    less = all_quants(kernels(*every[:3], pair(8, 8, 64)))
    assert (less.state, less.evidence) == (
        "absent",
        ("3 of 4 pairs of f16, q8_0 at head size 128; without q8_0/q8_0",),
    )


def test_all_quants_without_cuda_or_without_names() -> None:
    assert (all_quants(file_of()).state, all_quants(file_of()).reason) == ("absent", "its CUDA is absent")
    nameless = all_quants(kernels())
    assert (nameless.state, nameless.reason) == ("unknown", "no FlashAttention kernel has a known name")


# --- models --------------------------------------------------------------------------------------


def models(*names: Names) -> tuple[dict[str, str], str]:
    found = verdicts(*(file_of(f"{i}.so", n) for i, n in enumerate(names)), rules=rules_of())
    assert list(found.models) == sorted(found.models, key=lambda m: m.name)
    assert all(isinstance(m, Model) for m in found.models)
    return {m.name: m.state for m in found.models}, found.models_reason


def test_the_whole_table_of_models() -> None:
    run = ("llama", "falcon", "gptj", "dots1", "brand-new")
    assert models(Names(run=run, ends=("mpt",)), Names()) == (
        {"brand-new": "present", **dict.fromkeys(run, "present")},
        "",
    )


def test_a_part_of_the_table() -> None:
    states, why = models(Names(run=("gptj", "dots1"), ends=("llama", "gptj")))
    assert states == {"dots1": "present", "falcon": "absent", "gptj": "present", "llama": "unknown"}
    assert why == "the text of 1 names is there, perhaps for another use; ask at run time"


def test_ends_in_a_file_without_the_table_say_nothing() -> None:
    states, why = models(Names(run=("gptj", "dots1")), Names(ends=("llama",)))
    assert (states["llama"], why) == ("absent", "")


def test_no_table_of_models() -> None:
    assert models(Names()) == ({}, "no table of model architectures is in these files")


def test_what_is_in_the_table_and_no_model() -> None:
    rules = rules_of()
    rules = msgspec.structs.replace(rules, models=msgspec.structs.replace(rules.models, not_names=("none",)))
    file = file_of(names=Names(run=("llama", "falcon", "gptj", "dots1", "none")))
    assert "none" not in {m.name for m in verdicts(file, rules=rules).models}


# --- engine, version, options --------------------------------------------------------------------


def test_the_first_engine_whose_mark_is_there() -> None:
    fork = recipe_of(
        name="fork", title="Fork", identity=(Evidence(symbol="fork_.*"), Evidence(string="FORK"))
    )
    other = recipe_of(name="other", title="Other", identity=(Evidence(symbol="o"),))
    rules = rules_of()
    marked = file_of("b.so", Names(strings=("FORK",)))
    found = verdicts(file_of(), marked, rules=rules, recipes=(recipe_of(), other, fork))
    assert (found.engine, found.title, found.engine_evidence) == ("fork", "Fork", "b.so: string FORK")
    plain = verdicts(file_of(), rules=rules, recipes=(other, fork))
    assert (plain.engine, plain.title, plain.engine_evidence) == ("", "Toy, or a fork", "")


@pytest.mark.parametrize(
    ("number", "text", "number_said", "commit_said"),
    [
        (7, "abc", 7, "abc"),
        (0, "abc", None, "abc"),
        (7, "", 7, ""),
        (7, "unknown", 7, ""),
        (None, "", None, ""),
        (0, "", None, ""),
    ],
)
def test_version(number: int | None, text: str, number_said: int | None, commit_said: str) -> None:
    found = verdicts(file_of(names=Names()), file_of(names=Names(number=number, text=text)), rules=rules_of())
    assert (found.number, found.commit) == (number_said, commit_said)


def test_options_of_all_files() -> None:
    files = (
        file_of(names=Names(strings=("--b", "--a", "-c"))),
        file_of(names=Names(strings=("--b", "x--d"))),
    )
    assert verdicts(*files, rules=rules_of()).options == ("--a", "--b")


def test_what_is_needed_from_elsewhere() -> None:
    program = file_of("toy-server", needed=("libtoy.so.0", "libc.so.6"))
    library = file_of("lib/libtoy.so.0.1", soname="libtoy.so.0", needed=("libcudart.so.12", "libc.so.6"))
    found = verdicts(program, library, rules=rules_of(_FAST))
    assert (found.external, found.cuda_major) == (("libc.so.6", "libcudart.so.12"), 12)
    assert verdicts(program, rules=rules_of(_FAST)).cuda_major is None


def test_a_file_that_can_not_be_read_may_have_it() -> None:
    found = judge([file_of()], rules_of(_FAST), (), {"broken.so": "it is damaged"}).findings[0]
    assert (found.state, found.reason) == ("unknown", "broken.so can not be read")
