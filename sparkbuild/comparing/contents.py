"""What two artifacts can do, compared: features, KV pairs, models, options, what they say when they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sparkbuild.artifact.manifest import Manifest
from sparkbuild.comparing.differences import Group, Value, by_name, known, many, values
from sparkbuild.inspection.features import ALL_QUANTS, Finding, Verdicts


def features(a: Manifest, b: Manifest) -> Group:
    """Compare what the binaries prove of each feature."""
    one, two = ({f.name: f for f in m.verdicts.findings} for m in (a, b))
    found: list[Value] = []
    has: dict[str, list[str]] = {"A": [], "B": []}
    unsure: list[str] = []
    for name in dict.fromkeys((*one, *two)):
        states = [_state(t.get(name)) for t in (one, two)]
        if states[0] == states[1]:
            continue
        unknown = "unknown" in states
        found.append(
            Value(name, _told(one.get(name)), _told(two.get(name)), "unknown" if unknown else "differs")
        )
        if unknown:
            unsure.append(name)
        else:
            has["A" if states[0] == "present" else "B"].append(name)
    other = {"A": "B", "B": "A"}
    said = [f"{n} has {', '.join(names)}; {other[n]} has not" for n, names in has.items() if names]
    said += [f"not known on one side: {', '.join(unsure)}"] if unsure else []
    return Group("features", tuple(said), tuple(found))


def _state(found: Finding | None) -> str:
    return found.state if found else "unknown"


def _told(found: Finding | None) -> str:
    if not found:
        return "unknown: not looked for"
    return f"unknown: {found.reason}" if found.state == "unknown" else found.state


def pairs(a: Manifest, b: Manifest) -> Group:
    """Compare which KV cache types have a vector kernel, by head size."""
    unknown = [_pairs_unknown(m.verdicts) for m in (a, b)]
    one, two = (set(m.verdicts.pairs) for m in (a, b))
    if any(unknown):
        told = [why or many(len(p), "pair") for why, p in zip(unknown, (one, two), strict=True)]
        return Group("KV pairs", (), _unsure("vector kernels", told))
    heads = [Counter(p.head for p in s) for s in (one, two)]
    counts = (
        (f"head size {h}", _count(heads[0][h]), _count(heads[1][h])) for h in sorted({*heads[0], *heads[1]})
    )
    only = [tuple(f"{p.k}/{p.v} @{p.head}" for p in sorted(s)) for s in (one - two, two - one)]
    said = [*_lacking("A", "B", a, only[1]), *_lacking("B", "A", b, only[0])]
    return Group("KV pairs", tuple(said), values(counts), only[0], only[1], len(one & two))


def _count(number: int) -> str | None:
    return many(number, "pair") if number else None


def _unsure(what: str, told: list[str]) -> tuple[Value, ...]:
    """Return what of one or both is not known as a row; none where the same is not known of both."""
    return (Value(what, told[0], told[1], "unknown"),) if told[0] != told[1] else ()


def _pairs_unknown(verdicts: Verdicts) -> str:
    """Return why the pairs are not known: no kernel was found, and something may hide them."""
    if verdicts.pairs or verdicts.state(ALL_QUANTS) == "absent":
        return ""
    return _told(next((f for f in verdicts.findings if f.name == ALL_QUANTS), None))


def _lacking(lacks: str, has: str, made: Manifest, missing: tuple[str, ...]) -> Iterator[str]:
    if not missing:
        return
    yield f"{lacks} lacks FlashAttention vector kernels for {many(len(missing), 'pair')} that {has} has"
    if not made.verdicts.pairs:
        reason = next((f.reason for f in made.verdicts.findings if f.name == ALL_QUANTS and f.reason), "")
        yield f"{lacks} has none at all" + (f": {reason}" if reason else "")
    elif made.run.pairs_note:
        yield f"in {lacks}: {made.run.pairs_note}"


def models(a: Manifest, b: Manifest) -> Group:
    """Compare which model architectures they know."""
    one, two = ({m.name: str(m.state) for m in v.verdicts.models} for v in (a, b))
    told = {n: (one.get(n, "unknown"), two.get(n, "unknown")) for n in sorted({*one, *two})}
    only_a = tuple(n for n, s in told.items() if s == ("present", "absent"))
    only_b = tuple(n for n, s in told.items() if s == ("absent", "present"))
    unsure = Counter(s for s in told.values() if s[0] != s[1] and "unknown" in s)
    found = (
        Value(many(n, "architecture"), _model(s[0], a), _model(s[1], b), "unknown")
        for s, n in sorted(unsure.items())
    )
    sides = (("A", "B", only_a), ("B", "A", only_b))
    said = [f"{n} knows {many(len(o), 'architecture')} that {m} does not" for n, m, o in sides if o]
    same = sum(s == ("present", "present") for s in told.values())
    return Group("models", tuple(said), tuple(found), only_a, only_b, same)


def _model(state: str, made: Manifest) -> str:
    return f"{state}: {made.verdicts.models_reason}" if state == "unknown" else state


def options(a: Manifest, b: Manifest) -> Group:
    """Compare the words of their tools that look like options."""
    one, two = set(a.verdicts.options), set(b.verdicts.options)
    only = (tuple(sorted(one - two)), tuple(sorted(two - one)))
    return Group("options", (), (), *only, len(one & two))


def running(a: Manifest, b: Manifest) -> Group:
    """Compare what they say of themselves; what did not run said nothing."""
    one, two = (_says(m) for m in (a, b))
    asked = [m.system.ran not in ("not run", "failed") for m in (a, b)]
    found: tuple[Value, ...] = (
        *known(
            (
                ("build number it says", a.version.number, b.version.number),
                ("commit it says", a.version.commit, b.version.commit),
                ("build number in files", a.verdicts.number, b.verdicts.number),
                ("commit in files", a.verdicts.commit, b.verdicts.commit),
                ("engine that its marks show", a.verdicts.engine, b.verdicts.engine),
            )
        ),
        *values(
            (
                ("--version ran", a.version.ran, b.version.ran),
                ("system report ran", a.system.ran, b.system.ran),
            ),
            "making",
        ),
    )
    if all(asked):
        found += by_name(one, two)
    elif one != two:
        said = ["" if k else f"unknown: {m.system.reason}" for k, m in zip(asked, (a, b), strict=True)]
        shown = [s or many(len(t), "line") for s, t in zip(said, (one, two), strict=True)]
        found += _unsure("what it says", shown)
    return Group("run time", (), found)


def _says(made: Manifest) -> dict[str, str]:
    tables = dict(made.system.features)
    tables |= {b.name: {**tables.get(b.name, {}), **b.features} for b in made.system.backends}
    return {f"{s} {n}".strip(): v for s, t in tables.items() for n, v in t.items()}


PARTS = (features, pairs, models, options, running)
