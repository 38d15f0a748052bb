"""Moving the pin in a recipe's text: four values, whatever the text looks like, and no other byte."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sparkbuild.catalog import load
from sparkbuild.catalog.records import Recipe, Revision, Shelf
from sparkbuild.errors import UsageError
from sparkbuild.updating import pin
from tests.kills import killed

_OLD = Revision("a1" * 20, "b2" * 20, 17, 1_700_000_000)
_NEW = Revision("c3" * 20, "d4" * 20, 23, 1_800_000_000)
_TABLE = """[git] # the pin
# commit = "{commit}", build_number = 17: a comment's values stay
url = "https://example.org/toy.git"
  commit    =   '{commit}'  # after Tuesday's merge
tree="{tree}"
build_number = 17 # of 17
commit_time = 1700000000
"""
_DOTTED = """git.url = "https://example.org/toy.git"
git.commit = "{commit}"
git . "tree" = "{tree}"
git.build_number = 17
git.commit_time = 1700000000
"""
_INLINE = (
    'git = {{ commit_time = 1700000000, build_number = 17, tree = "{tree}", commit = "{commit}", '
    'url = "https://example.org/toy.git" }}\n'
)
_TOP = """schema = 1
name = "toy"
title = '''
[git]
commit = "{commit}"
build_number = 17 '''
homepage = "https://example.org/{commit}"
version_target = "tool"
version_pattern = '(?P<number>17) (?P<commit>x)'
"""
_REST = """
[state]
status = "active"
[targets]
cpu = ["tool"]
[sdist] # has values of its own, which are the same
root = "vendor"
commit = "{commit}"
tree = "{tree}"
build_number = 17
commit_time = 1700000000
[sdist.pin]
project = "toy"
file = "toy-17.tar.gz"
sha256 = "{sha256}"
size = 17
[[intents]]
name = "seventeen"
why = "build_number = 17"
choose = [{{ option = "BUILD_17", value = "17" }}]
"""
_FORMS = {
    "a table": _TOP + _TABLE + _REST,
    "a table at the end": _TOP + _REST + _TABLE,
    "dotted keys": _TOP + _DOTTED + _REST,
    "an inline table": _TOP + _INLINE + _REST,
}


def recipe(folder: Path, form: str = "a table") -> Shelf[Recipe]:
    path = folder / "recipes" / "toy.toml"
    path.parent.mkdir(exist_ok=True)
    text = _FORMS[form].format(commit=_OLD.commit, tree=_OLD.tree, sha256="e5" * 32)
    path.write_bytes(text.replace("\n", "\r\n").encode())
    return load(path, Recipe)


@pytest.mark.parametrize("form", _FORMS)
def test_four_values_and_no_other_byte(form: str, tmp_path: Path) -> None:
    shelf = recipe(tmp_path, form)
    before = shelf.path.read_bytes()
    pin.move(shelf, _NEW)
    after = shelf.path.read_bytes()
    wanted = tomllib.loads(before.decode())
    wanted["git"] |= {n: getattr(_NEW, n) for n in Revision.__struct_fields__}
    assert tomllib.loads(after.decode()) == wanted
    assert len(before.split(b"\r\n")) == len(after.split(b"\r\n"))
    differ = [
        n for n, (a, b) in enumerate(zip(before.split(b"\n"), after.split(b"\n"), strict=True)) if a != b
    ]
    assert len(differ) == (1 if form == "an inline table" else 4)
    pin.move(load(shelf.path, Recipe), _OLD)
    assert shelf.path.read_bytes() == before


def test_through_a_link(tmp_path: Path) -> None:
    shelf = recipe(tmp_path)
    real = shelf.path.rename(tmp_path / "elsewhere.toml")
    real.chmod(0o660)
    shelf.path.symlink_to(real)
    pin.move(shelf, _NEW)
    assert shelf.path.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o660
    assert load(shelf.path, Recipe).record.git.commit == _NEW.commit


@pytest.mark.threat(
    "faults", "an editor saves a recipe while its new pin is tried", "refused; the edit stays"
)
def test_changed_meanwhile(tmp_path: Path) -> None:
    shelf = recipe(tmp_path)
    edited = shelf.path.read_bytes() + b"# mine\r\n"
    shelf.path.write_bytes(edited)
    with pytest.raises(UsageError, match="changed while its new pin was tried"):
        pin.move(shelf, _NEW)
    assert shelf.path.read_bytes() == edited


def test_a_number_in_another_form_is_refused(tmp_path: Path) -> None:
    shelf = recipe(tmp_path)
    shelf.path.write_bytes(shelf.path.read_bytes().replace(b"= 1700000000", b"= 1_700_000_000"))
    before = shelf.path.read_bytes()
    with pytest.raises(UsageError, match=r"git\.commit_time does not stand there"):
        pin.move(load(shelf.path, Recipe), _NEW)
    assert shelf.path.read_bytes() == before


@pytest.mark.threat(
    "faults", "SIGKILL at every step of a recipe's new pin", "the old recipe or the new, whole"
)
def test_killed_at_every_step(tmp_path: Path) -> None:
    shelf = recipe(tmp_path)
    old = shelf.path.read_bytes()
    pin.move(shelf, _NEW)
    new = shelf.path.read_bytes()
    found = []
    for step in range(100):
        shelf.path.write_bytes(old)
        if not killed(step, lambda: pin.move(shelf, _NEW)):
            break
        found.append(shelf.path.read_bytes())
    assert set(found) == {old, new}
    assert shelf.path.read_bytes() == new


@pytest.mark.parametrize("case", ["read-only", "site-packages", "installed"])
def test_a_recipe_that_is_not_ours_to_write(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / {"read-only": "mine", "site-packages": "site-packages", "installed": "data"}[case]
    root.mkdir()
    shelf = recipe(root)
    if case == "read-only":
        shelf.path.chmod(0o444)
    if case == "installed":
        monkeypatch.setattr(pin, "shipped_root", lambda: root)
    with pytest.raises(UsageError) as refused:
        pin.check_writable(shelf.path)
    assert "--catalog DIR" in refused.value.remedy


def test_ones_own_recipe_may_be_written(tmp_path: Path) -> None:
    pin.check_writable(recipe(tmp_path).path)
