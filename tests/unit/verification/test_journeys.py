"""What each stage says of a flag, from things seen that are made by hand, and the verdict over all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sparkbuild.build.commands import Entry
from sparkbuild.build.configure import CacheEntry
from sparkbuild.catalog.records import Asked, Attention, Evidence, Feature, Features, Models, Shown, Version
from sparkbuild.inspection.elf import ElfFacts
from sparkbuild.inspection.facts import FileFacts
from sparkbuild.inspection.features import Finding, State, Verdicts
from sparkbuild.inspection.names import Names
from sparkbuild.inspection.records import DeviceCode
from sparkbuild.inspection.report import SystemReport
from sparkbuild.planning import Definition
from sparkbuild.toolchain import FeatureProof
from sparkbuild.verification import Journey, Seen, Stage, failures, follow
from sparkbuild.verification.compiled import commanded, proved
from sparkbuild.verification.configured import cached, declared
from sparkbuild.verification.running import built, running
from tests.conftest import compilers_of, intent_of, options_of, recipe_of

_ARCH = "CMAKE_CUDA_ARCHITECTURES"
_RULES = Features(
    schema=1,
    name="toy",
    unmarked="Toy",
    family="libtoy.*",
    api="toy_init",
    features=(
        Feature("fast", "Fast", "cpu", (Evidence(symbol="fast"),), runtime="CPU.FAST"),
        Feature("wide", "Wide", "cpu", (Evidence(symbol="wide"),), runtime="CPU.WIDE"),
        Feature("mute", "Mute", "cpu", (Evidence(symbol="mute"),)),
    ),
    attention=Attention((), (), 128, "cuda"),
    models=Models((), (), ()),
    version=Version("N", "C"),
    asked=Asked("toy_info", (), (), ()),
    tensor_types=(),
)


def seen_of(**changes: Any) -> Seen:  # noqa: ANN401 - any field
    both = intent_of(
        "fast", "TOY_FAST=ON", "TOY_QUICK=all", shown=Shown(command="-DFAST", features=("fast",))
    )
    return msgspec.structs.replace(Seen((), recipe_of(both), _RULES), **changes)


def flag_of(name: str = "TOY_FAST", value: str = "ON", origin: str = "recipe:fast") -> Definition:
    return Definition(name, value, "because", origin, required=True)


def said(stage: Stage) -> str:
    return f"{stage.state}: {stage.said}"


def cache_of(*lines: str) -> dict[str, CacheEntry]:
    """Return a cache from lines such as NAME:TYPE=VALUE."""
    cut = [line.replace(":", "=", 1).split("=", 2) for line in lines]
    return {name: CacheEntry(name, kind, value) for name, kind, value in cut}


def entries(**files: str) -> tuple[Entry, ...]:
    """Return compile commands; a name's last underscore is its dot."""
    return tuple(Entry("/b", f"/s/{n[::-1].replace('_', '.', 1)[::-1]}", c) for n, c in files.items())


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("TOY_FAST", {}, "unknown: the source is not here"),
        ("TOY_FAST", {"why": {"declared": "it is gone"}}, "unknown: it is gone"),
        ("TOY_FAST", {"options": options_of("TOY_FAST")}, "held: CMakeLists.txt"),
        ("CMAKE_BUILD_TYPE", {"options": {}}, "held: CMake's own"),
        ("TOY_N", {"options": {}, "reads": {"TOY_N"}.__contains__}, "held: read, not declared"),
        ("TOY_FAST", {"options": {}}, "lost: this source neither declares nor reads it"),
    ],
)
def test_declared(name: str, changes: dict[str, Any], words: str) -> None:
    assert said(declared(flag_of(name), seen_of(**changes))) == words


_UNMET = "1, but CMake met no declaration of it"
_ENV = "is set to '1' in the environment, where CMake does not look"


@pytest.mark.parametrize(
    ("lines", "changes", "words"),
    [
        (["TOY_FAST:BOOL=1"], {}, "held: 1"),
        (["TOY_FAST:BOOL=OFF"], {}, "lost: OFF in the cache"),
        (["TOY_FAST:STRING="], {}, "lost: empty in the cache"),
        ([], {}, "lost: not in the cache"),
        ([], {"environment": {"TOY_FAST": "1"}}, f"lost: not in the cache; it {_ENV}"),
        (
            ["TOY_FAST:BOOL=OFF"],
            {"environment": {"TOY_QUICK": "1"}},
            f"lost: OFF in the cache; TOY_QUICK {_ENV}",
        ),
        (["TOY_QUICK:STRING=all"], {}, "held: by its other name, TOY_QUICK=all"),
        (["TOY_FAST:BOOL=OFF", "TOY_QUICK:STRING=all"], {}, "held: by its other name, TOY_QUICK=all"),
        (["TOY_QUICK:UNINITIALIZED=all"], {}, "lost: not in the cache"),
        (["TOY_QUICK:STRING=some"], {}, "lost: not in the cache"),
        (["TOY_FAST:UNINITIALIZED=ON"], {}, "unknown: ON, and whether the source reads it is not known"),
        (["TOY_FAST:UNINITIALIZED=ON"], {"options": {}}, "held: ON"),
    ],
)
def test_cached(lines: list[str], changes: dict[str, Any], words: str) -> None:
    assert said(cached(flag_of(), seen_of(cache=cache_of(*lines), **changes))) == words


@pytest.mark.parametrize(("kind", "state"), [("BOOL", "lost"), ("STRING", "unknown")])
def test_what_is_declared_and_was_not_met(kind: str, state: str) -> None:
    options = {"TOY_FAST": msgspec.structs.replace(options_of("TOY_FAST")["TOY_FAST"], kind=kind)}
    seen = seen_of(cache=cache_of("TOY_FAST:UNINITIALIZED=1"), options=options)
    assert said(cached(flag_of(value="1"), seen)) == f"{state}: {_UNMET}"


def test_no_cache_and_cmakes_own() -> None:
    assert said(cached(flag_of(), seen_of())) == "unknown: no CMake cache"
    own = seen_of(cache=cache_of("CMAKE_X:UNINITIALIZED=1"))
    assert said(cached(flag_of("CMAKE_X", "1"), own)) == "held: 1"


_MARCH, _CMD = Shown(march=True), Shown(command="-DFAST", files="*.c")
_NEVER = Shown(never="-m(arch|cpu)=native")
_CUDA = Shown(features=("cuda",))
_SM = "-gencode=arch=compute_121a,code=sm_121a"


@pytest.mark.parametrize(
    ("shown", "value", "commands", "words"),
    [
        (Shown(), "ON", {"a_c": ""}, "none: "),
        (
            _MARCH,
            "-march=v8",
            {"a_c": "-march=v9 -march=v8", "b_cu": ""},
            "held: the last on 1, no other on 1",
        ),
        (_MARCH, "v8", {"a_c": "-march=v8 -march=v9", "b_c": "-march=v8"}, "lost: v9 wins on a.c, of 2"),
        (
            _MARCH,
            "v8",
            {f"{n}_c": "-march=v9" for n in "abcde"},
            "lost: v9 wins on a.c, b.c, c.c and 2 more, of 5",
        ),
        (_MARCH, "v8", {"a_c": "-O3"}, "lost: on none of 1 commands"),
        (_CMD, "ON", {"a_c": "-DFAST", "b_cpp": ""}, "held: on all of 1"),
        (_CMD, "ON", {"a_c": "-DFAST", "b_c": ""}, "lost: missing on b.c, of 2"),
        (_CMD, "OFF", {"a_c": "-DFAST", "b_c": ""}, "lost: there on a.c, of 2"),
        (_CMD, "OFF", {"a_c": ""}, "held: on none of 1"),
        (_CMD, "ON", {"a_cpp": "-DFAST"}, "lost: no *.c is compiled"),
        (_CMD, "OFF", {"a_cpp": ""}, "held: no *.c is compiled"),
        (_NEVER, "OFF", {"a_c": "-mcpu=native"}, "lost: a.c: -mcpu=native"),
        (_NEVER, "OFF", {"a_c": "-O3"}, "held: on none of 1"),
        (_NEVER, "ON", {"a_c": "-O3"}, "none: "),
        (_CUDA, "ON", {"a_cu": "", "b_cu": "", "c_c": ""}, "held: 2 CUDA sources are compiled"),
        (_CUDA, "ON", {"c_c": ""}, "lost: 0 CUDA sources are compiled"),
        (_CUDA, "OFF", {"c_c": ""}, "held: 0 CUDA sources are compiled"),
        (_CUDA, "OFF", {"a_cu": ""}, "lost: 1 CUDA sources are compiled"),
    ],
)
def test_commanded(shown: Shown, value: str, commands: dict[str, str], words: str) -> None:
    found = commanded(flag_of(value=value), shown, value != "OFF", seen_of(commands=entries(**commands)))
    assert said(found) == words


@pytest.mark.parametrize(
    ("value", "commands", "words"),
    [
        ("121", {"a_cu": _SM, "b_c": ""}, "held: 121a on all of 1"),
        ("90;121", {"a_cu": f"{_SM} -arch=sm_90"}, "held: 121a, 90 on all of 1"),
        ("121", {"a_cu": _SM, "b_cu": "-arch=sm_90"}, "lost: 90 on b.cu, of 2"),
        ("121", {"a_cu": ""}, "lost: nvcc's default on a.cu, of 1"),
        ("121", {"a_c": ""}, "lost: no CUDA source is compiled"),
        ("native", {"a_cu": ""}, "none: decided by nvcc on this machine"),
    ],
)
def test_commanded_architectures(value: str, commands: dict[str, str], words: str) -> None:
    seen = seen_of(commands=entries(**commands))
    assert said(commanded(flag_of(_ARCH, value), Shown(), True, seen)) == words


def test_no_commands() -> None:
    assert said(commanded(flag_of(), _CMD, True, seen_of())) == "unknown: no compile commands"


def test_proved() -> None:
    good, bad = FeatureProof("dotprod", macro=True, code=True), FeatureProof("fp16", macro=True, code=False)
    tried = [seen_of(compilers=compilers_of(proofs=p)) for p in ((), (good,), (good, bad))]
    words = ["unknown: not tried", "held: dotprod", "lost: it does not give fp16"]
    assert [said(proved(_MARCH, True, s)) for s in tried] == words
    assert said(proved(_MARCH, True, seen_of())) == "unknown: not tried"
    assert proved(_MARCH, False, tried[1]).state == proved(_CMD, True, tried[1]).state == "none"


def verdicts_of(**states: State) -> Verdicts:
    found = tuple(Finding(n, n, "cpu", s, (), f"{n}'s reason") for n, s in states.items())
    return Verdicts("toy", "Toy", "", None, "", found, (), "", (), "", ())


_FEATURES = Shown(features=("fast", "wide"))


@pytest.mark.parametrize(
    ("on", "states", "changed", "words"),
    [
        (True, {"fast": "present", "wide": "present"}, (), "held: fast present, wide present"),
        (True, {"fast": "present", "wide": "absent"}, (), "lost: wide is absent: wide's reason"),
        (False, {"fast": "absent", "wide": "present"}, (), "lost: wide is present: wide's reason"),
        (True, {"fast": "unknown", "wide": "absent"}, (), "lost: wide is absent: wide's reason"),
        (True, {"fast": "present", "wide": "unknown"}, (), "unknown: wide: wide's reason"),
        (True, {"fast": "present"}, (), "held: fast present"),
        (True, {"other": "present"}, (), "none: "),
        (True, {"fast": "present"}, ("a.so", "b.so"), "lost: not the file that was built: a.so, b.so"),
        (True, {"fast": "unknown"}, ("a.so",), "lost: not the file that was built: a.so"),
        (True, {"fast": "absent"}, ("a.so",), "lost: fast is absent: fast's reason"),
    ],
)
def test_built(on: bool, states: dict[str, State], changed: tuple[str, ...], words: str) -> None:
    assert (
        said(built(flag_of(), _FEATURES, on, seen_of(verdicts=verdicts_of(**states), changed=changed)))
        == words
    )


@pytest.mark.parametrize(
    ("value", "names", "words"),
    [
        ("121", ("sm_121a", "compute_121a"), "held: compute_121a, sm_121a"),
        ("121a-real", ("sm_121",), "held: sm_121"),
        ("121", ("sm_121a", "sm_90"), "lost: sm_121a, sm_90"),
        ("121", (), "lost: no device code"),
        ("native", ("sm_90",), "held: sm_90"),
        ("native", (), "lost: no device code"),
    ],
)
def test_built_for_architectures(value: str, names: tuple[str, ...], words: str) -> None:
    code = tuple(DeviceCode(n, 1) for n in names)
    file = FileFacts("libtoy.so", 1, ElfFacts("aarch64", "library"), code, {}, Names())
    assert (
        said(built(flag_of(_ARCH, value), Shown(), True, seen_of(files=(file,), verdicts=verdicts_of())))
        == words
    )


def test_nothing_built_and_nothing_to_see() -> None:
    assert said(built(flag_of(), _FEATURES, True, seen_of())) == "unknown: nothing is built"
    assert built(flag_of(), Shown(), True, seen_of()).state == "none"


@pytest.mark.parametrize(
    ("on", "system", "words"),
    [
        (True, None, "unknown: not run"),
        (True, SystemReport("not run", "no emulator"), "unknown: no emulator"),
        (
            True,
            SystemReport("native", features={"CPU": {"FAST": "1", "WIDE": "1"}}),
            "held: fast, wide (native)",
        ),
        (True, SystemReport("qemu", features={"CPU": {"FAST": "1"}}), "lost: it reports wide as absent"),
        (False, SystemReport("qemu", features={"CPU": {"FAST": "1"}}), "lost: it reports fast as present"),
        (True, SystemReport("qemu", features={"": {"FAST": "1"}}), "held: fast (qemu)"),
        (True, SystemReport("qemu", features={"": {"FAST": "0"}}), "lost: it reports fast as absent"),
        (False, SystemReport("qemu", features={"": {"FAST": "0"}}), "held: fast (qemu)"),
        (True, SystemReport("native"), "none: it does not report this"),
    ],
)
def test_running(on: bool, system: SystemReport | None, words: str) -> None:
    assert said(running(flag_of(), _FEATURES, on, seen_of(system=system))) == words
    assert running(flag_of(), Shown(features=("mute",)), on, seen_of(system=system)).state == "none"


def one(flag: Definition, earlier: tuple[Journey, ...] = (), **changes: Any) -> Journey:  # noqa: ANN401
    (journey,) = follow(seen_of(definitions=(flag,), **changes), earlier)
    return journey


_SET: dict[str, Any] = {
    "options": options_of("TOY_FAST", "TOY_PLAIN"),
    "cache": cache_of("TOY_FAST:BOOL=ON", "TOY_PLAIN:BOOL=ON"),
}
_ON: dict[str, Any] = {"commands": entries(a_c="-DFAST")}
_BARE: dict[str, Any] = {"commands": entries(a_c="")}


@pytest.mark.parametrize(
    ("name", "changes", "verdict", "lost_at", "why"),
    [
        ("TOY_FAST", _SET | _ON, "in force", "", "in force"),
        ("TOY_PLAIN", _SET, "set", "", "set"),
        ("TOY_FAST", _SET, "unknown", "", "not known: no compile commands"),
        ("TOY_PLAIN", {}, "unknown", "", "not known: the source is not here"),
        ("TOY_FAST", _SET | _BARE, "lost", "commands", "lost at commands: missing on a.c, of 1"),
        ("TOY_FAST", _BARE | {"cache": {}}, "lost", "cache", "lost at cache: not in the cache"),
        (
            "TOY_FAST",
            _SET | _ON | {"verdicts": verdicts_of(fast="absent")},
            "lost",
            "binary",
            "lost at binary: fast is absent: fast's reason",
        ),
    ],
)
def test_verdict(name: str, changes: dict[str, Any], verdict: str, lost_at: str, why: str) -> None:
    journey = one(flag_of(name), **changes)
    assert (journey.verdict, journey.lost_at, journey.why) == (verdict, lost_at, why)
    assert failures([journey]) == ([] if verdict in ("in force", "set") else [f"{name}=ON: {why}"])
    assert not failures([msgspec.structs.replace(journey, required=False)])


def test_earlier_stages_are_kept_up_to_the_compiler() -> None:
    earlier = one(flag_of(), **_SET, **_ON)
    later = one(flag_of(), (earlier,), verdicts=verdicts_of(fast="present"), cache={}, options={})
    assert later.stages[:5] == earlier.stages[:5]
    assert (later.stages[5].state, later.verdict) == ("held", "in force")


def test_what_sparkbuild_adds_is_followed_only_where_it_is_required() -> None:
    own = flag_of(origin="sparkbuild")
    assert follow(seen_of(definitions=(msgspec.structs.replace(own, required=False),))) == ()
    assert one(own).stages[0] == Stage("asked", "held", "sparkbuild")
    assert not one(msgspec.structs.replace(own, origin="user", required=False)).failed


@pytest.mark.parametrize(
    ("value", "verdict"), [("all", "lost"), ("q4_0-q4_0", "set"), ("OFF", "in force"), ("ON", "set")]
)
def test_a_recipes_marks_are_those_of_its_own_value(value: str, verdict: str) -> None:
    """A person's own list of pairs has not the mark of "all"; the compile commands here lack that mark."""
    flag = flag_of("TOY_QUICK", value, "user")
    cache = {"TOY_QUICK": CacheEntry("TOY_QUICK", "STRING", value)}
    plain = Shown(command="-DFAST")
    recipe = recipe_of(intent_of("fast", "TOY_FAST=ON", "TOY_QUICK=all", shown=plain))
    commands = (Entry("/b", "/s/a.c", "cc -c a.c"),)
    seen = Seen((flag,), recipe, _RULES, options_of("TOY_QUICK"), cache=cache, commands=commands)
    (journey,) = follow(seen)
    assert journey.verdict == verdict
