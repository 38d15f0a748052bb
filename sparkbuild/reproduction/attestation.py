"""What a rebuild may claim of an artifact, as a statement that can be signed.

An in-toto Statement v1 (https://github.com/in-toto/attestation, spec/v1/statement.md) with the predicate
test-result v0.1 (spec/predicates/test-result.md there): each file of the artifact is a subject and a test.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sparkbuild.errors import UsageError
from sparkbuild.evidence import intoto
from sparkbuild.reproduction.records import LADDER, FileComparison, Level, Reproduction

_KIND = "https://in-toto.io/attestation/test-result/v0.1"
_RESULTS = ("PASSED", "WARNED", "FAILED")
# Who, where, when, of what and how, beside what the predicate has; the result does not depend on it.
_TOLD = (
    *("sparkbuild", "engine", "title", "key", "arch", "backend", "built_on", "rebuilt_on"),
    *("rebuilt_by", "started", "verdict", "normaliser", "notes"),
)


def statement(report: Reproduction) -> bytes:
    """Return the statement as sorted, indented ASCII JSON with a final newline: the bytes to be signed.

    A file passed when it is identical in every rebuild, has a warning when it is so but for what the
    normaliser takes away, and else failed; the result is that of the worst. Raises UsageError when
    nothing was rebuilt and compared.
    """
    files = _worst(report)
    if report.verdict == "not comparable" or not files:
        raise UsageError(
            "there is nothing to attest: no file was rebuilt and compared",
            where=f"manifest {report.manifest}",
            remedy="reproduce again where every input is the recorded one",
        )
    worst = max((report.verdict, *(r.level for r in report.rebuilds), *files.values()), key=LADDER.index)
    manifest = intoto.resource("manifest.json", {"sha256": report.manifest})
    source = intoto.resource("source", {"gitCommit": report.commit})
    recorded = {f.path: f.recorded for r in report.rebuilds for f in r.files if f.recorded}
    predicate = {
        "result": _result(worst),
        "configuration": [manifest, source] if report.commit else [manifest],
        **{f"{r.lower()}Tests": [p for p in sorted(files) if _result(files[p]) == r] for r in _RESULTS},
        # An extension field: a name of our own, without the dot that spec/v1 advises against.
        "sparkbuild_reproduction": _told(report),
    }
    subjects = [manifest, *(intoto.resource(p, {"sha256": recorded[p]}) for p in sorted(recorded))]
    return intoto.statement(_KIND, subjects, predicate)


def _result(level: Level) -> str:
    return {"identical": "PASSED", "stripped": "WARNED"}.get(level, "FAILED")


def _worst(report: Reproduction) -> dict[str, Level]:
    """Return each file's worst level; where a rebuild does not speak of a file it is "different"."""
    seen = [{f.path: _level(f) for f in r.files} for r in report.rebuilds]
    return {
        path: max((levels.get(path, "different") for levels in seen), key=LADDER.index)
        for path in {p for levels in seen for p in levels}
    }


def _level(file: FileComparison) -> Level:
    """Return a file's level; that it is identical is believed to its hashes only."""
    return "different" if file.level == "identical" and file.recorded != file.rebuilt else file.level


def _told(report: Reproduction) -> dict[str, Any]:
    whole = msgspec.to_builtins(report)
    brief = [{k: r[k] for k in ("level", "varied", "wall_seconds")} for r in whole["rebuilds"]]
    return {name: whole[name] for name in _TOLD} | {"rebuilds": brief}
