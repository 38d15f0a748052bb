"""What a rebuild does differently, and what it says when this machine does not allow that."""

from __future__ import annotations

import msgspec
import pytest

from sparkbuild.errors import UsageError
from sparkbuild.reproduce import sets_of_variations
from sparkbuild.reproduction import variations
from sparkbuild.reproduction.variations import VARIATIONS, vary
from tests.conftest import manifest_of


@pytest.fixture
def namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variations, "why_no_namespace", lambda _: "")


@pytest.mark.usefixtures("namespaces")
def test_everything() -> None:
    manifest = manifest_of()
    around, varied, notes = vary(VARIATIONS, manifest, None)
    assert {v.name for v in varied} | {n.partition(" ")[0] for n in notes} == VARIATIONS.keys()
    assert all(v.was != v.became for v in varied)
    assert not around.isolation.network
    assert around.umask == 0o077
    assert around.jobs != manifest.build.jobs
    assert around.environment["TZ"] != "UTC"


@pytest.mark.usefixtures("namespaces")
def test_nothing_but_the_network() -> None:
    around, varied, notes = vary((), manifest_of(), None)
    assert (varied, notes, around.environment, around.umask) == ((), (), {}, 0o022)
    assert not around.isolation.network


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize(("was", "became"), [(1, 2), (3, 4), (4, 5), (5, 4), (64, 5), (-9, 2)])
def test_jobs_that_this_machine_bears(was: int, became: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest may come from a larger machine, or say what it likes."""
    monkeypatch.setattr(variations, "available_cores", lambda: 4)
    manifest = manifest_of()
    build = msgspec.structs.replace(manifest.build, jobs=was)
    around, (varied,), _ = vary(("jobs",), msgspec.structs.replace(manifest, build=build), None)
    assert (around.jobs, varied.was, varied.became) == (became, str(was), str(became))


@pytest.mark.usefixtures("namespaces")
def test_jobs_that_a_person_asks_for() -> None:
    same = manifest_of().build.jobs
    assert vary(("jobs",), manifest_of(), same)[1:] == (
        (),
        (f"jobs is not varied: {same} are asked for, as many as recorded",),
    )
    assert vary(("jobs",), manifest_of(), 7)[0].jobs == 7
    assert vary((), manifest_of(), 7)[0].jobs == 7


def test_without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variations, "why_no_namespace", lambda _: "the kernel says no")
    around, varied, notes = vary(("user", "host", "umask"), manifest_of(), None)
    assert [v.name for v in varied] == ["umask"]
    assert around.isolation.network
    assert notes == (
        "the network is not cut off: the kernel says no",
        "user is not varied: the kernel says no",
        "host is not varied: the kernel says no",
    )


def test_namespaces_without_a_network_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where AppArmor lets bwrap make namespaces but not set up the network in one."""
    monkeypatch.setattr(variations, "why_no_namespace", lambda i: "" if i.network else "loopback failed")
    around, varied, notes = vary(("host",), manifest_of(), None)
    assert (around.isolation.network, around.isolation.host) == (True, "elsewhere")
    assert ([v.name for v in varied], notes) == (["host"], ("the network is not cut off: loopback failed",))


@pytest.mark.usefixtures("namespaces")
def test_the_clock_stays_where_cuda_would_hang() -> None:
    manifest = manifest_of()
    cuda = msgspec.structs.replace(manifest, target=msgspec.structs.replace(manifest.target, backend="cuda"))
    _, varied, notes = vary(("time",), cuda, None)
    assert varied == ()
    assert "cicc" in notes[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("all", (tuple(VARIATIONS),)), ("none", ((),)), ("path", ((),)), ("path,jobs", ((), ("jobs",)))],
)
def test_how_it_is_asked_for(text: str, expected: tuple[tuple[str, ...], ...]) -> None:
    assert sets_of_variations(text) == expected


@pytest.mark.parametrize("text", ["", "clock", "jobs,", "all,jobs"])
def test_an_unknown_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="nothing to vary") as caught:
        sets_of_variations(text)
    assert "locale" in caught.value.remedy
