"""The catalogue: recipes and toolchains, shipped ones and a user's own, typed and checked on load.

A folder of the catalogue has the same shape everywhere: recipes/NAME.toml, patches/NAME/*.patch,
toolchains/NAME.toml, toolchains/cuda/NAME.toml and toolchains/cpuinfo/NAME.cpuinfo, a machine's own
/proc/cpuinfo. Later folders win over the shipped one.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from sparkbuild.catalog.records import CudaWheels, Features, Proof, Recipe, Shelf, Toolchain
from sparkbuild.catalog.switches import ProfileFile, Switches
from sparkbuild.errors import UsageError, did_you_mean
from sparkbuild.files import Folders, sha256_bytes
from sparkbuild.handover import plain_bytes

_MOST = 256 << 10  # bytes of a file; the largest shipped one has some ten thousand
_LINE = 2048  # bytes; tomllib's time for a dotted key grows with the square of its length
R = TypeVar("R", Recipe, Toolchain, CudaWheels, Features, Switches, ProfileFile)
_KINDS: dict[str, type] = {
    "recipes": Recipe,
    "recipes/features": Features,
    "recipes/switches": Switches,
    "recipes/profiles": ProfileFile,
    "toolchains": Toolchain,
    "toolchains/cuda": CudaWheels,
}


class Catalog(msgspec.Struct, frozen=True):
    """The folders that are searched, the shipped one first."""

    roots: tuple[Path, ...]

    @classmethod
    def default(cls, folders: Folders, extra: Sequence[Path] = ()) -> Catalog:
        """Return the shipped folder, the config folder, SPARKBUILD_CATALOG's and ``extra``."""
        listed = os.environ.get("SPARKBUILD_CATALOG", "")
        named = [Path(p) for p in listed.split(os.pathsep) if p] + list(extra)
        for path in named:
            if not path.is_dir():
                raise UsageError(
                    "no such catalogue folder", where=str(path), remedy="name an existing folder"
                )
        return cls((shipped_root(), folders.config, *named))

    def recipes(self) -> dict[str, Shelf[Recipe]]:
        """Return every recipe by name."""
        found = {}
        for path in self.files("recipes"):
            shelf = load(path, Recipe)
            patches = sorted((path.parent.parent / "patches" / shelf.record.name).glob("*.patch"))
            found[shelf.record.name] = msgspec.structs.replace(shelf, patches=tuple(patches))
        _check_names(found.values())
        return found

    def toolchains(self) -> dict[str, Shelf[Toolchain]]:
        """Return every toolchain by name."""
        return {s.record.name: s for s in (load(p, Toolchain) for p in self.files("toolchains"))}

    def recipe(self, name: str) -> Shelf[Recipe]:
        """Return a recipe by its name or an alias; an unknown name gets a suggestion."""
        recipes = self.recipes()
        names = {alias: s for s in recipes.values() for alias in s.record.aliases} | recipes
        return _pick("engine", name, names, recipes)

    def aliases(self) -> dict[str, str]:
        """Return the engine that each alias means."""
        return {a: s.record.name for s in self.recipes().values() for a in s.record.aliases}

    def toolchain(self, name: str) -> Shelf[Toolchain]:
        """Return a toolchain by name; an unknown name gets a suggestion."""
        toolchains = self.toolchains()
        return _pick("arch", name, toolchains, toolchains)

    def cuda_wheels(self, name: str) -> Shelf[CudaWheels]:
        """Return a CUDA toolkit's set of wheels."""
        sets = {s.record.name: s for s in (load(p, CudaWheels) for p in self.files("toolchains/cuda"))}
        return _pick("set of CUDA wheels", name, sets, sets)

    def features(self, name: str = "ggml") -> Shelf[Features]:
        """Return what can be seen in the binaries of a family of engines."""
        sets = {s.record.name: s for s in (load(p, Features) for p in self.files("recipes/features"))}
        return _pick("set of features", name, sets, sets)

    def switches(self, name: str = "ggml") -> Shelf[Switches]:
        """Return how the tools of a family of engines spell their settings."""
        sets = {s.record.name: s for s in (load(p, Switches) for p in self.files("recipes/switches"))}
        return _pick("set of switches", name, sets, sets)

    def profiles(self) -> dict[str, Shelf[ProfileFile]]:
        """Return every profile by name."""
        return {s.record.name: s for s in (load(p, ProfileFile) for p in self.files("recipes/profiles"))}

    def profile(self, name: str) -> Shelf[ProfileFile]:
        """Return a profile by name; an unknown name gets a suggestion."""
        profiles = self.profiles()
        return _pick("profile", name, profiles, profiles)

    def proofs(self, processor: str) -> tuple[Proof, ...]:
        """Return every feature that some toolchain for this processor proves, each once."""
        same = (s.record for s in self.toolchains().values() if s.record.processor == processor)
        return tuple({proof.feature: proof for t in same for proof in t.proofs}.values())

    def cpuinfo(self, name: str) -> Path:
        """Return a machine's cpuinfo: a file, or by name from the catalogue; else a suggestion."""
        known = {p.stem: p for p in self.files("toolchains/cpuinfo", "*.cpuinfo")}
        if name in known:
            return known[name]
        if os.path.isfile(name):  # noqa: PTH113 - Path.is_file fails for a name that is too long
            return Path(name)
        raise UsageError(
            f"no cpuinfo {name!r}",
            remedy=f"{did_you_mean(name, known)}Name a file, or one of: {', '.join(sorted(known))}",
        )

    def files(self, kind: str, pattern: str = "*.toml") -> Iterator[Path]:
        """Yield the files of one kind, such as recipes, over all folders."""
        for root in self.roots:
            yield from sorted((root / kind).glob(pattern))


class Checked(msgspec.Struct, frozen=True):
    """A file of the catalogue and what is wrong with it, if anything."""

    path: Path
    problem: UsageError | None = None


def check(catalog: Catalog, files: Sequence[Path] = ()) -> tuple[Checked, ...]:
    """Load each named file, or every file of the catalogue, and say which do not hold."""
    named = [(p, _kind(p)) for p in files]
    every = [(p, kind) for folder, kind in _KINDS.items() for p in catalog.files(folder)]
    return tuple(_checked(path, kind) for path, kind in named or every)


def _kind(path: Path) -> type:
    folder = path.absolute().parent
    return _KINDS.get(f"{folder.parent.name}/{folder.name}") or _KINDS.get(folder.name) or Recipe


def _checked(path: Path, kind: type) -> Checked:
    try:
        load(path, kind)
    except UsageError as problem:
        return Checked(path, problem)
    return Checked(path)


def shipped_root() -> Path:
    """Return the folder of the shipped recipes: the checkout's, else the installed wheel's."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent
    return checkout if (checkout / "recipes").is_dir() else package / "data"


def _pick(kind: str, name: str, names: dict[str, Shelf[R]], listed: Iterable[str]) -> Shelf[R]:
    if name in names:
        return names[name]
    raise UsageError(
        f"unknown {kind} {name!r}",
        remedy=f"{did_you_mean(name, names)}Known: {', '.join(sorted(listed))}",
    )


def load(path: Path, kind: type[R]) -> Shelf[R]:
    """Read one file of the catalogue. Raises UsageError with file, key path and remedy."""
    try:
        raw = plain_bytes(path, _MOST)
        if any(len(line) > _LINE for line in raw.splitlines()):
            raise ValueError(f"a line of more than {_LINE} bytes")  # noqa: TRY301 - told as the others
        data = tomllib.loads(raw.decode())
    except (OSError, ValueError, RecursionError) as problem:  # a TOMLDecodeError is a ValueError
        raise UsageError(
            f"cannot read {path.name}: {problem}", where=str(path), remedy="mend the file"
        ) from None
    try:
        record = msgspec.convert(data, kind)
    except msgspec.ValidationError as problem:
        raise _bad_key(path, kind, str(problem)) from None
    if record.name != path.stem:
        raise UsageError(
            f"{path.name} holds the name {record.name!r}", where=f"{path}: name", remedy="make the two equal"
        )
    _check(path, record)
    return Shelf(record, path, sha256_bytes(raw))


def _bad_key(path: Path, kind: type[R], message: str) -> UsageError:
    """Say which key, where, and what the nearest right one is."""
    text, _, place = message.replace("`key` in ", "").partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    unknown = re.search(r"unknown field `([^`]+)`", text)
    if not unknown:
        return UsageError(
            text, where=f"{path}: {place or 'top level'}", remedy="see docs/recipes.md for each key"
        )
    key = unknown[1]
    return UsageError(
        f"unknown key {key!r}",
        where=f"{path}: {f'{place}.{key}' if place else key}",
        remedy=did_you_mean(key, _field_names(kind)) + "docs/recipes.md lists every key",
    )


def _field_names(kind: type) -> set[str]:
    schemas = msgspec.json.schema_components([kind])[1]
    return {name for part in schemas.values() for name in part.get("properties", {})}


def _check(path: Path, record: R) -> None:
    """Check what types alone can not say."""
    if isinstance(record, Toolchain):
        _check_refusals(path, record)
    if isinstance(record, Recipe):
        _check_recipe(path, record)


def _check_names(recipes: Iterable[Shelf[Recipe]]) -> None:
    taken: dict[str, Path] = {}
    for shelf in recipes:
        for name in (shelf.record.name, *shelf.record.aliases):
            if name in taken:
                raise UsageError(
                    f"{name!r} names two engines",
                    where=f"{shelf.path}: aliases; {taken[name]}",
                    remedy="drop one",
                )
            taken[name] = shelf.path


def _check_refusals(path: Path, record: Toolchain) -> None:
    for i, rule in enumerate(record.cuda.refuse):
        try:
            SpecifierSet(rule.versions)
        except InvalidSpecifier as problem:
            raise UsageError(
                str(problem), where=f"{path}: cuda.refuse[{i}].versions", remedy='write it as in "<12.9"'
            ) from None


def _check_recipe(path: Path, record: Recipe) -> None:
    for place, pattern in [("version_pattern", record.version_pattern)] + [
        (f"failures[{i}].pattern", f.pattern) for i, f in enumerate(record.failures)
    ]:
        try:
            re.compile(pattern)
        except re.error as problem:
            raise UsageError(
                f"not a regular expression: {problem}", where=f"{path}: {place}", remedy="mend it"
            ) from None
    if lost := {"number", "commit"} - re.compile(record.version_pattern).groupindex.keys():
        raise UsageError(
            f"the pattern has no group {min(lost)!r}",
            where=f"{path}: version_pattern",
            remedy=f"add (?P<{min(lost)}>...)",
        )
    names = [i.name for i in record.intents]
    if twice := {n for n in names if names.count(n) > 1}:
        raise UsageError(f"intent {min(twice)!r} comes twice", where=f"{path}: intents", remedy="keep one")
    for backend, targets in record.targets.items():
        if record.version_target not in targets:
            raise UsageError(
                f"{record.version_target!r} is not among the {backend} targets",
                where=f"{path}: version_target",
                remedy="name a tool that every backend builds",
            )
    built = {t for targets in record.targets.values() for t in targets}
    for role in {*record.options_of, *record.options_of.values()} - record.roles.keys():
        raise UsageError(f"no role {role!r}", where=f"{path}: options_of", remedy="name one of roles")
    for role, target in record.roles.items():
        if target not in built:
            raise UsageError(
                f"{target!r} is not among the targets",
                where=f"{path}: roles.{role}",
                remedy="add it to targets",
            )
