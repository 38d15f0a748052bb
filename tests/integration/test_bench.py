"""ci/bench on the toy engine: every row is measured once, and a bench that was stopped goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import Built
from tests.integration.engine import TIMEOUT, Box, Done, Toy, git

_ROOT = Path(__file__).parents[2]
_RATIOS = {"cold", "playbook", "warm", "later", "variant", "probe", "start"}


def bench(box: Box, toy: Toy, *words: str) -> Done:
    """Run ci.bench on the toy's source in a lab beside the box's home."""
    place = ["--home", str(box.home.parent / "lab"), "--json", str(box.home.parent / "docs" / "p.json")]
    what = [
        "--engine",
        toy.name,
        "--backend",
        "cpu",
        "--source",
        str(toy.source),
        "--catalog",
        str(toy.catalog),
    ]
    command = [sys.executable, "-m", "ci.bench", *place, *what, "--ref", toy.commit, "--pairs", "1", *words]
    done = subprocess.run(
        command, cwd=_ROOT, env=box.env(), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(not shutil.which("make"), reason="no make, which the playbook's commands need")
def test_every_row_of_the_toy(built: Built, toy: Toy, tmp_path: Path) -> None:
    toy.publish().append("ggml/include/ggml.h", "/* later */\n")
    git(toy.source, "commit", "--quiet", "--all", "-m", "later")
    box = Box(tmp_path / "home")
    (tmp_path / "docs").mkdir()
    shutil.copytree(built.box.home / "cache" / "machine", tmp_path / "lab" / "home" / "cache" / "machine")
    later = git(toy.source, "rev-parse", "HEAD")

    stopped = bench(box, toy, "--later", later, "--within", "0.1")
    assert stopped.code == 75, stopped.err + stopped.out
    done = bench(box, toy, "--later", later)
    assert done.code == 0, done.err + done.out
    (found,) = json.loads((tmp_path / "docs" / "p.json").read_bytes())["benches"]
    assert set(found["results"]) == _RATIOS | {"again", "memory"}
    assert all(len(r["values"]) == 1 and r["values"][0] > 0 for r in found["results"].values())
    assert "see one of 1 changed files: ggml/include/ggml.h" in found["results"]["later"]["note"]
    page = (tmp_path / "docs" / "p.md").read_text()
    assert all(line.count("|") == 4 for line in page.splitlines() if line.startswith("|"))

    kept = (tmp_path / "lab" / "measured.jsonl").read_bytes()
    assert bench(box, toy, "--later", later).code == 0
    assert (tmp_path / "lab" / "measured.jsonl").read_bytes() == kept
    assert "another --home" in bench(box, toy, "--later", later, "--variant", "grace").err


def test_a_build_that_fails_is_said(built: Built, toy: Toy, tmp_path: Path) -> None:
    toy.append("ggml/src/ggml.c", "no C at all\n").publish()
    (tmp_path / "docs").mkdir()
    done = bench(Box(tmp_path / "home"), toy, "--rows", "cold")
    assert done.code == 1
    assert "no C at all" in done.err
    assert not (tmp_path / "docs" / "p.json").exists()
