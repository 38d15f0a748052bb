"""A smoke test of a real artifact: SMOKE_ARTIFACT names its folder."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

from sparkbuild.catalog import Catalog, shipped_root
from sparkbuild.files import Folders
from sparkbuild.inspection.live import How
from sparkbuild.progress import Silent
from sparkbuild.smoke.run import Asked, Here, artifact_at, smoke
from sparkbuild.toolchain import runners

_GIVEN = os.environ.get("SMOKE_ARTIFACT", "")


@pytest.mark.skipif(not _GIVEN, reason="SMOKE_ARTIFACT names no folder of an artifact")
def test_a_real_artifact(folders: Folders) -> None:
    artifact = artifact_at(Path(_GIVEN))
    machine = artifact.manifest.run.needs.processor
    if machine != platform.machine() and not shutil.which(f"qemu-{machine}"):
        pytest.skip(f"qemu-{machine} is not installed")
    here = Here(How(*runners(folders)), Catalog((shipped_root(),)).features().record, folders)
    found = smoke(artifact, Asked(), here, Silent())
    assert found.verdict == "passed", found.steps
    assert {s.name for s in found.steps} >= {"files", "bench"}
