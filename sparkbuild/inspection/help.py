"""Which options a tool has, and which values they take, as far as its --help says.

There is no format to go by; this reads what the engines' tools print today. A line that begins near
the left edge with a dash defines options, and what is further to the right describes them:

    -lm,   --load-mode MODE          how to load a model, one of:
                                     - none: ...
    -fa, --flash-attn <on|off|auto>  (default: auto)
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from sparkbuild.inspection.runtime import Question

_LIMIT = 400_000  # characters
_EDGE = 12  # columns; descriptions begin at 34 and further, and their own lists of dashes there
_OPTIONS = re.compile(r"\s*((?:--?[A-Za-z][\w.-]*(?:\(s\))?(?:,\s*|:?\s|$))+)")
# {a,b}, <a|b>, [a|b] or (a|b), after a name for it or not; commas alone do not make <pp,tg> a choice.
_CHOICE = re.compile(r"(?:\w+ )?(?:\{([^{}]+)\}|[<\[(]([^<>\[\](){}|]+\|[^<>\[\](){}]+)[>\])])")
_LIST = re.compile(r"[a-z][\w+-]*(?:,[a-z][\w+-]*)+(?!\S)")  # as an argument; N0,N1,... is none
_NAMED = re.compile(r"(?:allowed values|available \w+|one of):\s+([\w.+-]+(?:,\s+[\w.+-]+)+)")
_BULLET = re.compile(r"^\s*- ([\w.+-]+)(?: \([^()]*\))?:\s", re.MULTILINE)


class Help(msgspec.Struct, frozen=True):
    """Every --long option, sorted; and for those whose values the help names, these values in its order."""

    options: tuple[str, ...]
    values: dict[str, tuple[str, ...]]


def help_question(tool: Path) -> Question:
    """Return how a tool is asked for its --help."""
    return Question(tool, ("--help",), limit=_LIMIT)


def parse_help(text: str) -> Help:
    """Read a tool's --help. What is not understood is left out."""
    values: dict[str, tuple[str, ...]] = {}
    for names, argument, lines in _definitions(text):
        found = _values(argument, "\n".join(lines))
        for name in names:
            values[name] = values.get(name) or found
    return Help(tuple(sorted(values)), {name: found for name, found in values.items() if found})


def _definitions(text: str) -> list[tuple[list[str], str, list[str]]]:
    """Return each definition: the long options, the argument's text, the description's lines."""
    found: list[tuple[list[str], str, list[str]]] = []
    lines: list[str] = []  # of the last description; headings and examples have nowhere to go
    for line in text.expandtabs().splitlines():
        begins = line.strip() != "" and len(line) - len(line.lstrip()) <= _EDGE
        if head := _OPTIONS.match(line) if begins else None:
            argument, _, rest = line[head.end() :].partition("  ")
            lines = [rest]
            found.append((_long_names(head[1]), argument, lines))
        elif begins:
            lines = []
        else:
            lines.append(line)
    return found


def _long_names(head: str) -> list[str]:
    """Return the long options; ``--embedding(s)`` stands for two."""
    names = [word.rstrip(",:") for word in head.split() if word.startswith("--")]
    return [n for name in names for n in ([name[:-3], f"{name[:-3]}s"] if name.endswith("(s)") else [name])]


def _values(argument: str, description: str) -> tuple[str, ...]:
    if choice := _CHOICE.match(argument):
        words = (choice[1] or choice[2]).replace(" - ", "-")  # some are printed as "a - b | c"
        return tuple(word.strip() for word in re.split(r"[|,]", words))
    if listed := _LIST.match(argument):
        return tuple(listed[0].split(","))
    if named := _NAMED.search(description):
        return tuple(re.split(r",\s+", named[1]))
    return tuple(_BULLET.findall(description))
