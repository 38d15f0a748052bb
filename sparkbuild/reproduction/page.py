"""A reproduction as one HTML page."""

from __future__ import annotations

from sparkbuild.page import block, facts, short_hash, table, text
from sparkbuild.page import page as frame
from sparkbuild.reproduction.records import LADDER, Cause, FileComparison, Level, Rebuild, Reproduction

_MEANS: dict[Level, str] = {
    "identical": "every byte is the same",
    "stripped": "the same but for what the normaliser takes away",
    "device code": "the same GPU code",
    "features": "the same features",
    "different": "not even the same features",
}


def page(report: Reproduction) -> str:
    """Return the page. Every text of the report is shown as it is, but for control characters."""
    title = f"Reproduction of {report.title}, {report.key[:12]}: {report.verdict}"
    parts = [
        _facts(report),
        *(f"<p>Note: {text(note)}</p>" for note in report.notes),
        _inputs(report) if report.verdict == "not comparable" else _ladder(report.verdict),
        *(_rebuild(number, rebuild) for number, rebuild in enumerate(report.rebuilds, 1)),
    ]
    return frame(title, parts)


def _facts(report: Reproduction) -> str:
    return facts(
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
    rows = [[text(i.name), text(i.recorded), text(i.here)] for i in report.inputs]
    return "<h2>Nothing was built</h2>\n" + table(
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
    varied = [[text(v.name), text(v.was), text(v.became)] for v in rebuild.varied]
    files = [[text(f.path), _level(f.level), _hash(f.recorded), _again(f)] for f in rebuild.files]
    parts = [
        f"<h2>Rebuild {number}: {_level(rebuild.level)}</h2>",
        f"<p>It took {rebuild.wall_seconds:.0f} s.</p>",
        table("varied", ("what", "was", "became"), varied) if varied else "<p>Nothing was varied.</p>",
        table("files", ("file", "level", "recorded", "rebuilt"), files),
        _cause(rebuild.cause) if rebuild.cause else "",
    ]
    return "\n".join(parts)


def _cause(cause: Cause) -> str:
    known = {
        "first file that differs": cause.output,
        "differs in": ", ".join(cause.kinds),
        "command run twice in one place": cause.replay,
        "cure": cause.cure or "none known",
    }
    parts = ["<h3>Cause</h3>", facts(known), "<p>Made by</p>", block(cause.command)]
    if cause.samples:
        parts += ["<p>Samples</p>", *map(block, cause.samples)]
    if cause.detail:
        parts += ["<p>Detail</p>", block(cause.detail)]
    return "\n".join(parts)


def _level(level: Level) -> str:
    mark, style = ("\N{CHECK MARK}", "good") if level == "identical" else ("\N{BALLOT X}", "bad")
    return f'<span class="{style}">{mark} {level}</span>'


def _again(file: FileComparison) -> str:
    return "the same" if file.rebuilt and file.rebuilt == file.recorded else _hash(file.rebuilt)


def _hash(digest: str) -> str:
    return short_hash(digest) if digest else "no such file"
