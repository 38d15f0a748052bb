from __future__ import annotations

import pytest

from sparkbuild import errors
from sparkbuild.errors import SparkbuildError, did_you_mean

_CODES = {
    "finding": 1,
    "usage": 2,
    "missing": 3,
    "source": 4,
    "configure": 5,
    "compile": 6,
    "binary": 7,
    "store": 8,
    "bug": 101,
    "interrupted": 130,
}


def test_each_kind_has_its_exit_code() -> None:
    kinds: list[type[SparkbuildError]] = [SparkbuildError, *SparkbuildError.__subclasses__()]
    public = {k.kind: k.exit_code for k in kinds if k.__module__ == errors.__name__}
    assert public == _CODES


def test_an_error_as_json_holds_what_is_known() -> None:
    problem = errors.MissingError("no x", where="here")
    assert str(problem) == "no x"
    assert problem.as_dict() == {"kind": "missing", "exit_code": 3, "what": "no x", "where": "here"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("alpa", "did you mean alpha? "), ("zzz", ""), ("", ""), ("beta", "did you mean beta? ")],
)
def test_suggestions(name: str, said: str) -> None:
    assert did_you_mean(name, ["alpha", "beta"]) == said
