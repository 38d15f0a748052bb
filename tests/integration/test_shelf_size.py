"""A shelf with ten thousand artifacts: what did not change is not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkbuild.artifact import index
from sparkbuild.artifact import manifest as manifests
from tests.unit.artifact.test_index import put


@pytest.mark.full
def test_ten_thousand_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10_000):
        put(tmp_path, f"{number:04x}f", engine=f"toy{number % 3}")
    index.update(tmp_path)
    put(tmp_path, "fffff")
    read: list[Path] = []
    real = manifests.read

    def reading(path: Path) -> manifests.Manifest:
        read.append(path)
        return real(path)

    monkeypatch.setattr(manifests, "read", reading)
    assert len(index.update(tmp_path).artifacts) == 10_001
    assert [p.parent.name[:5] for p in read] == ["fffff"]
