from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from sparkbuild import process
from sparkbuild.build import jobs
from sparkbuild.build.jobs import Shared, available_cores, available_mib, choose_jobs, pool


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


def most_at_once(log: Path) -> int:
    """Return how many steps ran at most at the same time; each wrote + when it began and - when it ended."""
    now = most = 0
    for line in log.read_text().split():
        now += 1 if line == "+" else -1
        most = max(most, now)
    assert now == 0
    return most


def ninjas(folder: Path, number: int, do: str = "sleep 0.1") -> list[Path]:
    """Return so many folders in each of which ninja has twelve steps."""
    step = f"echo + >> {folder}/log; {do}; echo - >> {folder}/log; touch $out"
    rows = [f"rule make\n  command = {step}\n", *(f"build s{n}: make\n" for n in range(12))]
    found = [folder / str(n) for n in range(number)]
    for path in found:
        path.mkdir()
        (path / "build.ninja").write_text("".join(rows))
    return found


def start(tools: dict[str, Path], folder: Path, shared: Shared) -> subprocess.Popen[bytes]:
    env = process.clean_env(**shared.environment)
    return subprocess.Popen([tools["ninja"], "-C", folder], env=env, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(("builds", "count"), [(1, 4), (2, 4), (3, 3), (3, 5)])
def test_ninjas_keep_within_the_jobs_they_share(
    tools: dict[str, Path], tmp_path: Path, builds: int, count: int
) -> None:
    with pool(count) as held:
        held.deal(builds)
        running = [start(tools, f, held.shared) for f in ninjas(tmp_path, builds)]
        assert [r.wait() for r in running] == [0] * builds
    assert most_at_once(tmp_path / "log") == count


def test_the_job_of_a_build_that_ended_goes_to_the_others(tools: dict[str, Path], tmp_path: Path) -> None:
    (folder,) = ninjas(tmp_path, 1)
    with pool(3) as held:
        held.deal(3)
        held.add()
        held.add()
        assert start(tools, folder, held.shared).wait() == 0
    assert most_at_once(tmp_path / "log") == 3


@pytest.mark.threat(
    "faults",
    "a ninja killed while it has jobs of those that builds share",
    "the jobs are there again once no build is at work",
)
def test_jobs_of_a_killed_ninja_are_dealt_again(
    tools: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = ninjas(tmp_path, 1, "sleep 1")
    with pool(4) as held:
        held.deal(1)
        lost = start(tools, folder, held.shared)
        while not (tmp_path / "log").exists() or (tmp_path / "log").read_text().count("+") < 4:
            time.sleep(0.02)
        lost.kill()
        lost.wait()
        monkeypatch.setattr(jobs, "_PATIENCE", 0.1)
        with held.shared.held(3) as kept:
            assert kept == 0
        held.deal(1)
        with held.shared.held(4) as kept:
            assert kept == 3


def test_held_jobs_are_nobodys(tools: dict[str, Path], tmp_path: Path) -> None:
    (folder,) = ninjas(tmp_path, 1)
    with pool(4) as held:
        held.deal(1)
        with held.shared.held(2) as kept:
            assert kept == 2
            assert start(tools, folder, held.shared).wait() == 0
        assert most_at_once(tmp_path / "log") == 2
        with held.shared.held(3) as kept:
            assert kept == 3  # they were given back


def test_what_can_not_be_held_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PATIENCE", 0.1)
    with pool(3) as held:
        held.deal(2)
        with held.shared.held(2) as kept:
            assert kept == 1


def test_a_temporary_folder_with_blanks_will_do(
    tools: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = ninjas(tmp_path, 1)
    blank = tmp_path / "with a blank"
    blank.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(blank))
    with pool(2) as held:
        held.deal(1)
        assert start(tools, folder, held.shared).wait() == 0
    assert most_at_once(tmp_path / "log") == 2
    assert not held.shared.path.parent.exists()
