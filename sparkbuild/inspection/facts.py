"""Facts of binaries: what each file is, needs and holds, read from its bytes; nothing is judged here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sparkbuild.catalog.records import Evidence, Features, Recipe
from sparkbuild.inspection.code import count_instructions
from sparkbuild.inspection.elf import ElfFacts, read_elf
from sparkbuild.inspection.fatbin import device_code
from sparkbuild.inspection.names import Names, Wanted, read_names
from sparkbuild.inspection.records import DeviceCode


class FileFacts(msgspec.Struct, frozen=True):
    """One ELF file. ``size`` is in bytes; ``instructions`` counts those that need a CPU feature."""

    name: str
    size: int
    elf: ElfFacts
    device_code: tuple[DeviceCode, ...]
    instructions: dict[str, int]
    names: Names


def wanted_names(features: Features, recipes: Iterable[Recipe]) -> Wanted:
    """Return what has to be looked for in a file so that the rules can be judged."""
    rules = [e for f in features.features for e in (*f.evidence, *f.counter)]
    rules += [e for recipe in recipes for e in recipe.identity]
    kernels = [_GROUP.sub("(?:", k) for k in features.attention.kernels]
    return Wanted(
        symbols=(
            *_given(rules, "symbol"),
            *_given(rules, "calls"),
            *kernels,
            features.api,
            features.asked.library,
        ),
        strings=(*_given(rules, "string"), *kernels, _OPTION),
        anchors=features.models.anchors,
        ends=features.models.known,
        table=features.tensor_types,
        variables=(features.version.number, features.version.commit),
    )


_GROUP = re.compile(r"\(\?P<\w+>")
_OPTION = r"--[a-z][a-z0-9-]+"


def _given(rules: Iterable[Evidence], kind: str) -> list[str]:
    return list(dict.fromkeys(text for rule in rules if (text := getattr(rule, kind))))


def file_facts(name: str, path: Path, wanted: Wanted) -> FileFacts:
    """Return the facts of one ELF file. Raises BinaryError."""
    return FileFacts(
        name=name,
        size=path.stat().st_size,
        elf=read_elf(path),
        device_code=device_code(path),
        instructions=count_instructions(path),
        names=read_names(path, wanted),
    )
