"""Binaries that others published: probe sees in them what cuobjdump, nm and objdump see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.inspection.assembler import needs_tools

# Before conftest.py seals the environment: the way to the package index.
_NETWORK = dict(os.environ)
_ROOT = Path(__file__).parents[2]


@pytest.mark.full
@needs_tools("x86_64")
def test_published_binaries(tmp_path: Path) -> None:
    kept = Path(_NETWORK.get("SPARKBUILD_TEST_HOME") or tmp_path) / "published"
    command = [sys.executable, "-m", "ci.published", str(kept)]
    done = subprocess.run(command, cwd=_ROOT, env=_NETWORK, capture_output=True, text=True, check=False)
    assert (done.returncode, " 0 differences" in done.stdout) == (0, True), done.stdout + done.stderr
