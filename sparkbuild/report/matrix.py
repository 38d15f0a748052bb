"""A table with a column for each artifact and a mark in each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparkbuild.page import text
from sparkbuild.report.gather import Shown

Marks = Mapping[str, tuple[str, str]]
# What is in a cell: the mark and its style.
STATE: Marks = {
    "present": ("\N{CHECK MARK}", "good"),
    "absent": ("\N{EN DASH}", "dim"),
    "unknown": ("?", "doubt"),
}
FLAG: Marks = {
    "in force": ("\N{CHECK MARK}", "good"),
    "set": ("=", "good"),
    "lost": ("\N{BALLOT X}", "bad"),
    "unknown": ("?", "doubt"),
    "": ("", "dim"),
}
_SAID = {"": "not asked", "set": "set, and nothing else could show it"}


def matrix(
    caption: str, shown: Sequence[Shown], rows: Sequence[tuple[str, Sequence[str]]], marks: Marks
) -> str:
    """Return the table; each row is a head (HTML already) and a word of ``marks`` for each artifact."""
    heads = "".join(
        f'<th scope="col"><b>{s.letter}</b> <span class="wide">{text(column(s))}</span></th>' for s in shown
    )
    body = "\n".join(
        f'<tr><th scope="row">{head}</th>' + "".join(_cell(word, marks) for word in words) + "</tr>"
        for head, words in rows
    )
    return (
        f'<div class="scroll"><table class="matrix">\n'
        f"<caption>{caption} <small>{legend(marks)}</small></caption>\n"
        f"<thead><tr><td></td>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def column(shown: Shown) -> str:
    """Return what tells an artifact from others, as short as can be."""
    target = shown.manifest.target
    return f"{shown.manifest.engine.name} {target.arch} {target.backend}"


def legend(marks: Marks) -> str:
    """Return what the marks mean."""
    return ", ".join(f"{mark or 'empty'} {_SAID.get(word, word)}" for word, (mark, _) in marks.items())


def _cell(word: str, marks: Marks) -> str:
    mark, style = marks[word]
    return f'<td class="{style}" title="{_SAID.get(word, word)}">{mark}</td>'
