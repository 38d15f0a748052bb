"""The package as people install it: an sdist, a wheel made from it, and the catalogue inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_DATA = ("recipes", "patches", "toolchains")
# An editable install of the checkout would come before PYTHONPATH.
_RUN = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "sparkbuild" not in type(f).__module__]
from sparkbuild.cli import entry
entry()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what a wheel installs; the wheel is made from the sdist, not the checkout."""
    dist, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(_ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = dist.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as pack:
        pack.extractall(site)
    return site


def run(site: Path, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", _RUN, *words]
    return subprocess.run(command, env=env, cwd=site, capture_output=True, text=True, check=True).stdout


def test_the_catalogue_travels_inside(installed: Path) -> None:
    shipped = {
        p.relative_to(_ROOT): p.read_bytes() for d in _DATA for p in (_ROOT / d).rglob("*") if p.is_file()
    }
    inside = installed / "sparkbuild" / "data"
    assert {p.relative_to(inside): p.read_bytes() for p in inside.rglob("*") if p.is_file()} == shipped


def test_an_installed_sparkbuild_knows_its_recipes(installed: Path) -> None:
    document = json.loads(run(installed, "recipes", "check", "--json"))
    assert document["files"]
    assert all(f["ok"] and Path(f["path"]).is_relative_to(installed) for f in document["files"])
    assert "deprecated since 2026-05-25" in run(installed, "recipes", "list")


@pytest.mark.parametrize("path", ["artifact/manifest-2.schema.json", "inspection/report.c"])
def test_what_is_no_python_travels_too(installed: Path, path: str) -> None:
    assert (installed / "sparkbuild" / path).is_file()
