from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact import timeline as timelines
from sparkbuild.artifact.store import Stored
from sparkbuild.files import sha256_bytes
from sparkbuild.report.gather import gather, letter
from tests.conftest import manifest_of


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    (tmp_path / "manifest.json").write_bytes(manifests.encode(manifest_of()))
    return Stored(tmp_path, manifest_of())


def beside(stored: Stored, name: str, verdict: str, **changes: object) -> None:
    digest = sha256_bytes((stored.path / "manifest.json").read_bytes())
    document = {"schema": "x", "manifest": digest, "verdict": verdict, "more": {}} | changes
    (stored.path / name).write_text(json.dumps(document))


def test_nothing_lies_beside_it(stored: Stored) -> None:
    (shown,) = gather([stored])
    assert (shown.letter, shown.name, shown.size) == ("A", stored.name, len(b"the bytes of a tool"))
    assert (shown.reproduction, shown.smoke, shown.timeline, shown.notes) == ("", "", None, ())


def test_verdicts_and_a_timeline(stored: Stored) -> None:
    beside(stored, "reproduction.json", "identical")
    beside(stored, "smoke.json", "passed")
    made = timelines.Timeline(timelines.SCHEMA, 1, 1, {"a": (0, 1)})
    (stored.path / timelines.NAME).write_bytes(timelines.encode(made))
    (shown,) = gather([stored])
    assert (shown.reproduction, shown.smoke, shown.timeline) == ("identical", "passed", made)


def test_a_verdict_on_another_manifest_does_not_count(stored: Stored) -> None:
    beside(stored, "smoke.json", "passed", manifest="0" * 64)
    (shown,) = gather([stored])
    assert shown.smoke == ""
    assert shown.notes == ("smoke.json: it is of another manifest",)


def test_what_can_not_be_read_is_told_and_hides_nothing_else(stored: Stored) -> None:
    (stored.path / "smoke.json").write_text("{")
    (stored.path / timelines.NAME).write_text("[]")
    beside(stored, "reproduction.json", "stripped")
    (shown,) = gather([stored])
    assert shown.reproduction == "stripped"
    assert [n.partition(":")[0] for n in shown.notes] == ["smoke.json", "timeline.json"]


def test_a_manifest_alone_has_nothing_beside_it(stored: Stored) -> None:
    beside(stored, "smoke.json", "passed")
    (shown,) = gather([Stored(stored.path / "manifest.json", stored.manifest)])
    assert shown.smoke == ""


def test_letters() -> None:
    assert [letter(n) for n in (0, 25, 26, 27, 52, 702)] == ["A", "Z", "AA", "AB", "BA", "AAA"]
