from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkbuild.build import jobs
from sparkbuild.build.jobs import available_cores, available_mib, choose_jobs


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cgroup folder to fill; this process may use eight cores."""
    monkeypatch.setattr(jobs, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


def memory(folder: Path, mib: int, used: int = 0) -> None:
    (folder / "memory.max").write_text(f"{mib << 20}\n")
    (folder / "memory.current").write_text(f"{used << 20}\n")


@pytest.mark.parametrize(
    ("limit", "used", "each", "count"),
    [(4000, 0, 1000, 4), (4000, 1500, 1000, 2), (4000, 0, 5000, 1), (100, 200, 1000, 1), (3999, 0, 1000, 3)],
)
def test_memory_bounds_the_jobs(machine: Path, limit: int, used: int, each: int, count: int) -> None:
    memory(machine, limit, used)
    found = choose_jobs(each)
    assert found.count == count
    assert f"{each} MiB a job" in found.why


def test_cores_bound_the_jobs(machine: Path) -> None:
    assert choose_jobs(1).count == 8
    assert "8 cores" in choose_jobs(1).why


def test_a_person_overrules(machine: Path) -> None:
    memory(machine, 1)
    assert choose_jobs(1000, asked=5) == jobs.Jobs(5, "asked for")


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("300000 100000", 3), ("50000 100000", 1), ("max 100000", 8), ("9900000 100000", 8), ("x", 8), ("", 8)],
)
def test_a_cgroups_quota_counts(machine: Path, quota: str, cores: int) -> None:
    (machine / "cpu.max").write_text(f"{quota}\n")
    assert available_cores() == cores


def test_no_limit_leaves_what_the_kernel_says(machine: Path) -> None:
    (machine / "memory.max").write_text("max\n")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert 0 < available_mib() <= total
