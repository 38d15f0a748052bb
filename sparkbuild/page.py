"""An HTML page that needs nothing else: no script, no network, no other file. Its frame, style and parts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from sparkbuild.inspection.runtime import printable

_CSS = """
:root { color-scheme: light dark; --line: #8886; --good: #17662f; --bad: #a8271c; --dim: #666; }
@media (prefers-color-scheme: dark) { :root { --good: #6fd08c; --bad: #ff9d90; --dim: #aaa; } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: anywhere; }
h1 { line-height: 1.2; }
h2 { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: 1rem; }
code, pre { font: .9em/1.5 ui-monospace, monospace; }
pre { white-space: pre-wrap; border: 1px solid var(--line); padding: .5rem; margin: .3rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dd { margin: 0; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
caption { text-align: left; font-weight: bold; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line); }
.rows thead th { white-space: nowrap; }
summary { cursor: pointer; }
summary, td span { white-space: nowrap; }
ol { list-style: none; padding: 0; }
ol li { border: 1px solid var(--line); padding: .3rem .8rem; margin: .2rem 0; }
ol li[aria-current] { border: 2px solid; border-left-width: .6rem; }
.good { color: var(--good); }
.bad { color: var(--bad); }
.dim { color: var(--dim); }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; }
  dt { font-weight: bold; }
  .rows thead { display: none; }
  .rows tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .rows td { display: block; border: 0; padding: 0; }
  .rows td::before { content: attr(data-head) ": "; }
  .rows td[data-head=""]::before { content: none; }
  .rows td details { display: inline-block; vertical-align: top; }
}
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3, caption { break-after: avoid; }
  tr, li, figure { break-inside: avoid; }
}
"""


def page(title: str, parts: Iterable[str], css: str = "") -> str:
    """Return a whole page of parts that are HTML already; ``css`` is added to the style all pages share.

    Only this very style sheet counts, and nothing is fetched, run or sent.
    """
    style = _CSS + css
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    lines = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>",
        f"<h1>{text(title)}</h1>",
        *parts,
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(lines)


def facts(named: Mapping[str, str]) -> str:
    """Return names and what is known of each."""
    rows = "\n".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in named.items())
    return f"<dl>\n{rows}\n</dl>"


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], style: str = "rows") -> str:
    """Return a table of cells that are HTML already.

    With the style "rows" each row is a list on a narrow screen, of cells that name their column.
    """
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "\n".join(
        "<tr>"
        + "".join(f'<td data-head="{h}">{cell}</td>' for h, cell in zip(heads, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<table class="{style}">\n<caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    )


def short_hash(digest: str) -> str:
    """Return a hash of which 12 digits are seen until somebody opens it."""
    return (
        f"<details><summary><code>{text(digest[:12])}</code></summary><code>{text(digest)}</code></details>"
    )


def block(words: str) -> str:
    """Return text as it is, line by line."""
    return f"<pre>{text(words)}</pre>"


def text(words: str) -> str:
    """Return words as HTML shows them, without what could steer anything."""
    return escape(printable(words))
