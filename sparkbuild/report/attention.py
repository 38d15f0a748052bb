"""KV cache types of each artifact: which pairs have a FlashAttention vector kernel, by head size."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from sparkbuild.inspection.features import ALL_QUANTS, Verdicts
from sparkbuild.page import text
from sparkbuild.report.gather import Shown
from sparkbuild.report.matrix import column

_Pairs = frozenset[tuple[str, str]]
_LEGEND = (
    "Which pairs have a FlashAttention vector kernel: K (-ctk) down, V (-ctv) across; "
    '<b class="good">\N{BLACK CIRCLE}</b> it has, <b class="dim">\N{MIDDLE DOT}</b> it has not.'
)


def section(shown: Sequence[Shown]) -> str:
    """Return the grids of all artifacts; those that have no kernel share a line for each reason."""
    types = _types({t for s in shown for p in s.manifest.verdicts.pairs for t in (p.k, p.v)})
    without: defaultdict[str, list[str]] = defaultdict(list)
    grids = []
    for s in shown:
        if s.manifest.verdicts.pairs:
            grids.append(_artifact(s, types))
        else:
            without[_why_none(s.manifest.verdicts)].append(s.letter)
    return "\n".join(
        [
            "<h2>KV cache types</h2>",
            f"<p>{_LEGEND}</p>",
            *grids,
            *(f"<p>{', '.join(letters)}: {text(why)}</p>" for why, letters in without.items()),
        ]
    )


def _why_none(verdicts: Verdicts) -> str:
    found = next((f for f in verdicts.findings if f.name == ALL_QUANTS), None)
    if not found:
        return "not looked for"
    known = "no such kernel" if found.state == "absent" else "not known"
    return f"{known}: {found.reason}" if found.reason else known


def _types(names: set[str]) -> list[str]:
    """Return types by their bits, the most first: f16, q8_0, q4_0."""
    return sorted(names, key=lambda n: (-int((re.findall(r"\d{1,9}", n) or ["0"])[0]), n))


def _artifact(shown: Shown, types: Sequence[str]) -> str:
    heads: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
    for p in shown.manifest.verdicts.pairs:
        heads[p.head].add((p.k, p.v))
    same: defaultdict[_Pairs, list[int]] = defaultdict(list)
    for head in sorted(heads):
        same[frozenset(heads[head])].append(head)
    grids = "\n".join(_grid(sizes, pairs, types) for pairs, sizes in same.items())
    note = shown.manifest.run.pairs_note
    said = f"<p>Other pairs: {text(note)}</p>" if note else ""
    title = f"<h3>{shown.letter} {text(column(shown))}</h3>"
    return f'{title}\n<div class="grids">\n{grids}\n</div>\n{said}'


def _grid(sizes: Sequence[int], pairs: _Pairs, types: Sequence[str]) -> str:
    across = "".join(f'<th scope="col"><span>{text(t)}</span></th>' for t in types)
    rows = "\n".join(
        f'<tr><th scope="row">{text(k)}</th>' + "".join(_cell((k, v) in pairs) for v in types) + "</tr>"
        for k in types
    )
    plural = "s" if len(sizes) > 1 else ""
    caption = f"head size{plural} {', '.join(map(str, sizes))} <small>{len(pairs)} pairs</small>"
    return (
        f'<table class="kv">\n<caption>{caption}</caption>\n<thead><tr><td></td>{across}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>"
    )


def _cell(fast: bool) -> str:
    return '<td class="fast">\N{BLACK CIRCLE}</td>' if fast else '<td class="slow">\N{MIDDLE DOT}</td>'
