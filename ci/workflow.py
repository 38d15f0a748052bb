"""Run one job's `run:` steps of a workflow file here, as GitHub would; what needs GitHub is named, not run.

python -m ci.workflow FILE JOB [KEY=VALUE...]     such as ci.yml's path, build, matrix.engine=llama_cpp

KEY is what an expression looks up: matrix.engine, needs.matrix.outputs.all, github.event_name. Only such
plain look-ups are understood; any other expression in what would be run is an error. The steps run in this
folder; runner.temp=FOLDER keeps what they leave. What GitHub documents of shells, files and variables
("Workflow syntax", "Workflow commands") is done as there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_PLAIN = re.compile(r"[a-z]+(\.[A-Za-z_][\w-]*)+")
_FILES = ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
_SHELLS = {"": ["bash", "-e"], "bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"]}
_KNOWN = {"name", "id", "run", "env", "shell", "working-directory"}  # of a step; what else it has is an error


class WorkflowError(Exception):
    """A workflow that can not be run here, in words."""


def evaluated(text: object, known: Mapping[str, str]) -> str:
    """Return a text with its expressions replaced."""

    def value(found: re.Match[str]) -> str:
        name = found[1].strip()
        if not _PLAIN.fullmatch(name):
            raise WorkflowError(f"not understood here: {found[0]}")
        if name not in known:
            raise WorkflowError(f"no value for {name}: give {name}=VALUE")
        return known[name]

    return _EXPRESSION.sub(value, str(text).lower() if isinstance(text, bool) else str(text))


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield what a step wrote into GITHUB_ENV or GITHUB_OUTPUT: NAME=VALUE, or NAME<<END, lines, END."""
    lines = iter(text.splitlines())
    for line in lines:
        name, sign, value = (
            re.split(r"(=|<<)", line, maxsplit=1) if re.search("=|<<", line) else (line, "", "")
        )
        if not sign:
            raise WorkflowError(f"neither NAME=VALUE nor NAME<<END: {line!r}")
        if sign == "<<":
            end, block = value, []
            for part in lines:
                if part == end:
                    break
                block.append(part)
            else:
                raise WorkflowError(f"{name} has no end {end!r}")
            value = "\n".join(block)
        yield name, value


class Runner:
    """One job: its steps' outputs and what they leave in the environment."""

    def __init__(self, workflow: Mapping[str, Any], job: str, known: Mapping[str, str], temp: Path) -> None:
        if job not in workflow["jobs"]:
            raise WorkflowError(f"no job {job!r}: {', '.join(workflow['jobs'])}")
        self.job = workflow["jobs"][job]
        here = {"runner.temp": str(temp), "github.workspace": str(Path.cwd())}
        self.known = here | dict(known)
        self.temp = temp
        self.env = {
            "RUNNER_TEMP": self.known["runner.temp"],
            "GITHUB_WORKSPACE": self.known["github.workspace"],
        }
        for level in (workflow, self.job):
            self.env |= self._values(level.get("env", {}))

    def run(self) -> int:
        """Run the steps in turn; return the first exit code that is not 0. Raises WorkflowError."""
        for number, step in enumerate(self.job["steps"], 1):
            name = evaluated(step.get("name") or step.get("uses") or step["run"], self.known)
            if "uses" in step:
                print(f"» {number}. not run here: {name}", flush=True)
            else:
                print(f"» {number}. {name}", flush=True)
                if code := self._step(step):
                    print(f"» {number}. ended with {code}", flush=True)
                    return code
        for name, text in self.job.get("outputs", {}).items():
            print(f"» output {name}={evaluated(text, self.known)}")
        return 0

    def _values(self, env: Mapping[str, object]) -> dict[str, str]:
        return {name: evaluated(value, self.known) for name, value in env.items()}

    def _step(self, step: Mapping[str, Any]) -> int:
        if unknown := step.keys() - _KNOWN:
            raise WorkflowError(f"not understood here, of a step that runs: {', '.join(sorted(unknown))}")
        if (shell := step.get("shell", "")) not in _SHELLS:
            raise WorkflowError(f"no shell {shell!r} here")
        files = {name: self.temp / name.lower() for name in _FILES}
        for path in files.values():
            path.write_text("")
        script = self.temp / "step.sh"
        script.write_text(evaluated(step["run"], self.known))
        env = (
            os.environ | self.env | self._values(step.get("env", {})) | {n: str(p) for n, p in files.items()}
        )
        folder = Path(self.known["github.workspace"]) / evaluated(
            step.get("working-directory", "."), self.known
        )
        code = subprocess.run([*_SHELLS[shell], script], env=env, cwd=folder, check=False).returncode
        self._keep(step.get("id", ""), {name: path.read_text() for name, path in files.items()})
        return code

    def _keep(self, step: str, wrote: Mapping[str, str]) -> None:
        self.env |= dict(pairs(wrote["GITHUB_ENV"]))
        for folder in wrote["GITHUB_PATH"].splitlines():
            self.env["PATH"] = f"{folder}:{self.env.get('PATH', os.environ['PATH'])}"
        self.known |= {f"steps.{step}.outputs.{n}": v for n, v in pairs(wrote["GITHUB_OUTPUT"])}
        if wrote["GITHUB_STEP_SUMMARY"]:
            print(f"» summary:\n{wrote['GITHUB_STEP_SUMMARY']}", flush=True)


def main(words: list[str]) -> int:
    """Return the job's exit code, 2 for a workflow that can not be run here."""
    if len(words) < len(("FILE", "JOB")) or not all("=" in w for w in words[2:]):
        print(__doc__, file=sys.stderr)
        return 2
    known = dict(word.split("=", 1) for word in words[2:])
    try:
        with tempfile.TemporaryDirectory(prefix="workflow-") as folder:
            return Runner(yaml.safe_load(Path(words[0]).read_text()), words[1], known, Path(folder)).run()
    except WorkflowError as problem:
        print(f"{words[0]}, {words[1]}: {problem}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
