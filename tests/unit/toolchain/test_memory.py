from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sparkbuild.toolchain.memory import recall

Look = Callable[..., str]


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    path = tmp_path / "compiler"
    path.write_text("one")
    return path


@pytest.fixture
def look(tmp_path: Path, seen: Path) -> Look:
    """Return a question that counts how often it was really asked."""
    asked = []

    def find() -> tuple[str, list[Path]]:
        asked.append(1)
        return f"answer {len(asked)}", [seen]

    return lambda question="q", what="w": recall(tmp_path / "cache", what, question, str, find)


def test_an_answer_is_remembered(look: Look) -> None:
    assert [look(), look()] == ["answer 1", "answer 1"]


@pytest.mark.parametrize("change", ["content", "time", "gone"])
def test_it_is_forgotten_when_a_file_changes(look: Look, seen: Path, change: str) -> None:
    look()
    if change == "content":
        seen.write_text("another")
    elif change == "time":
        os.utime(seen, ns=(1, 1))
    else:
        seen.rename(seen.with_name("elsewhere"))
        seen.symlink_to("elsewhere-too")
        seen.with_name("elsewhere-too").write_text("x")
    assert look() == "answer 2"


def test_another_question_has_another_answer(look: Look) -> None:
    assert [look("a"), look("b"), look("a"), look("a", "other")] == [
        "answer 1",
        "answer 2",
        "answer 1",
        "answer 3",
    ]


@pytest.mark.parametrize("damage", [b"", b"{", b"{}", b'{"found": 1, "stamps": {}}', b"\xff"])
@pytest.mark.threat(
    "faults",
    "a memory of compilers that is empty, cut, of another form or no text",
    "the compilers are asked again",
)
def test_a_damaged_memory_is_no_memory(look: Look, tmp_path: Path, damage: bytes) -> None:
    look()
    (memory,) = (tmp_path / "cache" / "machine").iterdir()
    memory.write_bytes(damage)
    assert look() == "answer 2"
    assert look() == "answer 2"
