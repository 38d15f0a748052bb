"""What the facts of a set of binaries prove: features present, absent or unknown, each with evidence.

The rules are data (recipes/features); here is only how evidence decides. Absence needs more than a
search that found nothing: the thing would have to be visible, were it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from sparkbuild.catalog.records import Attention, Evidence, Feature, Features, Recipe
from sparkbuild.inspection.tellable import TELLABLE

if TYPE_CHECKING:
    from sparkbuild.inspection.facts import FileFacts  # with numpy, which who reads a manifest need not load

State = Literal["present", "absent", "unknown"]
# ggml_type's first values, the same in every fork, for a binary whose own table is not found.
_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 30: "bf16"}
_SHOWN = 6
_CUDART = re.compile(r"libcudart\.so\.(\d+)[\d.]*")
ALL_QUANTS = "fa_all_quants"


class Finding(msgspec.Struct, frozen=True):
    """A verdict on one feature. ``evidence`` says what proves it, ``reason`` why it is not known."""

    name: str
    title: str
    group: str
    state: State
    evidence: tuple[str, ...] = ()
    reason: str = ""


class Pair(msgspec.Struct, frozen=True, order=True):
    """A FlashAttention kernel for K and V of these types at this head size."""

    head: int
    k: str
    v: str


class Model(msgspec.Struct, frozen=True):
    """A model architecture and whether this build knows it."""

    name: str
    state: State


class Verdicts(msgspec.Struct, frozen=True):
    """All that the facts prove.

    ``engine`` is the recipe's name whose marks were found, "" where none was; ``title`` says it to
    people. ``number`` and ``commit`` are the build's own, None and "" where no file holds them.
    ``pairs`` have a vector kernel; ``pairs_note`` says what becomes of others in this engine.
    ``external`` are needed libraries that none of the files is; ``cuda_major`` the version of CUDA's
    run time that they need, None where none is needed or it is linked in.
    """

    engine: str
    title: str
    engine_evidence: str
    number: int | None
    commit: str
    findings: tuple[Finding, ...]
    pairs: tuple[Pair, ...]
    pairs_note: str
    models: tuple[Model, ...]
    models_reason: str
    options: tuple[str, ...]
    external: tuple[str, ...] = ()
    cuda_major: int | None = None

    def state(self, name: str) -> State:
        """Return a feature's state; unknown for one that was not looked for."""
        return next((f.state for f in self.findings if f.name == name), "unknown")


def judge(
    files: Sequence[FileFacts], rules: Features, recipes: Iterable[Recipe], unread: Iterable[str] = ()
) -> Verdicts:
    """Return what the facts prove under the rules; ``unread`` names files of which there are none."""
    judged = _Judged(files, rules, unread)
    recipe, mark = _engine(files, recipes)
    version = next((f.names for f in files if f.names.number or f.names.text), None)
    models, why = _models(files, rules)
    external = _external(files)
    majors = [int(m[1]) for n in external if (m := _CUDART.fullmatch(n))]
    return Verdicts(
        engine=recipe.name if recipe else "",
        title=recipe.title if recipe else rules.unmarked,
        engine_evidence=mark,
        number=(version.number or None) if version else None,
        commit=version.text if version and version.text != "unknown" else "",
        findings=(*judged.findings(), _all_quants(judged)),
        pairs=judged.pairs,
        pairs_note=recipe.attention if recipe else "",
        models=models,
        models_reason=why,
        options=tuple(sorted({s for f in files for s in f.names.strings if s.startswith("--")})),
        external=external,
        cuda_major=max(majors, default=None),
    )


class _Judged:
    """The rules applied to one set of files; a carrier is judged before what it carries."""

    def __init__(self, files: Sequence[FileFacts], rules: Features, unread: Iterable[str]) -> None:
        self.files, self.rules = files, rules
        self.gaps = [f"{n} is needed and not here" for n in _external(files) if re.fullmatch(rules.family, n)]
        self.gaps += [f"{n} can not be read" for n in unread]
        self.api = re.compile(rules.api)
        self.carriers: dict[str, list[FileFacts]] = {}
        self.found: dict[str, Finding] = {}
        self.pairs = _pairs(files, rules.attention)
        for feature in rules.features:
            if any(f.elf.machine == feature.machine for f in files) or not feature.machine:
                self.found[feature.name] = self._judge(feature)

    def findings(self) -> tuple[Finding, ...]:
        return tuple(self.found.values())

    def where(self, carrier: str) -> list[FileFacts]:
        return self.carriers.get(carrier, []) if carrier else list(self.files)

    def _judge(self, feature: Feature) -> Finding:
        state, evidence, reason = self._decide(feature)
        return Finding(feature.name, feature.title, feature.group, state, evidence, reason)

    def _decide(self, feature: Feature) -> tuple[State, tuple[str, ...], str]:
        carrier = self.found.get(feature.carrier)
        if carrier and carrier.state != "present":
            return carrier.state, (), f"its {carrier.title} is {carrier.state}"
        files = self.where(feature.carrier)
        hits = [(f, seen) for f in files if (seen := [s for e in feature.evidence if (s := _seen(e, f))])]
        if hits:
            self.carriers[feature.name] = [f for f, _ in hits]
            return "present", _phrases(hits, len(files)), ""
        against = [(f, [s]) for f in files for e in feature.counter if (s := _seen(e, f))]
        if against:
            return "absent", _phrases(against, len(files)), ""
        if not feature.carrier and self.gaps:
            return "unknown", (), ", ".join(self.gaps)
        hidden = [f.name for f in files if not all(self._visible(e, f) for e in feature.evidence)]
        if hidden or feature.counter:
            return "unknown", (), f"nothing in {_some(hidden) or 'these files'} could show it: {_HIDDEN}"
        return "absent", (), f"looked for in {_some([f.name for f in files])}"

    def _visible(self, evidence: Evidence, file: FileFacts) -> bool:
        """Return whether this evidence would be found in the file, were it there."""
        if evidence.device_code or evidence.needs:
            return True
        if evidence.instruction:
            return evidence.instruction in TELLABLE.get(file.elf.machine, ())
        exports = any(self.api.fullmatch(s) for s in file.names.symbols)
        return file.names.complete or (exports and bool(evidence.symbol))


_HIDDEN = "stripped, or linked statically"


def _external(files: Sequence[FileFacts]) -> tuple[str, ...]:
    """Return the libraries that some file needs and none of the files is."""
    here = {f.elf.soname for f in files} | {f.name.rpartition("/")[2] for f in files}
    return tuple(sorted({n for f in files for n in f.elf.needed} - here))


def _seen(evidence: Evidence, file: FileFacts) -> str:
    """Return what of this evidence is in the file, in words; empty when nothing is."""
    names = file.names
    if evidence.instruction:
        count = file.instructions.get(evidence.instruction, 0)
        return f"{count} instructions" if count else ""
    if evidence.device_code:
        codes = [
            f"{d.entries} {d.name}" for d in file.device_code if re.fullmatch(evidence.device_code, d.name)
        ]
        return ", ".join(codes)
    kinds: list[tuple[str, str, tuple[str, ...]]] = [
        ("symbol", evidence.symbol, names.symbols),
        ("calls", evidence.calls, (*names.calls, *names.symbols)),
        ("string", evidence.string, names.strings),
        ("needs", evidence.needs, file.elf.needed),
    ]
    for kind, pattern, texts in kinds:
        found = next((t for t in texts if pattern and re.fullmatch(pattern, t)), None)
        if found is not None:
            return f"{kind} {found.strip()}"
    return ""


def _phrases(hits: Sequence[tuple[FileFacts, list[str]]], of: int) -> tuple[str, ...]:
    """Say what was seen where; of many files, as in a folder with a library for each CPU, some."""
    said = [f"{f.name}: {', '.join(seen)}" for f, seen in hits[:_SHOWN]]
    if len(hits) > _SHOWN:
        said.append(f"and {len(hits) - _SHOWN} more")
    return (*said, f"{len(hits)} of {of} files") if 1 < of != len(hits) else tuple(said)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004


def _engine(files: Sequence[FileFacts], recipes: Iterable[Recipe]) -> tuple[Recipe | None, str]:
    """Return the recipe whose marks are in the files, and the mark."""
    for recipe in recipes:
        for evidence in recipe.identity:
            for file in files:
                if seen := _seen(evidence, file):
                    return recipe, f"{file.name}: {seen}"
    return None, ""


def _pairs(files: Sequence[FileFacts], rules: Attention) -> tuple[Pair, ...]:
    table = max((f.names.table for f in files), key=len, default=())
    found = set()
    for file in files:
        for name in (*file.names.symbols, *file.names.strings):
            for pattern in rules.kernels if name.startswith("_Z") else ():
                if match := re.fullmatch(pattern, name):
                    k, v = (_type(int(match[g]), table) for g in "kv")
                    found.add(Pair(int(match["head"]), k, v))
    return tuple(sorted(found))


def _type(number: int, table: Sequence[str]) -> str:
    """Return a tensor type's name, from the binary's own table where it was found."""
    own = table[number] if number < len(table) else ""
    return own or _TYPES.get(number, f"type{number}")


def _all_quants(judged: _Judged) -> Finding:
    """Return whether each pair of the usual KV cache types has a FlashAttention kernel."""
    rules = judged.rules.attention
    name, title = ALL_QUANTS, "FlashAttention kernels for all KV cache types"
    carrier = judged.found[rules.carrier]
    wanted = {Pair(rules.head, k, v) for k in rules.types for v in rules.types}
    have = wanted & set(judged.pairs)
    counted = f"{len(have)} of {len(wanted)} pairs of {', '.join(rules.types)} at head size {rules.head}"
    if wanted == have:
        return Finding(name, title, "gpu", "present", (f"all {counted}",))
    if carrier.state != "present":
        return Finding(name, title, "gpu", carrier.state, (), f"its {carrier.title} is {carrier.state}")
    if not judged.pairs:
        return Finding(name, title, "gpu", "unknown", (), "no FlashAttention kernel has a known name")
    lost = [f"{p.k}/{p.v}" for p in sorted(wanted - have)]
    shown = ", ".join(lost[:_SHOWN]) + (" and others" if len(lost) > _SHOWN else "")
    return Finding(name, title, "gpu", "absent", (f"{counted}; without {shown}",))


def _models(files: Sequence[FileFacts], rules: Features) -> tuple[tuple[Model, ...], str]:
    """Return the model architectures that are known for certain, and those that may be."""
    runs = [f.names.run for f in files if f.names.run]
    if not runs:
        return (), "no table of model architectures is in these files"
    listed = set().union(*runs) - set(rules.models.not_names)
    whole = any(set(rules.models.first) <= set(run) for run in runs)
    loose = set() if whole else {e for f in files if f.names.run for e in f.names.ends} - listed
    absent = set(rules.models.known) - listed - loose
    states: list[tuple[set[str], State]] = [(listed, "present"), (loose, "unknown"), (absent, "absent")]
    found = [Model(name, state) for names, state in states for name in names]
    why = (
        f"the text of {len(loose)} names is there, perhaps for another use; ask at run time" if loose else ""
    )
    return tuple(sorted(found, key=lambda m: m.name)), why
