"""The fault, with a real arm64 GCC of Debian's that has it, run on GB10's cpuinfo (ci/arm64-gcc).

SPARKBUILD_TEST_HOME names a folder where the compiler (50 MB of packages) is kept between runs.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.engine import Box

_FETCH = Path(__file__).parents[2] / "ci" / "arm64-gcc"
# Before conftest.py seals the environment: where downloads are kept, and the way to the mirror.
_KEPT = os.environ.get("SPARKBUILD_TEST_HOME", "")
_NETWORK = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
_MISSING, _APT = 3, 100  # exit codes of ci/arm64-gcc and of apt-get
_FEATURES = ("dotprod", "fp16", "i8mm", "bf16", "sve2")


@pytest.fixture(scope="module")
def gcc_12(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return gcc-12 of Debian 13 for arm64, under qemu-user."""
    folder = Path(_KEPT).absolute() / "compilers" if _KEPT else tmp_path_factory.mktemp("compilers")
    done = subprocess.run(
        [_FETCH, "trixie", "12", folder],
        env={"PATH": os.environ["PATH"], **_NETWORK},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode in (_MISSING, _APT):
        pytest.skip(f"{_FETCH.name}: {'; '.join(done.stderr.splitlines())}")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.mark.engine
def test_gcc_12_loses_what_gb10_has_and_keeps_the_fix(gcc_12: Path, tmp_path: Path) -> None:
    done = Box(tmp_path / "home").run("verify-flags", "--compiler", gcc_12, "--cpuinfo", "gb10", "--json")
    assert done.code == 1, done.err
    found = json.loads(done.out)["compiler"]
    assert found["fault"] == "proved"
    assert tuple(found["cpu"]) == _FEATURES
    assert found["version"].endswith("12.4.0")
    trials = {t["flags"]: t for t in found["trials"]}
    assert all(t["accepted"] and not t["said"] for t in trials.values())  # not a word of warning
    march, mcpu, fix = trials.values()
    assert (march["verdict"], mcpu["verdict"], fix["verdict"]) == ("lies", "lost", "good")
    assert all(p["macro"] for p in march["proofs"])
    assert "target specific option mismatch" in march["proofs"][0]["error"]
    assert not any(p["macro"] or p["code"] for p in mcpu["proofs"])
    assert {p["feature"] for p in fix["proofs"] if p["macro"] and p["code"]} == {"dotprod", "fp16"}
