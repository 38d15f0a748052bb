from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparkbuild.artifact import timeline
from sparkbuild.artifact.timeline import Timeline
from sparkbuild.errors import StoreError

GOOD = {"schema": "sparkbuild/timeline/1", "jobs": 2, "cores": 4, "steps": {"a.o": [0, 10], "b": [10, 10]}}


def test_it_reads_back_as_it_was_written(tmp_path: Path) -> None:
    made = Timeline(timeline.SCHEMA, 2, 4, {"a.o": (0, 10), "b": (10, 10)})
    (tmp_path / timeline.NAME).write_bytes(timeline.encode(made))
    assert timeline.read(tmp_path) == made
    assert json.loads(timeline.encode(made)) == GOOD


def test_there_may_be_none(tmp_path: Path) -> None:
    assert timeline.read(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "sparkbuild/timeline/9"}, "schema"),
        ({"jobs": 0}, "jobs"),
        ({"cores": 1 << 40}, "cores"),
        ({"steps": {"a.o": [10, 9]}}, "'a.o' ends before it begins"),
        ({"steps": {"a.o": [-1, 9]}}, "steps"),
        ({"steps": {"a.o": [1]}}, "steps"),
        ({"more": 1}, "more"),
    ],
)
def test_what_does_not_hold_is_refused_and_named(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    (tmp_path / timeline.NAME).write_text(json.dumps(GOOD | changes))
    with pytest.raises(StoreError, match=said):
        timeline.read(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / timeline.NAME).write_bytes(data)
    with pytest.raises(StoreError, match="not a valid timeline"):
        timeline.read(tmp_path)


def test_one_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / timeline.NAME).open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(StoreError, match="more than 16384 KiB"):
        timeline.read(tmp_path)
