"""What a rebuild does differently on purpose: none of it may change a byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from sparkbuild import process
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.build import Surroundings
from sparkbuild.build.jobs import available_cores
from sparkbuild.reproduction.records import Variation
from sparkbuild.toolchain.place import why_no_namespace

_USER = 4242
_HOST = "elsewhere"
_ZONE = "ELSE-13:30"  # POSIX form: it needs no time zone files
_UMASK = 0o077
_DAYS = 400
_FAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")

Change = Callable[[Surroundings, Manifest], tuple[Surroundings, str, str]]


class ImpossibleError(Exception):
    """A variation that this machine does not allow; the message says why."""


def vary(
    names: Iterable[str], manifest: Manifest, jobs: int | None
) -> tuple[Surroundings, tuple[Variation, ...], tuple[str, ...]]:
    """Return the surroundings of a rebuild, what differs in them, and notes on what could not differ.

    The network is off where it can be; ``jobs`` is what a person asked for.
    """
    around, varied, notes = Surroundings(jobs=jobs), [], []
    try:
        around = _isolated(around, network=False)
    except ImpossibleError as problem:
        notes.append(f"the network is not cut off: {problem}")
    for name in names:
        try:
            around, was, became = VARIATIONS[name](around, manifest)
            varied.append(Variation(name, was, became))
        except ImpossibleError as problem:
            notes.append(f"{name} is not varied: {problem}")
    return around, tuple(varied), tuple(notes)


def _user(around: Surroundings, _manifest: Manifest) -> tuple[Surroundings, str, str]:
    return _isolated(around, user=_USER), f"uid {os.getuid()} here", f"uid {_USER}"


def _host(around: Surroundings, _manifest: Manifest) -> tuple[Surroundings, str, str]:
    return _isolated(around, host=_HOST), f"{os.uname().nodename} here", _HOST


def _isolated(around: Surroundings, **changes: bool | int | str) -> Surroundings:
    isolation = msgspec.structs.replace(around.isolation, **changes)
    if reason := why_no_namespace(isolation):
        raise ImpossibleError(reason)
    return msgspec.structs.replace(around, isolation=isolation)


def _zone(around: Surroundings, manifest: Manifest) -> tuple[Surroundings, str, str]:
    return _told(around, manifest, "TZ", _ZONE)


def _locale(around: Surroundings, manifest: Manifest) -> tuple[Surroundings, str, str]:
    try:
        known = process.run(["locale", "-a"]).output.split()
    except process.ProcessError:
        known = []
    other = next((x for x in known if not x.startswith(("C", "POSIX"))), "C")
    return _told(around, manifest, "LC_ALL", other)


def _told(around: Surroundings, manifest: Manifest, name: str, value: str) -> tuple[Surroundings, str, str]:
    return _with_environment(around, {name: value}), manifest.build.environment.get(name, ""), value


def _with_environment(around: Surroundings, more: dict[str, str]) -> Surroundings:
    return msgspec.structs.replace(around, environment=around.environment | more)


def _umask(around: Surroundings, _manifest: Manifest) -> tuple[Surroundings, str, str]:
    return msgspec.structs.replace(around, umask=_UMASK), f"{Surroundings().umask:03o}", f"{_UMASK:03o}"


def _jobs(around: Surroundings, manifest: Manifest) -> tuple[Surroundings, str, str]:
    """Return one job more than recorded, or what is next to it and not more than a core bears."""
    was = manifest.build.jobs
    count = around.jobs or min(max(was, 1), available_cores()) + 1
    if count == was and around.jobs:
        raise ImpossibleError(f"{was} are asked for, as many as recorded")
    count -= count == was
    return msgspec.structs.replace(around, jobs=count), str(was), str(count)


def _time(around: Surroundings, manifest: Manifest) -> tuple[Surroundings, str, str]:
    """Set the clock with libfaketime; the times of files stay true, for ninja's sake."""
    if manifest.target.backend == "cuda":
        raise ImpossibleError("CUDA's cicc never ends under libfaketime, so the clock only went on by itself")
    library = next((p for pattern in _FAKETIME for p in Path("/").glob(pattern[1:])), None)
    if not library:
        raise ImpossibleError("libfaketime is not installed, so the clock only went on by itself")
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"+{_DAYS}d",
        "NO_FAKE_STAT": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return _with_environment(around, faked), "now", f"{_DAYS} days later"


VARIATIONS: dict[str, Change] = {
    "user": _user,
    "host": _host,
    "zone": _zone,
    "locale": _locale,
    "umask": _umask,
    "jobs": _jobs,
    "time": _time,
}
