"""The records of a comparison of two artifacts, and the small comparisons that all of it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sparkbuild.catalog.records import Record
from sparkbuild.packages import Sha256

# Differs: both are known, and are not the same. Making: it says how or where the artifact was made, not
# what it is. Unknown: one of the two is not known.
Kind = Literal["differs", "making", "unknown"]


class Value(Record, frozen=True):
    """One thing that is not the same in both; None stands for what is not there."""

    what: str
    a: str | None
    b: str | None
    kind: Kind = "differs"


class Group(Record, frozen=True):
    """One side of the artifacts: what differs in it and what that means.

    ``only_a`` and ``only_b`` are names on one side only, in full; ``same`` says how many are on both,
    where there are names.
    """

    name: str
    meaning: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    same: int = 0

    @property
    def anything(self) -> bool:
        """True when there is something to tell."""
        return bool(self.values or self.only_a or self.only_b)

    @property
    def differs(self) -> bool:
        """True when the artifacts are not alike here, whatever their making."""
        return bool(self.only_a or self.only_b or any(v.kind == "differs" for v in self.values))


class Side(Record, frozen=True):
    """One of the two artifacts: the name it was given by, its engine and its key."""

    name: str
    engine: str
    key: Sha256


class Difference(Record, frozen=True):
    """All of it. ``summary`` is the shortest true account; ``groups`` are all, those without a word too."""

    a: Side
    b: Side
    summary: tuple[str, ...]
    groups: tuple[Group, ...]

    @property
    def differs(self) -> bool:
        """True when anything but the making differs."""
        return any(g.differs for g in self.groups)


def values(pairs: Iterable[tuple[str, str | None, str | None]], kind: Kind = "differs") -> tuple[Value, ...]:
    """Return those of (what, in A, in B) that are not the same."""
    return tuple(Value(what, a, b, kind) for what, a, b in pairs if a != b)


def by_name(
    a: Mapping[str, str], b: Mapping[str, str], kind: Kind = "differs", *, of: str = ""
) -> tuple[Value, ...]:
    """Return what differs between two tables, in the order of their names; ``of`` goes before each."""
    return values(((f"{of}{n}", a.get(n), b.get(n)) for n in sorted({*a, *b})), kind)


def known(
    pairs: Iterable[tuple[str, str | int | None, str | int | None]],
) -> tuple[Value, ...]:
    """Return as ``values`` does; what is empty, 0 or None is unknown."""
    return tuple(
        Value(what, str(a or "unknown"), str(b or "unknown"), "differs" if a and b else "unknown")
        for what, a, b in pairs
        if a != b
    )


def some(names: Sequence[str], most: int = 6) -> str:
    """Return the first names and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def many(number: int, name: str) -> str:
    """Return ``1 file`` or ``2 files``."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
