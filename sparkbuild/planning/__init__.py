"""What will be built and why: a pure function from what is known to a Plan with its key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from sparkbuild.catalog.records import Backend, Choice, Intent, Recipe, Shelf, State, Toolchain
from sparkbuild.errors import UsageError, did_you_mean
from sparkbuild.files import sha256_bytes
from sparkbuild.planning.measures import cuda_flags, host_flags
from sparkbuild.source import Option, SourceTree
from sparkbuild.toolchain import Compilers, CudaToolkit

KEY_FORMAT = 3  # 2: one source path, prefix maps, nvcc's seed; 3: one path for the build folder
_CMAKE_OWN = re.compile(r"^(CMAKE_[A-Z0-9_]+|BUILD_SHARED_LIBS|BUILD_TESTING|CUDAToolkit_ROOT)$")
_WORD = re.compile(r"\{(\w+)\}")


class Definition(msgspec.Struct, frozen=True):
    """One CMake definition: its value, why it is given and by whom.

    ``origin`` is recipe:INTENT, toolchain:NAME, sparkbuild or user. ``local`` is what the value begins
    with when that names places on this machine, and is no part of the key.
    """

    name: str
    value: str
    why: str
    origin: str
    required: bool = False
    local: str = ""

    @property
    def keyed(self) -> str:
        """The part of the value that can change a byte."""
        return self.value.removeprefix(self.local)


class Skipped(msgspec.Struct, frozen=True):
    """An intent that does not apply, and why."""

    intent: str
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """Everything that decides a build. ``key`` is 64 hex digits; equal keys promise equal builds."""

    key: str
    engine: str
    title: str
    state: State
    recipe_digest: str
    backend: Backend
    arch: str
    toolchain_digest: str
    source: SourceTree
    compilers: Compilers
    cuda: CudaToolkit | None
    cmake: str
    definitions: tuple[Definition, ...]
    skipped: tuple[Skipped, ...]
    targets: tuple[str, ...]
    environment: dict[str, str]

    def value(self, name: str) -> str | None:
        """Return the value of one definition, None when it is not given."""
        return next((d.value for d in self.definitions if d.name == name), None)


class Inputs(msgspec.Struct, frozen=True):
    """What a plan is made from; everything in it was observed before.

    ``options`` are those that the source tree declares, ``reads`` tells whether it reads a variable;
    ``cache`` is the folder below which everything is built;
    ``cuda_arch`` is the toolchain's, or what it means on this machine, empty for a CPU build.
    """

    recipe: Shelf[Recipe]
    toolchain: Shelf[Toolchain]
    backend: Backend
    source: SourceTree
    options: Mapping[str, Option]
    reads: Callable[[str], bool]
    compilers: Compilers
    cuda: CudaToolkit | None
    cuda_arch: str
    cmake: str
    cache: Path
    user: Mapping[str, str]


def make_plan(known: Inputs) -> Plan:
    """Return the plan. Raises UsageError for a definition that the source does not declare."""
    wanted, skipped = from_recipe(known)
    definitions = {d.name: d for d in [*_own(known), *wanted]}
    for name, value in known.user.items():
        definitions[name] = _from_user(name, value, known, definitions.get(name))
    recipe, toolchain = known.recipe.record, known.toolchain.record
    plan = Plan(
        key="",
        engine=recipe.name,
        title=recipe.title,
        state=recipe.state,
        recipe_digest=known.recipe.digest,
        backend=known.backend,
        arch=toolchain.name,
        toolchain_digest=known.toolchain.digest,
        source=known.source,
        compilers=known.compilers,
        cuda=known.cuda,
        cmake=known.cmake,
        definitions=tuple(definitions.values()),
        skipped=skipped,
        targets=recipe.targets[known.backend],
        environment=_environment(known.source),
    )
    return msgspec.structs.replace(plan, key=_key(plan))


def _own(known: Inputs) -> list[Definition]:
    """Return the definitions that are CMake's own and the same for every engine."""
    cc, cxx, flags = str(known.compilers.cc), str(known.compilers.cxx), host_flags(known.cache)
    mapped = "the same paths in every binary, wherever it is built"
    rows = [
        ("CMAKE_BUILD_TYPE", "Release", "optimised, without debug checks", True, True),
        ("BUILD_SHARED_LIBS", "ON", "tools share one copy of each library", False, True),
        (
            "CMAKE_INSTALL_RPATH",
            "$ORIGIN",
            "libraries are found beside the tools, wherever they are",
            False,
            True,
        ),
        ("CMAKE_BUILD_WITH_INSTALL_RPATH", "ON", "no path of the building machine in a binary", False, True),
        ("CMAKE_EXPORT_COMPILE_COMMANDS", "ON", "each compile command can be checked", False, True),
        ("CMAKE_C_COMPILER", cc, "proved by macro and intrinsic", False, False),
        ("CMAKE_CXX_COMPILER", cxx, "proved by macro and intrinsic", False, False),
        ("CMAKE_C_FLAGS", flags, mapped, False, False),
        ("CMAKE_CXX_FLAGS", flags, mapped, False, False),
    ]
    if known.compilers.cross:
        processor = known.compilers.target.partition("-")[0]
        why = f"cross build for {known.compilers.target}"
        rows += [
            ("CMAKE_SYSTEM_NAME", "Linux", why, False, True),
            ("CMAKE_SYSTEM_PROCESSOR", processor, why, False, True),
        ]
    own = [
        Definition(n, v, why, "sparkbuild", required=r, local="" if keyed else v)
        for n, v, why, r, keyed in rows
    ]
    return own + (_cuda_definitions(known, known.cuda) if known.cuda else [])


def _cuda_definitions(known: Inputs, cuda: CudaToolkit) -> list[Definition]:
    toolchain = known.toolchain.record
    arch = Definition(
        "CMAKE_CUDA_ARCHITECTURES",
        known.cuda_arch,
        f"compute capability of {toolchain.title}",
        f"toolchain:{toolchain.name}",
        required=True,
    )
    flags = cuda_flags(known.cache)
    seeded = "the same names and paths in every binary, whichever process and folder made it"
    why = f"CUDA {cuda.version}, {cuda.origin}"
    return [
        arch,
        Definition("CMAKE_CUDA_FLAGS", flags, seeded, "sparkbuild", local=flags),
        *(Definition(n, v, why, "sparkbuild", local=v) for n, v in cuda.definitions.items()),
    ]


def from_recipe(known: Inputs) -> tuple[list[Definition], tuple[Skipped, ...]]:
    """Return what the recipe's intents mean for this source, and those that do not apply."""
    words = _words(known)
    definitions, skipped = [], []
    for intent in known.recipe.record.intents:
        if known.backend not in intent.backends:
            skipped.append(Skipped(intent.name, f"not for the {known.backend} backend"))
            continue
        choice = declared_choice(intent, known.options, known.reads)
        if choice is None:
            skipped.append(Skipped(intent.name, _undeclared(intent, known)))
            continue
        named = _WORD.findall(choice.value)
        if wrong := [w for w in named if w not in words]:
            raise UsageError(
                f"no such word in a value: {{{wrong[0]}}}",
                where=f"{known.recipe.path}: intents.{intent.name}",
                remedy=did_you_mean(wrong[0], words) + f"Known: {', '.join(sorted(words))}",
            )
        missing = [w for w in named if not words[w]]
        if missing:
            skipped.append(
                Skipped(intent.name, f"{' and '.join(missing)} not known or not set for this build")
            )
            continue
        value = _WORD.sub(lambda word: words[word[1]], choice.value)
        origin = f"recipe:{intent.name}"
        definitions.append(Definition(choice.option, value, intent.why, origin, required=intent.required))
    return definitions, tuple(skipped)


def _words(known: Inputs) -> dict[str, str]:
    """Return what a choice's value may name in braces."""
    toolchain, source = known.toolchain.record, known.source
    return {
        "cuda": "ON" if known.backend == "cuda" else "OFF",
        "native": "OFF" if toolchain.cpu_arch else "ON",
        "cpu_arch": toolchain.cpu_arch,
        "cpu_flags": " ".join(known.compilers.flags),
        "cuda_arch": known.cuda_arch,
        "build_number": str(source.build_number or ""),
        "commit": source.commit,
        "commit_short": source.commit[:9],
    }


def declared_choice(
    intent: Intent, options: Mapping[str, Option], reads: Callable[[str], bool]
) -> Choice | None:
    """Return the first spelling of an intent that a source knows, None when it knows none."""
    for choice in intent.choose:
        if choice.option in options or (choice.read_only and reads(choice.option)):
            return choice
    return None


def _undeclared(intent: Intent, known: Inputs) -> str:
    """Return why an intent has no spelling here; for a required one that is an error."""
    names = " or ".join(c.option for c in intent.choose)
    if not intent.required:
        return f"this source does not declare {names}"
    raise UsageError(
        f"this source does not declare {names}, which {intent.name} needs ({intent.why})",
        where=f"{known.recipe.path}: intents.{intent.name}",
        remedy=did_you_mean(intent.choose[0].option, known.options)
        + "add the new spelling to the recipe's 'choose'",
    )


def _from_user(name: str, value: str, known: Inputs, replaced: Definition | None) -> Definition:
    if not (name in known.options or replaced or _CMAKE_OWN.match(name) or known.reads(name)):
        raise UsageError(
            f"{known.recipe.record.title} does not declare {name}: the build would ignore it",
            where=f"-D {name}={value}",
            remedy=did_you_mean(name, known.options) + "'sparkbuild plan ENGINE --options' lists all",
        )
    if replaced and replaced.local:
        return _behind(replaced, value)
    why = f"instead of {replaced.value!r} ({replaced.origin})" if replaced else "asked on the command line"
    return Definition(name, value, why, "user", required=bool(replaced and replaced.required))


def _behind(own: Definition, value: str) -> Definition:
    """Return sparkbuild's own flags with a person's behind them.

    Raises UsageError for what is no list of flags but a program or a folder that was found and checked,
    whose content is in the key: nothing would be known of another one.
    """
    if not own.name.endswith("_FLAGS"):
        raise UsageError(
            f"{own.name} is what sparkbuild found and checked, and its content is in the key",
            where=f"-D {own.name}={value}",
            remedy="compilers and nvcc are looked for on PATH: put yours there first",
        )
    local = f"{own.value} " if value else own.value  # CMake would cut a blank at the end
    return Definition(own.name, local + value, f"asked, behind {own.origin}'s own", "user", local=local)


def _environment(source: SourceTree) -> dict[str, str]:
    """Return what the build's environment says beyond PATH and temporary folders."""
    return {"LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(source.commit_time), "TZ": "UTC"}


def _key(plan: Plan) -> str:
    """Digest everything that can change a byte of the result: no path, no time, no job count."""
    source = plan.source
    parts = {
        "format": KEY_FORMAT,
        "engine": plan.engine,
        "arch": plan.arch,
        "backend": plan.backend,
        "source": [source.patched_tree, source.commit, source.build_number],
        "compilers": [plan.compilers.digest, plan.compilers.target],
        "cuda": plan.cuda.digest if plan.cuda else "",
        "cmake": plan.cmake,
        "definitions": sorted((d.name, d.keyed) for d in plan.definitions),
        "targets": plan.targets,
        "environment": sorted(plan.environment.items()),
    }
    return sha256_bytes(msgspec.json.encode(parts, order="sorted"))
