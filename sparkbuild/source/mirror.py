"""The shared mirror of an engine's repository: where it lies, and how it is made."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from sparkbuild.files import sha256_bytes, whole_folder
from sparkbuild.source import sealed
from sparkbuild.source.names import redact
from sparkbuild.source.repository import ATTRIBUTES, Repository


def mirror_of(cache: Path, url: str) -> Repository:
    """Return the shared mirror of a URL, made empty where there is none. Call it under ``mirror_lock``."""
    gitdir = mirror_path(cache, url)
    if not gitdir.exists():
        create(gitdir)
    for stale in [
        *gitdir.glob("*.lock"),
        *(gitdir / "refs").rglob("*.lock"),
        *gitdir.glob("objects/pack/tmp_*"),
    ]:
        stale.unlink(missing_ok=True)  # of a git that was killed; our own lock says that none is at work
    return Repository(gitdir, url)


def mirror_path(cache: Path, url: str) -> Path:
    """Return where the mirror of a URL lies; credentials make no difference."""
    bare = redact(url)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", bare.rstrip("/").rpartition("/")[2].removesuffix(".git")) or "x"
    return cache / "git" / f"{name}-{sha256_bytes(bare.encode())[:12]}.git"


def create(gitdir: Path) -> None:
    """Make an empty bare repository, without hooks or templates."""
    with whole_folder(gitdir) as temp:
        sealed.ask(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"], gitdir=temp)
        (temp / "info").mkdir(exist_ok=True)
        (temp / "info" / "attributes").write_text(ATTRIBUTES)
        shutil.rmtree(temp / "hooks", ignore_errors=True)
