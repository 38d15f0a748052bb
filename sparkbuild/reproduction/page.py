"""A reproduction as one HTML page that needs nothing else: no script, no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

from sparkbuild.inspection.runtime import printable
from sparkbuild.reproduction.records import LADDER, Cause, FileComparison, Level, Rebuild, Reproduction

_MEANS: dict[Level, str] = {
    "identical": "every byte is the same",
    "stripped": "the same but for what the normaliser takes away",
    "device code": "the same GPU code",
    "features": "the same features",
    "different": "not even the same features",
}
_CSS = """
:root { color-scheme: light dark; --line: #8886; --good: #17662f; --bad: #a8271c; }
@media (prefers-color-scheme: dark) { :root { --good: #6fd08c; --bad: #ff9d90; } }
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
summary { cursor: pointer; }
summary, td span { white-space: nowrap; }
ol { list-style: none; padding: 0; }
ol li { border: 1px solid var(--line); padding: .3rem .8rem; margin: .2rem 0; }
ol li[aria-current] { border: 2px solid; border-left-width: .6rem; }
.good { color: var(--good); }
.bad { color: var(--bad); }
@media (max-width: 40rem) {
  thead { display: none; }
  dl { grid-template-columns: 1fr; }
  dt { font-weight: bold; }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td { display: block; border: 0; padding: 0; }
  td::before { content: attr(data-head) ": "; }
  td details { display: inline-block; vertical-align: top; }
}
"""
_STYLE = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
# Only this very style sheet counts, and nothing is fetched, run or sent.
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE}'; base-uri 'none'; form-action 'none'"


def page(report: Reproduction) -> str:
    """Return the page. Every text of the report is shown as it is, but for control characters."""
    title = _text(f"Reproduction of {report.title}, {report.key[:12]}: {report.verdict}")
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>",
        _facts(report),
        *(f"<p>Note: {_text(note)}</p>" for note in report.notes),
        _inputs(report) if report.verdict == "not comparable" else _ladder(report.verdict),
        *(_rebuild(number, rebuild) for number, rebuild in enumerate(report.rebuilds, 1)),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _facts(report: Reproduction) -> str:
    return _list(
        {
            "target": f"{report.arch}, {report.backend}",
            "commit": report.commit or "unknown",
            "manifest": report.manifest,
            "key": report.key,
            "built on": report.built_on,
            "rebuilt on": report.rebuilt_on,
            "rebuilt by": report.rebuilt_by,
            "started": report.started.isoformat(sep=" ", timespec="seconds"),
            "normaliser": report.normaliser,
            "sparkbuild": report.sparkbuild,
        }
    )


def _inputs(report: Reproduction) -> str:
    rows = [[_text(i.name), _text(i.recorded), _text(i.here)] for i in report.inputs]
    return "<h2>Nothing was built</h2>\n" + _table(
        "inputs that are not the recorded ones", ("input", "recorded", "here"), rows
    )


def _ladder(reached: Level) -> str:
    at = LADDER.index(reached)
    steps = []
    for number, level in enumerate(LADDER):
        mark = "\N{BALLOT X} not reached" if number < at else "\N{CHECK MARK} holds too"
        if number == at:
            mark = "\N{BLACK RIGHT-POINTING TRIANGLE} <strong>the verdict</strong>"
        elif level == "different":
            mark = "\N{EN DASH} no"
        here = ' aria-current="true"' if number == at else ""
        steps.append(f"<li{here}><strong>{level}</strong>: {_MEANS[level]} ({mark})</li>")
    return "<h2>How near it came</h2>\n<ol>\n" + "\n".join(steps) + "\n</ol>"


def _rebuild(number: int, rebuild: Rebuild) -> str:
    varied = [[_text(v.name), _text(v.was), _text(v.became)] for v in rebuild.varied]
    files = [[_text(f.path), _level(f.level), _hash(f.recorded), _again(f)] for f in rebuild.files]
    parts = [
        f"<h2>Rebuild {number}: {_level(rebuild.level)}</h2>",
        f"<p>It took {rebuild.wall_seconds:.0f} s.</p>",
        _table("varied", ("what", "was", "became"), varied) if varied else "<p>Nothing was varied.</p>",
        _table("files", ("file", "level", "recorded", "rebuilt"), files),
        _cause(rebuild.cause) if rebuild.cause else "",
    ]
    return "\n".join(parts)


def _cause(cause: Cause) -> str:
    facts = {
        "first file that differs": cause.output,
        "differs in": ", ".join(cause.kinds),
        "command run twice in one place": cause.replay,
        "cure": cause.cure or "none known",
    }
    parts = ["<h3>Cause</h3>", _list(facts), "<p>Made by</p>", _block(cause.command)]
    if cause.samples:
        parts += ["<p>Samples</p>", *map(_block, cause.samples)]
    if cause.detail:
        parts += ["<p>Detail</p>", _block(cause.detail)]
    return "\n".join(parts)


def _level(level: Level) -> str:
    mark, style = ("\N{CHECK MARK}", "good") if level == "identical" else ("\N{BALLOT X}", "bad")
    return f'<span class="{style}">{mark} {level}</span>'


def _again(file: FileComparison) -> str:
    return "the same" if file.rebuilt and file.rebuilt == file.recorded else _hash(file.rebuilt)


def _hash(digest: str) -> str:
    """Return a hash of which 12 digits are seen until somebody opens it."""
    if not digest:
        return "no such file"
    return (
        f"<details><summary><code>{_text(digest[:12])}</code></summary><code>{_text(digest)}</code></details>"
    )


def _list(facts: dict[str, str]) -> str:
    rows = "\n".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    return f"<dl>\n{rows}\n</dl>"


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already; on a narrow screen each cell names its column."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "\n".join(
        "<tr>"
        + "".join(f'<td data-head="{h}">{cell}</td>' for h, cell in zip(heads, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f"<table>\n<caption>{caption}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    )


def _block(text: str) -> str:
    return f"<pre>{_text(text)}</pre>"


def _text(text: str) -> str:
    return escape(printable(text))
