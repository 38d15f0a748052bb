"""How another pin of a recipe is shown: what differs, for each backend what CMake made of it, the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sparkbuild.cli.render import document, table
from sparkbuild.cli.say import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparkbuild.updating.records import Changes, Tried, Update


def update(found: Update, *, as_json: bool) -> None:
    """Show an update; in JSON all of it, in tables what changed."""
    if as_json:
        document("update", **msgspec.structs.asdict(found))
        return
    old, new = found.old, found.new
    if found.verdict == "nothing to do":
        say(f"{found.engine}: {found.ref} is the pin already, {old.commit}, build {old.build_number}")
        return
    title = (
        f"{found.engine}: {old.commit[:12]} (build {old.build_number}) -> "
        f"{new.commit[:12]} (build {new.build_number})"
    )
    table(title, ("", ""), _rows(found.changes) if found.changes else ())
    for note in found.notes:
        say(f"  note: {note}")
    if found.verdict == "provable":
        done = f"written to {found.recipe}" if found.written else "not written: --dry-run"
        say(f"\nnothing gets lost; {done}", fg="green")


def _rows(changes: Changes) -> list[tuple[str, str]]:
    behind = f", {changes.behind} less" if changes.behind else ""
    rows = [("commits", f"{changes.ahead} more{behind}")]
    for change in ("added", "removed"):
        names = [
            o.name + (f" ({o.intent})" if o.intent else "") for o in changes.options if o.change == change
        ]
        rows.append((f"options {change}", _names(names)))
    defaults = [f"{o.name}: {o.before!r} -> {o.after!r}" for o in changes.options if o.change == "default"]
    rows.append(("other default", _names(defaults)))
    for intent in changes.intents:
        if intent.change not in ("same", "none"):
            near = f" (did you mean {intent.near}?)" if intent.near else ""
            spelled = f"{intent.before or 'none'} -> {intent.after or 'none'}{near}"
            rows.append((f"intent {intent.intent}", f"{intent.change}: {spelled}"))
    rows += [(f"patch {p.name}", p.fit) for p in changes.patches]
    return [*rows, *(row for b in changes.backends for row in _backend(b))]


def _backend(tried: Tried) -> list[tuple[str, str]]:
    why = f": {tried.why}" if tried.why else ""
    rows: list[tuple[str, str]] = [(tried.backend, f"{tried.state}{why}")]
    lists = {"targets gone": tried.targets_gone, "programs gone": tried.gone, "programs new": tried.new}
    rows += [(f"  {what}", _names(names)) for what, names in lists.items() if names]
    return rows + [("  deprecated", line) for line in tried.deprecated]


def _names(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names)}" if names else "none"
