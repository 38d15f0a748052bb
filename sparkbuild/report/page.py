"""The report page: artifacts, their features side by side, KV pairs, flags, and how each build went."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from sparkbuild.page import page as frame
from sparkbuild.page import table, text
from sparkbuild.report import attention, chart, style
from sparkbuild.report.gather import Shown
from sparkbuild.report.matrix import FLAG, STATE, matrix

_GOOD = {"identical", "passed"}
_BAD = {"different", "features", "failed"}


def page(
    shown: Sequence[Shown], *, made: dt.datetime, left_out: Sequence[str] = (), notes: Sequence[str] = ()
) -> str:
    """Return the page; ``left_out`` are names of artifacts that found no room, ``notes`` are said on top."""
    count = f"{len(shown)} artifact{'' if len(shown) == 1 else 's'}"
    parts = [
        f'<p class="dim">{count}; made {made:%Y-%m-%d %H:%M} UTC</p>',
        *(f"<p>Note: {text(n)}</p>" for n in notes),
        *_left_out(left_out),
        _artifacts(shown),
        _features(shown),
        attention.section(shown),
        _flags(shown),
        "<h2>How the builds went</h2>",
        *(chart.section(s) for s in shown),
    ]
    return frame("sparkbuild: artifacts", parts, style.CSS)


def _left_out(names: Sequence[str]) -> Iterator[str]:
    if names:
        listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")  # noqa: PLR2004
        yield f"<p>Left out, to be readable: {text(listed)}. Name the artifacts to see others.</p>"


def _artifacts(shown: Sequence[Shown]) -> str:
    heads = ("", "artifact", "engine", "commit", "target", "size", "made", "reproduction", "smoke test")
    rows = [
        (
            f"<strong>{s.letter}</strong>",
            text(s.name),
            _engine(s),
            _commit(s),
            _target(s),
            f"<span>{s.size / 1e6:.1f} MB</span>",
            f"<span>{s.manifest.build.started:%Y-%m-%d %H:%M}</span>",
            _verdict(s.reproduction, "not tried"),
            _verdict(s.smoke, "not tried"),
        )
        for s in shown
    ]
    said = [f"<p>{s.letter}: {text(n)}</p>" for s in shown for n in s.notes]
    return "\n".join([table("Artifacts", heads, rows), *said])


def _engine(shown: Shown) -> str:
    engine = shown.manifest.engine
    if engine.state.status == "active":
        return text(engine.title)
    return f'{text(engine.title)} <span class="bad">{engine.state.status}</span>'


def _commit(shown: Shown) -> str:
    source = shown.manifest.source
    commit = f"<code>{text(source.commit[:9])}</code>" if source.commit else "unknown"
    number = f", build {source.build_number}" if source.build_number else ""
    patches = f", {len(source.patches)} patches" if len(source.patches) > 1 else ""
    return commit + number + (patches or (", 1 patch" if source.patches else ""))


def _target(shown: Shown) -> str:
    target = shown.manifest.target
    cuda = f" {target.cuda_arch}" if target.backend == "cuda" else ""
    return f"{text(target.arch)}, {target.backend}{text(cuda)}"


def _verdict(verdict: str, none: str) -> str:
    if not verdict:
        return f'<span class="dim">{none}</span>'
    style_, mark = ("good", "\N{CHECK MARK} ") if verdict in _GOOD else ("", "")
    if verdict in _BAD:
        style_, mark = "bad", "\N{BALLOT X} "
    return f'<span class="{style_}">{mark}{text(verdict)}</span>'


def _features(shown: Sequence[Shown]) -> str:
    states = {s.letter: {f.name: f.state for f in s.manifest.verdicts.findings} for s in shown}
    titles = {f.name: f.title for s in reversed(shown) for f in s.manifest.verdicts.findings}
    rows: list[tuple[str, list[str]]] = []
    alike: dict[str, list[str]] = {"present": [], "absent": [], "unknown": []}
    for name, title in titles.items():
        found: list[str] = [states[s.letter].get(name, "unknown") for s in shown]
        if len(set(found)) == 1:
            alike[found[0]].append(name)
        else:
            rows.append((f"{text(name)} <small>{text(title)}</small>", found))
    said = {"present": "In all", "absent": "In none", "unknown": "Not known of any"}
    return "\n".join(
        [
            "<h2>Features</h2>",
            matrix("What is not the same in all", shown, rows, STATE) if rows else "",
            *(f"<p>{said[state]}: {text(', '.join(names))}</p>" for state, names in alike.items() if names),
        ]
    )


def _flags(shown: Sequence[Shown]) -> str:
    verdicts = {(s.letter, j.flag, j.asked): j.verdict for s in shown for j in s.manifest.flags}
    names = dict.fromkeys((j.flag, j.asked) for s in shown for j in s.manifest.flags)
    rows = [
        (
            f"<code>{text(f'{flag}={asked}')}</code>",
            [verdicts.get((s.letter, flag, asked), "") for s in shown],
        )
        for flag, asked in sorted(names)
    ]
    bad = [
        f"<li><strong>{s.letter}</strong> {text(f'{j.flag}={j.asked}: {j.why}')}</li>"
        for s in shown
        for j in s.manifest.flags
        if j.verdict in ("lost", "unknown")
    ]
    listed = f'<ul class="plain">\n{chr(10).join(bad)}\n</ul>' if bad else "<p>None is lost or unknown.</p>"
    return "\n".join(
        ["<h2>Flags</h2>", listed, matrix("What became of each", shown, rows, FLAG) if rows else ""]
    )
