"""What makes two builds of one source differ, and the measure against each; with real compilers.

Every row compiles twice, in two worlds that differ in one thing, and compares bytes. The files are those of
tests/data/small_cuda. Rows with nvcc need an assembled toolkit: see conftest.toolkits.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sparkbuild.files import sha256_bytes
from sparkbuild.planning.measures import cuda_flags, host_flags
from sparkbuild.toolchain.place import SOURCE
from tests.integration.conftest import toolkits

_DATA = Path(__file__).parent.parent / "data" / "small_cuda"

# In commands, {source} is the tree as the compiler sees it and {flags} are the project's own measures.
_CXX = "{cxx} {flags} -O2 -fPIC"
_HOST = f"{_CXX} -c {{source}}/host.cpp -o {{object}}"
_STAMPED = f"{_CXX} -c {{source}}/stamped.cpp -o {{object}}"
_NVCC = (
    "{nvcc} -forward-unknown-to-host-compiler -ccbin={cxx} {flags} -O2"
    " -gencode arch=compute_90,code=sm_90 {extra} -o {object} -c"
)
_HIDDEN = f"{_NVCC} {{source}}/hidden.cu"
_CHECKED = f"{_NVCC} {{source}}/checked.cu"


Changes = dict[str, Any]  # fields of a World


@dataclass(frozen=True)
class World:
    """Where, when and how a command runs. As it stands, every measure is in force."""

    tree: str = "one/tree"
    seen: str = "bind"  # how the tree comes to SOURCE: bind, copy, symlink; or "not": compiled where it is
    cache: str = "one/cache"  # the build folder and the toolkit are below it
    flags: str | None = None  # the project's own, or these
    epoch: str = "1700000000"  # SOURCE_DATE_EPOCH
    object: str = "object.o"
    extra: str = ""
    before: str = ""  # for the shell, before the command
    env: tuple[tuple[str, str], ...] = ()
    sandbox: tuple[str, ...] = ()  # more options of bwrap


@dataclass(frozen=True)
class Row:
    """A command, what is different in the other world, and how to do without the measure against it."""

    what: str
    command: str
    other: Changes
    without: Changes = field(default_factory=dict)


_ELSEWHERE: Changes = {"cache": "two/much/deeper/cache"}
_MOVED: Changes = {"tree": "two/much/deeper/tree"}
_AGAIN: Changes = {"before": "true again;"}
_LATER: Changes = {"before": "sleep 1.1;"}
_NO_FLAGS: Changes = {"flags": ""}
_USER: Changes = {
    "sandbox": ("--unshare-user", "--uid", "1234", "--gid", "1234", "--unshare-uts", "--hostname", "other"),
    "before": "umask 077;",
    "env": (("HOME", "/"), ("TZ", "Asia/Tokyo"), ("LC_ALL", "C"), ("TMPDIR", "/dev/shm")),  # noqa: S108
}

_HOST_ROWS = (
    Row("the source's __FILE__", _HOST, _MOVED, {"seen": "not"}),
    Row(
        "a generated source's __FILE__",
        f"{_CXX} -c {{build}}/generated.cpp -o {{object}}",
        _ELSEWHERE,
        _NO_FLAGS,
    ),
    Row("the folder in debug information", f"{_HOST} -g", _ELSEWHERE, _NO_FLAGS),
    Row("the clock", _STAMPED, _LATER, {"epoch": ""}),
    Row("user, host, locale and zone", _STAMPED, _USER),
    Row("a second time", _HOST, _AGAIN),
    Row("a copy instead of a mount", _HOST, {"seen": "copy"}),
    Row(
        "an archive's times and modes",
        f"{_CXX} -c {{source}}/host.cpp -o a.o; rm -f {{object}};"
        "{ar} qc{extra} {object} a.o; {ar} s {object}",
        {"before": "umask 077; sleep 1.1;"},
        {"extra": "U"},
    ),
    Row(
        "a run path",
        f"{_CXX} -shared {{source}}/host.cpp -o {{object}} -Wl,-rpath,'$ORIGIN' {{extra}}",
        _ELSEWHERE,
        {"extra": "-Wl,-rpath,$PWD"},
    ),
    Row(
        "where the linker looks, and when it runs",
        f"{_CXX} -shared {{source}}/host.cpp -o {{object}} -Wl,-rpath-link,$PWD",
        _ELSEWHERE | _LATER,
    ),
    Row(
        "a library linked by its path",
        f"{_CXX} -shared {{source}}/stamped.cpp -o libs.so -Wl,-soname,libs.so;"
        f"{_CXX} -shared {{source}}/host.cpp $PWD/libs.so -o {{object}}",
        _ELSEWHERE,
    ),
    Row(
        "a library linked with -flto",
        f"for f in host stamped; do {_CXX} -flto -c {{source}}/$f.cpp -o $f.o; done;"
        f"{_CXX} -flto=auto -shared host.o stamped.o -o {{object}}",
        _ELSEWHERE | _LATER,
    ),
)
_CUDA_ROWS = (
    Row("nvcc's process number in a file's name", _HIDDEN, _AGAIN, {"flags": "--frandom-seed=sparkbuild"}),
    Row("nvcc's process number in symbols", f"{_NVCC} {{source}}/closed.cu", _AGAIN, {"flags": "-objtemp"}),
    Row("the source's real path in symbols", _HIDDEN, _MOVED, {"seen": "not"}),
    Row(
        "__FILE__ in the toolkit's headers",
        _CHECKED,
        _ELSEWHERE,
        {"flags": "-objtemp --frandom-seed=sparkbuild"},
    ),
    Row("the clock, with nvcc", f"{_NVCC} {{source}}/stamped.cu", _LATER, {"epoch": ""}),
    Row("the build folder and the toolkit's", _HIDDEN, _ELSEWHERE),
    Row("a copy instead of a mount, with nvcc", _HIDDEN, {"seen": "copy"}),
    Row("user, host, locale and zone, with nvcc", _HIDDEN, _USER),
    Row("nvcc's threads", _HIDDEN, {"extra": "--threads 4"}),
)
# Nothing here is against these: they must not come up, or do not matter. ``without`` applies to both.
_OPEN_HOST_ROWS = (Row("an object compiled with -flto", f"{_HOST} -flto", _AGAIN),)
_OPEN_CUDA_ROWS = (
    Row("a symbolic link instead of a mount", _HIDDEN, _MOVED, {"seen": "symlink"}),
    Row("the object's name", _HIDDEN, {"object": "other.o"}),
    Row("a generated .cu file", f"{_NVCC} {{build}}/generated.cu", _ELSEWHERE),
)


class Lab:
    """Runs commands below ``root``; ``toolkit`` is empty for host code only."""

    def __init__(self, root: Path, cxx: str, ar: str, toolkit: Path | None = None) -> None:
        self.root = root
        self.cxx = cxx
        self.ar = ar
        self.toolkit = toolkit
        self.tools: Mapping[str, Path] = {}
        self._made: dict[tuple[World, str], str] = {}

    def digest(self, world: World, command: str) -> str:
        """Return the SHA-256 of the object that the command writes; it runs once in each world."""
        if (world, command) not in self._made:
            self.run(world, command)
            made = self.root / world.cache / "build" / world.object
            self._made[world, command] = sha256_bytes(made.read_bytes())
            made.unlink()
        return self._made[world, command]

    def run(self, world: World, command: str) -> None:
        cache = self.root / world.cache
        tree = self.root / world.tree
        build = cache / "build"
        build.mkdir(parents=True, exist_ok=True)
        shutil.copytree(_DATA, tree, dirs_exist_ok=True)
        shutil.copy(_DATA / "hidden.cu", build / "generated.cu")
        shutil.copy(_DATA / "host.cpp", build / "generated.cpp")
        own = cuda_flags(cache) if "{nvcc}" in command else host_flags(cache)
        words = {
            **self.tools,
            "cxx": self.cxx,
            "ar": self.ar,
            "nvcc": cache / "cuda/bin/nvcc",
            "source": tree if world.seen == "not" else SOURCE,
            "build": build,
            "object": world.object,
            "kit": self.toolkit or "",
            "host_flags": host_flags(cache),
            "cuda_flags": cuda_flags(cache),
        }
        line = command.format(
            **{name: shlex.quote(str(word)) for name, word in words.items()},
            flags=own.replace("$$", "$") if world.flags is None else world.flags,  # no ninja here
            extra=world.extra,
        )
        shell = f"set -e; {world.before} {self._copying(world, tree)} {line}"
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": world.epoch}
        env = {k: v for k, v in env.items() if v} | dict(world.env)
        argv = ["bwrap", *self._mounts(world, cache, tree), *world.sandbox, "--chdir", str(build)]
        done = subprocess.run(
            [*argv, "sh", "-c", shell], env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{shell}\n{done.stdout}{done.stderr}"

    def _mounts(self, world: World, cache: Path, tree: Path) -> list[str]:
        mounts = ["--dev-bind", "/", "/", "--tmpfs", str(SOURCE.parent)]
        if world.seen in ("bind", "symlink"):
            mounts += [f"--{world.seen}", str(tree), str(SOURCE)]
        if self.toolkit:
            mounts += ["--bind", str(self.toolkit), str(cache / "cuda")]
        return mounts

    @staticmethod
    def _copying(world: World, tree: Path) -> str:
        return f"cp -r {shlex.quote(str(tree))} {SOURCE};" if world.seen == "copy" else ""


def _runs(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _lab(root: Path, prefix: str, toolkit: Path | None = None) -> Lab:
    """Return a lab, or skip where bwrap may not mount."""
    if not _runs("bwrap", "--dev-bind", "/", "/", "--tmpfs", str(SOURCE.parent), "true"):
        pytest.skip("bubblewrap is not here, or may not mount")
    if not shutil.which(f"{prefix}g++"):
        pytest.skip(f"no {prefix}g++")
    return Lab(root, f"{prefix}g++", f"{prefix}ar", toolkit)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Return a lab for host code with this machine's compiler."""
    return _lab(tmp_path_factory.mktemp("host"), "")


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Return a lab with the first toolkit whose nvcc runs here; for aarch64 if there is one."""
    machine = os.uname().machine
    for arch, toolkit in itertools.product(("aarch64", "x86_64"), toolkits()):
        target = toolkit / "targets" / {"aarch64": "sbsa-linux", "x86_64": "x86_64-linux"}[arch]
        if target.is_dir() and _runs(str(toolkit / "bin/nvcc"), "--version"):
            prefix = "" if arch == machine else f"{arch}-linux-gnu-"
            return _lab(tmp_path_factory.mktemp("cuda"), prefix, toolkit)
    return pytest.skip("SPARKBUILD_TEST_CUDA_HOME names no home with a CUDA toolkit that runs here")


def _check(lab: Lab, row: Row) -> None:
    """Compare with the measure, and without it if there is one."""

    def same(world: World) -> bool:
        return lab.digest(world, row.command) == lab.digest(replace(world, **row.other), row.command)

    assert same(World())
    assert not row.without or not same(World(**row.without))


def _check_open(lab: Lab, row: Row) -> None:
    world = World(**row.without)
    assert lab.digest(world, row.command) != lab.digest(replace(world, **row.other), row.command)


def _named(rows: tuple[Row, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.what)


@_named(_HOST_ROWS)
def test_host_code(row: Row, host: Lab) -> None:
    _check(host, row)


@_named(_CUDA_ROWS)
def test_device_code(row: Row, cuda: Lab) -> None:
    _check(cuda, row)


@_named(_OPEN_HOST_ROWS)
def test_host_code_that_differs_still(row: Row, host: Lab) -> None:
    _check_open(host, row)


@_named(_OPEN_CUDA_ROWS)
def test_device_code_that_differs_still(row: Row, cuda: Lab) -> None:
    _check_open(cuda, row)


# As CMake writes the commands, once at a plain path and once at one with what a shell and nvcc take apart.
_ODD = World(cache="it's a, b=c & $HOME (é)/cache", tree="two/tree", extra="-j1", **_USER)
_CONFIGURE = (
    "{cmake} -G Ninja -S {source} -B {build} -DCMAKE_MAKE_PROGRAM={ninja} -DCMAKE_SYSTEM_NAME=Linux"
    " -DCMAKE_CXX_COMPILER={cxx} -DCMAKE_CXX_FLAGS={host_flags}"
)
_CONFIGURE_CUDA = (
    " -DSMALL_CUDA=ON -DCMAKE_CUDA_COMPILER={kit}/bin/nvcc -DCMAKE_CUDA_HOST_COMPILER={cxx}"
    " -DCMAKE_CUDA_ARCHITECTURES=90 -DCMAKE_CUDA_FLAGS={cuda_flags}"
)
_NINJA = "&& {ninja} -C {build} {extra}"


@pytest.mark.parametrize("kind", ["host", "cuda"])
def test_a_whole_project(kind: str, request: pytest.FixtureRequest, tools: dict[str, Path]) -> None:
    lab: Lab = request.getfixturevalue(kind)
    lab.tools = tools
    command = f"{_CONFIGURE}{_CONFIGURE_CUDA if kind == 'cuda' else ''} {_NINJA}"
    worlds = (World(cache="plain/cache"), _ODD)
    for world in worlds:
        lab.run(world, command)
    one, two = (_built(lab.root / world.cache / "build") for world in worlds)
    assert [name for name in one if one[name] != two.get(name)] == []
    assert one.keys() == two.keys() >= {"libsmall.so", "libsmall_archive.a"}


def _built(build: Path) -> dict[str, bytes]:
    """Return what ninja left of the project, by its name."""
    found = [p for p in build.rglob("*") if p.suffix in (".o", ".a", ".so") and "CompilerId" not in str(p)]
    return {str(p.relative_to(build)): p.read_bytes() for p in sorted(found)}
