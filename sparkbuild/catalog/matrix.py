"""What continuous integration builds: a row for each engine, target machine and backend of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import msgspec

from sparkbuild.catalog import Catalog
from sparkbuild.catalog.records import Backend, Intent, Recipe, Toolchain


class Row(msgspec.Struct, frozen=True):
    """One build. ``require`` is what ``probe --require`` must find in it: features, by name."""

    name: str
    engine: str
    arch: str
    backend: Backend
    require: tuple[str, ...]


def matrix(catalog: Catalog, archs: Sequence[str], backends: Sequence[Backend] = ()) -> tuple[Row, ...]:
    """Return a row for each engine, each of ``archs`` and each backend that it has targets for.

    Raises UsageError for a target machine that is not known.
    """
    toolchains = [catalog.toolchain(arch).record for arch in dict.fromkeys(archs)]
    return tuple(
        _row(shelf.record, toolchain, backend)
        for _, shelf in sorted(catalog.recipes().items())
        for toolchain in toolchains
        for backend in get_args(Backend)
        if shelf.record.targets.get(backend) and backend in (backends or get_args(Backend))
    )


def _row(recipe: Recipe, toolchain: Toolchain, backend: Backend) -> Row:
    wanted = (f for i in recipe.intents if _on(i, toolchain, backend) for f in i.shown.features)
    name = f"{recipe.name}-{toolchain.name}-{backend}"
    return Row(name, recipe.name, toolchain.name, backend, tuple(sorted(set(wanted))))


def _on(intent: Intent, toolchain: Toolchain, backend: Backend) -> bool:
    """Return whether a required intent switches something on in this build: what it shows must be there."""
    given = not intent.shown.march or bool(toolchain.cpu_arch)  # without, it is the building machine's own
    value = intent.choose[0].value.replace("{cuda}", "ON" if backend == "cuda" else "OFF")
    return intent.required and backend in intent.backends and given and value != "OFF"
