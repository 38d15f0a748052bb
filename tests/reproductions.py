"""Reports of reproductions, good and bad, for the tests of what shows them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from sparkbuild.reproduction.records import (
    Cause,
    FileComparison,
    InputDifference,
    Rebuild,
    Reproduction,
    Variation,
)
from tests.conftest import digest

SAME = FileComparison("bin/toy-cli", digest("cli"), digest("cli"), "identical")
SERVER = FileComparison("bin/toy-server", digest("server"), digest("server"), "identical")
DIFFERS = FileComparison("bin/toy-server", digest("server"), digest("another"), "stripped")
CAUSE = Cause(
    output="src/CMakeFiles/toy.dir/stamp.c.o",
    command="cc -O3 -c stamp.c -o stamp.c.o",
    kinds=("time stamp", "embedded path"),
    samples=("12:34:56", "src/stamp.c"),
    replay="differs each time",
    cure="give -Wdate-time and mend what it names",
    detail="__TIME__ in stamp.c",
)
# What is known of a cause when nothing more can be found out.
BARE = Cause("a.o", "cc a.c", ("code",), (), "not run", "")
PATH = Variation("path", "build", "another build")
GOOD = Rebuild((PATH,), "identical", (SAME, SERVER), 61.0)
BAD = Rebuild((PATH, Variation("umask", "022", "077")), "stripped", (SAME, DIFFERS), 7323.0, CAUSE)
INPUT = InputDifference("compilers", "gcc 13.3", "gcc 14.2")

HOSTILE = '<script>alert(\'x\')</script>" onload="y" & \x00\x1b[31m\x9b\u202e\ud800 </style>'


def reproduction_of(**changes: Any) -> Reproduction:  # noqa: ANN401 - any field
    report = Reproduction(
        schema="sparkbuild/reproduction/1",
        sparkbuild="0.1.0",
        engine="toy",
        title="Toy",
        key=digest("key"),
        arch="board",
        backend="cuda",
        manifest=digest("manifest"),
        commit="a" * 40,
        built_on="Linux 6 aarch64",
        rebuilt_on="Linux 7 x86_64",
        rebuilt_by="somebody@example.invalid",
        started=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        verdict="stripped",
        inputs=(),
        rebuilds=(GOOD, BAD),
        normaliser="toy-strip 1",
        notes=("the network was not cut off",),
    )
    return msgspec.structs.replace(report, **changes)


def incomparable() -> Reproduction:
    return reproduction_of(verdict="not comparable", inputs=(INPUT,), rebuilds=())


def hostile(value: Any) -> Any:  # noqa: ANN401 - any record
    """Return the same record with what an attacker might write before each free text in it."""
    if isinstance(value, tuple):
        return tuple(map(hostile, value))
    if isinstance(value, msgspec.Struct):
        fixed = ("schema", "backend", "verdict", "level", "replay", "kinds", "state", "status", "letter")
        old = msgspec.structs.asdict(value)
        return type(value)(
            **{
                k: v if k in fixed and not isinstance(v, msgspec.Struct) else hostile(v)
                for k, v in old.items()
            }
        )
    if isinstance(value, dict):
        return {hostile(k): hostile(v) for k, v in value.items()}
    return HOSTILE + value if isinstance(value, str) and value else value
