from __future__ import annotations

import pytest

from sparkbuild.build.cache import check_storage
from sparkbuild.errors import UsageError


@pytest.mark.parametrize(
    "storage", ["", "redis://h", "redis://u:p@h:6379/1|read-only", "http://h:8080/a", "file:/a/b"]
)
def test_a_storage_that_ccache_knows(storage: str) -> None:
    check_storage(storage)


@pytest.mark.threat(
    "environment",
    "--cache-storage that ccache does not know, or that adds settings of ccache's",
    "refused before anything is made, without a word of it, which may be a password",
)
@pytest.mark.parametrize(
    "storage",
    [
        *("h", "/a", "s3://h/SECRET", "https://u:SECRET@h/", "redis://u:SECRET@h:63x", "redis://u:SEC#RET@h"),
        *("redis://", "u:SECRET@h", "file:/x\nsloppiness = time_macros", "http://[SECRET"),
    ],
)
def test_a_storage_that_ccache_does_not_know(storage: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_storage(storage)
    assert "SEC" not in str(caught.value.as_dict())
    assert caught.value.__cause__ is caught.value.__context__ is None
