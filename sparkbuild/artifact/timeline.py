"""The timeline of a build: when each step ran, kept beside the manifest in timeline.json.

It is no part of the artifact: two builds of the same bytes take different times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sparkbuild.catalog.records import Record
from sparkbuild.errors import StoreError
from sparkbuild.handover import plain_bytes

NAME = "timeline.json"
SCHEMA: Literal["sparkbuild/timeline/1"] = "sparkbuild/timeline/1"
_MOST = 16 << 20  # bytes; of a real build some ten thousand
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class Timeline(Record, frozen=True):
    """When each step of a build began and ended, in milliseconds since the first, by its output file.

    ``jobs`` is how many steps ninja was to run at once, ``cores`` how many the machine had. A step with
    several outputs is there once for each of them, at the same time.
    """

    schema: Literal["sparkbuild/timeline/1"]
    jobs: _Count
    cores: _Count
    steps: dict[str, tuple[_Milliseconds, _Milliseconds]]

    def __post_init__(self) -> None:
        """Raise ValueError when a step ends before it begins."""
        for name, (start, end) in self.steps.items():
            if end < start:
                raise ValueError(f"the step {name!r} ends before it begins")


def encode(timeline: Timeline) -> bytes:
    """Return the timeline as JSON, a line a step, with a final newline."""
    return msgspec.json.format(msgspec.json.encode(timeline), indent=1) + b"\n"


def read(folder: Path) -> Timeline | None:
    """Return the timeline in an artifact's folder, None where there is none.

    Raises StoreError for one that does not hold.
    """
    path = folder / NAME
    try:
        return msgspec.json.decode(plain_bytes(path, _MOST), type=Timeline)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as problem:
        raise StoreError(
            f"not a valid timeline: {problem}", where=str(path), remedy="remove it; nothing needs it"
        ) from problem
