"""The options an engine's CMake files declare, and the variables they read, found without CMake.

A small reader of CMake's language (cmake-language(7)): comments, bracket and quoted arguments and
nested parentheses are understood, ``if`` and ``include`` are not followed. So an option counts as
declared wherever it stands; whether CMake got there is seen in its cache after configuring.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sparkbuild.files import kept
from sparkbuild.source.names import legible
from sparkbuild.source.records import Kind, Option

_TOKEN = re.compile(
    r"""
    \#\[(?P<c>=*)\[.*?(?:\](?P=c)\]|\Z) # bracket comment; what is not closed is the rest, seen once
    | \#[^\n]*                          # line comment
    | \[(?P<b>=*)\[(?P<raw>.*?)(?:\](?P=b)\]|\Z)
    | "(?P<quoted>(?:[^"\\]|\\.)*)"
    | (?P<open>\() | (?P<close>\))
    | (?P<word>(?:[^\s()\#"\\]|\\.)(?:[^\s()\#"\\]|\\.|"[^"\s]*")*)
    """,
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_READ = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CONDITIONS = frozenset({"if", "elseif", "while"})
_TYPES: dict[str, Kind] = {"BOOL": "BOOL", "STRING": "STRING", "PATH": "PATH", "FILEPATH": "FILEPATH"}
_HIDDEN = frozenset({"INTERNAL", "STATIC"})


class Declared(msgspec.Struct, frozen=True):
    """What a tree's CMake files declare, by name, and the variables they read, sorted."""

    options: dict[str, Option]
    reads: tuple[str, ...]


class Kept(msgspec.Struct, frozen=True):
    """The part of a source tree's record that is of interest here."""

    declared: Declared


def scan(tree: Path) -> Declared:
    """Read all CMake files of a tree. Of two declarations the one nearest to the top counts."""
    options: dict[str, Option] = {}
    reads: set[str] = set()
    for path in sorted(_cmake_files(tree), key=lambda p: (len(p.parts), p)):
        text = path.read_bytes().decode("utf-8", "replace")
        for command, arguments in calls(text):
            option = _declaration(command, arguments, legible(str(path.relative_to(tree))))
            if option:
                options.setdefault(option.name, option)
            reads.update(name for a in arguments for name in _READ.findall(a))
            if command in _CONDITIONS:
                reads.update(a for a in arguments if _NAME.fullmatch(a))
    return Declared(options, tuple(sorted(reads)))


def calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """Return each command (in lower case) of a CMake file with its arguments."""
    command, depth = "", 0
    arguments: list[str] = []
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
            if depth == 0 and command:
                yield command.lower(), arguments
                command, arguments = "", []
            depth = max(depth, 0)
        elif depth and kind in ("raw", "quoted", "word"):
            arguments.append(token[kind].replace('\\"', '"'))
        elif kind == "word":
            command, arguments = token[0], []


def declared_options(tree_path: Path) -> dict[str, Option]:
    """Return the cache variables that a tree's CMake files declare, by name."""
    return declared(tree_path).options


def reads_variable(tree_path: Path, name: str) -> bool:
    """Return whether a tree's CMake files use a variable, as ``${NAME}`` or in a condition."""
    return name in declared(tree_path).reads


def declared(tree_path: Path) -> Declared:
    """Return all of it: what the record beside a checked-out tree says, else scan."""
    record = kept(tree_path.parent / "source.json", Kept) if tree_path.name == "tree" else None
    return record.declared if record else scan(tree_path)


def _cmake_files(tree: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            if (name == "CMakeLists.txt" or name.endswith(".cmake")) and not path.is_symlink():
                yield path


def _declaration(command: str, arguments: list[str], file: str) -> Option | None:
    name = arguments[0] if arguments else ""
    if not _NAME.fullmatch(name):
        return None
    if command in ("option", "cmake_dependent_option"):
        help_text = arguments[1] if len(arguments) > 1 else ""
        return Option(name, "BOOL", "".join(arguments[2:3]) or "OFF", help_text, file)
    if command == "set" and "CACHE" in arguments:
        at = arguments.index("CACHE")
        word, help_text, *_ = [*arguments[at + 1 :], "", ""]
        if word not in _HIDDEN:
            return Option(name, _TYPES.get(word, "variable"), ";".join(arguments[1:at]), help_text, file)
    return None
