from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sparkbuild.catalog import Catalog, check, load, shipped_root
from sparkbuild.catalog.records import CudaWheels, Recipe, Toolchain
from sparkbuild.errors import UsageError
from sparkbuild.files import Folders, sha256_file

_RECIPE = """\
schema = 1
name = "toy"
aliases = ["little"]
title = "Toy"
homepage = "https://example.invalid"
version_target = "toy-server"
version_pattern = '(?P<number>\\d+) (?P<commit>\\w+)'
[state]
status = "active"
[git]
url = "https://example.invalid/toy.git"
commit = "0123456789012345678901234567890123456789"
tree = "0123456789012345678901234567890123456789"
build_number = 1
commit_time = 1
[targets]
cpu = ["toy-server"]
[roles]
server = "toy-server"
[[intents]]
name = "cuda"
why = "because"
required = true
choose = [{ option = "TOY_CUDA", value = "{cuda}" }]
[[failures]]
pattern = "not found"
meaning = "m"
remedy = "r"
"""
_TOOLCHAIN = """\
schema = 1
name = "board"
title = "Board"
processor = "aarch64"
[cuda]
arch = "121"
wheels = "13.0"
[[cuda.refuse]]
versions = "<12.9"
why = "because"
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a maker of catalogue files."""

    def make(text: str, name: str = "toy", kind: str = "recipes", root: str = "mine") -> Path:
        path = tmp_path / root / kind / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return make


@pytest.fixture
def shipped() -> Catalog:
    return Catalog((shipped_root(),))


# --- the shipped catalogue -----------------------------------------------------------------------


def test_the_shipped_catalogue_holds(shipped: Catalog) -> None:
    found = check(shipped)
    assert [c.problem for c in found if c.problem] == []
    assert {c.path.parent.name for c in found} == {
        *("recipes", "features", "switches", "profiles"),
        *("toolchains", "cuda"),
    }
    assert {c.path for c in found} == set(shipped_root().glob("recipes/**/*.toml")) | set(
        shipped_root().glob("toolchains/**/*.toml")
    )


def test_every_shipped_recipe_is_whole(shipped: Catalog) -> None:
    taken: set[str] = set()
    for name, shelf in shipped.recipes().items():
        recipe = shelf.record
        assert shelf.digest == sha256_file(shelf.path)
        assert set(recipe.targets) == {"cpu", "cuda"}
        assert set(recipe.roles.values()) <= set(recipe.targets["cuda"])
        assert {"server", "cli", "bench", "quantize"} <= recipe.roles.keys()
        assert recipe.version_target in recipe.targets["cpu"]
        assert {i.name for i in recipe.intents if i.required} >= {
            "cuda",
            "native",
            "arm_arch",
            "fa_all_quants",
        }
        assert not taken & {name, *recipe.aliases}, "a name or alias is taken twice"
        taken |= {name, *recipe.aliases}


def test_every_shipped_patch_belongs_to_a_recipe(shipped: Catalog) -> None:
    listed = {p for shelf in shipped.recipes().values() for p in shelf.patches}
    assert listed == set((shipped_root() / "patches").glob("*/*"))
    for shelf in shipped.recipes().values():
        assert list(shelf.patches) == sorted(shelf.patches)
        assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.patch", p.name) for p in shelf.patches)


def test_every_shipped_toolchain_names_wheels_that_exist(shipped: Catalog) -> None:
    for shelf in shipped.toolchains().values():
        wheels = shipped.cuda_wheels(shelf.record.cuda.wheels).record
        assert {(w.machine, w.part) for w in wheels.wheels} == {
            (m, p) for m in ("aarch64", "x86_64") for p in ("build", "target")
        }


def test_every_shipped_feature_can_be_found_in_a_cpuinfo(shipped: Catalog) -> None:
    proofs = shipped.proofs("aarch64")
    assert [p.feature for p in proofs] == ["dotprod", "fp16", "i8mm", "bf16", "sve2"]
    first_core = shipped.cpuinfo("gb10").read_text().partition("\n\n")[0]
    assert set(re.findall(r"\S+", first_core)) >= {word for p in proofs for word in p.cpuinfo}
    assert all(p.cpuinfo for p in proofs)
    assert shipped.proofs("x86_64") == ()


def test_the_shipped_cpuinfo_is_of_two_kinds_of_core(shipped: Catalog) -> None:
    parts = re.findall(r"^CPU part\s*: (\w+)$", shipped.cpuinfo("gb10").read_text(), re.MULTILINE)
    assert (parts.count("0xd85"), parts.count("0xd87"), len(parts)) == (10, 10, 20)


def test_every_shipped_alias_leads_to_its_recipe(shipped: Catalog) -> None:
    for name, shelf in shipped.recipes().items():
        for alias in (name, *shelf.record.aliases):
            assert shipped.recipe(alias).record.name == name


# --- one file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "place", "what", "remedy"),
    [
        ("title =", "titel =", "titel", "unknown key 'titel'", "did you mean title?"),
        ("status =", "statuss =", "state.statuss", "unknown key 'statuss'", "did you mean status?"),
        (
            "required = true",
            "requierd = true",
            "intents[0].requierd",
            "unknown key",
            "did you mean required?",
        ),
        ("option =", "optoin =", "intents[0].choose[0].optoin", "unknown key", "did you mean option?"),
        ("schema = 1", "schema = 2", "schema", "Invalid enum value 2", "docs/recipes.md"),
        ("required = true", "required = 1", "intents[0].required", "Expected `bool`", "docs/recipes.md"),
        ('["toy-server"]', '"toy-server"', "targets[...]", "Expected `array`", "docs/recipes.md"),
        ('["little"]', '["../little"]', "aliases[0]", "matching regex", "docs/recipes.md"),
        ('name = "toy"', 'name = "../toy"', "name", "matching regex", "docs/recipes.md"),
        ('name = "toy"', "", "top level", "missing required field `name`", "docs/recipes.md"),
        (
            '"https://example.invalid/toy.git"',
            '"ext::sh -c id"',
            "git.url",
            "matching regex",
            "docs/recipes.md",
        ),
        ('"TOY_CUDA"', '"-DX"', "intents[0].choose[0].option", "matching regex", "docs/recipes.md"),
        (
            '[{ option = "TOY_CUDA", value = "{cuda}" }]',
            "[]",
            "intents[0].choose",
            "length",
            "docs/recipes.md",
        ),
        ("build_number = 1", "build_number = 0", "git.build_number", ">= 1", "docs/recipes.md"),
        (
            'cpu = ["toy-server"]',
            'gpu = ["toy-server"]',
            "targets",
            "Invalid enum value 'gpu'",
            "docs/recipes.md",
        ),
        ('pattern = "not found"', 'pattern = "(not found"', "failures[0].pattern", "regular", "mend"),
        ("(?P<number>\\d+)", "(?P<number>\\d+", "version_pattern", "regular expression", "mend"),
        ("(?P<number>\\d+)", "\\d+", "version_pattern", "no group 'number'", "(?P<number>...)"),
        ("(?P<commit>\\w+)", "\\w+", "version_pattern", "no group 'commit'", "(?P<commit>...)"),
        ('server = "toy-server"', 'server = "toy"', "roles.server", "not among the targets", "add it"),
        ("[roles]", "[options_of]\nbench = 'server'\n[roles]", "options_of", "no role 'bench'", "name one"),
        (
            'version_target = "toy-server"',
            'version_target = "x"',
            "version_target",
            "not among",
            "name a tool",
        ),
        (
            "[roles]",
            "[steps]\ndefault_seconds = nan\n[roles]",
            "steps.default_seconds",
            ">= 0.0",
            "docs/recipes.md",
        ),
        (
            "[roles]",
            "[steps]\nseconds = { '*' = inf }\n[roles]",
            "steps.seconds[...]",
            "<= 1000000000.0",
            "docs/recipes.md",
        ),
        ('name = "toy"', 'name = "tox"', "name", "holds the name 'tox'", "make the two equal"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_place(
    write: Write, old: str, new: str, place: str, what: str, remedy: str
) -> None:
    assert _RECIPE.count(old) >= 1
    path = write(_RECIPE.replace(old, new, 1))
    with pytest.raises(UsageError, match=re.escape(what)) as caught:
        load(path, Recipe)
    assert caught.value.exit_code == 2
    assert caught.value.where == f"{path}: {place}"
    assert remedy in caught.value.remedy


def test_the_base_of_these_tests_is_good(write: Write) -> None:
    assert load(write(_RECIPE), Recipe).record.title == "Toy"
    assert load(write(_TOOLCHAIN, "board", "toolchains"), Toolchain).record.title == "Board"


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ('"121"', '"12.1"', "cuda.arch", "matching regex"),
        ('"aarch64"', '"riscv"', "processor", "Invalid enum"),
        ('"<12.9"', '"12.9"', "cuda.refuse[0].versions", "Invalid specifier"),
        ("[cuda]", "[cuda]\nflags = 1", "cuda.flags", "unknown key"),
    ],
)
def test_a_bad_toolchain_is_refused_with_its_place(
    write: Write, old: str, new: str, place: str, what: str
) -> None:
    path = write(_TOOLCHAIN.replace(old, new, 1), "board", "toolchains")
    with pytest.raises(UsageError, match=what) as caught:
        load(path, Toolchain)
    assert caught.value.where == f"{path}: {place}"


@pytest.mark.parametrize("entry", ["sha256", "size", "file", "project"])
def test_a_wheel_without_its_pin_is_refused(write: Write, entry: str, shipped: Catalog) -> None:
    text = shipped.cuda_wheels("13.0").path.read_text()
    text = re.sub(rf"(?<=[{{,]) {entry} = [^,}}]+[,}}]", "", text.replace(" }", ", }")).replace(", }", " }")
    path = write(text, "13.0", "toolchains/cuda")
    with pytest.raises(UsageError, match=f"missing required field `{entry}`"):
        load(path, CudaWheels)


def test_two_intents_of_one_name_are_refused(write: Write) -> None:
    intent = _RECIPE[_RECIPE.index("[[intents]]") : _RECIPE.index("[[failures]]")]
    with pytest.raises(UsageError, match="'cuda' comes twice"):
        load(write(_RECIPE + intent), Recipe)


@pytest.mark.parametrize("data", [b"x = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_named(write: Write, data: bytes) -> None:
    path = write("")
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"cannot read toy\.toml") as caught:
        load(path, Recipe)
    assert caught.value.where == str(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "absent.toml", Recipe)


# --- folders -------------------------------------------------------------------------------------


def test_an_unknown_name_gets_a_suggestion(shipped: Catalog) -> None:
    name = next(iter(shipped.recipes()))
    with pytest.raises(UsageError) as caught:
        shipped.recipe(name[:-1] + "x")
    assert caught.value.what == f"unknown engine {name[:-1] + 'x'!r}"
    assert f"did you mean {name}?" in caught.value.remedy
    assert all(other in caught.value.remedy for other in shipped.recipes())
    with pytest.raises(UsageError, match="unknown arch 'gb1'") as caught:
        shipped.toolchain("gb1")
    assert "did you mean gb10?" in caught.value.remedy
    with pytest.raises(UsageError, match="unknown set of CUDA wheels"):
        shipped.cuda_wheels("99")


@pytest.mark.threat(
    "environment", "an engine or machine named ../x, a path, with odd characters", "unknown (2)"
)
@pytest.mark.parametrize(
    "name", ["", ".", "../toy", "/etc/passwd", "toy/../toy", "toy\n", "toy\0", "-", "x" * 5000]
)
def test_a_hostile_name_is_just_unknown(shipped: Catalog, name: str) -> None:
    for find in (shipped.recipe, shipped.toolchain, shipped.profile, shipped.cuda_wheels):
        with pytest.raises(UsageError, match="unknown"):
            find(name)


def test_an_engine_of_ones_own_needs_one_file(write: Write, folders: Folders) -> None:
    root = write(_RECIPE).parent.parent
    patch = root / "patches" / "toy" / "0001-x.patch"
    patch.parent.mkdir(parents=True)
    patch.write_text("x")
    catalog = Catalog.default(folders, [root])
    assert catalog.recipe("little").record.name == "toy"
    assert catalog.recipe("toy").patches == (patch,)


def test_later_folders_win(
    write: Write, folders: Folders, monkeypatch: pytest.MonkeyPatch, shipped: Catalog
) -> None:
    """Shipped, then configuration, then the environment, then options."""
    name = next(iter(shipped.recipes()))
    text = _RECIPE.replace('name = "toy"', f'name = "{name}"', 1)
    roots = []
    for title in ("config", "env1", "env2", "option"):
        path = write(text.replace('"Toy"', f'"{title}"'), name, root=title)
        roots.append(path.parent.parent)
    folders = msgspec.structs.replace(folders, config=roots[0])
    seen = []
    for environment, options in (([], []), (roots[1:2], []), (roots[1:3], []), (roots[1:3], roots[3:])):
        monkeypatch.setenv("SPARKBUILD_CATALOG", os.pathsep.join(map(str, environment)))
        seen.append(Catalog.default(folders, options).recipe(name).record.title)
    assert seen == ["config", "env1", "env2", "option"]
    assert set(Catalog.default(folders).recipes()) == set(shipped.recipes())


def test_toolchains_of_ones_own(write: Write, folders: Folders) -> None:
    root = write(_TOOLCHAIN, "board", "toolchains").parent.parent
    assert Catalog.default(folders, [root]).toolchain("board").path.is_relative_to(root)


def test_a_cpuinfo_of_ones_own(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog.default(folders)
    mine = folders.config / "toolchains/cpuinfo/gb10.cpuinfo"
    mine.parent.mkdir(parents=True)
    mine.write_text("Features : fp\n")
    assert catalog.cpuinfo("gb10") == mine
    (tmp_path / "copied").write_text("Features : fp\n")
    monkeypatch.chdir(tmp_path)
    assert catalog.cpuinfo("copied") == Path("copied")


@pytest.mark.parametrize("name", ["gb11", "", ".", "../gb10", "/", "a\0b", "x" * 5000])
def test_an_unknown_cpuinfo_is_refused(shipped: Catalog, name: str) -> None:
    with pytest.raises(UsageError, match="no cpuinfo") as caught:
        shipped.cpuinfo(name)
    assert caught.value.remedy.endswith("Name a file, or one of: gb10")
    assert caught.value.remedy.startswith("did you mean gb10?") == (name in ("gb11", "../gb10"))


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no such catalogue folder") as caught:
        Catalog.default(folders, [tmp_path / "absent"])
    assert caught.value.where == str(tmp_path / "absent")
    monkeypatch.setenv("SPARKBUILD_CATALOG", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="no such catalogue folder"):
        Catalog.default(folders)


def test_check_tells_good_from_bad_and_knows_kinds(write: Write) -> None:
    good, board = write(_RECIPE), write(_TOOLCHAIN, "board", "toolchains")
    bad = write("x = 1", "13.9", "toolchains/cuda")
    found = check(Catalog(()), [good, board, bad])
    assert [c.path for c in found] == [good, board, bad]
    assert [c.problem is None for c in found] == [True, True, False]
    assert [c.path for c in check(Catalog((good.parent.parent,))) if c.problem] == [bad]


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


_NO_RECIPES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda p: p.symlink_to("/dev/zero"),
    "a link in circles": lambda p: p.symlink_to(p.name),
    "a gigabyte": _sparse,
    "a key of a hundred thousand parts": lambda p: p.write_text("x" + ".x" * 100_000 + " = 1"),
    "brackets without end": lambda p: p.write_text("x = " + "[\n" * 50_000),
    "tables without end": lambda p: p.write_text("[[intents]]\n" * 20_000),
    "not UTF-8": lambda p: p.write_bytes(b'name = "\xff"'),
    "a key twice": lambda p: p.write_text('name = "toy"\nname = "toy"'),
    "a name that climbs": lambda p: p.write_text(_RECIPE.replace('"toy"', '"../toy"', 1)),
    "a name with a line break": lambda p: p.write_text(_RECIPE.replace('"toy"', '"toy\\n"', 1)),
    "an option with a line break": lambda p: p.write_text(_RECIPE.replace('option = "', 'option = "X\\n', 1)),
    "an address that is no web address": lambda p: p.write_text(
        _RECIPE.replace('url = "https', 'url = "ext::https')
    ),
}


@pytest.mark.threat(
    "environment",
    "a recipe that is a pipe, a device, a gigabyte, a link in circles, nested, with odd names or addresses",
    "refused (2) and named, never waited for",
)
@pytest.mark.parametrize("make", _NO_RECIPES.values(), ids=_NO_RECIPES.keys())
def test_a_hostile_recipe_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "recipes" / "toy.toml"
    path.parent.mkdir()
    make(path)
    with pytest.raises(UsageError) as caught:
        Catalog((tmp_path,)).recipe("toy")
    assert str(path) in caught.value.where
    assert caught.value.remedy
