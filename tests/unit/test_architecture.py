"""What the house promises about its own code: imports go one way, engines are data, only cli prints."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparkbuild
from sparkbuild.catalog import Catalog, shipped_root

_PACKAGE = Path(sparkbuild.__file__).parent
_MODULES = sorted(_PACKAGE.rglob("*.py"))

# Each room may import from the rooms above it and from itself.
_ROOMS = (
    {"errors", "progress", "handover"},
    {"process", "files", "trees"},
    {"rooms", "network", "faults"},
    {"packages", "archives"},
    {"catalog", "transport"},
    {"source", "toolchain"},
    {"planning"},
    {"build", "inspection"},
    {"verification", "page"},
    {"artifact"},
    {"evidence"},
    {"checking", "comparing", "reproduction", "serving", "smoke", "report"},
    {"request"},
    {"making"},
    {"pipeline"},
    {"bisect", "verify", "reproduce", "publish", "updating", "schedule"},
    {"intake"},
    {"cli"},
    {"__main__"},
)
_FLOOR = {room: floor for floor, rooms in enumerate(_ROOMS) for room in rooms}


def room(path: Path) -> str:
    return path.relative_to(_PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the rooms of sparkbuild that a module imports, late imports too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{a.name}" for a in node.names]
        else:
            continue
        yield from (n.split(".")[1] for n in names if n.startswith("sparkbuild."))


def test_every_room_has_a_floor() -> None:
    assert {room(p) for p in _MODULES} - {"__init__"} <= _FLOOR.keys()


@pytest.mark.parametrize("path", _MODULES, ids=lambda p: str(p.relative_to(_PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    for there in imported(ast.parse(path.read_text())):
        allowed = there in (here, "__version__") or _FLOOR[there] < _FLOOR[here]
        assert allowed, f"{here} imports {there}"


@pytest.mark.parametrize("path", _MODULES, ids=lambda p: str(p.relative_to(_PACKAGE)))
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    if room(path) == "cli":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in (
                "print",
                "exit",
                "quit",
                "sys.exit",
                "os._exit",
                "click.echo",
            )


def words(tree: ast.Module) -> Iterator[str]:
    """Yield every name and string of a module but for its docstrings, which speak to people."""
    texts = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            yield node.value
        for field in ("id", "attr", "name", "arg"):
            if isinstance(found := getattr(node, field, None), str):
                yield found


@pytest.mark.parametrize("path", _MODULES, ids=lambda p: str(p.relative_to(_PACKAGE)))
def test_no_code_knows_an_engine(path: Path) -> None:
    recipes = Catalog((shipped_root(),)).recipes().values()
    names = {n for r in recipes for n in (r.record.name, *r.record.aliases)}
    options = {c.option for r in recipes for i in r.record.intents for c in i.choose}
    engine = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, sorted(names | options)))})(?![\w.])")
    assert names
    assert [w for w in words(ast.parse(path.read_text())) if engine.search(w)] == []


def test_subprocesses_go_through_one_door() -> None:
    users = {
        room(p)
        for p in _MODULES
        for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("subprocess.run", "subprocess.Popen", "os.system")
    }
    assert users == {"process"}


def test_words_reach_a_terminal_through_one_door() -> None:
    """cli/say.py leaves out what could steer it; rich draws tables and bars of words that went through it."""
    users = {
        path.name
        for path in _MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("click.echo", "click.secho")
    }
    assert users == {"say.py", "main.py"}  # main.py: the completion script, which is click's own


def test_help_waits_for_no_library() -> None:
    """Each command imports what it needs when it runs: --help needs click alone."""
    code = "import sys, sparkbuild.cli.main; print(*{n.partition('.')[0] for n in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"msgspec", "rich", "numpy", "git", "elftools", "filelock"} & set(loaded.split())
