"""The toy engine in a repository of its own, and sparkbuild run on it as a person would run it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sparkbuild
from sparkbuild.catalog import Catalog, shipped_root

DATA = Path(__file__).parent.parent / "data" / "toy_engine"
BUILD_NUMBER = 2  # Toy.commit makes two commits
COMMIT_TIME = 1_700_000_000
HOST = platform.machine()
EMULATED = "native" if HOST == "aarch64" else "qemu"
"""How a tool for gb10 is run on this machine."""
TIMEOUT = 300.0
HOURS = 6 * 3600.0

# Before conftest.py seals the environment: where downloads are kept, and the way to the index.
KEPT = os.environ.get("SPARKBUILD_TEST_HOME", "")
NETWORK = {
    name: value
    for name, value in os.environ.items()
    if name.startswith("PIP_") or name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "HOME")
}
NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "https_proxy": "http://127.0.0.1:9"}
_SOURCES = os.environ.get("SPARKBUILD_TEST_SOURCES", "")


def source_words(engine: str) -> list[str]:
    """Return where the long tests take an engine's source from: its sdist, else its git host.

    SPARKBUILD_TEST_SOURCES names other sources, for a machine that does not reach that host:
    ENGINE=DIR@REF, with commas between.
    """
    for word in filter(None, _SOURCES.split(",")):
        name, _, place = word.partition("=")
        if name == engine:
            folder, _, ref = place.rpartition("@")
            return ["--source", folder, "--ref", ref]
    recipe = Catalog((shipped_root(),)).recipe(engine).record
    return ["--from", "sdist" if recipe.sdist else "git"]


def git(folder: Path, *arguments: str) -> str:
    """Run git with nothing of this machine's settings; equal files give equal commits."""
    when = f"{COMMIT_TIME} +0000"
    env = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{
            f"GIT_{who}_{what}": "toy@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
        "GIT_AUTHOR_DATE": when,
        "GIT_COMMITTER_DATE": when,
    }
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class Toy:
    """A copy of the toy engine below ``folder``: its source, and a catalogue with its recipe."""

    def __init__(self, folder: Path, name: str = "toy") -> None:
        self.name = name
        self.source = folder / "source"
        self.catalog = folder / "catalog"
        self.commit = ""
        shutil.copytree(DATA / "source", self.source)

    def replace(self, file: str, old: str, new: str) -> Toy:
        """Change a file of the source; ``old`` must be there."""
        _replace(self.source / file, old, new)
        return self

    def append(self, file: str, text: str) -> Toy:
        """Add to the end of a file of the source."""
        path = self.source / file
        path.write_text(path.read_text() + text)
        return self

    def publish(self, *, catalog: Path | None = None) -> Toy:
        """Commit the source and write the recipe that pins it; call it once, after all changes."""
        self.catalog = catalog or self.catalog
        git(self.source, "init", "--quiet", "--initial-branch=main")
        git(self.source, "commit", "--quiet", "--allow-empty", "-m", "begin")
        git(self.source, "add", "--all")
        git(self.source, "commit", "--quiet", "-m", "the toy engine")
        self.commit = git(self.source, "rev-parse", "HEAD")
        words = {
            "name": self.name,
            "commit": self.commit,
            "tree": git(self.source, "rev-parse", "HEAD^{tree}"),
            "build_number": str(BUILD_NUMBER),
            "commit_time": str(COMMIT_TIME),
        }
        text = (DATA / "recipe.toml.in").read_text()
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        self.recipe.parent.mkdir(parents=True, exist_ok=True)
        self.recipe.write_text(text)
        return self

    @property
    def recipe(self) -> Path:
        """The recipe file."""
        return self.catalog / "recipes" / f"{self.name}.toml"

    def change_recipe(self, old: str, new: str) -> Toy:
        """Change the published recipe; ``old`` must be there."""
        _replace(self.recipe, old, new)
        return self


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} holds no {old!r}"
    path.write_text(text.replace(old, new))


@dataclass(frozen=True)
class Done:
    """A finished run of sparkbuild."""

    code: int
    out: str
    err: str

    def document(self) -> dict[str, Any]:
        """Return stdout, which must be one JSON document; the run must have succeeded."""
        assert self.code == 0, self.err + self.out
        found: dict[str, Any] = json.loads(self.out)
        return found

    def artifact(self) -> dict[str, Any]:
        """Return the only artifact of ``build --json``."""
        document = self.document()
        assert document["schema"] == "sparkbuild/build/1"
        (artifact,) = document["artifacts"]
        return dict(artifact)

    def error(self, code: int, kind: str) -> dict[str, str]:
        """Return the error of a run with --json: whole, with this exit code, and no traceback."""
        assert self.code == code, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        document = json.loads(self.out)
        assert document["schema"] == "sparkbuild/error/1"
        error: dict[str, Any] = document["error"]
        assert (error["exit_code"], error["kind"]) == (code, kind)
        assert error["what"]
        return {"where": "", "remedy": "", "output": ""} | error


@dataclass(frozen=True)
class Box:
    """A SPARKBUILD_HOME of its own, and an environment that holds nothing of the caller's."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a run."""
        kept = {k: v for k, v in os.environ.items() if k == "PATH" or k.startswith("COV")}
        user = self.home.parent / "user"
        if user.parent.is_dir():
            user.mkdir(exist_ok=True)
        base = {
            "HOME": str(user),
            "SPARKBUILD_HOME": str(self.home),
            "PYTHONPATH": str(Path(sparkbuild.__file__).parent.parent),
            "LC_ALL": "C.UTF-8",
        }
        return kept | base | self.environment | dict(extra or {})

    def run(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = TIMEOUT,
    ) -> Done:
        """Run sparkbuild to its end; ``timeout`` is in seconds."""
        done = subprocess.run(
            argv(words),
            env=self.env(env),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start sparkbuild in a session of its own, with the signals as a terminal gives them."""
        reset = ["env", "--default-signal=INT,TERM"]
        return subprocess.Popen(
            [*reset, *argv(words)],
            env=self.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def build(self, toy: Toy, *words: str | Path, env: Mapping[str, str] | None = None) -> Done:
        """Build the toy's source folder for gb10's CPU; later words win."""
        return self.run(*build_words(toy), *words, env=env)

    def plan(self, toy: Toy, *words: str | Path) -> dict[str, Any]:
        """Return the plan for the same."""
        return dict(self.run("plan", *request_words(toy), *words, "--json").document()["plan"])

    @property
    def build_dirs(self) -> list[Path]:
        """The build folders in the cache."""
        return sorted(p for p in (self.home / "cache" / "build").glob("*") if p.is_dir())

    def steps(self) -> list[str]:
        """Return the outputs in the only build folder's .ninja_log, one for each time it was made."""
        (folder,) = self.build_dirs
        log = folder / ".ninja_log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split("\t")[3] for line in lines if line.count("\t") == 4]

    def artifacts(self) -> list[Path]:
        """Return the folders in the store that hold a manifest."""
        return sorted(p.parent for p in self.home.glob("store/*/*/manifest.json"))

    def debris(self) -> list[str]:
        """Return what is half made: all but lock files, whole artifacts and what a next run goes on from."""
        kept = set(self.artifacts())
        store = [
            p
            for p in self.home.glob("store/*/*")
            if p not in kept and not (p.is_file() and p.suffix == ".lock")
        ]
        cache = self.home / "cache"
        temporary = [p for p in cache.glob(".*") if p.suffix != ".lock"]
        for folder in ("src/*", "git", "cuda", "machine", "downloads/*", "timings"):
            temporary += [p for p in cache.glob(f"{folder}/.*") if p.suffix != ".lock"]
        return sorted(str(p.relative_to(self.home)) for p in store + temporary)

    def assert_nothing_stored(self) -> None:
        """Check that no artifact and nothing half made is left."""
        assert self.artifacts() == []
        assert self.debris() == []


class Wrapped:
    """The real compilers under their own names, behind a shell script; for use as PATH."""

    def __init__(self, folder: Path, arch: str = "aarch64") -> None:
        self.folder = folder
        self.mark = folder / "mark"
        self._prefix = "" if arch == HOST else f"{arch}-linux-gnu-"
        folder.mkdir()

    def when(self, pattern: str, action: str) -> dict[str, str]:
        """Run a shell ``action`` when a call's words match ``pattern``; return the environment."""
        for name in ("gcc", "g++"):
            real = shutil.which(self._prefix + name)
            script = self.folder / (self._prefix + name)
            script.write_text(f"""#!/bin/sh
mark='{self.mark}'
case "$*" in
    {pattern}) {action} ;;
esac
exec '{real}' "$@"
""")
            script.chmod(0o755)
        return {"PATH": f"{self.folder}:{os.environ['PATH']}"}


def request_words(toy: Toy) -> list[str | Path]:
    """Return the words of the plainest request: the toy's source folder for gb10's CPU."""
    place: list[str | Path] = ["--source", toy.source, "--catalog", toy.catalog]
    return [toy.name, "--arch", "gb10", "--backend", "cpu", *place]


def build_words(toy: Toy) -> list[str | Path]:
    """Return the words of the plainest build."""
    return ["build", *request_words(toy), "-j", "2"]


def argv(words: Sequence[str | Path]) -> list[str]:
    """Return the argument list that runs sparkbuild from this checkout."""
    return [sys.executable, "-m", "sparkbuild", *(str(w) for w in words)]


def definitions(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the definitions of a manifest and the value each has in CMake's cache."""
    return {d["name"]: d["in_force"] for d in manifest["definitions"]}


def file_hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each file of a manifest."""
    return {f["path"]: f["sha256"] for f in manifest["files"]}
