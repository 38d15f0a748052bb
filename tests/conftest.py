"""Every test runs sealed: nothing of the caller's environment, nothing but loopback to connect to."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings

from sparkbuild import handover
from sparkbuild.artifact import manifest as manifests
from sparkbuild.artifact.manifest import Manifest
from sparkbuild.build.commands import Commands
from sparkbuild.catalog.records import (
    Choice,
    Cuda,
    GitSource,
    Intent,
    Proof,
    Recipe,
    Shelf,
    State,
    Toolchain,
)
from sparkbuild.files import Folders, sha256_bytes
from sparkbuild.inspection.features import Verdicts
from sparkbuild.inspection.records import DeviceCode
from sparkbuild.inspection.report import SystemReport
from sparkbuild.inspection.runtime import VersionReport
from sparkbuild.planning import Inputs, Skipped
from sparkbuild.source import Option, Patch, SourceTree
from sparkbuild.toolchain import Compilers, CudaToolkit, FeatureProof

settings.register_profile("sparkbuild", deadline=None, max_examples=50, print_blob=True)
settings.load_profile("sparkbuild")

_OURS = ("PIP_", "SPARKBUILD_", "XDG_", "GIT_", "CMAKE_", "NINJA_", "CCACHE_", "NVCC_", "CUDA")
_LOCAL = ("127.0.0.1", "localhost", "::1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --full."""
    parser.addoption("--full", action="store_true", help="also run what takes up to hours")


@pytest.fixture(autouse=True)
def sealed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a home of its own and refuse every connection that leaves this machine."""
    for name in os.environ:
        if name.startswith(_OURS) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("sealed")
    for name, folder in {
        "HOME": "",
        "SPARKBUILD_HOME": "sparkbuild",
        "XDG_CACHE_HOME": ".cache",
        "XDG_CONFIG_HOME": ".config",
        "XDG_DATA_HOME": ".local/share",
        "XDG_STATE_HOME": ".local/state",
    }.items():
        monkeypatch.setenv(name, str(home / folder))
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def local_connect(self: socket.socket, address: Any) -> None:  # noqa: ANN401 - as in socket
        if self.family != socket.AF_UNIX and address[0] not in _LOCAL:
            pytest.fail(f"a test reached out to {address}")
        connect(self, address)

    def local_lookup(host: Any, *rest: Any, **options: Any) -> Any:  # noqa: ANN401 - as in socket
        if host not in _LOCAL:
            pytest.fail(f"a test looked up {host}")
        return lookup(host, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", local_connect)
    monkeypatch.setattr(socket, "getaddrinfo", local_lookup)
    return home


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Return empty folders for cache, store and configuration."""
    root = tmp_path / "spark home"
    return Folders(root / "cache", root / "store", root / "config")


class Told:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.steps: list[tuple[float, float, str, float | None]] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def advance(self, done: float, total: float, text: str = "", left: float | None = None) -> None:
        self.steps.append((done, total, text, left))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def told() -> Told:
    """Return a Progress that remembers what it was told."""
    return Told()


@pytest.fixture(scope="session")
def tools() -> dict[str, Path]:
    """Return cmake and ninja from their packages."""
    return {name: Path(sys.executable).with_name(name) for name in ("cmake", "ninja")}


Script = Callable[[str, str], Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Return a maker of executable shell scripts."""

    def make(name: str, body: str) -> Path:
        path = tmp_path / "scripts" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_of(*intents: Intent, **changes: Any) -> Recipe:  # noqa: ANN401 - any field
    recipe = Recipe(
        schema=1,
        name="toy",
        title="Toy",
        homepage="https://example.invalid/toy",
        state=State(status="active"),
        git=GitSource(
            url="https://example.invalid/toy.git",
            commit="a" * 40,
            tree="b" * 40,
            build_number=7,
            commit_time=1,
        ),
        targets={"cpu": ("toy-server",), "cuda": ("toy-server", "toy-cuda")},
        intents=intents,
        version_pattern=r"version: (?P<number>\d+) \((?P<commit>[0-9a-f]+)\)",
        version_target="toy-server",
    )
    return msgspec.structs.replace(recipe, **changes)


def toolchain_of(**changes: Any) -> Toolchain:  # noqa: ANN401 - any field
    toolchain = Toolchain(
        schema=1,
        name="board",
        title="Board",
        processor="aarch64",
        cpu_arch="armv8.2-a+dotprod+fp16",
        cuda=Cuda(arch="121", wheels="13.0"),
        proofs=(Proof("dotprod", "__ARM_FEATURE_DOTPROD", "int x;"),),
    )
    return msgspec.structs.replace(toolchain, **changes)


def source_of(**changes: Any) -> SourceTree:  # noqa: ANN401 - any field
    source = SourceTree(
        way="git",
        location="https://example.invalid/toy.git",
        ref="a" * 40,
        tree="b" * 40,
        commit="a" * 40,
        build_number=7,
        commit_time=1_700_000_000,
        engine="toy",
        path=Path("/nowhere/toy/tree"),
        patched_tree="c" * 40,
    )
    return msgspec.structs.replace(source, **changes)


def compilers_of(**changes: Any) -> Compilers:  # noqa: ANN401 - any field
    compilers = Compilers(
        cc=Path("/usr/bin/aarch64-linux-gnu-gcc"),
        cxx=Path("/usr/bin/aarch64-linux-gnu-g++"),
        version="gcc 12",
        target="aarch64-linux-gnu",
        cross=True,
        digest=digest("compilers"),
        flags=("-march=armv8.2-a+dotprod+fp16",),
    )
    return msgspec.structs.replace(compilers, **changes)


def cuda_of(root: Path = Path("/opt/cuda"), **changes: Any) -> CudaToolkit:  # noqa: ANN401 - any field
    cuda = CudaToolkit(
        root=root,
        version="13.0.88",
        origin="wheels",
        digest=digest("cuda"),
        target_dir=root / "targets/sbsa-linux",
        definitions={"CMAKE_CUDA_COMPILER": str(root / "bin/nvcc"), "CUDAToolkit_ROOT": str(root)},
    )
    return msgspec.structs.replace(cuda, **changes)


def options_of(*names: str) -> dict[str, Option]:
    return {name: Option(name, "BOOL", "OFF", "", "CMakeLists.txt") for name in names}


def intent_of(name: str, *spelled: str, **changes: Any) -> Intent:  # noqa: ANN401 - any field
    """Return an intent from spellings such as ``NAME=VALUE``."""
    choices = [Choice(option, value) for option, _, value in (s.partition("=") for s in spelled)]
    return msgspec.structs.replace(Intent(name, "because", tuple(choices)), **changes)


def inputs_of(
    *intents: Intent,
    options: tuple[str, ...] = (),
    reads: tuple[str, ...] = (),
    **changes: Any,  # noqa: ANN401 - any field
) -> Inputs:
    recipe = recipe_of(*intents)
    toolchain = toolchain_of()
    known = Inputs(
        recipe=Shelf(recipe, Path("/nowhere/recipes/toy.toml"), digest("recipe")),
        toolchain=Shelf(toolchain, Path("/nowhere/toolchains/board.toml"), digest("toolchain")),
        backend="cpu",
        source=source_of(),
        options=options_of(*options),
        reads=frozenset(reads).__contains__,
        compilers=compilers_of(),
        cuda=None,
        cuda_arch="121",
        cmake="4.2.0",
        cache=Path("/nowhere/cache"),
        user={},
    )
    return msgspec.structs.replace(known, **changes)


FILE = b"the bytes of a tool"


def run_of() -> handover.Run:
    """Return how the toy artifact is run, with one profile."""
    tool = handover.Tool(
        "server",
        "bin/toy-server",
        (
            handover.Switch("model", "", ("--model", "{value}")),
            handover.Switch("threads", "", ("--threads", "{value}")),
            handover.Switch("mmap", "off", ("--no-mmap",)),
            handover.Switch("cache_type_k", "", ("--cache-type-k", "{value}"), ("f16", "q4_0")),
        ),
        "its own --help",
    )
    settings = {"model": "{model}", "threads": "16", "mmap": "off"}
    return handover.Run(
        tools=(tool,),
        libraries=(),
        needs=handover.Needs("aarch64", ("dotprod",), "2.34", 13, "580", ("libcudart.so.13",)),
        environment={},
        pairs=(handover.KvPair(128, "q4_0", "q4_0"),),
        pairs_note="others are converted",
        profiles=(handover.Profile("production", "What is used", {"threads": "16", "mmap": "off"}),),
        commands=(handover.spell(tool, "production", settings),),
    )


def manifest_of(**changes: Any) -> Manifest:  # noqa: ANN401 - any field
    manifest = Manifest(
        schema="sparkbuild/manifest/2",
        sparkbuild="0.1.0",
        key=digest("key"),
        engine=manifests.Engine(
            "toy", "Toy", "https://example.invalid/toy", State("active"), digest("recipe")
        ),
        target=manifests.Target(
            "board", "cuda", "aarch64", ("-march=armv8.2-a",), "121", digest("toolchain")
        ),
        source=manifests.Source(
            way="git",
            location="https://example.invalid/toy.git",
            ref="main",
            commit="a" * 40,
            tree="b" * 40,
            patched_tree="c" * 40,
            build_number=7,
            commit_time=1_700_000_000,
            patches=(Patch("0001-x.patch", digest("patch")),),
            notes=("a note",),
        ),
        compilers=manifests.CompilersUsed(
            "/usr/bin/gcc",
            "/usr/bin/g++",
            "gcc 13",
            "aarch64-linux-gnu",
            digest("compilers"),
            (FeatureProof("dotprod", macro=True, code=True),),
        ),
        cuda=manifests.CudaUsed("13.0.88", "wheels", "/opt/cuda", digest("cuda")),
        definitions=(
            manifests.DefinitionUsed(
                "TOY_FAST", "ON", "1", "BOOL", "recipe:fast", "it is faster", required=True
            ),
        ),
        skipped=(Skipped("graphs", "not for the cpu backend"),),
        targets=("toy-server",),
        build=manifests.Build(
            started=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
            host="Linux 6 aarch64",
            cmake="4.2.0",
            ninja="1.13.0",
            configure=("cmake", "-S", "x"),
            build=("ninja", "toy-server"),
            environment={"TZ": "UTC"},
            place="namespace",
            jobs=4,
            steps=100,
            compile_commands=Commands(90, 30, {"armv8.2-a": 90}, {"121": 30}),
            wall_seconds=12.5,
            configure_seconds=1.5,
            compile_seconds=10.0,
            cpu_seconds=40.25,
            deprecated=(),
        ),
        run=run_of(),
        version=VersionReport("native", "", "version: 7 (aaaa)", 7, "aaaa"),
        flags=(),
        verdicts=Verdicts("toy", "Toy", "libtoy.so: symbol toy", 7, "aaaaaaaaa", (), (), "", (), "", ()),
        system=SystemReport("not run", "nothing asked it"),
        files=(
            manifests.File(
                path="bin/toy-server",
                sha256=sha256_bytes(FILE),
                size=len(FILE),
                machine="aarch64",
                role="server",
                device_code=(DeviceCode("sm_121", 3),),
            ),
        ),
    )
    return msgspec.structs.replace(manifest, **changes)
