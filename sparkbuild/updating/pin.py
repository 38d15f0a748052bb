"""Move the pin in a recipe's text: four values and not another byte."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from sparkbuild.catalog import load, shipped_root
from sparkbuild.catalog.records import Recipe, Revision, Shelf
from sparkbuild.errors import StoreError, UsageError
from sparkbuild.files import sha256_bytes, write_whole

_COPY = "copy it into a folder of your own, DIR/recipes, and give --catalog DIR; or look only, with --dry-run"
_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def check_writable(path: Path) -> None:
    """Raise UsageError for a recipe that is not to be written: an installed one, or one made read-only."""
    real = path.resolve()
    installed = shipped_root().name == "data" and real.is_relative_to(shipped_root().resolve())
    if installed or "site-packages" in real.parts:
        raise UsageError("this recipe belongs to the installed sparkbuild", where=str(path), remedy=_COPY)
    allowed = os.access(real, os.W_OK) and os.access(real.parent, os.W_OK)
    if not allowed or not real.stat().st_mode & _WRITE:  # root may write what is marked as not to be written
        raise UsageError("this recipe may not be written", where=str(path), remedy=_COPY)


def move(shelf: Shelf[Recipe], new: Revision) -> None:
    """Write a recipe's new pin into its file and read it again.

    Raises UsageError when the file is not the one that was read, or holds its pin in a form that is not
    understood; it is then as it was.
    """
    path = shelf.path.resolve()
    raw = path.read_bytes()
    if sha256_bytes(raw) != shelf.digest:
        raise UsageError(
            "the recipe was changed while its new pin was tried", where=str(path), remedy="run it again"
        )
    text = raw.decode()
    for name in Revision.__struct_fields__:
        text = _with(text, name, getattr(new, name), path)
    mode = stat.S_IMODE(path.stat().st_mode)
    write_whole(path, text.encode())
    path.chmod(mode)
    pin = load(shelf.path, Recipe).record.git
    wanted = msgspec.structs.replace(shelf.record.git, **msgspec.structs.asdict(new))
    if pin != wanted:  # pragma: no cover - somebody wrote it in the same moment
        raise StoreError("the recipe does not hold its new pin", where=str(path), remedy="look at the file")


def _with(text: str, name: str, value: str | int, path: Path) -> str:
    """Return the text with another value of git.NAME.

    Where it stands is found by trying: of all places that hold the old value, the one whose change changes
    this key alone. So tables, inline tables and dotted keys are all understood.
    """
    wanted = tomllib.loads(text)
    old = wanted["git"][name]
    wanted["git"][name] = value
    for found in re.finditer(rf"(?<![\w.+-]){re.escape(str(old))}(?![\w.+-])", text):
        changed = f"{text[: found.start()]}{value}{text[found.end() :]}"
        if _read(changed) == wanted:
            return changed
    raise UsageError(
        f"git.{name} does not stand there as {old}",
        where=str(path),
        remedy="write it plainly, then run again",
    )


def _read(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
