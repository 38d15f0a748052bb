"""A toy engine, a home to build it in, and what the long tests need."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.engine import KEPT, Box, Done, Toy
from tests.integration.gates import Gate, family

MakeBox = Callable[[], Box]
_CUDA_HOME = os.environ.get("SPARKBUILD_TEST_CUDA_HOME", "")  # before tests/conftest.py seals the environment


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked ``full`` unless --full (see tests/conftest.py) is given."""
    if config.getoption("--full", default=False):
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="needs --full"))


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """Return the toy engine, not published yet."""
    return Toy(tmp_path / "toy")


class Built:
    """The plain toy, built once for all tests; read only."""

    def __init__(self, folder: Path) -> None:
        self.toy = Toy(folder / "toy").publish()
        self.box = Box(folder / "home")
        self.done: Done = self.box.build(self.toy, "--json")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Return the plain toy, built for gb10's CPU."""
    if not shutil.which("aarch64-linux-gnu-g++") and not Path("/lib/ld-linux-aarch64.so.1").exists():
        pytest.skip("no compiler for aarch64")
    return Built(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Box:
    """Return the home in which real engines are built, each once; see SPARKBUILD_TEST_HOME."""
    home = Path(KEPT).absolute() if KEPT else tmp_path_factory.mktemp("engines") / "home"
    home.mkdir(parents=True, exist_ok=True)
    return Box(home)


@pytest.fixture
def box(built: Built, tmp_path: Path) -> Box:
    """Return a new home that knows this machine's compilers already, and nothing else."""
    return seeded(built, tmp_path / "home")


def seeded(built: Built, home: Path) -> Box:
    """Return a new home anywhere, with what is remembered of this machine."""
    shutil.copytree(built.box.home / "cache" / "machine", home / "cache" / "machine")
    return Box(home)


def toolkits() -> list[Path]:
    """Return the toolkits that were assembled in SPARKBUILD_TEST_CUDA_HOME."""
    return [p for p in Path(_CUDA_HOME).glob("cache/cuda/[0-9]*") if p.is_dir()] if _CUDA_HOME else []


def with_cuda(built: Built, home: Path, *archs: str) -> tuple[Box, str]:
    """Return a new home with a CUDA toolkit, and which of the target machines the toolkit is for.

    The toolkits are those of SPARKBUILD_TEST_CUDA_HOME, a SPARKBUILD_HOME in which any engine was built
    with CUDA: read only, and without its locks. Skips where they are for none of the machines.
    """
    found = toolkits()
    box = seeded(built, home)
    (box.home / "cache" / "cuda").mkdir()
    for toolkit in found:
        (box.home / "cache" / "cuda" / toolkit.name).symlink_to(toolkit.resolve())
    for arch in archs if found else ():
        checks = json.loads(box.run("doctor", "--arch", arch, "--json").out)["checks"]
        if any((c["name"], c["verdict"]) == ("CUDA", "ok") for c in checks):
            return box, arch
    pytest.skip(f"SPARKBUILD_TEST_CUDA_HOME names no home with a whole CUDA toolkit for {' or '.join(archs)}")


@pytest.fixture
def gate(toy: Toy, tmp_path: Path, box: Box) -> Iterator[Gate]:
    """Return a gate; whatever the test left running is ended afterwards."""
    yield Gate(tmp_path / "gate")
    for pid in family(box):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
