"""The stages before anything is compiled: what the source declares, what CMake's cache holds."""

from __future__ import annotations

from collections.abc import Mapping

from sparkbuild.build.configure import CacheEntry, same
from sparkbuild.catalog.records import Choice, Recipe
from sparkbuild.planning import Definition
from sparkbuild.source import Option
from sparkbuild.verification.records import CMAKE_OWN, Seen, Stage, StageState


def _choices(flag: Definition, recipe: Recipe) -> tuple[Choice, ...]:
    found = (i.choose for i in recipe.intents if flag.name in (c.option for c in i.choose))
    return next(found, ())


def declared(flag: Definition, seen: Seen) -> Stage:
    """Compare a flag with what the source's CMake files declare or read."""
    if seen.options is None:
        return Stage("declared", "unknown", seen.why.get("declared", "the source is not here"))
    if flag.name in seen.options:
        return Stage("declared", "held", seen.options[flag.name].file)
    if flag.name.startswith(CMAKE_OWN):
        return Stage("declared", "held", "CMake's own")
    if seen.reads(flag.name):
        return Stage("declared", "held", "read, not declared")
    return Stage("declared", "lost", "this source neither declares nor reads it")


def cached(flag: Definition, seen: Seen) -> Stage:
    """Compare a flag with CMake's cache; another spelling of the same intent will do."""
    if seen.cache is None:
        return Stage("cache", "unknown", seen.why.get("cache", "no CMake cache"))
    entry = seen.cache.get(flag.name)
    if (entry is None or not same(entry, flag.value)) and (by := _other_name(flag, seen)):
        return Stage("cache", "held", f"by its other name, {by}")
    if entry is None:
        return Stage("cache", "lost", f"not in the cache{_in_environment(flag, seen)}")
    if not same(entry, flag.value):
        return Stage("cache", "lost", f"{entry.value or 'empty'} in the cache{_in_environment(flag, seen)}")
    if entry.type != "UNINITIALIZED" or flag.name.startswith(CMAKE_OWN):
        return Stage("cache", "held", entry.value)
    return _undeclared(flag, entry, seen.options)


def _undeclared(flag: Definition, entry: CacheEntry, options: Mapping[str, Option] | None) -> Stage:
    """Judge an entry that CMake met no declaration of: it does declare what is read, or it is only read."""
    if options is None:
        return Stage("cache", "unknown", f"{entry.value}, and whether the source reads it is not known")
    if flag.name not in options:
        return Stage("cache", "held", entry.value)
    # option() declares what is set already, too; set(CACHE) often stands where nothing is set yet.
    state: StageState = "lost" if options[flag.name].kind == "BOOL" else "unknown"
    return Stage("cache", state, f"{entry.value}, but CMake met no declaration of it")


def _in_environment(flag: Definition, seen: Seen) -> str:
    """Say that somebody set a flag, by any of its names, where CMake does not look."""
    for name in (flag.name, *(c.option for c in _choices(flag, seen.recipe))):
        if (given := seen.environment.get(name)) is not None:
            subject = "it" if name == flag.name else name
            return f"; {subject} is set to {given!r} in the environment, where CMake does not look"
    return ""


def _other_name(flag: Definition, seen: Seen) -> str:
    """Return another spelling of the same intent that is in the cache as it should be."""
    for choice in _choices(flag, seen.recipe):
        entry = (seen.cache or {}).get(choice.option)
        if (
            choice.option != flag.name
            and entry
            and entry.type != "UNINITIALIZED"
            and same(entry, choice.value)
        ):
            return f"{choice.option}={entry.value}"
    return ""
